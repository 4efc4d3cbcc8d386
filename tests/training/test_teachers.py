"""The network of the previous epoch: which network, in which state, and with which buffers."""

import functools

import pytest
import torch
from torch import nn
from toy import initialized, make_batch, run_epoch, start_epoch

from nnunet_skd.teachers import FrozenCopy
from nnunet_skd.trainers.nnUNetTrainerDSKD import nnUNetTrainerDSKD


class Regularised(nn.Module):
    """Batch norm has buffers, and both act differently in training."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 1)
        )

    def forward(self, x):
        return [self.layers(x)]


class nnUNetTrainerDSKD_BatchNorm(nnUNetTrainerDSKD):
    """nnU-Net's network with batch norm and dropout."""

    @staticmethod
    @functools.wraps(nnUNetTrainerDSKD.build_network_architecture)  # nnU-Net reads the signature, which 2.7 changed
    def build_network_architecture(*arguments, **named):
        network = nnUNetTrainerDSKD.build_network_architecture(*arguments, **named)
        for module in list(network.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.InstanceNorm2d):
                    setattr(module, name, nn.Sequential(nn.BatchNorm2d(child.num_features), nn.Dropout2d(0.3)))
                    if hasattr(module, "all_modules"):
                        layers = [x for x in module.all_modules]
                        layers[1] = getattr(module, name)
                        module.all_modules = nn.Sequential(*layers)
        return network


def test_the_teacher_is_the_network_at_the_end_of_the_previous_epoch(nnunet_env):
    trainer = initialized(nnUNetTrainerDSKD, stages=3)
    start_epoch(trainer, 0)
    trainer.train_step(make_batch(trainer, 0))
    assert "ddl" not in trainer.loss.means.pop()  # no teacher yet
    assert trainer.teacher(make_batch(trainer)["data"]) is None

    batch = make_batch(trainer, 1)
    end_of_epoch = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    start_epoch(trainer, 1)
    trainer.train_step(make_batch(trainer, 1))
    assert abs(trainer.loss.means.pop()["ddl"]) < 1e-7  # student and teacher are still the same, up to rounding
    trainer.train_step(make_batch(trainer, 2))
    assert trainer.loss.means.pop()["ddl"] > 1e-7

    outputs = trainer.teacher(batch["data"])
    assert [tuple(x.shape[2:]) for x in outputs] == [(32, 32), (16, 16)]
    assert not any(x.requires_grad for x in outputs)
    trainer.network.load_state_dict(end_of_epoch)
    expected = trainer.network(batch["data"])
    assert all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True))


def test_the_teacher_has_the_buffers_too_and_is_in_evaluation_mode(nnunet_env):
    trainer = initialized(nnUNetTrainerDSKD_BatchNorm, stages=3)
    buffers = [name for name, _ in trainer.network.named_buffers() if "running_mean" in name]
    assert buffers
    run_epoch(trainer, 0)  # running means of nnU-Net's batch norm move
    data = make_batch(trainer, 5)["data"]
    trainer.network.eval()
    with torch.no_grad():
        expected = [x.clone() for x in trainer.network(data)]
    start_epoch(trainer, 1)
    trainer.train_step(make_batch(trainer, 1))
    for _ in range(2):  # no dropout: the same twice
        assert all(torch.equal(a, b) for a, b in zip(trainer.teacher(data), expected, strict=True))
    assert trainer.network.training


def test_a_frozen_copy_neither_learns_nor_follows():
    network = Regularised().train()
    copy = FrozenCopy(network, compile_network=False)
    data = torch.randn(2, 1, 8, 8)
    first = copy(data)[0]
    network(10 + data)[0].sum().backward()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert torch.equal(copy(data)[0], first) and not first.requires_grad
    assert network.training and not copy.module.training
    assert all(p.requires_grad for p in network.parameters())


def test_the_trainers_own_attributes_do_not_show_the_teacher(nnunet_env):
    trainer = initialized(nnUNetTrainerDSKD)
    start_epoch(trainer, 1)
    assert not any("teacher" in name for name in trainer.network.state_dict())
    assert not any("teacher" in name for name in trainer.loss.state_dict())


def test_a_trainer_that_is_never_trained_builds_no_teacher(nnunet_env, monkeypatch):
    """--val initialises and loads a trainer, and predicts with its network."""
    trainer = initialized(nnUNetTrainerDSKD)
    run_epoch(trainer, 0)
    file = str(nnunet_env / "checkpoint.pth")
    trainer.save_checkpoint(file)
    monkeypatch.setattr("nnunet_skd.teachers.FrozenCopy", lambda *_, **__: pytest.fail("a teacher was built"))
    again = initialized(nnUNetTrainerDSKD)
    again.load_checkpoint(file)
    again.set_deep_supervision_enabled(False)
    with torch.no_grad():
        again.network.eval()(make_batch(again)["data"])
