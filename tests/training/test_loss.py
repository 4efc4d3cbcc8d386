import math

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

from nnunet_skd.deep_distribution_loss import DeepDistributionLoss, class_probabilities
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


def build(ddl_weight=1.0, psdl_weight=1.0, alpha=0.25, has_regions=False, ignore_label=None, ddl_mixed=False):
    loss = SelfDistillationLoss(
        nnunet_loss(has_regions, ignore_label),
        has_regions=has_regions,
        ignore_label=ignore_label,
        ddl=DeepDistributionLoss(has_regions=has_regions),
        ddl_weight=ddl_weight,
        ddl_mixed=ddl_mixed,
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
    patches = loss.ddl.patches((32, 32), None, torch.float32)

    def ddl_of(i):
        return loss.ddl([patches.fractions(student[i].softmax(1))], [patches.fractions(probabilities[i])], [patches])

    ddl = ddl_of(0) + ddl_of(1)  # the lowest output is unsupervised
    log_p, labels = student[0].log_softmax(1), torch.nn.functional.one_hot(target[0][:, 0], 3).movedim(-1, 1)
    soft_minus_hard = -((probabilities[0] - labels) * log_p).sum(1).mean()
    expected = nnunet_loss()(student, target) + 2.0 * ddl + 0.5 * (2 / 3) * 0.25 * soft_minus_hard
    assert torch.allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_teachers_outputs_are_used_up(dtype):
    """What comes after DSKD's terms, another segmentation loss with ACW-SKD, finds their memory free."""
    outputs, teacher, target = step()
    loss = build()
    kept = loss.teacher_outputs = [z.to(dtype) for z in teacher]
    loss(outputs, target)
    assert [kept[i] for i in loss.supervised] == [None] * len(loss.supervised)


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


@pytest.mark.parametrize("has_regions", [False, True])
@pytest.mark.parametrize("ignore", [False, True])
def test_sharing_probabilities_with_dice_changes_neither_value_nor_gradient(has_regions, ignore, monkeypatch):
    student, teacher, target = step(has_regions, ignore)
    results = []
    for share in (False, True):
        loss = build(has_regions=has_regions, ignore_label=3 if ignore else None)
        calls = []

        def counted(logits, calls=calls, **kwargs):
            calls.append(logits)
            return class_probabilities(logits, **kwargs)

        monkeypatch.setattr("nnunet_skd.self_distillation_loss.class_probabilities", counted)
        if share:
            loss.share_probabilities(loss.segmentation_loss.loss.dc)
        loss.teacher_outputs = [x.clone() for x in teacher]
        logits = [x.clone().requires_grad_() for x in student]
        value = loss(logits, target)
        results.append((value, *torch.autograd.grad(value, logits[:2])))
        assert len(calls) == (0 if share else 2)  # one for each supervised output of the student
        if share:
            assert loss._shared.of(logits[0]) is None  # nothing outlives the step
    torch.testing.assert_close(*results)


def test_shared_probabilities_leave_evaluation_and_steps_without_a_teacher_alone():
    student, _, target = step()
    loss = build()
    loss.share_probabilities(loss.segmentation_loss.loss.dc)
    expected = nnunet_loss()(student, target).item()
    assert loss(student, target).item() == expected == loss.eval()(student, target).item()
    assert not loss._shared._kept


def test_a_step_that_fails_leaves_no_probabilities_behind():
    """A caller may skip a batch that runs out of memory; what it wanted to free must be free."""
    student, teacher, target = step()
    loss = build()
    loss.share_probabilities(loss.segmentation_loss.loss.dc)
    loss.teacher_outputs = teacher[:1]
    with pytest.raises(IndexError):
        loss(student, target)
    loss.eval()(student, target)
    assert not loss._shared._kept


@pytest.mark.parametrize("has_regions", [False, True])
@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("psdl_weight", [0.0, 1.0])
def test_a_mixed_target_is_the_patch_distribution_of_soft_labels(has_regions, ignore, psdl_weight):
    """DDL's target: the fractions of alpha * p_T + (1 - alpha) * y, as PSDL's voxels have them."""
    student, teacher, target = step(has_regions, ignore)
    loss = build(psdl_weight=psdl_weight, has_regions=has_regions, ignore_label=3 if ignore else None, ddl_mixed=True)
    loss.teacher_outputs = [x.clone() for x in teacher]
    loss(student, target)
    expected = 0
    for i in (0, 1):
        labels, valid = loss._split(target[i])
        if has_regions:
            truth, p_teacher, p_student = labels.float(), teacher[i].sigmoid(), student[i].sigmoid()
        else:
            truth = torch.nn.functional.one_hot(labels[:, 0].long(), 3).movedim(-1, 1).float()
            p_teacher, p_student = teacher[i].softmax(1), student[i].softmax(1)
        patches = loss.ddl.patches((32, 32), valid, torch.float32)
        mixed = patches.fractions(0.25 * p_teacher + 0.75 * truth)
        expected += loss.ddl([patches.fractions(p_student)], [mixed], [patches]).item()
    assert loss.pop_means()["ddl"] == pytest.approx(expected, rel=1e-4)


def test_a_mixed_target_does_not_hold_back_a_class_that_the_teacher_lacks():
    """Early in a training: where the truth has a class and the teacher does not, DDL must not push it down."""
    labels = torch.zeros(1, 1, 32, 32, dtype=torch.long)
    labels[..., :4, :4] = 1
    target = [labels[..., :: 2**i, :: 2**i] for i in range(3)]
    teacher = [torch.tensor([9.0, -9.0]).view(1, 2, 1, 1).expand(1, 2, n, n).contiguous() for n in SIZES]
    pushes = {}
    for mixed in (False, True):
        loss = build(alpha=0.05, psdl_weight=0.0, ddl_mixed=mixed)
        student = torch.tensor([2.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 32, 32).clone().requires_grad_()
        outputs = [student, *(torch.zeros(1, 2, n, n) for n in SIZES[1:])]
        loss.teacher_outputs = [x.clone() for x in teacher]
        terms = loss._dskd_terms(outputs, target, loss.teacher_outputs, *loss._split(target[0]))
        (gradient,) = torch.autograd.grad(terms["ddl"], student)
        pushes[mixed] = gradient[0, 1, :4, :4].sum().item()
    assert pushes[False] > 0 > pushes[True]  # gradient descent lowers the class, or raises it
