"""The optimizer of the terms' own parameters: beside nnU-Net's, whatever that is, under its gradient scaler."""

import pytest
import torch
from torch import nn

from nnunet_skd.own_parameters import OwnParameters


def parameters(seed=0):
    torch.manual_seed(seed)
    return nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(2)), nn.Parameter(torch.ones(()))


def groups(own, theta):
    return [{"params": [own]}, {"params": [theta], "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}]


def loss_of(network, own, theta, step):
    return (network.square().sum() + (own * (step + 1)).square().sum() + theta * own.sum()) * 0.3


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD([p], lr=0.01, momentum=0.99, nesterov=True, weight_decay=3e-5),
    "AdamW": lambda p: torch.optim.AdamW([p], lr=0.01, weight_decay=3e-5, amsgrad=True),
}


def by_hand(steps, gradient_of, learning_rates, scale_of=None):
    """Clip at 12, then torch's SGD written out: momentum 0.99, Nesterov, weight decay; plain steps for theta."""
    _, own, theta = (p.detach().clone() for p in parameters())
    velocity = None
    for step in range(steps):
        g_own, g_theta = gradient_of(own, theta, step)
        if not (g_own.isfinite().all() and g_theta.isfinite()):
            continue
        norm = (g_own.square().sum() + g_theta.square()).sqrt()
        factor = min(1.0, 12 / (norm.item() + 1e-6))
        g_own, g_theta = g_own * factor + 3e-5 * own, g_theta * factor
        velocity = g_own if velocity is None else 0.99 * velocity + g_own
        own = own - learning_rates[step] * (g_own + 0.99 * velocity)
        theta = theta - learning_rates[step] * g_theta
    return own, theta


def gradient_of(own, theta, step):
    return 0.3 * (2 * own * (step + 1) ** 2 + theta), 0.3 * own.sum()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_steps_are_plain_sgd_with_nnunets_learning_rate_and_clipping(optimizer):
    network, own, theta = parameters()
    optimizer = OPTIMIZERS[optimizer](network)
    extras = OwnParameters(groups(own, theta), optimizer, None, 3e-5)
    rates = [0.01 * (1 - step / 10) for step in range(8)]
    for step, rate in enumerate(rates):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        extras.zero_grad()
        (40 * loss_of(network, own, theta, step) if step == 3 else loss_of(network, own, theta, step)).backward()
        optimizer.step()
    expected = by_hand(
        8, lambda o, t, s: tuple(g * (40 if s == 3 else 1) for g in gradient_of(o, t, s)), rates
    )  # step 3 is clipped
    torch.testing.assert_close(own.detach(), expected[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(theta.detach(), expected[1], rtol=1e-4, atol=1e-6)


def test_nnunets_optimizer_and_its_state_are_what_they_are_without_us():
    states = []
    for extra in (False, True):
        network, own, theta = parameters()
        optimizer = OPTIMIZERS["SGD"](network)
        extras = OwnParameters(groups(own, theta), optimizer, None, 3e-5) if extra else None
        for step in range(3):
            optimizer.zero_grad()
            if extras:
                extras.zero_grad()
            loss_of(network, own, theta, step).backward()
            optimizer.step()
        states.append((network.detach(), optimizer.state_dict()))
    assert torch.equal(states[0][0], states[1][0])
    assert states[0][1]["param_groups"] == states[1][1]["param_groups"]
    assert states[0][1]["state"].keys() == states[1][1]["state"].keys()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_under_a_gradient_scaler_a_step_is_the_same_and_one_with_inf_is_skipped(optimizer):
    """nnU-Net's own sequence: scale, backward, unscale, clip, step, update."""
    results = []
    for scaled in (False, True):
        network, own, theta = parameters()
        nnunets = OPTIMIZERS[optimizer](network)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16) if scaled else None
        extras = OwnParameters(groups(own, theta), nnunets, scaler, 3e-5)
        for step in range(6):
            nnunets.zero_grad()
            extras.zero_grad()
            loss = loss_of(network, own, theta, step)
            if scaled:
                before = own.detach().clone(), theta.detach().clone(), network.detach().clone()
                scaler.scale(loss).backward()
                if step == 2:  # as a product that overflows in float16: of the own parameters too
                    for p in (network, own, theta):
                        p.grad.view(-1)[0] = torch.inf
                scaler.unscale_(nnunets)
                nn.utils.clip_grad_norm_([network], 12)
                scaler.step(nnunets)
                scaler.update()
                if step == 2:
                    assert all(torch.equal(a, b.detach()) for a, b in zip(before, (own, theta, network), strict=True))
                    assert scaler.get_scale() == 2.0**15
            elif step != 2:
                loss.backward()
                nn.utils.clip_grad_norm_([network], 12)
                nnunets.step()
        results.append((network.detach(), own.detach(), theta.detach()))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-7)
    if optimizer == "SGD":
        rates = [0.01] * 6
        expected = by_hand(
            6, lambda o, t, s: (torch.full_like(o, torch.inf), t) if s == 2 else gradient_of(o, t, s), rates
        )
        torch.testing.assert_close(results[1][1:], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("part", ["network", "own"])
def test_inf_in_one_optimizers_gradients_alone_keeps_every_parameter_finite(part):
    network, own, theta = parameters()
    optimizer, scaler = OPTIMIZERS["SGD"](network), torch.amp.GradScaler("cpu", init_scale=2.0**16)
    extras = OwnParameters(groups(own, theta), optimizer, scaler, 3e-5)
    for step in range(4):
        optimizer.zero_grad()
        extras.zero_grad()
        scaler.scale(loss_of(network, own, theta, step)).backward()
        if step == 1:
            {"network": network, "own": own}[part].grad[0] = torch.inf
        before = {"network": network.detach().clone(), "own": own.detach().clone()}
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_([network], 12)
        scaler.step(optimizer)
        scaler.update()
        if step == 1:
            assert torch.equal({"network": network, "own": own}[part].detach(), before[part])
            assert scaler.get_scale() == 2.0**15
    assert all(p.isfinite().all() for p in (network, own, theta))
    assert not torch.equal(own.detach(), before["own"]) and not torch.equal(network.detach(), before["network"])


def test_follows_a_new_optimizer_and_leaves_the_old_one():
    network, own, theta = parameters()
    first, second = OPTIMIZERS["SGD"](network), OPTIMIZERS["SGD"](network)
    extras = OwnParameters(groups(own, theta), first, None, 3e-5)
    extras.follow(first)
    extras.follow(second)
    moved = []
    for optimizer in (first, second):
        before = own.detach().clone()
        loss_of(network, own, theta, 0).backward()
        optimizer.step()
        moved.append(not torch.equal(own.detach(), before))
    assert moved == [False, True]


def test_a_scaler_waits_for_terms_that_have_not_begun():
    network, own, theta = parameters()
    optimizer, scaler = OPTIMIZERS["SGD"](network), torch.amp.GradScaler("cpu")
    OwnParameters(groups(own, theta), optimizer, scaler, 3e-5)
    before = own.detach().clone()
    scaler.scale(network.sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(own.detach(), before)


def test_gradients_of_two_processes_are_averaged(monkeypatch):
    """A sum would keep the processes alike, too."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "broadcast", lambda *_: None)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda gradient: gradient.mul_(2))  # both have the same
    network, own, theta = parameters()
    optimizer = torch.optim.SGD([network], lr=0.01)
    OwnParameters(groups(own, theta), optimizer, None, 3e-5)
    loss_of(network, own, theta, 0).backward()
    optimizer.step()
    torch.testing.assert_close((own, theta), by_hand(1, gradient_of, [0.01]))
