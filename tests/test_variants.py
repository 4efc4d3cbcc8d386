"""The trainers of experiments/ still train, and are what they say."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import variants
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from out_of_fold import nnUNetTrainerDistill_out_of_fold
from toy import assert_equal, everything, initialized, make_batch, run_epoch, save_as_of_this_epoch
from toy_data import LABELLED
from toy_models import finish, taught

from nnunet_skd.losses.channel_wise import ChannelWise
from nnunet_skd.tools.compact.presets import load_preset
from nnunet_skd.trainers.nnUNetTrainerDistill import nnUNetTrainerDistill

EXPERIMENTS = Path(variants.__file__).parent


def test_the_second_head_alone_trains_and_continues(nnunet_env):
    trainer = initialized(variants.nnUNetTrainerACWSKD_head, patch=16)
    for epoch in range(2):
        run_epoch(trainer, epoch, steps=2)
    row = trainer.distillation_log.rows[1]
    assert row["teacher"] > 0 and all(math.isfinite(row[name]) for name in trainer.loss.names)
    file = save_as_of_this_epoch(trainer, nnunet_env / "checkpoint.pth")
    again = initialized(variants.nnUNetTrainerACWSKD_head, patch=16, seed=1)
    again.load_checkpoint(file)
    for continued in (trainer, again):
        run_epoch(continued, 2, steps=2)
    assert_equal(everything(again), everything(trainer))


def test_variants_of_distill_differ_in_one_thing():
    ours, cwd, alone, hard = (
        [repr(term) for term in trainer.terms]
        for trainer in (
            nnUNetTrainerDistill,
            variants.nnUNetTrainerDistill_cwd,
            variants.nnUNetTrainerDistill_alone,
            variants.nnUNetTrainerDistill_alone_hard,
        )
    )
    assert cwd == [*ours, repr(ChannelWise())] and alone == ours[-1:]
    assert hard == [alone[0].replace("target=soft", "target=hard")] != alone


def test_each_patch_is_taught_by_the_fold_that_has_not_seen_its_image(nnunet_env, monkeypatch):
    folder = finish(folds=(0, 3), stages=4)
    trainer = taught(
        folder, fold="all", stages=4, trainer_class=nnUNetTrainerDistill_out_of_fold, monkeypatch=monkeypatch
    )
    teacher, batch = trainer.teacher, make_batch(trainer)
    teacher.mirror = False
    teacher.cases = [LABELLED[3], LABELLED[0]]
    outputs, expected = teacher(batch["data"]), [member.forward(batch["data"]) for member in teacher._members]
    for output, of_fold_0, of_fold_3 in zip(outputs, *expected, strict=False):
        if output is not None:
            torch.testing.assert_close(output, torch.stack([of_fold_3[0], of_fold_0[1]]))
    assert outputs[0] is not None
    assert trainer.loss.names == ["segmentation", "ddl", "psdl"]
    trainer.network.train()
    assert math.isfinite(trainer.train_step(batch | {"keys": [LABELLED[0]] * 2})["loss"])
    assert math.isnan(trainer.train_step(batch | {"keys": LABELLED[:2]})["loss"])  # nobody has not seen the second one


def test_the_full_resolution_weighs_one_more(nnunet_env):
    trainers = (variants.nnUNetTrainer_full_resolution, nnUNetTrainer)
    ours, stock = (initialized(trainer, patch=16).loss.weight_factors for trainer in trainers)
    assert np.subtract(ours, stock) == pytest.approx([1.0] + [0.0] * (len(stock) - 1))


@pytest.mark.parametrize("file", sorted((EXPERIMENTS / "presets").glob("*.json")), ids=lambda file: file.stem)
def test_a_preset_is_one_that_compact_takes(file):
    assert json.loads(file.read_text())["name"] == file.stem
    assert load_preset(str(file))


def test_shifted_labels_move_as_far_as_asked_and_nothing_else_changes(tmp_path):
    labels = np.zeros((1, 20, 30), np.uint8)
    labels[0, 8:12, 10:14] = 1
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / "raw" / folder).mkdir(parents=True)
        for case in range(3):
            sitk.WriteImage(sitk.GetImageFromArray(labels), tmp_path / "raw" / folder / f"case{case}.nii.gz")
    command = [sys.executable, EXPERIMENTS / "shift_labels.py", tmp_path / "raw", tmp_path / "shifted", "4"]
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
