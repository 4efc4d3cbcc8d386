"""The divergence at a learnable temperature, and its lean form, which must be the same."""

import math

import pytest
import torch
from cases import DIMS, HALF, IGNORE, REGIONS
from torch.utils._python_dispatch import TorchDispatchMode

from nnunet_skd.losses.lean_temperature_divergence import lean_temperature_divergence
from nnunet_skd.losses.temperature_divergence import temperature_divergence

BOTH = pytest.mark.parametrize("divergence", [temperature_divergence, lean_temperature_divergence])


def plain_divergence(logits, teacher, tau, weight, *, has_regions):
    """One voxel and class after the other, on autograd."""
    channels = logits.shape[1]
    losses = []
    for z, t, counts in zip(
        logits.movedim(1, -1).reshape(-1, channels),
        teacher.movedim(1, -1).reshape(-1, channels),
        weight.flatten(),
        strict=True,
    ):
        if not counts:
            continue
        if has_regions:
            for k in range(channels):
                p, q = torch.sigmoid(t[k] / tau), torch.sigmoid(z[k] / tau)
                losses.append((p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()) / channels)
        else:
            p, q = (t / tau).exp() / (t / tau).exp().sum(), (z / tau).exp() / (z / tau).exp().sum()
            losses.append(sum(p[k] * (p[k] / q[k]).log() for k in range(channels)))
    return tau**2 * sum(losses) / (len(losses) / channels if has_regions else len(losses))


def inputs(dim, channels=3):
    size = (3,) * dim
    torch.manual_seed(0)
    logits, teacher = 2 * torch.randn(2, 2, channels, *size, dtype=torch.float64)
    weight = torch.rand(2, 1, *size) > 0.3
    return logits.requires_grad_(), teacher, torch.tensor(1.7, dtype=torch.float64, requires_grad=True), weight


@BOTH
def test_divergence_by_hand(divergence):
    logits, teacher = torch.zeros(1, 2, 1, 1), torch.tensor([math.log(3), 0.0]).reshape(1, 2, 1, 1)
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    got = divergence(logits, teacher, torch.tensor(1.0), None, has_regions=False)
    assert got.item() == pytest.approx(expected)
    # the same distributions at tau = 2, times tau^2
    got = divergence(logits, 2 * teacher, torch.tensor(2.0), None, has_regions=False)
    assert got.item() == pytest.approx(4 * expected)
    # a region's Bernoulli is that two-class softmax; the second region agrees
    got = divergence(logits, teacher, torch.tensor(1.0), None, has_regions=True)
    assert got.item() == pytest.approx(expected / 2)


@BOTH
@DIMS
@REGIONS
def test_divergence_equals_a_plain_loop(divergence, dim, has_regions):
    logits, teacher, tau, weight = inputs(dim)
    results = []
    for function in (divergence, plain_divergence):
        loss = function(logits, teacher, tau, weight, has_regions=has_regions)
        results.append((loss, *torch.autograd.grad(3 * loss, (logits, tau))))
    torch.testing.assert_close(*results)


@BOTH
@DIMS
@REGIONS
def test_divergence_passes_gradcheck(divergence, dim, has_regions):
    logits, teacher, tau, weight = inputs(dim)
    for mask in (weight, None):
        assert torch.autograd.gradcheck(
            lambda z, t, mask=mask: divergence(z, teacher, t, mask, has_regions=has_regions), (logits, tau)
        )


@BOTH
@REGIONS
def test_divergence_of_a_model_from_itself_is_zero(divergence, has_regions):
    logits = (100 * torch.randn(2, 4, 8, 8)).requires_grad_()
    tau = torch.tensor(3.9, requires_grad=True)
    loss = divergence(logits, logits, tau, None, has_regions=has_regions)
    loss.backward()
    assert loss.item() == 0
    rounding = 0 if divergence is lean_temperature_divergence else 1e-6  # of autograd's own formula
    assert logits.grad.abs().max() <= rounding and tau.grad.abs() <= rounding


