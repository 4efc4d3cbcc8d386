import math

import numpy as np
import pytest
import torch

from nnunet_skd.deep_distribution_loss import DeepDistributionLoss, class_probabilities, class_probabilities_


def reference(student, teacher, valid, full_size, *, has_regions, grid, tau, counts, direction):
    """Plain loops over samples, patches and classes; probabilities in, divisible patch sizes only."""

    def distribution(fractions):
        n = math.prod(full_size) / math.prod(grid)
        energy = {
            "log": [math.log(f + 1 / n) for f in fractions],
            "raw": [f * n for f in fractions],
            "fraction": list(fractions),
        }[counts]
        top = max(energy)
        weights = [math.exp((e - top) / tau) for e in energy]
        return [w / sum(weights) for w in weights]

    divergences = []
    for b in range(student.shape[0]):
        for patch in np.ndindex(*grid):
            cut = tuple(
                slice(p * n // g, (p + 1) * n // g) for p, n, g in zip(patch, student.shape[2:], grid, strict=True)
            )
            mask = valid[b, 0][cut]
            if not mask.any():
                continue
            s, t = (
                [probabilities[b, k][cut][mask].mean() for k in range(student.shape[1])]
                for probabilities in (student, teacher)
            )
            for a, c in zip(([x, 1 - x] for x in s), ([x, 1 - x] for x in t), strict=True) if has_regions else [(s, t)]:
                p, q = distribution(a), distribution(c)
                if direction == "teacher_student":
                    p, q = q, p
                divergences.append(sum(x * math.log(x / y) for x, y in zip(p, q, strict=True) if x > 0))
    return np.mean(divergences)


def case(dim, has_regions, dtype=torch.float64, size=8, classes=3, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, classes, *[size] * dim)
    student, teacher = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))
    return student, class_probabilities(teacher, has_regions=has_regions), (size,) * dim


@pytest.mark.parametrize("has_regions", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_probabilities_in_place_are_the_same(has_regions, dtype):
    logits = 3 * torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits[0, :, 0, 0] = torch.tensor([1e4, -1e4, 0, 1e4, 5])
    logits = logits.to(dtype)
    expected = class_probabilities(logits, has_regions=has_regions)
    result = class_probabilities_(logits, has_regions=has_regions)
    torch.testing.assert_close(result, expected)
    assert (result.data_ptr() == logits.data_ptr()) == (dtype in (torch.float32, torch.float64))


def of_logits(loss, logits, teacher, valid, full_size):
    student = class_probabilities(logits, has_regions=loss.has_regions)
    patches = loss.patches(full_size, valid, teacher.dtype)
    return loss([patches.fractions(student)], [patches.fractions(teacher)], [patches])


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("has_regions", [False, True])
@pytest.mark.parametrize("counts", ["log", "raw", "fraction"])
@pytest.mark.parametrize("direction", ["student_teacher", "teacher_student"])
@pytest.mark.parametrize("ignore", [False, True])
def test_equals_plain_loops_in_value_and_gradient(dim, has_regions, counts, direction, ignore):
    logits, teacher, _ = case(dim, has_regions)
    full_size = (16,) * dim  # the output is a side output of half the resolution: grid 2 per axis
    valid = torch.ones(2, 1, *[8] * dim, dtype=torch.bool)
    if ignore:
        valid[0, 0, :4, :4] = False  # a whole patch in 2D
        valid[1, 0, 1] = False
        valid[1, 0, 4:, 4:] = False  # but for one voxel, which is enough
        valid[1, 0, -1, -1] = True
    loss = DeepDistributionLoss(has_regions=has_regions, counts=counts, direction=direction)
    assert loss.patches(full_size, None, logits.dtype).grid == (2,) * dim

    def plain(x):
        return reference(
            class_probabilities(x, has_regions=has_regions).numpy(), teacher.numpy(), valid.numpy(), full_size,
            has_regions=has_regions, grid=(2,) * dim, tau=3.0, counts=counts, direction=direction,
        )  # fmt: skip

    logits.requires_grad_()
    value = of_logits(loss, logits, teacher, valid if ignore else None, full_size)
    assert value.item() == pytest.approx(plain(logits.detach()), rel=1e-9)

    value.backward()
    for index in [(0, 0, *[1] * dim), (1, 2, *[6] * dim), (0, 1, *[5] * dim)]:
        step = torch.zeros_like(logits)
        step[index] = 1e-5
        slope = (plain(logits.detach() + step) - plain(logits.detach() - step)) / 2e-5
        assert logits.grad[index].item() == pytest.approx(slope, rel=1e-4, abs=1e-10)


def test_known_value_of_one_patch():
    """One patch of 4 voxels, tau 1: counts + 1 are (3, 3) for the student and (5, 1) for the teacher."""
    logits = torch.zeros(1, 2, 2, 2)
    teacher = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    loss = DeepDistributionLoss(has_regions=False, patches_per_axis=1, temperature=1.0)
    expected = 0.5 * math.log(0.5 / (5 / 6)) + 0.5 * math.log(0.5 / (1 / 6))
    assert of_logits(loss, logits, teacher, None, (2, 2)).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("has_regions", [False, True])
def test_student_equal_to_teacher_gives_zero_and_no_gradient(has_regions):
    logits, _, size = case(2, has_regions, size=32)
    teacher = class_probabilities(logits, has_regions=has_regions)
    logits.requires_grad_()
    value = of_logits(DeepDistributionLoss(has_regions=has_regions), logits, teacher, None, size)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-14)
    assert logits.grad.abs().max() < 1e-14


