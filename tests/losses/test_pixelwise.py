"""Pixel-wise self-distillation: known values, plain loops, and the paper's own form of the loss."""

import numpy as np
import pytest
import torch
from cases import DIMS, HALF, HEAD_WEIGHTS, IGNORE, REGIONS, nnunet_loss, random_case, random_step, toy_task
from torch.nn import functional as F

from nnunet_skd.losses.pixelwise import Pixelwise, soft_minus_hard_cross_entropy
from nnunet_skd.losses.probabilities import class_probabilities


def psdl(case, logits=None, *, has_regions=False):
    logits = case.logits if logits is None else logits
    return soft_minus_hard_cross_entropy(logits, case.teacher, case.labels, case.valid, has_regions=has_regions)


def plain_loops(case, has_regions, ignore):
    """CE(z, p_T) - CE(z, y) voxel by voxel, with its gradient, as nnU-Net's cross-entropies reduce them."""
    logits, teacher, labels = (x.numpy() for x in (case.logits, case.teacher, case.labels))
    valid = np.ones((2, 1, *logits.shape[2:]), bool) if case.valid is None else case.valid.numpy()
    classes, voxels = logits.shape[1], valid.sum()
    value, gradient = 0.0, np.zeros_like(logits)
    for b, *v in np.argwhere(valid[:, 0]):
        at = (b, slice(None), *v)
        z, soft = logits[at], teacher[at]
        if has_regions:
            hard = labels[at].astype(float)
            cross_entropies = [-(t * np.log(1 / (1 + np.exp(-z))) + (1 - t) * np.log(1 / (1 + np.exp(z)))).sum()
                               for t in (soft, hard)]  # fmt: skip
            scale = 1 if ignore else 1 / classes  # nnU-Net sums the regions where there is an ignore label
        else:
            hard = np.eye(classes)[labels[(b, 0, *v)]]
            log_q = z - np.log(np.exp(z).sum())
            cross_entropies = [-(t * log_q).sum() for t in (soft, hard)]
            scale = 1
        value += scale * (cross_entropies[0] - cross_entropies[1]) / voxels
        gradient[at] = scale * (hard - soft) / voxels
    return value, gradient


@DIMS
@REGIONS
@IGNORE
def test_equals_plain_loops_in_value_and_gradient(dim, has_regions, ignore):
    case = random_case(dim, has_regions=has_regions, ignore=ignore)
    expected, gradient = plain_loops(case, has_regions, ignore)
    value = psdl(case, case.logits.requires_grad_(), has_regions=has_regions)
    value.backward()
    assert value.item() == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(case.logits.grad, torch.from_numpy(gradient))


@DIMS
@REGIONS
@IGNORE
@pytest.mark.parametrize("alpha", [0.25, 1.0])
def test_completes_nnunets_cross_entropy_to_the_papers_loss(dim, has_regions, ignore, alpha):
    """nnU-Net's own CE(y) + alpha * ours = CE(alpha * p_T + (1 - alpha) * y), in value and gradient."""
    case = random_case(dim, has_regions=has_regions, ignore=ignore, dtype=torch.float32)
    valid = torch.ones(2, 1, *case.logits.shape[2:]) if case.valid is None else case.valid.float()
    logits = case.logits.requires_grad_()
    if has_regions:
        hard = case.labels.float()
        soft = F.binary_cross_entropy_with_logits(logits, alpha * case.teacher + (1 - alpha) * hard, reduction="none")
        paper = (soft * valid).sum() / valid.sum() / (1 if ignore else 3)
    else:
        hard = F.one_hot(case.labels[:, 0], 3).movedim(-1, 1).float()
        mixed = alpha * case.teacher + (1 - alpha) * hard
        paper = -(mixed * logits.log_softmax(1)).sum(1, keepdim=True).mul(valid).sum() / valid.sum()
    (expected,) = torch.autograd.grad(paper, logits)

    loss = nnunet_loss(has_regions=has_regions, ignore=ignore)
    loss.weight_dice = 0.0
    if ignore and has_regions:
        target = torch.cat((case.labels, ~case.valid), 1)
    else:
        target = case.labels if case.valid is None else torch.where(case.valid, case.labels, 3)
    value = loss(logits, target) + alpha * psdl(case, logits, has_regions=has_regions)
    (gradient,) = torch.autograd.grad(value, logits)
    torch.testing.assert_close(value, paper, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_known_values():
    """One voxel of class 0, logits (2, 0), teacher (1/2, 1/2): z_y - E_T[z] = 2 - 1; of regions, (y - p_T) z."""
    logits = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)
    teacher = torch.full((1, 2, 1, 1), 0.5)
    assert soft_minus_hard_cross_entropy(logits, teacher, torch.zeros(1, 1, 1, 1)).item() == 1.0
    regions = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    everywhere = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    assert soft_minus_hard_cross_entropy(logits, teacher, regions, has_regions=True).item() == 0.5
    assert soft_minus_hard_cross_entropy(logits, teacher, regions, everywhere, has_regions=True).item() == 1.0


