"""Our trainers joined with nnU-Net's own variants by inheritance, and what is refused."""

import functools
import math

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.benchmarking.nnUNetTrainerBenchmark_5epochs import (
    nnUNetTrainerBenchmark_5epochs,
)
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)
from nnunetv2.training.nnUNetTrainer.variants.loss.nnUNetTrainerCELoss import nnUNetTrainerCELoss
from nnunetv2.training.nnUNetTrainer.variants.loss.nnUNetTrainerDiceLoss import nnUNetTrainerDiceLoss
from nnunetv2.training.nnUNetTrainer.variants.lr_schedule.nnUNetTrainer_warmup import nnUNetTrainer_warmup
from nnunetv2.training.nnUNetTrainer.variants.lr_schedule.nnUNetTrainerCosAnneal import nnUNetTrainerCosAnneal
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerNoDeepSupervision import (
    nnUNetTrainerNoDeepSupervision,
)
from nnunetv2.training.nnUNetTrainer.variants.optimizer.nnUNetTrainerAdam import nnUNetTrainerAdam
from toy import initialized, make_batch, make_trainer, run_epoch, start_epoch

from nnunet_skd.trainers.nnUNetTrainerACWSKD import (
    nnUNetTrainerACWSKD,
    nnUNetTrainerACWSKD_noAT,
    nnUNetTrainerACWSKD_noCW,
    nnUNetTrainerACWSKD_noFRM,
)
from nnunet_skd.trainers.nnUNetTrainerDSKD import nnUNetTrainerDSKD, nnUNetTrainerDSKD_noPSDL
from nnunet_skd.trainers.nnUNetTrainerDSKD_ACW import nnUNetTrainerDSKD_ACW

pytestmark = pytest.mark.usefixtures("nnunet_env")

ACW = [
    nnUNetTrainerACWSKD,
    nnUNetTrainerACWSKD_noFRM,
    nnUNetTrainerACWSKD_noCW,
    nnUNetTrainerACWSKD_noAT,
    nnUNetTrainerDSKD_ACW,
]


def joined(*bases):
    return type("_".join(base.__name__ for base in bases), bases, {})


class nnUNetTrainerLambda(nnUNetTrainer):
    """Any other scheduler of torch."""

    def configure_optimizers(self):
        optimizer, _ = super().configure_optimizers()
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)


def lr_of(trainer) -> tuple[float, list[float]]:
    groups = trainer.own_parameters.optimizer.param_groups
    return trainer.optimizer.param_groups[0]["lr"], [group["lr"] for group in groups]


@pytest.mark.parametrize("trainer_class", ACW)
@pytest.mark.parametrize("schedule", [nnUNetTrainerCosAnneal, nnUNetTrainerLambda])
def test_every_scheduler_moves_the_terms_own_parameters_as_the_network(trainer_class, schedule):
    trainer = initialized(joined(trainer_class, schedule), patch=16)
    trainer.plot_network_architecture = lambda: None
    rates = []
    for epoch in range(3):
        run_epoch(trainer, epoch, steps=1)
        network, own = lr_of(trainer)
        assert own == [network] * len(own)
        rates.append(network)
    assert len(set(rates)) == 3


def test_warmup_keeps_the_terms_parameters_moving_through_its_phases():
    class Short(nnUNetTrainerACWSKD, nnUNetTrainer_warmup):
        def initialize(self):
            self.warmup_duration_whole_net, self.num_epochs = 2, 5
            super().initialize()

    trainer = initialized(Short, patch=16)
    before, rates = None, []
    for epoch in range(5):
        run_epoch(trainer, epoch, steps=1)
        network, own = lr_of(trainer)
        assert own == [network] * len(own)
        now = torch.cat([p.detach().flatten() for p in trainer.loss.terms.parameters()])
        assert before is None or network == 0 or not torch.equal(now, before)
        before = now
        rates.append(network)
    assert trainer.training_stage == "train" and rates[2] > rates[0] and rates[4] < rates[3] < rates[2]


def test_adam_for_the_network_leaves_the_temperature_its_plain_steps():
    """Adam's normalised steps would run tau to its bound."""
    trainer = initialized(joined(nnUNetTrainerACWSKD, nnUNetTrainerAdam))
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    start_epoch(trainer, 500)
    (term,) = trainer.loss.terms
    theta = term.temperature.theta
    for seed in range(3):
        before = theta.detach().clone()
        trainer.train_step(make_batch(trainer, seed))
        group = trainer.own_parameters.optimizer.param_groups[1]
        assert group["lr"] == trainer.optimizer.param_groups[0]["lr"]
        torch.testing.assert_close(theta.detach(), before - group["lr"] * theta.grad)
    assert term.temperature().item() == pytest.approx(3.924, abs=0.01)


