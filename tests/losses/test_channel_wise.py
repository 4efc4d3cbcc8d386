"""CWD: a distribution over the positions of each channel."""

import math

import numpy as np
import pytest
import torch
from cases import DIMS, HALF, REGIONS, random_step

from nnunet_skd.losses.channel_wise import ChannelWise, channel_wise_loss


def random_input(dim=2, size=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z, teacher = (torch.randn(2, 3, *(size,) * dim, generator=generator, dtype=torch.float64) for _ in range(2))
    return z.requires_grad_(), teacher, torch.rand(2, 1, *(size,) * dim, generator=generator) > 0.3


def plain_loops(z, teacher, valid, tau):
    z, teacher, valid = (x.detach().numpy() for x in (z, teacher, valid))
    value, gradient = 0.0, np.zeros_like(z)
    for b in range(len(z)):
        counts = valid[b, 0]
        for k in range(z.shape[1]):
            p, q = (np.exp(x[b, k][counts] / tau) for x in (teacher, z))
            p, q = p / p.sum(), q / q.sum()
            value += tau**2 * (p * np.log(p / q)).sum() / (len(z) * z.shape[1])
            gradient[b, k][counts] = tau * (q - p) / (len(z) * z.shape[1])
    return value, gradient


@DIMS
@pytest.mark.parametrize("tau", [1.0, 4.0])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_plain_loops_in_value_and_gradient(dim, tau, masked):
    z, teacher, valid = random_input(dim)
    if not masked:
        valid = torch.ones_like(valid)
    expected, gradient = plain_loops(z, teacher, valid, tau)
    value = channel_wise_loss(z, teacher, valid if masked else None, temperature=tau)
    value.backward()
    assert value.item() == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(z.grad, torch.from_numpy(gradient))


def test_a_known_value_by_hand():
    z, teacher = torch.zeros(1, 1, 2), torch.tensor([[[0.0, 4 * math.log(3)]]])
    entropy = 0.25 * math.log(0.25) + 0.75 * math.log(0.75)
    assert channel_wise_loss(z, teacher).item() == pytest.approx(16 * (entropy + math.log(2)))


def test_passes_gradcheck():
    z, teacher, valid = random_input()
    assert torch.autograd.gradcheck(lambda z: channel_wise_loss(z, teacher, valid), (z,))


def test_a_constant_added_to_a_channel_changes_nothing():
    """It compares where a class is, not how much of it there is."""
    z, teacher, valid = random_input()
    shift = torch.tensor([1.0, -20.0, 300.0], dtype=torch.float64).view(1, 3, 1, 1)
    value = channel_wise_loss(z, teacher, valid).item()
    assert channel_wise_loss(z + shift, teacher - 2 * shift, valid).item() == pytest.approx(value)
    assert channel_wise_loss(teacher + shift, teacher).item() == pytest.approx(0, abs=1e-12)


def test_positions_that_do_not_count_do_not_matter():
    z, teacher, valid = random_input()
    value = channel_wise_loss(z, teacher, valid)
    spoiled = channel_wise_loss(torch.where(valid, z, math.inf), torch.where(valid, teacher, math.nan), valid)
    assert spoiled == value
    nothing = channel_wise_loss(z, teacher, valid & False)
    nothing.backward()
    assert nothing.item() == 0 and torch.equal(z.grad, torch.zeros_like(z))


@HALF
@pytest.mark.parametrize("masked", [False, True])
def test_is_finite_in_half_precision(dtype, masked):
    z = torch.linspace(-1e4, 1e4, 2 * 3 * 64 * 64).view(2, 3, 64, 64).to(dtype).requires_grad_()
    valid = torch.rand(2, 1, 64, 64) > 0.5 if masked else None
    value = channel_wise_loss(z, -z.detach(), valid)
    value.backward()
    assert value.dtype == torch.float32 and value.isfinite() and z.grad.isfinite().all()


@REGIONS
def test_compares_labelled_voxels_and_on_the_second_stream_those_without_a_label(has_regions):
    for stream in (False, True):
        term, step = ChannelWise(weight=2.0), random_step(has_regions=has_regions, ignore=True)
        step.from_stream = stream
        ((name, value),) = term.weighted(step).items()
        where = ~step.valid(0) if stream else step.valid(0)
        expected = 2 * channel_wise_loss(step.outputs[0], step.teacher_outputs[0], where)
        assert name == ("cwd_unlabelled" if stream else "cwd") and name in term.names
        assert value.item() == pytest.approx(expected.item())


def test_without_any_label_every_voxel_counts():
    step = random_step()
    step.from_stream, step.target = True, None
    expected = 3 * channel_wise_loss(step.outputs[0], step.teacher_outputs[0])
    assert ChannelWise().weighted(step)["cwd_unlabelled"].item() == pytest.approx(expected.item())


def test_refuses_a_temperature_that_is_not_above_0():
    with pytest.raises(ValueError, match="temperature must be above 0"):
        ChannelWise(temperature=0)
