"""nnU-Net's loss and the terms beside it, as one module."""

import math

import pytest
import torch
from cases import HEAD_WEIGHTS, IGNORE, REGIONS, random_outputs, supervised_loss, toy_task

from nnunet_skd.loss import SelfDistillationLoss
from nnunet_skd.losses.deep_distribution import DeepDistribution, deep_distribution_loss
from nnunet_skd.losses.pixelwise import Pixelwise
from nnunet_skd.losses.term import Term


def build(terms=None, *, alpha=0.5, **kind):
    terms = (DeepDistribution(), Pixelwise(alpha=alpha, rising=False)) if terms is None else terms
    return SelfDistillationLoss(supervised_loss(**kind), terms, toy_task(**kind))


@REGIONS
@IGNORE
def test_is_nnunets_loss_in_evaluation_without_a_teacher_and_with_weights_zero(has_regions, ignore):
    kind = {"has_regions": has_regions, "ignore": ignore}
    student, teacher, target = random_outputs(**kind)
    expected = supervised_loss(**kind)(student, target).item()

    loss = build(**kind)
    assert loss(student, target).item() == expected
    loss.teacher_outputs = teacher
    assert loss.eval()(student, target).item() == expected

    loss = build((DeepDistribution(weight=0.0), Pixelwise(weight=0.0)), **kind)
    loss.teacher_outputs = teacher
    assert loss(student, target).item() == expected
    assert build((), **kind)(student, target).item() == expected


def test_is_the_sum_that_the_docstring_says():
    student, teacher, target = random_outputs()
    loss = build((DeepDistribution(weight=2.0), Pixelwise(weight=0.5, alpha=0.25, rising=False)))
    loss.teacher_outputs = teacher
    value = loss(student, target)

    p = [x.softmax(1) for x in teacher]
    ddl = sum(deep_distribution_loss(student[i].softmax(1), p[i], full_size=(32, 32)) for i in (0, 1))
    log_q, labels = student[0].log_softmax(1), torch.nn.functional.one_hot(target[0][:, 0], 3).movedim(-1, 1)
    soft_minus_hard = -((p[0] - labels) * log_q).sum(1).mean()
    expected = supervised_loss()(student, target) + 2.0 * ddl + 0.5 * HEAD_WEIGHTS[0] * 0.25 * soft_minus_hard
    assert torch.allclose(value, expected, rtol=1e-6)


def test_two_terms_of_one_name_are_refused():
    """The second would replace the first in the sum, in the log and in the checkpoint."""
    with pytest.raises(ValueError, match="two terms are named 'ddl'.*in a subclass"):
        build((DeepDistribution(patches_per_axis=4), DeepDistribution(patches_per_axis=8)))


def test_teacher_outputs_serve_one_step_and_are_not_kept():
    student, teacher, target = random_outputs()
    loss = build()
    loss.teacher_outputs = teacher
    loss(student, target)
    assert loss.teacher_outputs is None
    assert loss(student, target).item() == supervised_loss()(student, target).item()


@REGIONS
@IGNORE
def test_means_add_up_to_the_loss(has_regions, ignore):
    kind = {"has_regions": has_regions, "ignore": ignore}
    loss = build(alpha=0.25, **kind)
    values = []
    for seed in range(3):
        student, teacher, target = random_outputs(seed=seed, **kind)
        loss.teacher_outputs = teacher
        values.append(loss(student, target).item())
    means = loss.means.pop()
    assert set(means) == {"segmentation", "ddl", "psdl", "alpha"} and means["alpha"] == 0.25
    assert sum(means[name] for name in loss.names) == pytest.approx(sum(values) / 3, rel=1e-5)
    assert loss.means.pop() == {}


def test_psdl_is_the_difference_of_the_soft_and_the_hard_cross_entropy():
    loss, expected = build(alpha=0.25), 0
    for seed in range(3):
        student, teacher, target = random_outputs(seed=seed)
        loss.teacher_outputs = teacher
        loss(student, target)
        labels = torch.nn.functional.one_hot(target[0][:, 0], 3).movedim(-1, 1)
        mixed = 0.25 * teacher[0].softmax(1) + 0.75 * labels
        expected -= ((mixed - labels) * student[0].log_softmax(1)).sum(1).mean().item() * HEAD_WEIGHTS[0] / 3
    assert loss.means.pop()["psdl"] == pytest.approx(expected, rel=1e-4)


def test_a_nan_shows_in_the_means():
    loss = build()
    student, _, target = random_outputs()
    loss(student, target)
    student[0][0, 0, 0, 0] = math.nan
    loss(student, target)
    assert math.isnan(loss.means.pop()["segmentation"])


