"""The trainer around nnU-Net's: what it adds, and what it must leave alone."""

import math
import pickle

import pandas as pd
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from toy import FAMILIES, assert_equal, everything, initialized, make_batch, make_trainer, run_epoch, start_epoch

from nnunet_skd.catalogue import trainer_classes
from nnunet_skd.compat import external_loggers
from nnunet_skd.losses.deep_distribution import DeepDistribution
from nnunet_skd.losses.pixelwise import Pixelwise
from nnunet_skd.trainer import SelfDistillationTrainer
from nnunet_skd.trainers.nnUNetTrainerACWSKD import nnUNetTrainerACWSKD
from nnunet_skd.trainers.nnUNetTrainerDSKD import (
    nnUNetTrainerDSKD,
    nnUNetTrainerDSKD_noDDL,
    nnUNetTrainerDSKD_noPSDL,
)

pytestmark = pytest.mark.usefixtures("nnunet_env")


class nnUNetTrainerDSKD_weights0(nnUNetTrainerDSKD):
    terms = (DeepDistribution(weight=0.0), Pixelwise(weight=0.0))


class nnUNetTrainer_noTerms(SelfDistillationTrainer):
    pass


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("regions", [False, True])
def test_all_weights_zero_is_nnunet_to_the_last_bit_after_20_steps(dim, regions):
    results = []
    for trainer_class in (nnUNetTrainer, nnUNetTrainerDSKD_weights0, nnUNetTrainer_noTerms):
        trainer = initialized(trainer_class, stages=3, dim=dim, regions=regions, ignore=True, patch=16)
        for epoch in range(2):
            start_epoch(trainer, epoch)
            for seed in range(10):
                trainer.train_step(make_batch(trainer, seed))
        results.append({k: v.clone() for k, v in trainer.network.state_dict().items()})
    assert_equal(results[0], results[1])
    assert_equal(results[0], results[2])


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("trainer_class", FAMILIES)
def test_trains_every_kind_of_data_and_keeps_nnunets_state_dict(
    dim, residual, regions, ignore, trainer_class, monkeypatch
):
    # no mask of an untrained network hits random labels, and no class-wise term would be at work
    monkeypatch.setattr("nnunet_skd.acw.branch.masks_that_hit", lambda masks, *_, **__: torch.ones(masks.shape[:2]))
    kind = {"dim": dim, "residual": residual, "regions": regions, "ignore": ignore, "patch": 16, "stages": 4}
    trainer = initialized(trainer_class, **kind)
    for epoch in (0, 500):
        start_epoch(trainer, epoch)
        for seed in range(2):
            trainer.train_step(make_batch(trainer, seed))
    means = trainer.loss.means.pop()
    assert all(means[name] != 0 for name in trainer.loss.names)
    assert all(math.isfinite(value) for value in means.values())
    assert all(value.isfinite().all() for value in trainer.network.state_dict().values())

    stock = initialized(nnUNetTrainer, **kind)
    stock.network.load_state_dict(trainer.network.state_dict(), strict=True)


@pytest.mark.parametrize("trainer_class", FAMILIES)
def test_trains_the_second_stage_of_a_cascade(trainer_class):
    trainer = initialized(trainer_class, dim=3, cascade=True, patch=16)
    assert trainer.is_cascaded and trainer.num_input_channels == 3
    for epoch in (0, 500):
        start_epoch(trainer, epoch)
        trainer.train_step(make_batch(trainer))
        trainer.train_step(make_batch(trainer, 1))
    means = trainer.loss.means.pop()
    pixel_wise = {"ddl", "psdl", "adversarial", "reconstruction"} & set(trainer.loss.names)
    assert pixel_wise and all(abs(means[name]) > 1e-9 for name in pixel_wise)


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("trainer_class", FAMILIES)
def test_a_batch_that_is_ignored_everywhere_is_survived(trainer_class, regions):
    trainer = initialized(trainer_class, regions=regions, ignore=True)
    start_epoch(trainer, 500)
    batch = make_batch(trainer)
    for target in batch["target"]:
        if regions:
            target[:, -1] = True
        else:
            target.fill_(3)
    assert math.isfinite(trainer.train_step(batch)["loss"])
    trainer.train_step(make_batch(trainer))
    assert all(value.isfinite().all() for value in everything(trainer).values())


def test_validation_loss_is_nnunets_own():
    losses = []
    for trainer_class in (nnUNetTrainer, *FAMILIES):
        trainer = initialized(trainer_class)
        start_epoch(trainer, 3)
        trainer.on_validation_epoch_start()
        with torch.no_grad():
            losses.append(trainer.validation_step(make_batch(trainer))["loss"].item())
    assert losses == [losses[0]] * 4


@pytest.mark.parametrize("trainer_class", [nnUNetTrainerDSKD_noDDL, nnUNetTrainerDSKD_noPSDL])
def test_an_ablation_drops_its_term(trainer_class):
    trainer = initialized(trainer_class)
    start_epoch(trainer, 1)
    trainer.train_step(make_batch(trainer))
    dropped = trainer_class.__name__.split("_no")[1].lower()
    assert set(trainer.loss.means.pop()) - {"alpha"} == {"segmentation", "ddl", "psdl"} - {dropped}


