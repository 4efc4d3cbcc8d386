import math

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

from nnunet_skd.deep_distribution_loss import DeepDistributionLoss
from nnunet_skd.self_distillation_loss import SelfDistillationLoss

SIZES = (32, 16, 8)


def nnunet_loss(has_regions=False, ignore_label=None):
    """As nnUNetTrainer._build_loss makes it for three outputs: the lowest has weight 0."""
    dice = {"batch_dice": False, "smooth": 1e-5, "ddp": False}
    if has_regions:
        loss = DC_and_BCE_loss(
            {}, {**dice, "do_bg": True}, use_ignore_label=ignore_label is not None,
            dice_class=MemoryEfficientSoftDiceLoss,
        )  # fmt: skip
    else:
        softmax = {**dice, "do_bg": False}
        loss = DC_and_CE_loss(softmax, {}, ignore_label=ignore_label, dice_class=MemoryEfficientSoftDiceLoss)
    return DeepSupervisionWrapper(loss, (2 / 3, 1 / 3, 0.0))


def build(ddl_weight=1.0, psdl_weight=1.0, alpha=0.25, has_regions=False, ignore_label=None):
    loss = SelfDistillationLoss(
        nnunet_loss(has_regions, ignore_label),
        has_regions=has_regions,
        ignore_label=ignore_label,
        ddl=DeepDistributionLoss(has_regions=has_regions),
        ddl_weight=ddl_weight,
        psdl_weight=psdl_weight,
        cross_entropy_weight=1.0,
    )
    loss.alpha = alpha
    return loss


def step(has_regions=False, ignore=False, seed=0):
    """Student outputs, teacher outputs and targets at three resolutions."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = ([torch.randn(2, 3, n, n, generator=generator) for n in SIZES] for _ in range(2))
    if has_regions:
        target = [torch.rand(2, 3 + ignore, n, n, generator=generator) > 0.5 for n in SIZES]
    else:
        target = [torch.randint(0, 3 + ignore, (2, 1, n, n), generator=generator) for n in SIZES]
    return student, teacher, target


@pytest.mark.parametrize("has_regions", [False, True])
@pytest.mark.parametrize("ignore", [False, True])
def test_is_nnunets_loss_in_evaluation_without_a_teacher_and_with_weights_zero(has_regions, ignore):
    ignore_label = 3 if ignore else None
    student, teacher, target = step(has_regions, ignore)
    expected = nnunet_loss(has_regions, ignore_label)(student, target).item()

    loss = build(has_regions=has_regions, ignore_label=ignore_label)
    assert loss(student, target).item() == expected
    loss.teacher_outputs = teacher
    assert loss.eval()(student, target).item() == expected

    loss = build(0.0, 0.0, has_regions=has_regions, ignore_label=ignore_label)
    loss.teacher_outputs = teacher
    assert not loss.needs_teacher
    assert loss(student, target).item() == expected


def test_is_the_sum_that_the_docstring_says():
    student, teacher, target = step()
    loss = build(ddl_weight=2.0, psdl_weight=0.5)
    loss.teacher_outputs = [x.clone() for x in teacher]
    value = loss(student, target)

    probabilities = [x.softmax(1) for x in teacher]
    ddl = sum(loss.ddl(student[i], probabilities[i], None, (32, 32)) for i in (0, 1))  # the lowest is unsupervised
    log_p, labels = student[0].log_softmax(1), torch.nn.functional.one_hot(target[0][:, 0], 3).movedim(-1, 1)
    soft_minus_hard = -((probabilities[0] - labels) * log_p).sum(1).mean()
    expected = nnunet_loss()(student, target) + 2.0 * ddl + 0.5 * (2 / 3) * 0.25 * soft_minus_hard
    assert torch.allclose(value, expected, rtol=1e-6)


def test_teacher_outputs_serve_one_step():
    student, teacher, target = step()
    loss = build()
    loss.teacher_outputs = teacher
    loss(student, target)
    assert loss.teacher_outputs is None
    assert loss(student, target).item() == nnunet_loss()(student, target).item()


@pytest.mark.parametrize("has_regions", [False, True])
@pytest.mark.parametrize("ignore", [False, True])
def test_means_add_up_to_the_loss_and_psdl_is_the_soft_cross_entropy(has_regions, ignore):
    loss = build(has_regions=has_regions, ignore_label=3 if ignore else None)
    values = []
    for seed in range(3):
        student, teacher, target = step(has_regions, ignore, seed)
        loss.teacher_outputs = teacher
        values.append(loss(student, target).item())
    means = loss.pop_means()
    assert set(means) == {"segmentation", "ddl", "psdl"}
    assert sum(means.values()) == pytest.approx(sum(values) / 3, rel=1e-5)
    assert loss.pop_means() == {}

    if not has_regions and not ignore:
        soft = 0
        for seed in range(3):
            student, teacher, target = step(seed=seed)
            labels = torch.nn.functional.one_hot(target[0][:, 0], 3).movedim(-1, 1)
            mixed = 0.25 * teacher[0].softmax(1) + 0.75 * labels
            soft -= (mixed * student[0].log_softmax(1)).sum(1).mean().item() * (2 / 3) / 3
        assert means["psdl"] == pytest.approx(soft, rel=1e-5)


def test_a_nan_shows_in_the_means():
    loss = build()
    student, _, target = step()
    loss(student, target)
    student[0][0, 0, 0, 0] = math.nan
    loss(student, target)
    assert all(math.isnan(value) for value in loss.pop_means().values())


@pytest.mark.parametrize("has_regions", [False, True])
def test_a_batch_that_is_ignored_everywhere_is_finite(has_regions):
    student, teacher, target = step(has_regions, True)
    for x in target:
        if has_regions:
            x[:, -1] = True
        else:
            x.fill_(3)
    student = [x.requires_grad_() for x in student]
    loss = build(has_regions=has_regions, ignore_label=3)
    loss.teacher_outputs = teacher
    value = loss(student, target)
    value.backward()
    assert value.isfinite()
    assert all(x.grad.isfinite().all() for x in student[:2])


@pytest.mark.parametrize("has_regions", [False, True])
def test_ignored_voxels_change_no_term(has_regions):
    student, teacher, target = step(has_regions, True)
    loss = build(has_regions=has_regions, ignore_label=3)
    ignored = [(t[:, -1:] if has_regions else t == 3) for t in target]
    values = []
    for noise in (0.0, 4.0):
        loss.teacher_outputs = [x - noise * m for x, m in zip(teacher, ignored, strict=True)]
        loss(
            [x + noise * m * torch.tensor([1.0, -1, 2]).view(3, 1, 1) for x, m in zip(student, ignored, strict=True)],
            target,
        )
        values.append(loss.pop_means())
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_a_few_steps_pull_the_student_to_the_teacher():
    """Toy training: with the teacher's own labels, every term falls."""
    student, teacher, _ = step()
    teacher = [3 * x for x in teacher]
    target = [x.argmax(1, keepdim=True) for x in teacher]
    student = [x.requires_grad_() for x in student]
    loss = build(alpha=0.5)
    optimizer = torch.optim.SGD(student[:2], lr=100)
    history = []
    for _ in range(40):
        loss.teacher_outputs = [x.clone() for x in teacher]
        optimizer.zero_grad()
        loss(student, target).backward()
        optimizer.step()
        history.append(loss.pop_means())
    assert all(history[-1][name] < history[0][name] for name in ("segmentation", "ddl", "psdl"))
