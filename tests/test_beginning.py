"""How a second training begins: with all weights of the model, by nnU-Net's own --c."""

import shutil
from pathlib import Path

import pytest
import torch
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from toy import DATASET, run_epoch
from toy_dataset import Toy
from toy_models import finish

from nnunet_skd.tools.beginning import BEGINNING, begin, was_trained
from nnunet_skd.tools.errors import BadInput

TRAINER = "nnUNetTrainer_5epochs"


@pytest.fixture
def weights(nnunet_env) -> Path:
    """Of a model of the toy dataset, in which nothing of the new training is left."""
    Toy(nnunet_env)
    return finish(stages=3) / "fold_0" / "checkpoint_final.pth"


def begun(weights: Path, fold: str = "all", trainer: str = TRAINER) -> Path:
    folder = begin(DATASET, "2d", fold, trainer, "nnUNetPlans", weights)
    assert folder == weights.parents[2] / f"{trainer}__nnUNetPlans__2d" / f"fold_{fold}"
    return folder


def continued(fold: str = "all") -> nnUNetTrainer:
    """As nnUNetv2_train --c begins."""
    trainer = get_trainer_from_args(DATASET, "2d", fold if fold == "all" else 0, TRAINER, device=torch.device("cpu"))
    maybe_load_checkpoint(trainer, True, False, None)
    return trainer


def network_of(file: Path) -> dict[str, torch.Tensor]:
    return torch.load(file, weights_only=False)["network_weights"]


@pytest.mark.parametrize("fold", ["0", "all"])
def test_nnunet_continues_it_from_its_first_epoch_with_every_weight(weights, fold):
    folder = begun(weights, fold)
    assert [file.name for file in folder.glob("checkpoint_*")] == [BEGINNING]
    trainer = continued(fold)
    assert trainer.current_epoch == 0 and trainer.num_epochs == 5 and not trainer.optimizer.state
    loaded, expected = trainer.network.state_dict(), network_of(weights)
    assert any("seg_layers" in name for name in expected) and loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_a_training_that_is_stopped_goes_on_from_its_last_best_epoch(weights):
    """nnU-Net saves its latest checkpoint every 50 epochs only."""
    folder = begun(weights)
    trainer = continued()
    run_epoch(trainer, 0, steps=2)
    assert [file.name for file in folder.glob("checkpoint_*")] == ["checkpoint_best.pth"] and was_trained(folder)
    again = continued()
    assert again.current_epoch == 1
    assert all(map(torch.equal, again.network.state_dict().values(), trainer.network.state_dict().values()))


def test_one_that_has_had_an_epoch_is_left_alone_and_one_that_has_not_is_made_anew(weights):
    folder = begun(weights)
    assert not was_trained(folder)
    other = finish(stages=3, seed=7) / "fold_0" / "checkpoint_final.pth"
    begun(other)
    name = "encoder.stages.0.0.convs.0.conv.weight"
    assert torch.equal(network_of(folder / BEGINNING)[name], network_of(other)[name])
    content = torch.load(folder / BEGINNING, weights_only=False)
    torch.save(content | {"current_epoch": 1}, folder / BEGINNING)
    before = (folder / BEGINNING).stat().st_mtime_ns
    begun(weights)
    assert was_trained(folder) and (folder / BEGINNING).stat().st_mtime_ns == before
    (folder / BEGINNING).write_bytes(b"half")
    begun(weights)
    assert was_trained(folder) and (folder / BEGINNING).read_bytes() == b"half"


def test_a_trainer_that_cannot_be_set_up_is_refused(weights):
    """nnU-Net's benchmark trains fold 0 alone, on a GPU alone."""
    with pytest.raises(BadInput, match="nnUNetTrainerBenchmark_5epochs cannot be set up .*Name another with -tr"):
        begun(weights, trainer="nnUNetTrainerBenchmark_5epochs")


def test_a_folder_that_cannot_be_written_is_not_the_trainers_fault(weights):
    weights = weights.rename(weights.parents[4] / "weights.pth")
    results = weights.parent / "nnUNet_results"
    shutil.rmtree(results)
    results.touch()
    with pytest.raises(OSError, match="nnUNet_results"):
        begin(DATASET, "2d", "all", TRAINER, "nnUNetPlans", weights)


def test_weights_that_cannot_be_read_are_not_said_to_be_another_networks(weights):
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="checkpoint_final.pth"):
        begun(weights)


def test_weights_of_another_network_are_refused(weights):
    content = torch.load(weights, weights_only=False)
    content["network_weights"].popitem()
    torch.save(content, weights)
    with pytest.raises(BadInput, match="does not fit the network of nnUNetTrainer_5epochs .*Name another trainer"):
        begun(weights)
    assert not list(weights.parents[2].glob("*/fold_all/checkpoint_*"))


def test_w_and_b_hears_nothing_of_it(weights, monkeypatch):
    monkeypatch.setenv("nnUNet_wandb_enabled", "1")
    begun(weights)
    assert not list(weights.parents[2].rglob("wandb"))
