"""The deep distribution loss: known values, and plain loops."""

import math

import numpy as np
import pytest
import torch
from cases import DIMS, HALF, IGNORE, REGIONS, random_case, random_step

from nnunet_skd.losses.deep_distribution import DIRECTIONS, FORMS, DeepDistribution, deep_distribution_loss
from nnunet_skd.losses.patches import patch_grid
from nnunet_skd.losses.probabilities import class_probabilities


def reference(student, teacher, valid, full_size, *, has_regions, grid, tau, form, direction):
    """Plain loops over samples, patches and classes; probabilities in, divisible patch sizes only."""

    def distribution(fractions):
        n = math.prod(full_size) / math.prod(grid)
        energy = {
            "log": [math.log(f + 1 / n) for f in fractions],
            "raw": [f * n for f in fractions],
        }[form]
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


def of_logits(logits, teacher, valid=None, *, has_regions=False, **options):
    student = class_probabilities(logits, has_regions=has_regions)
    return deep_distribution_loss(student, teacher, valid, has_regions=has_regions, **options)


@DIMS
@REGIONS
@IGNORE
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_equals_plain_loops_in_value_and_gradient(dim, has_regions, ignore, form, direction):
    case = random_case(dim, has_regions=has_regions, size=8)
    full_size = (16,) * dim  # the output is a side output of half the resolution: grid 2 per axis
    assert patch_grid(full_size, 4) == (2,) * dim
    valid = torch.ones(2, 1, *[8] * dim, dtype=torch.bool)
    if ignore:
        valid[0, 0, :4, :4] = False  # a whole patch in 2D
        valid[1, 0, 1] = False
        valid[1, 0, 4:, 4:] = False  # but for one voxel, which is enough
        valid[1, 0, -1, -1] = True
    options = {"form": form, "direction": direction}

    def plain(x):
        return reference(
            class_probabilities(x, has_regions=has_regions).numpy(), case.teacher.numpy(), valid.numpy(), full_size,
            has_regions=has_regions, grid=(2,) * dim, tau=2.0, **options,
        )  # fmt: skip

    logits = case.logits.requires_grad_()
    value = of_logits(
        logits, case.teacher, valid if ignore else None,
        has_regions=has_regions, full_size=full_size, temperature=2.0, **options,
    )  # fmt: skip
    assert value.item() == pytest.approx(plain(logits.detach()), rel=1e-9)

    value.backward()
    for index in [(0, 0, *[1] * dim), (1, 2, *[6] * dim), (0, 1, *[5] * dim)]:
        step = torch.zeros_like(logits)
        step[index] = 1e-5
        slope = (plain(logits.detach() + step) - plain(logits.detach() - step)) / 2e-5
        assert logits.grad[index].item() == pytest.approx(slope, rel=1e-4, abs=1e-10)


def test_known_value_of_one_patch():
    """One patch of 4 voxels, tau 1: counts + 1 are (3, 3) for the student and (5, 1) for the teacher."""
    student = torch.full((1, 2, 2, 2), 0.5)
    teacher = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    expected = 0.5 * math.log(0.5 / (5 / 6)) + 0.5 * math.log(0.5 / (1 / 6))
    got = deep_distribution_loss(student, teacher, patches_per_axis=1, temperature=1.0)
    assert got.item() == pytest.approx(expected, rel=1e-6)
    reverse = 5 / 6 * math.log((5 / 6) / 0.5) + 1 / 6 * math.log((1 / 6) / 0.5)
    got = deep_distribution_loss(student, teacher, patches_per_axis=1, temperature=1.0, direction="teacher_student")
    assert got.item() == pytest.approx(reverse, rel=1e-6)


@REGIONS
def test_student_equal_to_teacher_gives_zero_and_no_gradient(has_regions):
    logits = random_case(has_regions=has_regions, size=32).logits
    teacher = class_probabilities(logits, has_regions=has_regions)
    value = of_logits(logits.requires_grad_(), teacher, has_regions=has_regions)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-14)
    assert logits.grad.abs().max() < 1e-14


def test_log_form_does_not_feel_the_image_size_and_the_raw_form_does():
    case = random_case(size=32)

    def values(form):
        twice = [x.repeat_interleave(2, 2).repeat_interleave(2, 3) for x in (case.logits, case.teacher)]
        return of_logits(case.logits, case.teacher, form=form), of_logits(*twice, form=form)

    small, large = values("log")
    assert large.item() == pytest.approx(small.item(), rel=0.15)
    small, large = values("raw")
    assert large > 2 * small


def test_permuting_the_classes_changes_nothing():
    case = random_case(3, size=8)
    order = [2, 0, 1]
    expected = of_logits(case.logits, case.teacher)
    assert torch.allclose(of_logits(case.logits[:, order], case.teacher[:, order]), expected)


