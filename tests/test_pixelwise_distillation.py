import pytest
import torch
from torch.nn import functional as F

from nnunet_skd import pixelwise_distillation
from nnunet_skd.deep_distribution_loss import class_probabilities
from nnunet_skd.pixelwise_distillation import PixelwiseDistillationLoss, teacher_minus_truth


def case(dim, has_regions, size=4, classes=3, batch=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shape = (batch, classes, *[size] * dim)
    logits, teacher = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))
    valid = torch.rand((batch, 1, *[size] * dim), generator=generator) > 0.3
    if has_regions:
        target = torch.rand(shape, generator=generator) > 0.5
    else:
        target = torch.randint(0, classes, (batch, 1, *[size] * dim), generator=generator)
    return logits, class_probabilities(teacher, has_regions=has_regions), target, valid


def psdl(logits, teacher, target, valid, has_regions=False):
    difference = teacher_minus_truth(teacher, target, valid, has_regions=has_regions)
    return PixelwiseDistillationLoss(has_regions=has_regions)(logits, difference, valid)


def soft_cross_entropy(logits, soft, valid, has_regions):
    """L_PSDL written out: cross-entropy with soft targets, the mean over valid voxels (and regions)."""
    if has_regions:
        return F.binary_cross_entropy_with_logits(logits, soft, reduction="none")[valid.expand_as(logits)].mean()
    return -(soft * logits.log_softmax(1)).sum(1, keepdim=True)[valid].mean()


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("has_regions", [False, True])
@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("alpha", [0.25, 1.0])
def test_completes_the_cross_entropy_to_the_papers_loss(dim, has_regions, ignore, alpha):
    """CE(y) + alpha * ours = CE(alpha * p_T + (1 - alpha) * y), in value and gradient."""
    logits, teacher, target, valid = case(dim, has_regions)
    if not ignore:
        valid = torch.ones_like(valid)
    hard = target.double() if has_regions else F.one_hot(target[:, 0], 3).movedim(-1, 1).double()
    scale = 3 if has_regions and ignore else 1  # nnU-Net sums the regions where there is an ignore label
    paper = scale * soft_cross_entropy(
        logits.requires_grad_(), alpha * teacher + (1 - alpha) * hard, valid, has_regions
    )
    (expected,) = torch.autograd.grad(paper, logits)

    plain = scale * soft_cross_entropy(logits, hard, valid, has_regions)
    ours = psdl(logits, teacher.clone(), target, valid if ignore else None, has_regions)
    value = plain + alpha * ours
    (gradient,) = torch.autograd.grad(value, logits)
    assert torch.allclose(value, paper, rtol=1e-10)
    assert torch.allclose(gradient, expected, rtol=1e-8, atol=1e-12)


def test_known_value():
    """One voxel of class 0, logits (2, 0), teacher (1/2, 1/2): z_y - E_T[z] = 2 - 1."""
    logits = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)
    teacher = torch.full((1, 2, 1, 1), 0.5)
    target = torch.zeros(1, 1, 1, 1)
    assert psdl(logits, teacher, target, None).item() == 1.0


def test_a_teacher_that_says_the_truth_changes_nothing():
    logits, _, target, _ = case(2, False)
    logits.requires_grad_()
    teacher = F.one_hot(target[:, 0], 3).movedim(-1, 1).double().contiguous()
    value = psdl(logits, teacher, target, None)
    value.backward()
    assert value.item() == 0 and logits.grad.abs().max() == 0


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("has_regions", [False, True])
def test_gradcheck(dim, has_regions):
    logits, teacher, target, valid = case(dim, has_regions, size=3, batch=1)
    assert torch.autograd.gradcheck(
        lambda x: psdl(x, teacher.clone(), target, valid, has_regions), logits.requires_grad_()
    )


@pytest.mark.parametrize("has_regions", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_extremes_stay_finite(has_regions, dtype):
    logits = torch.full((1, 2, 320, 320), -1e4, dtype=dtype)
    logits[:, 0] = 1e4
    teacher = class_probabilities(-logits, has_regions=has_regions)
    target = torch.zeros(1, 2 if has_regions else 1, 320, 320)
    logits.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = psdl(logits, teacher, target, None, has_regions)
    value.backward()
    assert value.dtype == torch.float32 and value.isfinite() and logits.grad.isfinite().all()


@pytest.mark.parametrize("has_regions", [False, True])
def test_ignored_voxels_change_nothing(has_regions):
    logits, teacher, target, valid = case(2, has_regions)
    noise = (~valid).double()
    student = (logits + 3 * noise).requires_grad_()
    other = psdl(student, teacher + noise, torch.where(valid, target, 0), valid, has_regions)
    assert torch.allclose(psdl(logits, teacher, torch.where(valid, target, 0), valid, has_regions), other)
    other.backward()
    assert (student.grad * ~valid).abs().max() == 0 < student.grad.abs().max()


def test_nothing_valid_gives_a_connected_zero():
    logits, teacher, target, valid = case(2, False)
    logits.requires_grad_()
    value = psdl(logits, teacher, target, torch.zeros_like(valid))
    value.backward()
    assert value.item() == 0 and logits.grad.abs().max() == 0


def test_more_elements_than_a_dot_product_takes(monkeypatch):
    logits, teacher, target, _ = case(2, False)
    expected = psdl(logits, teacher.clone(), target, None)
    monkeypatch.setattr(pixelwise_distillation, "DOT_LIMIT", logits.numel() // 3 + 1)
    assert torch.allclose(psdl(logits, teacher, target, None), expected, rtol=1e-12)


def test_keeps_one_full_size_tensor_for_the_backward_pass():
    logits, teacher, target, _ = case(2, False, size=32)
    saved = {}
    logits.requires_grad_()
    pack = lambda x: saved.setdefault(x.untyped_storage().data_ptr(), x)  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        psdl(logits, teacher, target, None)
    assert [x.untyped_storage().data_ptr() for x in saved.values() if x.numel() >= logits.numel()] == [
        teacher.untyped_storage().data_ptr()
    ]


def test_the_gradient_is_no_view_so_that_others_are_added_to_it_in_place():
    logits, teacher, target, _ = case(2, False, size=32)
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(psdl(logits, teacher, target, None), logits)
    assert not gradient._is_view()