@REGIONS
def test_a_batch_that_is_ignored_everywhere_is_finite(has_regions):
    student, teacher, target = random_outputs(has_regions=has_regions, ignore=True)
    for x in target:
        if has_regions:
            x[:, -1] = True
        else:
            x.fill_(3)
    student = [x.requires_grad_() for x in student]
    loss = build(has_regions=has_regions, ignore=True)
    loss.teacher_outputs = teacher
    value = loss(student, target)
    value.backward()
    assert value.isfinite()
    assert all(x.grad.isfinite().all() for x in student[:2])


@REGIONS
def test_ignored_voxels_change_no_term(has_regions):
    student, teacher, target = random_outputs(has_regions=has_regions, ignore=True)
    loss = build(has_regions=has_regions, ignore=True)
    ignored = [(t[:, -1:] if has_regions else t == 3) for t in target]
    values = []
    for noise in (0.0, 4.0):
        loss.teacher_outputs = [x - noise * m for x, m in zip(teacher, ignored, strict=True)]
        loss(
            [x + noise * m * torch.tensor([1.0, -1, 2]).view(3, 1, 1) for x, m in zip(student, ignored, strict=True)],
            target,
        )
        values.append(loss.means.pop())
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_a_few_steps_pull_the_student_to_the_teacher():
    """Toy training, with the teacher's own labels; PSDL completes nnU-Net's cross-entropy, so the two fall together."""
    student, teacher, _ = random_outputs()
    teacher = [3 * x for x in teacher]
    target = [x.argmax(1, keepdim=True) for x in teacher]
    student = [x.requires_grad_() for x in student]
    loss = build()
    optimizer = torch.optim.SGD(student[:2], lr=100)
    history = []
    for _ in range(40):
        loss.teacher_outputs = teacher
        optimizer.zero_grad()
        loss(student, target).backward()
        optimizer.step()
        history.append(loss.means.pop())
    first, last = history[0], history[-1]
    assert last["ddl"] < first["ddl"]
    assert last["segmentation"] + last["psdl"] < first["segmentation"] + first["psdl"]


def test_what_terms_share_is_computed_once(monkeypatch):
    calls = []
    import nnunet_skd.step as module

    compute = module.class_probabilities
    monkeypatch.setattr(module, "class_probabilities", lambda x, **kind: calls.append(x) or compute(x, **kind))
    student, teacher, target = random_outputs()
    loss = build()
    loss.teacher_outputs = teacher
    loss(student, target)
    assert len(calls) == 4  # of student and teacher, at the two outputs that are trained


def test_terms_run_outside_autocast_unless_they_ask_for_it():
    """A product of two float32 matrices stays in float32, whatever nnU-Net's mixed precision does around the loss."""

    class Product(Term):
        name, needs_teacher = "product", False

        def forward(self, step):
            matrix = step.probabilities(0).flatten(2)[0]
            self.dtype = (matrix @ matrix.T).dtype
            return matrix.sum()

    class ProductInMixedPrecision(Product):
        name, under_autocast = "mixed", True

    student, _, target = random_outputs()
    loss = build((Product(), ProductInMixedPrecision()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss(student, target)
    assert [term.dtype for term in loss.terms] == [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_extremes_do_not_break_a_step(dtype):
    """Outputs at +-1e4, as mixed precision may produce them."""
    _, _, target = random_outputs(ignore=True)
    outputs = [torch.full((2, 3, *t.shape[2:]), -1e4, dtype=dtype) for t in target]
    for x in outputs:
        x[:, 0] = 1e4
        x.requires_grad_()
    loss = build(ignore=True)
    loss.teacher_outputs = [-x.detach() for x in outputs]
    terms = loss.values(outputs, target)
    (terms["ddl"] + terms["psdl"]).backward()
    assert terms["ddl"].isfinite() and terms["psdl"].isfinite()
    assert outputs[0].grad.isfinite().all()


def test_a_term_that_outgrows_the_segmentation_loss_is_named():
    loss = build()
    row = loss.row({"segmentation": -0.5, "ddl": 0.6, "psdl": 0.1, "alpha": 0.25})
    # Dice from its lowest value: 0.5 of 1.2
    assert [row[f"share_{name}"] for name in ("segmentation", "ddl", "psdl")] == pytest.approx([5 / 12, 0.5, 1 / 12])
    assert row["alpha"] == 0.25
    (warning,) = loss.warnings([row])
    assert warning.startswith("the ddl term is larger than the segmentation loss; lower its weight")
    assert loss.warnings([loss.row({"segmentation": -0.1, "ddl": 0.6, "psdl": 0.1})]) == []


def test_an_output_that_only_ddp_weighs_is_not_supervised():
    assert toy_task(head_weights=(0.6, 0.4, 1e-6)).supervised == (0, 1)