@DIMS
@REGIONS
@pytest.mark.parametrize("form", FORMS)
def test_gradcheck(dim, has_regions, form):
    case = random_case(dim, has_regions=has_regions, size=3, batch=1)
    valid = torch.ones(1, 1, *[3] * dim, dtype=torch.bool)
    valid[0, 0, 0] = False

    def loss(logits):
        return of_logits(logits, case.teacher, valid, has_regions=has_regions, full_size=(16,) * dim, form=form)

    assert torch.autograd.gradcheck(loss, case.logits.requires_grad_(), atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize("size", [(5, 7), (6, 6), (3, 2)])
def test_outputs_that_the_grid_does_not_divide_or_that_are_smaller(size):
    """Overlapping bins, as adaptive average pooling has them: a constant map keeps its fractions."""
    student = torch.tensor([0.25, 0.75]).view(1, 2, 1, 1).expand(1, 2, *size)
    teacher = torch.tensor([0.5, 0.5]).view(1, 2, 1, 1).expand(1, 2, *size)
    value = deep_distribution_loss(student, teacher, temperature=1.0, full_size=(64, 64))
    n = 256
    p = np.array([0.25 + 1 / n, 0.75 + 1 / n]) / (1 + 2 / n)
    assert value.item() == pytest.approx(float((p * np.log(p / 0.5)).sum()), rel=1e-4)


def test_a_3d_map_of_depth_one_is_the_2d_map():
    case = random_case(size=32)
    flat = of_logits(case.logits, case.teacher)
    deep = of_logits(case.logits[:, :, None], case.teacher[:, :, None])
    assert torch.allclose(flat, deep)


@pytest.mark.parametrize("form", FORMS)
@REGIONS
@HALF
def test_half_precision_extremes_stay_finite(form, has_regions, dtype):
    """Background everywhere against foreground everywhere, logits of +-1e4, 10^5 voxels, under autocast."""
    logits = torch.full((1, 2, 320, 320), -1e4, dtype=dtype)
    logits[:, 0] = 1e4
    teacher = class_probabilities(-logits, has_regions=has_regions)
    logits.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = of_logits(logits, teacher, has_regions=has_regions, form=form)
    value.backward()
    assert value.dtype == torch.float32 and value.isfinite() and logits.grad.isfinite().all()


def test_ignored_voxels_change_nothing():
    case = random_case(size=32, ignore=True)
    valid = case.valid.clone()
    valid[0, :, :8, :8] = False
    noise = torch.where(valid, 0.0, 5.0).double() * torch.randn_like(case.logits)
    student = (case.logits + noise).requires_grad_()
    other = of_logits(student, class_probabilities(case.teacher.log() - noise, has_regions=False), valid)
    assert torch.allclose(of_logits(case.logits, case.teacher, valid), other)
    other.backward()
    assert (student.grad * ~valid).abs().max() == 0 < student.grad.abs().max()


@REGIONS
def test_nothing_valid_gives_a_connected_zero(has_regions):
    case = random_case(size=32, has_regions=has_regions)
    nothing = torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    logits = case.logits.requires_grad_()
    value = of_logits(logits, case.teacher, nothing, has_regions=has_regions)
    value.backward()
    assert value.item() == 0 and logits.grad.abs().max() == 0


def test_the_teacher_gets_no_gradient():
    case = random_case(size=8)
    of_logits(case.logits.requires_grad_(), case.teacher.requires_grad_()).backward()
    assert case.teacher.grad is None and case.logits.grad.abs().max() > 0


@REGIONS
@IGNORE
def test_the_term_is_the_sum_over_the_outputs_that_are_trained(has_regions, ignore):
    """Each at its own resolution with the full-resolution output's grid; the lowest, of weight 0, is left out."""
    options = {"patches_per_axis": 2, "temperature": 1.5, "form": "raw", "direction": "teacher_student"}
    step = random_step(has_regions=has_regions, ignore=ignore)
    expected = sum(
        deep_distribution_loss(
            class_probabilities(step.outputs[head], has_regions=has_regions),
            class_probabilities(step.teacher_outputs[head], has_regions=has_regions),
            step.valid(head),
            has_regions=has_regions,
            full_size=(32, 32),
            **options,
        )
        for head in (0, 1)
    )
    values = DeepDistribution(weight=0.5, **options).weighted(step)
    assert list(values) == ["ddl"]
    torch.testing.assert_close(values["ddl"], 0.5 * expected)
    values["ddl"].backward()
    assert step.outputs[1].grad.abs().max() > 0 and step.outputs[2].grad is None


def test_the_term_names_its_settings():
    assert repr(DeepDistribution(weight=0.5, patches_per_axis=8)) == (
        "DeepDistribution(weight=0.5, patches_per_axis=8, temperature=3.0, form=log, direction=student_teacher)"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"form": "logs"}, "form must be one of .* got 'logs'"),
        ({"direction": "both"}, "direction must be one of .* got 'both'"),
        ({"temperature": 0.0}, "temperature must be above 0, got 0.0"),
        ({"patches_per_axis": 0}, "at least 1, got 0"),
        ({"weight": -0.5}, "weight of DeepDistribution must not be negative, got -0.5"),
    ],
)
def test_refuses_unusable_options(arguments, words):
    with pytest.raises(ValueError, match=words):
        DeepDistribution(**arguments)
