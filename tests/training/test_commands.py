"""nnU-Net's own commands and flags with our trainers, on one tiny planned dataset in 3D with a cascade."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from commands import IN_ONE_PROCESS, fold_folder, make_known_to_commands, plan_and_preprocess, run, shrink_plans

from nnunet_skd.tools.demo.phantoms import write_phantom_dataset
from nnunet_skd.tools.install.discovery import trainers_folder

pytestmark = pytest.mark.slow

BRIEF = """
from nnunet_skd.trainers.nnUNetTrainerDSKD_ACW import nnUNetTrainerDSKD_ACW


class nnUNetTrainerDSKD_ACW_brief(nnUNetTrainerDSKD_ACW):
    def initialize(self):
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 2, 3, 1
        super().initialize()
"""
TRAINER = "nnUNetTrainerDSKD_ACW_brief"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Five volumes of 32^3 with a low resolution of 16^3, planned once for every test of this file."""
    root = tmp_path_factory.mktemp("commands")
    (root / "trainers").mkdir()
    (root / "trainers" / "brief.py").write_text(BRIEF)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (root / name).mkdir()
            patch.setenv(name, str(root / name))
        patch.setenv("nnUNet_compile", "f")
        patch.setenv("nnUNet_n_proc_DA", "0")
        patch.setenv("nnUNet_def_n_proc", "1")
        make_known_to_commands(root, patch, root / "trainers", trainers_folder())
        dataset = write_phantom_dataset(root / "nnUNet_raw", 900, dim=3, num_train=5, num_test=1, size=(32,) * 3)
        plan_and_preprocess("3d_fullres")
        shrink_plans(dataset, patch=16)
        file = root / "nnUNet_preprocessed" / dataset.name / "nnUNetPlans.json"
        plans = json.loads(file.read_text())
        full = plans["configurations"]["3d_fullres"]
        plans["configurations"]["3d_lowres"] = {
            "inherits_from": "3d_fullres",
            "data_identifier": "nnUNetPlans_3d_lowres",
            "spacing": [2 * x for x in full["spacing"]],
            "median_image_size_in_voxels": [16, 16, 16],
            "next_stage": "3d_cascade_fullres",
        }
        plans["configurations"]["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
        file.write_text(json.dumps(plans))
        run("nnUNetv2_preprocess", "-d", 900, "-np", 1, "-c", "3d_lowres", nnUNet_n_proc_DA="1")
        yield dataset


def train(configuration, fold, *flags, trainer=TRAINER) -> str:
    return run("nnUNetv2_train", 900, configuration, fold, "-tr", trainer, "-device", "cpu", *flags)


def folder(dataset, configuration, fold, trainer=TRAINER) -> Path:
    return fold_folder(dataset, trainer, configuration, fold=fold)


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


@pytest.fixture(scope="module")
def trained(dataset) -> Path:
    printed = train("3d_fullres", 0, "--npz")
    assert "Distillation segmentation" in printed
    return folder(dataset, "3d_fullres", 0)


def test_npz_writes_the_probabilities_of_the_validation_cases(trained):
    archives = sorted((trained / "validation").glob("*.npz"))
    segmentations = sorted((trained / "validation").glob("*.nii.gz"))
    assert [x.stem for x in archives] == [x.name.removesuffix(".nii.gz") for x in segmentations] != []
    probabilities = np.load(archives[0])["probabilities"]
    assert probabilities.shape[1:] == (32, 32, 32)
    np.testing.assert_allclose(probabilities.sum(0, dtype=np.float32), 1, atol=5e-3)
    assert (trained / "validation" / "summary.json").is_file()


def test_validation_alone_predicts_and_leaves_the_training_as_it_is(trained):
    before = files(trained)
    for file in (trained / "validation").iterdir():
        file.unlink()
    printed = train("3d_fullres", 0, "--val", "--val_best")
    assert "Mean Validation Dice" in printed and "Epoch " not in printed
    assert (trained / "validation" / "summary.json").is_file()
    after = files(trained)
    kept = {name for name in before if name.endswith((".pth", ".csv", ".png"))}
    assert {"checkpoint_final.pth", "checkpoint_best.pth", "distillation.csv", "distillation.png"} <= kept
    assert all(after[name] == before[name] for name in kept)


def test_a_training_starts_from_pretrained_weights(dataset, trained):
    printed = train("3d_fullres", 1, "-pretrained_weights", trained / "checkpoint_final.pth")
    assert "Loading pretrained weights from file" in printed
    table = pd.read_csv(folder(dataset, "3d_fullres", 1) / "distillation.csv")
    assert table["epoch"].tolist() == [0, 1] and table["ddl"][1] > 0


def test_stock_nnunet_continues_our_training(dataset, trained):
    """--c with nnU-Net's own trainer, at its last epoch."""
    ours, theirs = TRAINER, "nnUNetTrainer_5epochs"
    stock = folder(dataset, "3d_fullres", 0, theirs)
    stock.mkdir(parents=True)
    checkpoint = torch.load(trained / "checkpoint_best.pth", map_location="cpu", weights_only=False)
    assert checkpoint["trainer_name"] == ours and checkpoint["distillation"]["terms"]
    torch.save(checkpoint | {"current_epoch": 5}, stock / "checkpoint_latest.pth")
    printed = train("3d_fullres", 0, "--c", trainer=theirs)
    assert "Mean Validation Dice" in printed


def test_both_stages_of_a_cascade(dataset):
    """Of the low resolution, trained on all cases, come the channels of the full resolution."""
    train("3d_lowres", "all")
    segmentations = folder(dataset, "3d_lowres", "all").parent / "predicted_next_stage" / "3d_cascade_fullres"
    assert len(list(segmentations.iterdir())) == 5
    printed = train("3d_cascade_fullres", "all")
    fold = folder(dataset, "3d_cascade_fullres", "all")
    table = pd.read_csv(fold / "distillation.csv")
    assert table["ddl"][1] > 0 and np.isfinite(table.drop(columns="alpha")).all(axis=None)
    assert "-prev_stage_predictions PREVIOUS_STAGE_FOLDER" in printed
    first, second = (Path(os.environ["nnUNet_results"]) / name for name in ("first_stage", "second_stage"))
    arguments = ("-i", dataset / "imagesTs", "-d", 900, "-tr", TRAINER, "-f", "all", "-device", "cpu", "--disable_tta")
    run("nnUNetv2_predict", *arguments, "-o", first, "-c", "3d_lowres", *IN_ONE_PROCESS)
    # not in one process: 2.6.4 and 2.7.0 forget the first stage there
    run(
        "nnUNetv2_predict", *arguments, "-o", second, "-c", "3d_cascade_fullres", "-npp", 1, "-nps", 1,
        "-prev_stage_predictions", first,
    )  # fmt: skip
    assert len(list(second.glob("*.nii.gz"))) == 1
