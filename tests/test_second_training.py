"""How a second training begins: with all weights of the model, by nnU-Net's own --c."""

from pathlib import Path

import pytest
import torch
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint
from toy import DATASET
from toy_dataset import Toy
from toy_models import finish

from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.pseudo_labels.second_training import BEGINNING, begin, was_trained

TRAINER = "nnUNetTrainer_5epochs"


@pytest.fixture
def weights(nnunet_env) -> Path:
    """Of a model of the toy dataset, in which nothing of the new training is left."""
    Toy(nnunet_env)
    return finish(stages=3) / "fold_0" / "checkpoint_final.pth"


def begun(weights: Path, fold: str = "all", trainer: str = TRAINER) -> Path:
    begin(DATASET, "2d", fold, trainer, "nnUNetPlans", weights)
    results = weights.parents[2]
    return results / f"{trainer}__nnUNetPlans__2d" / f"fold_{fold}"


def network_of(file: Path) -> dict[str, torch.Tensor]:
    return torch.load(file, weights_only=False)["network_weights"]


@pytest.mark.parametrize("fold", ["0", "all"])
def test_nnunet_continues_it_from_its_first_epoch_with_every_weight(weights, fold):
    folder = begun(weights, fold)
    assert [file.name for file in folder.glob("checkpoint_*")] == [BEGINNING]
    trainer = get_trainer_from_args(DATASET, "2d", fold if fold == "all" else 0, TRAINER, device=torch.device("cpu"))
    maybe_load_checkpoint(trainer, True, False, None)
    assert trainer.current_epoch == 0 and trainer.num_epochs == 5 and not trainer.optimizer.state
    loaded, expected = trainer.network.state_dict(), network_of(weights)
    assert any("seg_layers" in name for name in expected) and loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_one_that_has_had_an_epoch_is_left_alone_and_one_that_has_not_is_made_anew(weights):
    folder = begun(weights)
    assert not was_trained(folder)
    other = finish(stages=3, seed=7) / "fold_0" / "checkpoint_final.pth"
    begun(other)
    name = "encoder.stages.0.0.convs.0.conv.weight"
    assert torch.equal(network_of(folder / BEGINNING)[name], network_of(other)[name])
    (folder / "checkpoint_best.pth").touch()
    before = (folder / BEGINNING).stat().st_mtime_ns
    begun(other)
    assert was_trained(folder) and (folder / BEGINNING).stat().st_mtime_ns == before


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