@BOTH
@REGIONS
def test_divergence_launches_as_many_operations_for_any_batch_size(divergence, has_regions):
    """2D batches of nnU-Net hold up to hundreds of patches."""

    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            Count.calls += 1
            return function(*args, **(kwargs or {}))

    counts = []
    for batch in (2, 3, 50):
        logits, teacher = torch.randn(2, batch, 3, 4, 4)
        Count.calls = 0
        with Count():
            divergence(logits, teacher, torch.tensor(2.0), None, has_regions=has_regions)
        counts.append(Count.calls)
    assert counts[0] == counts[1] == counts[2] > 0


@BOTH
@REGIONS
@pytest.mark.parametrize("batch", [1, 3])
def test_divergence_of_odd_batches(divergence, has_regions, batch):
    logits, teacher = torch.randn(2, batch, 3, 4, 4, dtype=torch.float64)
    weight = torch.rand(batch, 1, 4, 4) > 0.3
    tau = torch.tensor(1.7, dtype=torch.float64)
    got = divergence(logits, teacher, tau, weight, has_regions=has_regions)
    torch.testing.assert_close(got, plain_divergence(logits, teacher, tau, weight, has_regions=has_regions))


@BOTH
@REGIONS
def test_divergence_ignores_what_does_not_count(divergence, has_regions):
    logits, teacher, tau, weight = inputs(2)
    reference = divergence(logits, teacher, tau, weight, has_regions=has_regions)
    spoiled = torch.where(weight, logits.detach(), math.inf).requires_grad_()
    teacher_spoiled = torch.where(weight, teacher, math.nan)
    loss = divergence(spoiled, teacher_spoiled, tau, weight, has_regions=has_regions)
    loss.backward()
    assert loss == reference
    assert torch.isfinite(spoiled.grad).all() and not spoiled.grad[(~weight).expand_as(spoiled)].any()

    nothing = divergence(logits, teacher, tau, weight & False, has_regions=has_regions)
    nothing.backward()
    assert nothing.item() == 0 and not logits.grad.any() and tau.grad is not None


@BOTH
@REGIONS
@HALF
def test_divergence_of_half_precision(divergence, dtype, has_regions):
    torch.manual_seed(0)
    student, teacher = 5 * torch.randn(2, 1, 3, 400, 400)
    half, tau = student.to(dtype).requires_grad_(), torch.tensor(3.9, requires_grad=True)
    loss = divergence(half, teacher.to(dtype), tau, None, has_regions=has_regions)
    scale = 65536.0  # the gradient scaler's
    (scale * loss).backward()
    full, tau_full = half.detach().float().requires_grad_(), torch.tensor(3.9, requires_grad=True)
    expected = divergence(full, teacher.to(dtype).float(), tau_full, None, has_regions=has_regions)
    (scale * expected).backward()
    assert loss.dtype == torch.float32 and half.grad.dtype == dtype
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(half.grad.float(), full.grad, rtol=1e-2, atol=1e-4)
    torch.testing.assert_close(tau.grad, tau_full.grad)


@BOTH
@REGIONS
def test_divergence_of_extreme_logits_is_finite(divergence, has_regions):
    logits = torch.tensor([3e4, -3e4, 0.0]).reshape(1, 3, 1, 1).requires_grad_()
    tau = torch.tensor(1.0, requires_grad=True)
    loss = divergence(logits, -logits, tau, None, has_regions=has_regions)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all() and torch.isfinite(tau.grad)


@BOTH
def test_the_teacher_gets_no_gradient(divergence):
    student, teacher = torch.randn(2, 1, 3, 4, 4).unbind()
    student.requires_grad_(), teacher.requires_grad_()
    divergence(student, teacher, torch.tensor(2.0)).backward()
    assert teacher.grad is None and student.grad is not None


@DIMS
@REGIONS
@IGNORE
@pytest.mark.parametrize("tau", [1.0, 3.9])
def test_the_lean_form_is_the_plain_form(dim, has_regions, ignore, tau):
    """To 1e-10 in double precision: value, and gradients in the logits and in tau."""
    logits, teacher, _, weight = inputs(dim, channels=5)
    tau = torch.tensor(tau, dtype=torch.float64, requires_grad=True)
    results = []
    for divergence in (temperature_divergence, lean_temperature_divergence):
        loss = divergence(logits, teacher, tau, weight if ignore else None, has_regions=has_regions)
        results.append((loss, *torch.autograd.grad(7 * loss, (logits, tau))))
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)
