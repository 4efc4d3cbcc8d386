"""The variants of experiments/ still train, and are what they say: terms, teachers and subclasses of ours."""

import ast
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
import variants
from cases import HEAD_WEIGHTS, IGNORE, REGIONS, random_step
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from out_of_fold import nnUNetTrainerDistill_out_of_fold
from toy import assert_equal, everything, initialized, make_batch, run_epoch, save_as_of_this_epoch
from toy_data import LABELLED
from toy_models import finish, taught

from nnunet_skd.losses.channel_wise import ChannelWise
from nnunet_skd.losses.deep_distribution import DeepDistribution, deep_distribution_loss
from nnunet_skd.losses.probabilities import class_probabilities
from nnunet_skd.tools.compact.presets import load_preset
from nnunet_skd.trainer import SelfDistillationTrainer
from nnunet_skd.trainers.nnUNetTrainerDistill import nnUNetTrainerDistill

EXPERIMENTS = Path(variants.__file__).parent
OWN_TEACHER = [  # the others need finished models, or are no trainers of this package
    name
    for name, value in vars(variants).items()
    if getattr(value, "__module__", "") == "variants"
    and issubclass(value, SelfDistillationTrainer)
    and not issubclass(value, nnUNetTrainerDistill)
]


@pytest.mark.parametrize("name", OWN_TEACHER)
def test_a_variant_trains_with_a_teacher_and_continues(nnunet_env, name):
    trainer_class = getattr(variants, name)
    trainer = initialized(trainer_class, patch=16)
    for epoch in range(2):
        run_epoch(trainer, epoch, steps=2)
    row = trainer.distillation_log.rows[1]
    assert all(math.isfinite(row[name]) for name in trainer.loss.names)
    assert row.get("ddl", 1) > 0 and row.get("teacher", 1) != 0
    file = save_as_of_this_epoch(trainer, nnunet_env / "checkpoint.pth")
    again = initialized(trainer_class, patch=16, seed=1)
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


def test_variants_are_ordinary_classes():
    """No class of an object is exchanged, no method of an instance replaced."""
    tree = ast.parse(Path(variants.__file__).read_text())
    targets = [t for node in ast.walk(tree) if isinstance(node, ast.Assign) for t in node.targets]
    assert not any(isinstance(t, ast.Attribute) and t.attr == "__class__" for t in targets)
    assert not any(isinstance(t, ast.Attribute) and not ast.unparse(t).startswith("self.") for t in targets)


def test_gradients_are_measured_beside_the_training(nnunet_env):
    measured, plain = (initialized(t, patch=16) for t in (variants.nnUNetTrainerDSKD_gradients,
                                                          variants.nnUNetTrainerDSKD))  # fmt: skip
    for trainer in (measured, plain):
        for epoch in range(2):
            run_epoch(trainer, epoch)
    assert_equal(everything(measured), everything(plain))  # measuring changes nothing
    table = pd.read_csv(f"{measured.output_folder}/gradients.csv")
    assert table["epoch"].tolist() == [0, 1]
    assert math.isnan(table["differs"][0]) and 0 <= table["differs"][1] <= 1
    assert (table["gradient_segmentation"] > 0).all() and table["gradient_ddl"][1] > 0


def test_soft_targets_of_every_head_pull_each_head_to_the_teacher():
    """The gradient in a head's logits: weight * alpha * (y - p_T) per voxel, by nnU-Net's weights of the heads."""
    step = random_step(epoch=500)
    term = variants.PixelwiseOfEveryHead(alpha=0.5)
    term.attach(step.task)
    value = term.weighted(step)["psdl"]
    gradients = torch.autograd.grad(value, step.outputs[:2])
    for weight, z, y, gradient in zip(HEAD_WEIGHTS, step.teacher_outputs, step.target, gradients, strict=False):
        truth = torch.nn.functional.one_hot(y[:, 0], 3).movedim(-1, 1)
        torch.testing.assert_close(gradient, weight * 0.25 * (truth - z.softmax(1)) / y.numel())


@REGIONS
@IGNORE
def test_a_mixed_target_is_the_patch_distribution_of_soft_labels(has_regions, ignore):
    """DDL's target: the fractions of alpha * p_T + (1 - alpha) * y, as PSDL's voxels have them."""
    step = random_step(has_regions=has_regions, ignore=ignore, epoch=500)
    expected = 0
    for head in (0, 1):
        truth, teacher = step.labels(head).float(), step.teacher_outputs[head]
        if not has_regions:
            truth = torch.nn.functional.one_hot(truth[:, 0].long(), 3).movedim(-1, 1).float()
        target = 0.25 * class_probabilities(teacher, has_regions=has_regions) + 0.75 * truth
        student = class_probabilities(step.outputs[head], has_regions=has_regions)
        expected += deep_distribution_loss(
            student, target, step.valid(head), has_regions=has_regions, full_size=(32, 32)
        )
    torch.testing.assert_close(variants.MixedDeepDistribution(alpha=0.5)(step), expected)


def test_a_mixed_target_does_not_hold_back_a_class_that_the_teacher_lacks():
    """Early in a training: where the truth has a class and the teacher does not, DDL must not push it down."""
    step = random_step(classes=2, epoch=100)
    for i, labels in enumerate(step.target):
        labels.zero_()
        labels[..., : 4 // 2**i, : 4 // 2**i] = 1
        for logits, value in ((step.teacher_outputs[i], 9.0), (step.outputs[i].data, 2.0)):
            logits[:, 0], logits[:, 1] = value, -value
    pushes = []
    for term in (DeepDistribution(), variants.MixedDeepDistribution(alpha=0.5)):
        (gradient,) = torch.autograd.grad(term(step), step.outputs[0], retain_graph=True)
        pushes.append(gradient[0, 1, :4, :4].sum().item())
    assert pushes[0] > 0 > pushes[1]  # gradient descent lowers the class, or raises it


def test_a_pyramid_is_the_mean_over_its_grids():
    step = random_step()
    grids = [DeepDistribution(patches_per_axis=n, temperature=2.0)(step) for n in (4, 8, 16)]
    torch.testing.assert_close(variants.PyramidDeepDistribution(temperature=2.0)(step), sum(grids) / 3)


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
