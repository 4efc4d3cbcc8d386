"""What a term keeps for the backward pass, at 105 classes: a step of whole-body CT has no room for more."""

import pytest
import torch
from cases import (
    IGNORE,
    REGIONS,
    kept_for_backward,
    random_outputs,
    random_step,
    supervised_loss,
    toy_task,
)

from nnunet_skd.loss import SelfDistillationLoss
from nnunet_skd.losses.deep_distribution import DeepDistribution
from nnunet_skd.losses.lean_temperature_divergence import lean_temperature_divergence
from nnunet_skd.losses.pixelwise import Pixelwise
from nnunet_skd.losses.temperature_divergence import temperature_divergence

CLASSES = 105


def full_size(step):
    return step.outputs[0].numel()


@REGIONS
@IGNORE
@pytest.mark.parametrize("term", [DeepDistribution(), Pixelwise(rising=False)], ids=["DDL", "PSDL"])
def test_a_term_keeps_one_full_size_tensor(term, has_regions, ignore):
    step = random_step(has_regions=has_regions, ignore=ignore, classes=CLASSES)
    term.attach(step.task)
    kept = kept_for_backward(lambda: term(step), *step.outputs, at_least=full_size(step))
    assert len(kept) <= 1


@REGIONS
@IGNORE
def test_the_lean_divergence_keeps_one_full_size_tensor_and_the_plain_one_more(has_regions, ignore):
    step = random_step(has_regions=has_regions, ignore=ignore, classes=CLASSES)
    logits, teacher = step.outputs[0], step.teacher_outputs[0]
    tau = torch.tensor(2.0, requires_grad=True)
    kept = [
        kept_for_backward(
            lambda loss=loss: loss(logits, teacher, tau, step.valid(0), has_regions=has_regions),
            logits, teacher, at_least=full_size(step),
        )
        for loss in (lean_temperature_divergence, temperature_divergence)
    ]  # fmt: skip
    assert len(kept[0]) == 1 < len(kept[1])


def test_both_terms_of_dskd_keep_two_more_than_nnunets_loss():
    """The student's probabilities for DDL, the teacher's for PSDL."""
    student, teacher, target = random_outputs(classes=CLASSES)
    student = [z.requires_grad_() for z in student]
    numbers = []
    for terms in ((), (DeepDistribution(), Pixelwise(rising=False))):
        loss = SelfDistillationLoss(supervised_loss(classes=CLASSES), terms, toy_task(classes=CLASSES))
        loss.teacher_outputs = teacher
        at_least = student[0].numel()
        numbers.append(len(kept_for_backward(lambda loss=loss: loss(student, target), *student, at_least=at_least)))
    assert numbers[1] - numbers[0] <= 2
