import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from nnunet_skd.distillation_terms import (
    class_wise_feature_loss,
    feature_reconstruction_loss,
    temperature_divergence,
    token_loss,
)

SIZES = pytest.mark.parametrize("size", [(3, 3), (3, 3, 3)], ids=["2d", "3d"])
REGIONS = pytest.mark.parametrize("has_regions", [False, True], ids=["labels", "regions"])


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


def inputs(size, channels=3):
    torch.manual_seed(0)
    logits, teacher = 2 * torch.randn(2, 2, channels, *size, dtype=torch.float64)
    weight = torch.rand(2, 1, *size) > 0.3
    return logits.requires_grad_(), teacher, torch.tensor(1.7, dtype=torch.float64, requires_grad=True), weight


def test_divergence_by_hand():
    logits, teacher = torch.zeros(1, 2, 1, 1), torch.tensor([math.log(3), 0.0]).reshape(1, 2, 1, 1)
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    got = temperature_divergence(logits, teacher, torch.tensor(1.0), None, has_regions=False)
    assert got.item() == pytest.approx(expected)
    # the same distributions at tau = 2, times tau^2
    got = temperature_divergence(logits, 2 * teacher, torch.tensor(2.0), None, has_regions=False)
    assert got.item() == pytest.approx(4 * expected)
    # a region's Bernoulli is that two-class softmax; the second region agrees
    got = temperature_divergence(logits, teacher, torch.tensor(1.0), None, has_regions=True)
    assert got.item() == pytest.approx(expected / 2)


@SIZES
@REGIONS
def test_divergence_equals_a_plain_loop(size, has_regions):
    logits, teacher, tau, weight = inputs(size)
    results = []
    for function in (temperature_divergence, plain_divergence):
        loss = function(logits, teacher, tau, weight, has_regions=has_regions)
        results.append((loss, *torch.autograd.grad(3 * loss, (logits, tau))))
    torch.testing.assert_close(*results)


@SIZES
@REGIONS
def test_divergence_passes_gradcheck(size, has_regions):
    logits, teacher, tau, weight = inputs(size)
    for mask in (weight, None):
        assert torch.autograd.gradcheck(
            lambda z, t, mask=mask: temperature_divergence(z, teacher, t, mask, has_regions=has_regions), (logits, tau)
        )


@REGIONS
def test_divergence_of_a_model_from_itself_is_exactly_zero(has_regions):
    logits = (100 * torch.randn(2, 4, 8, 8)).requires_grad_()
    tau = torch.tensor(3.9, requires_grad=True)
    loss = temperature_divergence(logits, logits, tau, None, has_regions=has_regions)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits)) and tau.grad.item() == 0


@REGIONS
def test_divergence_launches_as_many_operations_for_any_batch_size(has_regions):
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
            temperature_divergence(logits, teacher, torch.tensor(2.0), None, has_regions=has_regions)
        counts.append(Count.calls)
    assert counts[0] == counts[1] == counts[2] > 0


@REGIONS
@pytest.mark.parametrize("batch", [1, 3])
def test_divergence_of_odd_batches(has_regions, batch):
    logits, teacher = torch.randn(2, batch, 3, 4, 4, dtype=torch.float64)
    weight = torch.rand(batch, 1, 4, 4) > 0.3
    tau = torch.tensor(1.7, dtype=torch.float64)
    got = temperature_divergence(logits, teacher, tau, weight, has_regions=has_regions)
    torch.testing.assert_close(got, plain_divergence(logits, teacher, tau, weight, has_regions=has_regions))


@REGIONS
def test_divergence_ignores_what_does_not_count(has_regions):
    logits, teacher, tau, weight = inputs((3, 3))
    reference = temperature_divergence(logits, teacher, tau, weight, has_regions=has_regions)
    spoiled = torch.where(weight, logits.detach(), math.inf).requires_grad_()
    teacher_spoiled = torch.where(weight, teacher, math.nan)
    loss = temperature_divergence(spoiled, teacher_spoiled, tau, weight, has_regions=has_regions)
    loss.backward()
    assert loss == reference
    assert torch.isfinite(spoiled.grad).all() and not spoiled.grad[(~weight).expand_as(spoiled)].any()

    nothing = temperature_divergence(logits, teacher, tau, weight & False, has_regions=has_regions)
    nothing.backward()
    assert nothing.item() == 0 and not logits.grad.any() and tau.grad is not None


@REGIONS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_divergence_of_half_precision(dtype, has_regions):
    torch.manual_seed(0)
    student, teacher = 5 * torch.randn(2, 1, 3, 400, 400)
    half, tau = student.to(dtype).requires_grad_(), torch.tensor(3.9, requires_grad=True)
    loss = temperature_divergence(half, teacher.to(dtype), tau, None, has_regions=has_regions)
    scale = 65536.0  # the gradient scaler's
    (scale * loss).backward()
    full, tau_full = half.detach().float().requires_grad_(), torch.tensor(3.9, requires_grad=True)
    expected = temperature_divergence(full, teacher.to(dtype).float(), tau_full, None, has_regions=has_regions)
    (scale * expected).backward()
    assert loss.dtype == torch.float32 and half.grad.dtype == dtype
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(half.grad.float(), full.grad, rtol=1e-2, atol=1e-4)
    torch.testing.assert_close(tau.grad, tau_full.grad)