def test_a_teacher_that_says_the_truth_changes_nothing():
    case = random_case()
    logits = case.logits.requires_grad_()
    teacher = F.one_hot(case.labels[:, 0], 3).movedim(-1, 1).double()
    value = soft_minus_hard_cross_entropy(logits, teacher, case.labels)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-15) and logits.grad.abs().max() < 1e-15


@DIMS
@REGIONS
@IGNORE
def test_gradcheck(dim, has_regions, ignore):
    case = random_case(dim, has_regions=has_regions, ignore=ignore, size=3, batch=1)
    assert torch.autograd.gradcheck(lambda x: psdl(case, x, has_regions=has_regions), case.logits.requires_grad_())


@REGIONS
@HALF
def test_half_precision_extremes_stay_finite(has_regions, dtype):
    logits = torch.full((1, 2, 320, 320), -1e4, dtype=dtype)
    logits[:, 0] = 1e4
    teacher = class_probabilities(-logits, has_regions=has_regions)
    labels = torch.zeros(1, 2 if has_regions else 1, 320, 320)
    logits.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = soft_minus_hard_cross_entropy(logits, teacher, labels, has_regions=has_regions)
    value.backward()
    assert value.dtype == torch.float32 and value.isfinite() and logits.grad.isfinite().all()


@REGIONS
def test_ignored_voxels_change_nothing(has_regions):
    case = random_case(has_regions=has_regions, ignore=True)
    expected = psdl(case, has_regions=has_regions)
    spoiled = torch.where(case.valid, case.logits, torch.inf).requires_grad_()
    case.teacher = torch.where(case.valid, case.teacher, torch.nan)
    other = psdl(case, spoiled, has_regions=has_regions)
    assert torch.allclose(expected, other)


@REGIONS
def test_ignored_voxels_get_no_gradient(has_regions):
    case = random_case(has_regions=has_regions, ignore=True)
    student = (case.logits + 3 * ~case.valid).requires_grad_()
    psdl(case, student, has_regions=has_regions).backward()
    assert (student.grad * ~case.valid).abs().max() == 0 < student.grad.abs().max()


@REGIONS
def test_nothing_valid_gives_a_connected_zero(has_regions):
    case = random_case(has_regions=has_regions, ignore=True)
    case.valid = torch.zeros_like(case.valid)
    value = psdl(case, case.logits.requires_grad_(), has_regions=has_regions)
    value.backward()
    assert value.item() == 0 and case.logits.grad.abs().max() == 0


def test_the_teacher_gets_no_gradient():
    case = random_case()
    case.teacher.requires_grad_()
    psdl(case, case.logits.requires_grad_()).backward()
    assert case.teacher.grad is None and case.logits.grad.abs().max() > 0


@REGIONS
@IGNORE
def test_the_term_weighs_by_alpha_and_nnunets_cross_entropy(has_regions, ignore):
    step = random_step(has_regions=has_regions, ignore=ignore, epoch=250)
    term = Pixelwise(weight=0.5, alpha=0.8)
    term.attach(toy_task(has_regions=has_regions, ignore=ignore, cross_entropy_weight=3.0))
    expected = soft_minus_hard_cross_entropy(
        step.outputs[0],
        class_probabilities(step.teacher_outputs[0], has_regions=has_regions),
        step.labels(0),
        step.valid(0),
        has_regions=has_regions,
    )
    values = term.weighted(step)
    assert list(values) == ["psdl"] and step.log == {"alpha": pytest.approx(0.2)}
    torch.testing.assert_close(values["psdl"], 0.5 * 3 * HEAD_WEIGHTS[0] * 0.2 * expected)


def test_alpha_rises_linearly_or_stays():
    term = Pixelwise(alpha=0.5)
    assert [term.alpha_at(epoch, 1000) for epoch in (0, 500, 999)] == pytest.approx([0.0, 0.25, 0.4995])
    assert Pixelwise(alpha=0.5, rising=False).alpha_at(0, 1000) == 0.5


def test_alpha_0_adds_nothing_at_all():
    step = random_step(epoch=0)
    term = Pixelwise()
    term.attach(step.task)
    assert term.weighted(step) == {} and step.log == {"alpha": 0}


def test_refuses_unusable_options_and_losses():
    with pytest.raises(ValueError, match=r"alpha must lie in \[0, 1\], got 1.5"):
        Pixelwise(alpha=1.5)
    with pytest.raises(ValueError, match="weight of Pixelwise must not be negative"):
        Pixelwise(weight=-1)
    with pytest.raises(ValueError, match="nnUNetTrainerToy .* is not nnU-Net's Dice and cross-entropy.*Take Pixelwise"):
        Pixelwise().attach(toy_task(cross_entropy_weight=None))