@pytest.mark.parametrize("partner", [nnUNetTrainerNoMirroring, nnUNetTrainerDA5])
def test_combines_with_nnunets_variants_by_inheritance(partner):
    combined = joined(nnUNetTrainerDSKD, partner)
    trainer = initialized(combined)
    _, _, _, mirror_axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    _, _, _, expected = make_trainer(partner).configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert mirror_axes == expected
    assert combined.get_training_transforms is partner.get_training_transforms
    start_epoch(trainer, 1)
    trainer.train_step(make_batch(trainer))
    assert "ddl" in trainer.loss.means.pop()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("partner", "lowest"), [(nnUNetTrainerDiceLoss, -1.0), (nnUNetTrainerCELoss, 0.0), (nnUNetTrainer, -1.0)]
)
def test_shares_and_warnings_of_losses_with_and_without_dice(partner, lowest, compiled):
    """A Dice of 0.4 is 0.6 away from its best, not 0.4: no warning for a DDL of 0.5."""

    class Compiled(partner):
        def _build_loss(self):
            loss = super()._build_loss()
            if compiled and lowest:
                if isinstance(loss.loss, DC_and_CE_loss):
                    loss.loss.dc = torch.compile(loss.loss.dc, backend="eager")
                else:
                    loss.loss = torch.compile(loss.loss, backend="eager")
            return loss

    loss = initialized(joined(nnUNetTrainerDSKD_noPSDL, Compiled)).loss
    assert loss.task.lowest_value == lowest
    value = lowest + 0.6
    row = loss.row({"segmentation": value, "ddl": 0.5})
    assert row["share_segmentation"] == pytest.approx(0.6 / 1.1) and row["share_ddl"] == pytest.approx(0.5 / 1.1)
    assert loss.warnings([row]) == []
    assert len(loss.warnings([loss.row({"segmentation": value, "ddl": 0.7})])) == 1


def test_dice_alone_trains_with_the_deep_distribution_loss():
    trainer = initialized(joined(nnUNetTrainerDSKD_noPSDL, nnUNetTrainerDiceLoss))
    for epoch in range(2):
        run_epoch(trainer, epoch)
    assert trainer.distillation_log.rows[1]["ddl"] > 0
    assert all(math.isfinite(value) for value in trainer.distillation_log.rows[1].values())


def test_refuses_deep_supervision_off():
    with pytest.raises(ValueError, match="deep supervision is switched off"):
        initialized(joined(nnUNetTrainerDSKD, nnUNetTrainerNoDeepSupervision))


def test_refuses_a_single_output():
    with pytest.raises(ValueError, match="gives 1: its network has 2 stages.*three or more stages"):
        initialized(nnUNetTrainerDSKD, stages=2)


def test_refuses_a_network_without_outputs_to_distil_from():
    class nnUNetTrainerDSKD_OtherNetwork(nnUNetTrainerDSKD):
        @staticmethod
        @functools.wraps(nnUNetTrainerDSKD.build_network_architecture)  # nnU-Net reads the signature, which 2.7 changed
        def build_network_architecture(*arguments, **named):
            return torch.nn.Conv2d(1, 3, 1)

    with pytest.raises(ValueError, match="Conv2d has none.*planners"):
        initialized(nnUNetTrainerDSKD_OtherNetwork)


def test_refuses_a_loss_that_is_not_of_all_outputs():
    class nnUNetTrainerDSKD_OwnLoss(nnUNetTrainerDSKD):
        def _build_loss(self):
            return torch.nn.CrossEntropyLoss()

    with pytest.raises(ValueError, match="DeepSupervisionWrapper, and here is a CrossEntropyLoss. Wrap your loss"):
        initialized(nnUNetTrainerDSKD_OwnLoss)


def test_refuses_a_loss_without_cross_entropy_for_the_pixelwise_term():
    with pytest.raises(ValueError, match="not nnU-Net's Dice and cross-entropy.*Take Pixelwise out"):
        initialized(joined(nnUNetTrainerDSKD, nnUNetTrainerDiceLoss))


@pytest.mark.parametrize(
    ("regions", "change"),
    [(False, {"label_smoothing": 0.1}), (False, {"weight": torch.ones(3)}), (True, {"pos_weight": torch.ones(1)})],
    ids=["label smoothing", "class weights", "weights of positives"],
)
def test_refuses_a_cross_entropy_that_the_pixelwise_term_would_not_complete(regions, change):
    class nnUNetTrainerDSKD_Changed(nnUNetTrainerDSKD):
        def _build_loss(self):
            loss = super()._build_loss()
            for name, value in change.items():
                setattr(loss.loss.ce, name, value)
            return loss

    with pytest.raises(ValueError, match="without class weights or label smoothing"):
        initialized(nnUNetTrainerDSKD_Changed, regions=regions)


def test_nnunets_benchmark_does_not_swallow_a_refusal(monkeypatch):
    """It takes a RuntimeError for a crash, and ends as if nothing had been wrong."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    trainer = make_trainer(joined(nnUNetTrainerDSKD, nnUNetTrainerBenchmark_5epochs), stages=2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="at least two deep-supervision outputs"):
        trainer.run_training()
    assert not trainer.crashed_with_runtime_error