def test_log_form_does_not_feel_the_image_size_and_the_raw_form_does():
    logits, teacher, _ = case(2, False, size=32)

    def values(counts):
        loss = DeepDistributionLoss(has_regions=False, counts=counts)
        small = of_logits(loss, logits, teacher, None, (32, 32))
        twice = [x.repeat_interleave(2, 2).repeat_interleave(2, 3) for x in (logits, teacher)]
        return small, of_logits(loss, *twice, None, (64, 64))

    small, large = values("log")
    assert large.item() == pytest.approx(small.item(), rel=0.15)
    small, large = values("raw")
    assert large > 2 * small


def test_permuting_the_classes_changes_nothing():
    logits, teacher, size = case(3, False)
    loss = DeepDistributionLoss(has_regions=False)
    order = [2, 0, 1]
    assert torch.allclose(
        of_logits(loss, logits, teacher, None, size), of_logits(loss, logits[:, order], teacher[:, order], None, size)
    )


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("has_regions", [False, True])
def test_gradcheck(dim, has_regions):
    logits, teacher, _ = case(dim, has_regions, size=3, batch=1)
    valid = torch.ones(1, 1, *[3] * dim, dtype=torch.bool)
    valid[0, 0, 0] = False
    loss = DeepDistributionLoss(has_regions=has_regions)
    assert torch.autograd.gradcheck(
        lambda x: of_logits(loss, x, teacher, valid, (16,) * dim), logits.requires_grad_(), atol=1e-7, rtol=1e-4
    )


@pytest.mark.parametrize("size", [(5, 7), (6, 6), (3, 2)])
def test_outputs_that_the_grid_does_not_divide_or_that_are_smaller(size):
    """Overlapping bins, as adaptive average pooling has them: a constant map keeps its fractions."""
    probabilities = torch.tensor([0.25, 0.75]).view(1, 2, 1, 1).expand(1, 2, *size)
    logits = probabilities.log().clone().requires_grad_()
    teacher = torch.tensor([0.5, 0.5]).view(1, 2, 1, 1).expand(1, 2, *size)
    value = of_logits(DeepDistributionLoss(has_regions=False, temperature=1.0), logits, teacher, None, (64, 64))
    n = 256
    p = np.array([0.25 + 1 / n, 0.75 + 1 / n]) / (1 + 2 / n)
    assert value.item() == pytest.approx(float((p * np.log(p / 0.5)).sum()), rel=1e-4)


def test_a_3d_map_of_depth_one_is_the_2d_map():
    logits, teacher, size = case(2, False, size=32)
    loss = DeepDistributionLoss(has_regions=False)
    flat = of_logits(loss, logits, teacher, None, size)
    deep = of_logits(loss, logits[:, :, None], teacher[:, :, None], None, (1, *size))
    assert torch.allclose(flat, deep)


@pytest.mark.parametrize(
    ("full_size", "grid"), [((28, 256, 256), (3, 4, 4)), ((8, 31, 32), (1, 3, 4)), ((4, 20, 320), (1, 2, 4))]
)
def test_grid_of_anisotropic_patches(full_size, grid):
    patches = DeepDistributionLoss(has_regions=False).patches(full_size, None, torch.float32)
    assert patches.grid == grid
    assert patches.voxels == math.prod(full_size) / math.prod(grid)


@pytest.mark.parametrize("has_regions", [False, True])
@pytest.mark.parametrize("ignore", [False, True])
def test_side_outputs_add_up_whatever_their_grids(has_regions, ignore):
    """Of one full size: an output that the grid divides, one that it does not, one that is smaller, one all ignored."""
    loss = DeepDistributionLoss(has_regions=has_regions)
    fractions, targets, patches = [], [], []
    for seed, size in enumerate((32, 10, 2, 8)):
        logits, teacher, _ = case(2, has_regions, size=size, seed=seed)
        valid = torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(seed)) > 0.4 if ignore else None
        if ignore and size == 8:
            valid[:] = False
        patches.append(loss.patches((32, 32), valid, logits.dtype))
        fractions.append(patches[-1].fractions(class_probabilities(logits, has_regions=has_regions)))
        targets.append(patches[-1].fractions(teacher))
    each = [loss([f], [t], [p]) for f, t, p in zip(fractions, targets, patches, strict=True)]
    assert all(value > 0 for value in each[:3]) and (each[3] == 0) == ignore
    assert torch.allclose(loss(fractions, targets, patches), sum(each))


