"""nnU-Net's real commands with images that nobody labelled, and with finished models as teachers, on phantoms."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from commands import BIN, HELD, IN_ONE_PROCESS, epochs, fold_folder, kill_in_the_third_epoch, run

from nnunet_skd.compat import READS_EXT_TRAINER
from nnunet_skd.tools.install.discovery import trainers_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not READS_EXT_TRAINER, reason="the trainers of this file are found by nnUNet_extTrainer"),
]

OWN_VARIANTS = f"""{HELD}
from nnunet_skd.losses.unlabelled import Unlabelled
from nnunet_skd.trainers.nnUNetTrainerDistill import nnUNetTrainerDistill
from nnunet_skd.trainers.nnUNetTrainerDSKD_unlabelled import nnUNetTrainerDSKD_unlabelled
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class Brief:
    epochs = 2

    def initialize(self):
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = self.epochs, 8, 1
        super().initialize()


class nnUNetTrainer_brief(Brief, nnUNetTrainer):
    pass


class nnUNetTrainerDSKD_unlabelled_brief(Brief, Held, nnUNetTrainerDSKD_unlabelled):
    epochs = 6
    terms = (Unlabelled(weight=0.5),)


class nnUNetTrainerDistill_brief(Brief, nnUNetTrainerDistill):
    pass
"""


@pytest.fixture
def ways(tmp_path) -> dict[str, str]:
    """Short trainers of the test's own, beside ours."""
    folder = tmp_path / "my_trainers"
    folder.mkdir()
    (folder / "my_variants.py").write_text(OWN_VARIANTS)
    return {"nnUNet_extTrainer": f"{folder}{os.pathsep}{trainers_folder()}"}


@pytest.fixture
def collected(nnunet_env, phantoms) -> Path:
    """A folder with three images whose labels nobody knows."""
    folder = nnunet_env / "collected"
    folder.mkdir()
    for i, file in enumerate(sorted((phantoms / "imagesTs").iterdir())):
        shutil.copy(file, folder / f"unknown_{i}_0000{file.suffix}")
    return folder


def train(trainer: str, *options: str) -> tuple[str, ...]:
    return ("nnUNetv2_train", "900", "2d", "0", "-tr", trainer, "-device", "cpu", *options)


def test_trains_on_unlabelled_images_continues_after_a_kill_and_predicts(nnunet_env, phantoms, collected, ways):
    trainer = "nnUNetTrainerDSKD_unlabelled_brief"
    command, folder = train(trainer), fold_folder(phantoms, trainer)
    done = subprocess.run(
        [BIN / command[0], *command[1:]], env=os.environ | ways | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode != 0 and not (folder / "checkpoint_final.pth").exists()
    (helps,) = re.findall(r"Run: (nnunet-skd unlabelled .*) -i FOLDER", done.stderr)
    run(*helps.split(), "-i", collected, "-np", 1)

    kill_in_the_third_epoch(command, folder, nnUNet_n_proc_DA="2", **ways)
    saved = torch.load(folder / "checkpoint_best.pth", map_location="cpu", weights_only=False)
    assert saved["distillation"]["teacher"]["steps"] == 8 * saved["current_epoch"]
    before = epochs(folder)

    printed = run(*command, "--c", nnUNet_n_proc_DA="2", **ways)
    assert [int(e) for e in re.findall(r": Epoch (\d+)$", printed, re.MULTILINE)] == [*range(saved["current_epoch"], 6)]
    after = epochs(folder)
    assert after["epoch"].tolist() == [*range(6)]
    # L_u itself may be 0: so short a training may forget its one class
    assert (after["accepted"] == 1).all() and (after["unlabelled"][after["teacher_share_1"] > 0] > 0).all()
    pd.testing.assert_frame_equal(after[: saved["current_epoch"]], before[: saved["current_epoch"]])
    final = torch.load(folder / "checkpoint_final.pth", map_location="cpu", weights_only=False)
    assert final["distillation"]["teacher"]["steps"] == 48
    assert "WARNING: this training was begun" not in printed
    run(*train(trainer, "--val"), **ways)

    output = nnunet_env / "predicted"
    run("nnUNetv2_predict", "-i", phantoms / "imagesTs", "-o", output, "-d", 900, "-c", "2d", "-tr", trainer, "-f", 0,
        "-device", "cpu", "--disable_tta", *IN_ONE_PROCESS, **ways)  # fmt: skip
    assert len(list(output.glob("*.png"))) == 3


def test_finished_models_teach_with_and_without_unlabelled_images_and_label_them(phantoms, collected, ways):
    run(*train("nnUNetTrainer_brief"), **ways)
    teacher = fold_folder(phantoms, "nnUNetTrainer_brief").parent
    trainer = "nnUNetTrainerDistill_brief"
    folder = fold_folder(phantoms, trainer)
    run(*train(trainer), nnUNet_skd_teacher=str(teacher), **ways)
    table = epochs(folder)
    assert (table["unlabelled"] == 0).all() and (table["ddl"] > 0).all()
    assert np.isfinite(table).all(axis=None)

    shutil.rmtree(folder)
    run("nnunet-skd", "unlabelled", "-d", 900, "-i", collected, "-np", 1)
    weights = teacher / "fold_0" / "checkpoint_final.pth"
    printed = run("nnunet-skd", "distill", "-d", 900, "-c", "2d", "--teacher", teacher, "-f", 0, "-tr", trainer,
                  "-device", "cpu", "-pretrained_weights", weights, **ways)  # fmt: skip
    assert f"The training begins with all weights of {weights}" in printed
    table = epochs(folder)
    assert table["epoch"].tolist() == [0, 1]
    # L_u itself may be 0: so short a training need not give its model a class that it knows
    assert table["unlabelled_weight"].iloc[1] == table["accepted"].iloc[1] == 1

    printed = run("nnunet-skd", "pseudo-labels", "-d", 900, "-i", collected, "--teacher", teacher, "-t", 181,
                  "-f", 0, "-tr", "nnUNetTrainer_brief", "-device", "cpu", "-np", 1, **ways)  # fmt: skip
    (line,) = re.findall(r"^  (nnUNetv2_train .*)$", printed, re.MULTILINE)
    printed = run(*line.split(), **ways)
    assert re.findall(r": Epoch (\d+)$", printed, re.MULTILINE)[0] == "0"
    new = Path(os.environ["nnUNet_results"], f"Dataset181_{phantoms.name[11:]}_pseudo", teacher.name, "fold_0")
    assert (new / "checkpoint_final.pth").is_file()
    validated = [{file.name for file in (f / "validation").glob("*.png")} for f in (new, teacher / "fold_0")]
    assert validated[0] == validated[1] != set()