@REGIONS
def test_divergence_of_extreme_logits_is_finite(has_regions):
    logits = torch.tensor([3e4, -3e4, 0.0]).reshape(1, 3, 1, 1).requires_grad_()
    tau = torch.tensor(1.0, requires_grad=True)
    loss = temperature_divergence(logits, -logits, tau, None, has_regions=has_regions)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all() and torch.isfinite(tau.grad)


def test_the_teacher_gets_no_gradient():
    student, teacher = torch.randn(2, 1, 3, 4, 4).unbind()
    teacher.requires_grad_()
    losses = (
        temperature_divergence(student.requires_grad_(), teacher, torch.tensor(2.0), None, has_regions=False),
        class_wise_feature_loss(student.flatten(2), teacher.flatten(2), torch.ones(1, 3)),
        feature_reconstruction_loss(student, teacher, torch.ones(1, 1, 4, 4)),
    )
    sum(losses).backward()
    assert teacher.grad is None and student.grad is not None


def test_token_loss_of_labels():
    present = torch.tensor([[1.0, 0, 1, 0, 0]])
    assert token_loss(torch.zeros(1, 5, 5), present, None).item() == pytest.approx(math.log(5))
    assert token_loss(100 * torch.eye(5)[None], present, None).item() == 0
    tokens = torch.zeros(1, 5, 5)
    tokens[0, 0, 0] = math.log(4)  # class 0 is right with probability 4 / 8
    assert token_loss(tokens, present, None).item() == pytest.approx((math.log(2) + math.log(5)) / 2)
    tokens[0, 1] = 1e4  # an absent class
    assert token_loss(tokens, present, None).item() == pytest.approx((math.log(2) + math.log(5)) / 2)


def test_token_loss_of_regions():
    overlaps = torch.tensor([[[1.0, 0.5], [1.0, 1.0], [0.0, 0.0]]])
    assert token_loss(torch.zeros(1, 3, 2), torch.ones(1, 3), overlaps).item() == pytest.approx(math.log(2))
    tokens = torch.tensor([[[50.0, 0.0], [50.0, 50.0], [-50.0, -50.0]]])
    assert token_loss(tokens, torch.ones(1, 3), overlaps).item() == pytest.approx(math.log(2) / 6)
    assert token_loss(tokens, torch.tensor([[0.0, 1, 1]]), overlaps).item() == pytest.approx(0, abs=1e-6)


def test_class_wise_feature_loss():
    student = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]])
    teacher = torch.tensor([[[0.0, 3.0], [0.0, -1.0], [7.0, 7.0]]])
    for k, expected in enumerate((1.0, 2.0, 0.0)):
        present = torch.eye(3)[k : k + 1]
        assert class_wise_feature_loss(student, teacher, present).item() == pytest.approx(expected)
    features = torch.randn(2, 3, 32)
    assert class_wise_feature_loss(features, features.clone(), torch.ones(2, 3)).item() == 0
    torch.testing.assert_close(
        class_wise_feature_loss(features, features.flip(2), torch.ones(2, 3)),
        1 - nn.functional.cosine_similarity(features, features.flip(2), dim=2).mean(),
    )


@pytest.mark.parametrize("loss", ["token", "feature"])
def test_no_class_present_is_a_connected_zero(loss):
    x = torch.zeros(1, 3, 3, requires_grad=True)
    absent = torch.zeros(1, 3)
    value = token_loss(x, absent, None) if loss == "token" else class_wise_feature_loss(x, x + 1, absent)
    value.backward()
    assert value.item() == 0 and torch.equal(x.grad, torch.zeros_like(x))


@SIZES
def test_feature_reconstruction_equals_a_plain_loop(size):
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 2, 4, *size, dtype=torch.float64)
    student.requires_grad_()
    voxels = torch.randint(0, 3, (2, 1, *size)).double()

    def attention(x, counts):
        energy = [sum(f * f for f in v) / len(v) for v, c in zip(x.flatten(1).T, counts.flatten(), strict=True) if c]
        length = sum(e * e for e in energy) ** 0.5
        return [e / length for e in energy]

    expected = 0
    for b in range(2):
        pairs = zip(attention(student[b], voxels[b]), attention(teacher[b], voxels[b]), strict=True)
        expected = expected + sum((s - t) ** 2 for s, t in pairs) / 2
    loss = feature_reconstruction_loss(student, teacher, voxels)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, student), torch.autograd.grad(expected, student))
    assert torch.autograd.gradcheck(lambda x: feature_reconstruction_loss(x, teacher, voxels), (student,))


def test_feature_reconstruction_limits():
    everywhere = torch.ones(1, 1, 2, 2)
    left, right = (torch.tensor(x).reshape(1, 1, 2, 2) for x in ([1.0, 0, 1, 0], [0.0, 1, 0, 1]))
    assert feature_reconstruction_loss(left, right, everywhere).item() == pytest.approx(2)
    features = torch.randn(1, 4, 2, 2)
    assert feature_reconstruction_loss(features, 3 * features, everywhere).item() == pytest.approx(0, abs=1e-12)
    features.requires_grad_()
    nothing = feature_reconstruction_loss(features, right, 0 * everywhere)
    nothing.backward()
    assert nothing.item() == 0 and torch.equal(features.grad, torch.zeros_like(features))