@pytest.mark.parametrize("counts", ["log", "raw", "fraction"])
@pytest.mark.parametrize("has_regions", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_extremes_stay_finite(counts, has_regions, dtype):
    """Background everywhere against foreground everywhere, logits of +-1e4, 10^5 voxels, under autocast."""
    logits = torch.full((1, 2, 320, 320), -1e4, dtype=dtype)
    logits[:, 0] = 1e4
    teacher = class_probabilities(-logits, has_regions=has_regions)
    logits.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = DeepDistributionLoss(has_regions=has_regions, counts=counts)
        value = of_logits(loss, logits, teacher, None, (320, 320))
    value.backward()
    assert value.dtype == torch.float32 and value.isfinite() and logits.grad.isfinite().all()


def test_ignored_voxels_change_nothing():
    logits, teacher, size = case(2, False, size=32)
    valid = torch.rand(2, 1, 32, 32) > 0.3
    valid[0, :, :8, :8] = False
    loss = DeepDistributionLoss(has_regions=False)
    noise = torch.where(valid, 0.0, 5.0).double() * torch.randn_like(logits)
    student = (logits + noise).requires_grad_()
    other = of_logits(loss, student, class_probabilities(teacher.log() - noise, has_regions=False), valid, size)
    assert torch.allclose(of_logits(loss, logits, teacher, valid, size), other)
    other.backward()
    assert (student.grad * ~valid).abs().max() == 0 < student.grad.abs().max()


@pytest.mark.parametrize(
    ("size", "full_size"),
    [
        ((32, 32), (32, 32)),
        ((8, 32, 32), (8, 32, 32)),
        ((32, 32, 32), (32, 32, 32)),
        ((1, 32, 32), (1, 32, 32)),
        ((4, 32, 32), (32, 32, 32)),
        ((4, 4), (32, 32)),
    ],
)
def test_the_gradient_is_dense_and_no_view_so_that_others_are_added_to_it_in_place(size, full_size):
    probabilities = torch.rand(2, 3, *size, requires_grad=True)
    loss = DeepDistributionLoss(has_regions=False)
    patches = loss.patches(full_size, None, torch.float32)
    value = loss([patches.fractions(probabilities)], [patches.fractions(torch.rand(2, 3, *size))], [patches])
    (gradient,) = torch.autograd.grad(value, probabilities)
    assert gradient.abs().max() > 0 and gradient.is_contiguous() and not gradient._is_view()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("size", "grid"), [((24, 64), (3, 4)), ((8, 24, 32), (1, 3, 4)), ((16, 32, 96), (2, 4, 4))])
def test_pooling_is_adaptive_pooling_in_value_and_gradient(size, grid, channels_last):
    values = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    if channels_last:
        values = values.to(memory_format=torch.channels_last if len(size) == 2 else torch.channels_last_3d)
    values.requires_grad_()
    patches = DeepDistributionLoss(has_regions=False).patches(size, None, values.dtype)
    assert patches.grid == grid
    fractions = patches.fractions(values)
    adaptive = torch.nn.functional.adaptive_avg_pool2d if len(size) == 2 else torch.nn.functional.adaptive_avg_pool3d
    expected = adaptive(values, grid)
    torch.testing.assert_close(fractions, expected)
    weights = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad((fractions * weights).sum(), values)
    torch.testing.assert_close(gradient, torch.autograd.grad((expected * weights).sum(), values)[0])


def test_nothing_valid_gives_a_connected_zero():
    logits, teacher, size = case(2, False, size=32)
    logits.requires_grad_()
    nothing = torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    value = of_logits(DeepDistributionLoss(has_regions=False), logits, teacher, nothing, size)
    value.backward()
    assert value.item() == 0 and logits.grad.abs().max() == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"counts": "logs"}, "counts must be one of .* got 'logs'"),
        ({"direction": "both"}, "direction must be one of .* got 'both'"),
        ({"temperature": 0.0}, "temperature must be above 0, got 0.0"),
        ({"patches_per_axis": 0}, "at least 1, got 0"),
    ],
)
def test_refuses_unusable_options(arguments, words):
    with pytest.raises(ValueError, match=words):
        DeepDistributionLoss(has_regions=False, **arguments)
