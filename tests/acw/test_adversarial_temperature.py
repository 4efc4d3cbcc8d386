"""The temperature that moves against the student."""

import math

import pytest
import torch

from nnunet_skd.acw.adversarial_temperature import AdversarialTemperature, ReverseGradient, adversary_strength
from nnunet_skd.losses.temperature_divergence import temperature_divergence


def test_strength_is_a_half_cosine_over_a_24th():
    assert adversary_strength(0, 1000) == 0
    assert adversary_strength(21, 1000) == pytest.approx(0.5)
    assert adversary_strength(14, 1000) == pytest.approx(0.25)
    assert adversary_strength(42, 1000) == adversary_strength(999, 1000) == 1
    assert [adversary_strength(e, 1) for e in (0, 1)] == [0, 1]


def test_starting_value_and_bounds():
    temperature = AdversarialTemperature()
    assert temperature().item() == pytest.approx(1 + 4 / (1 + math.exp(-1)))
    for theta, tau in ((0.0, 3.0), (-1e30, 1.0), (1e30, 5.0)):
        with torch.no_grad():
            temperature.theta.fill_(theta)
        assert temperature().item() == tau


def test_other_bounds_are_kept():
    temperature = AdversarialTemperature(tau_min=2.0, tau_range=10.0)
    with torch.no_grad():
        temperature.theta.zero_()
    assert temperature().item() == 7
    assert temperature.extra_repr() == "tau_min=2.0, tau_range=10.0, adversarial=True"


@pytest.mark.parametrize("tau_min,tau_range", [(0, 4), (-1, 4), (1, 0)])
def test_bounds_that_allow_no_temperature_are_refused(tau_min, tau_range):
    with pytest.raises(ValueError, match=f"above 0, got {tau_min} and {tau_range}"):
        AdversarialTemperature(tau_min=tau_min, tau_range=tau_range)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_the_gradient_is_reversed_and_scaled(strength):
    value = torch.tensor(2.0, requires_grad=True)
    result = ReverseGradient.apply(value, torch.tensor(strength))
    assert result.item() == 2
    (5 * result).backward()
    assert value.grad.item() == pytest.approx(-5 * strength)


def test_a_fixed_temperature_has_neither_parameter_nor_state():
    temperature = AdversarialTemperature(adversarial=False)
    assert not list(temperature.parameters()) and not temperature.state_dict()
    assert temperature().item() == pytest.approx(AdversarialTemperature()().item())


def test_only_theta_is_in_the_state():
    assert list(AdversarialTemperature().state_dict()) == ["theta"]


def divergence(temperature, scale=3.0):
    generator = torch.Generator().manual_seed(0)
    student, teacher = scale * torch.randn(2, 2, 3, 8, 8, generator=generator)
    return temperature_divergence(student, teacher, temperature(), None, has_regions=False)


@pytest.mark.parametrize("epoch", [0, 500])
def test_a_step_on_theta_raises_the_loss(epoch):
    temperature = AdversarialTemperature()
    temperature.set_epoch(epoch, 1000)
    optimizer = torch.optim.SGD(temperature.parameters(), lr=0.1)
    before = divergence(temperature)
    before.backward()
    optimizer.step()
    after = divergence(temperature)
    assert after == before if epoch == 0 else after > before + 1e-4


@pytest.mark.parametrize("has_regions", [False, True])
def test_tau_stays_in_its_bounds_for_1000_hostile_steps(has_regions):
    torch.manual_seed(0)
    temperature = AdversarialTemperature()
    temperature.set_epoch(500, 1000)
    optimizer = torch.optim.SGD(temperature.parameters(), lr=1.0)
    for step in range(1000):
        student, teacher = 10.0 ** (step % 7 - 1) * torch.randn(2, 1, 3, 4, 4)
        optimizer.zero_grad()
        loss = temperature_divergence(student, teacher, temperature(), None, has_regions=has_regions)
        (loss * (-1) ** (step // 50)).backward()
        optimizer.step()
        assert 1 <= temperature().item() <= 5
        assert torch.isfinite(loss) and torch.isfinite(temperature.theta)
