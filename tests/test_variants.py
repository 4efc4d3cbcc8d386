"""The trainings of docs/results.md still run: found as the page says, an epoch without and one with a teacher."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
from toy import make_batch, make_trainer, run_epoch, start_epoch

from nnunet_skd.compat import find_trainer

VARIANTS = Path(__file__).parents[1] / "docs" / "variants"


@pytest.mark.parametrize(
    "name",
    [
        "nnUNetTrainer_short",
        "nnUNetTrainerDSKD_mixed_short",
        "nnUNetTrainerDSKD_pyramid_fine0",
        "nnUNetTrainerDSKD_ema_fine0",
        "nnUNetTrainerDSKD_heads_short",
        "nnUNetTrainerDSKD_mixed_overfit",
        "nnUNetTrainerDSKD_ACW_long",
    ],
)
def test_a_documented_training_runs_and_measures(nnunet_env, make_known, name):
    make_known(VARIANTS)
    trainer = make_trainer(find_trainer(name), stages=4)
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


def test_the_moving_average_lies_between_the_old_and_the_new_weights(nnunet_env, make_known):
    make_known(VARIANTS)
    trainer = make_trainer(find_trainer("nnUNetTrainerDSKD_ema_fine0"), stages=4)
    trainer.initialize()
    run_epoch(trainer, 0)
    old = next(trainer.network.parameters()).detach().clone()
    run_epoch(trainer, 1, steps=1)
    new = next(trainer.network.parameters()).detach()
    mean = next(trainer.teacher.parameters())
    assert mean.sub(old).abs().max() > 0
    assert mean.sub(old.lerp(new, 0.001)).abs().max() < 1e-7


def test_soft_targets_of_every_head_pull_each_head_to_the_teacher(nnunet_env, make_known):
    """The gradient in a head's logits: weight * alpha * (y - p_T) per voxel, by nnU-Net's weights of the heads."""
    make_known(VARIANTS)
    trainer = make_trainer(find_trainer("nnUNetTrainerDSKD_heads"), stages=4)
    trainer.initialize()
    run_epoch(trainer, 0)
    start_epoch(trainer, 1)
    trainer.train_step(make_batch(trainer, 1))  # the student moves away from its teacher
    trainer.loss.alpha = 0.25
    batch = make_batch(trainer, 2)
    teacher = trainer.teacher(batch["data"])
    expected = []
    for weight, z, y in zip(trainer.loss.segmentation_loss.weight_factors, teacher, batch["target"], strict=True):
        truth = torch.nn.functional.one_hot(y[:, 0], 3).movedim(-1, 1)
        expected.append(weight * 0.25 * (truth - z.softmax(1)) / y.numel())
    outputs = trainer.network(batch["data"])
    trainer.loss.teacher_outputs = teacher
    term = trainer.loss.terms(outputs, batch["target"])["psdl"]
    supervised = trainer.loss.supervised
    assert supervised == [0, 1]
    gradients = torch.autograd.grad(term, [outputs[i] for i in supervised])
    torch.testing.assert_close(gradients, tuple(expected[i] for i in supervised))


def test_shifted_labels_move_as_far_as_asked_and_nothing_else_changes(tmp_path):
    labels = np.zeros((1, 20, 30), np.uint8)
    labels[0, 8:12, 10:14] = 1
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / "raw" / folder).mkdir(parents=True)
        for case in range(3):
            sitk.WriteImage(sitk.GetImageFromArray(labels), tmp_path / "raw" / folder / f"case{case}.nii.gz")
    command = [sys.executable, VARIANTS / "shift_labels.py", tmp_path / "raw", tmp_path / "shifted", "4"]
    subprocess.run(command, check=True)
    shifts = []
    for case in range(3):
        image, moved = (
            sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "shifted" / folder / f"case{case}.nii.gz"))
            for folder in ("imagesTr", "labelsTr")
        )
        assert (image == labels).all() and moved.sum() == labels.sum()
        shifts.append(np.argwhere(moved).mean(0)[1:] - np.argwhere(labels).mean(0)[1:])
        assert np.hypot(*shifts[-1]) == pytest.approx(4, abs=0.75)  # rounded to whole voxels
    assert len(np.unique(shifts, axis=0)) == 3