def test_the_terms_of_a_class_are_no_trainings_own():
    """Two trainings in one process, as the bench runs them."""
    first, second = initialized(nnUNetTrainerACWSKD), initialized(nnUNetTrainerACWSKD)
    assert first.loss.terms[0] is not second.loss.terms[0] is not nnUNetTrainerACWSKD.terms[0]
    assert not {id(p) for p in first.loss.parameters()} & {id(p) for p in second.loss.parameters()}


def test_acw_skds_schedules_follow_the_trainers_epoch():
    """Of 1000 epochs: lambda is one half at 21, r is exp(-1.25) at 150; a mistake by one epoch shows."""
    trainer = initialized(nnUNetTrainerACWSKD)
    logged = []
    for epoch in (21, 150):
        start_epoch(trainer, epoch)
        trainer.train_step(make_batch(trainer))
        logged.append(trainer.loss.means.pop())
    assert logged[0]["lambda"] == pytest.approx(0.5, abs=1e-6) and logged[0]["ramp"] == 0
    assert logged[1]["ramp"] == pytest.approx(0.286505, rel=1e-5)


def test_every_epoch_leaves_a_row_a_line_and_a_plot():
    trainer = initialized(nnUNetTrainerDSKD)
    logged = []

    class ExternalLogger:
        def log(self, key, value, step):
            logged.append((key, value, step))

    external_loggers(trainer.logger).append(ExternalLogger())
    for epoch in range(3):
        run_epoch(trainer, epoch, plot=True)
    table = pd.read_csv(f"{trainer.output_folder}/distillation.csv")
    names = ["segmentation", "ddl", "psdl"]
    assert list(table) == ["epoch", *names, *(f"share_{name}" for name in names), "alpha"]
    assert table["epoch"].tolist() == [0, 1, 2]
    assert table.filter(regex="share_").sum(axis=1).tolist() == pytest.approx([1, 1, 1])
    assert table[names].iloc[0, 1:].tolist() == [0, 0]  # no teacher yet
    train_losses = trainer.logger.get_checkpoint()["train_losses"]
    assert table[names].sum(axis=1).tolist() == pytest.approx(train_losses, rel=1e-5)
    with open(trainer.log_file) as log:
        assert sum("Distillation segmentation" in line for line in log) == 3
    assert open(f"{trainer.output_folder}/distillation.png", "rb").read(4) == b"\x89PNG"
    if not external_loggers(trainer.logger):
        return  # nnU-Net 2.6 has none
    assert ("distillation/alpha", pytest.approx(0.001), 2) in logged
    assert {key for key, _, _ in logged if key.startswith("distillation/")} == {
        f"distillation/{name}" for name in table.columns[1:]
    }


def test_the_predict_command_is_printed_at_the_end():
    trainer = initialized(nnUNetTrainerDSKD)
    run_epoch(trainer, 0)
    trainer.on_train_end()
    assert (
        "nnUNetv2_predict -i INPUT_FOLDER -o OUTPUT_FOLDER -d Dataset900_Toy -c 2d -tr nnUNetTrainerDSKD "
        "-p nnUNetPlans -f 0 -device cpu"
    ) in open(trainer.log_file).read()


def test_catalogue_is_complete_and_defines_no_init():
    classes = trainer_classes()
    epochs = {"1epoch": 1} | {f"{n}epochs": n for n in (5, 10, 20, 50, 100, 250, 500)}
    for family in ("DSKD", "ACWSKD", "DSKD_ACW", "DSKD_unlabelled", "Distill"):
        family = f"nnUNetTrainer{family}"
        assert make_trainer(classes[family]).num_epochs == 1000
        for suffix, number in epochs.items():
            assert make_trainer(classes[f"{family}_{suffix}"]).num_epochs == number
    assert all("__init__" not in vars(trainer_class) for trainer_class in classes.values())
    assert not any("__" in name for name in classes)  # nnU-Net splits its folder names there
    assert all(pickle.loads(pickle.dumps(trainer_class)) is trainer_class for trainer_class in classes.values())


def held_after_a_step(trainer_class: type, regions: bool) -> set[tuple[int, ...]]:
    """Shapes of the tensors as large as an output that the trainer's loss still holds after a step."""
    trainer = initialized(trainer_class, regions=regions, ignore=True)
    for epoch in (0, 500):
        start_epoch(trainer, epoch)
        trainer.train_step(make_batch(trainer))
    size = trainer.configuration_manager.patch_size
    parameters = {id(x) for x in [*trainer.network.parameters(), *trainer.network.buffers()]}
    reachable, seen, found = [trainer.loss], set(), set()
    while reachable:
        item = reachable.pop()
        if id(item) in seen or isinstance(item, type):
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            if id(item) not in parameters and list(item.shape[2:]) == list(size):
                found.add(tuple(item.shape))
        elif isinstance(item, dict):
            reachable += item.values()
        elif isinstance(item, (list, tuple, set)):
            reachable += item
        elif getattr(item, "__closure__", None):
            reachable += [cell.cell_contents for cell in item.__closure__]
        elif hasattr(item, "__dict__"):
            reachable += vars(item).values()
    return found


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("trainer_class", FAMILIES)
def test_nothing_of_full_size_outlives_a_step(trainer_class, regions):
    """An unreduced loss map of 2 x 3 x 128^3 would be 50 MB."""
    assert held_after_a_step(trainer_class, regions) == set()
