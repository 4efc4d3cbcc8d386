"""The trainings of docs/results.md still run: found as the page says, an epoch without and one with a teacher."""

import math
from pathlib import Path

import pandas as pd
import pytest
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from toy import make_trainer, run_epoch

VARIANTS = Path(__file__).parents[1] / "docs" / "variants"


@pytest.mark.parametrize(
    "name",
    [
        "nnUNetTrainer_short",
        "nnUNetTrainerDSKD_mixed_short",
        "nnUNetTrainerDSKD_pyramid_fine0",
        "nnUNetTrainerDSKD_ema_fine0",
        "nnUNetTrainerDSKD_ACW_long",
    ],
)
def test_a_documented_training_runs_and_measures(nnunet_env, monkeypatch, name):
    monkeypatch.setenv("nnUNet_extTrainer", str(VARIANTS))
    trainer = make_trainer(recursive_find_trainer_class_by_name(name), stages=4)
    trainer.initialize()
    for epoch in range(2):
        run_epoch(trainer, epoch)
    if name == "nnUNetTrainer_short":
        return
    table = pd.read_csv(f"{trainer.output_folder}/gradients.csv")
    assert table["epoch"].tolist() == [0, 1]
    assert math.isnan(table["moved"][0]) and table["moved"][1] > 0
    assert (table["gradient_segmentation"] > 0).all()
    assert table["gradient_ddl"][1] > 0


def test_the_moving_average_lies_between_the_old_and_the_new_weights(nnunet_env, monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", str(VARIANTS))
    trainer = make_trainer(recursive_find_trainer_class_by_name("nnUNetTrainerDSKD_ema_fine0"), stages=4)
    trainer.initialize()
    run_epoch(trainer, 0)
    old = next(trainer.network.parameters()).detach().clone()
    run_epoch(trainer, 1, steps=1)
    new = next(trainer.network.parameters()).detach()
    mean = next(trainer.teacher.parameters())
    assert mean.sub(old).abs().max() > 0
    assert mean.sub(old.lerp(new, 0.001)).abs().max() < 1e-7
