"""nnU-Net's real commands with this package's trainers, on phantoms."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from commands import (
    BIN,
    HELD,
    IN_ONE_PROCESS,
    epochs,
    fold_folder,
    kill_in_the_third_epoch,
    plan_and_preprocess,
    run,
    shrink_plans,
)
from skimage.io import imread

from nnunet_skd.compat import READS_EXT_TRAINER
from nnunet_skd.tools.calibrate.temperature import scaled
from nnunet_skd.tools.cli import main
from nnunet_skd.tools.demo.phantoms import write_phantom_dataset
from nnunet_skd.tools.install.discovery import trainers_folder

pytestmark = pytest.mark.slow


def predicted_labels(folder: Path) -> set:
    values = set()
    for file in sorted(folder.iterdir()):
        if file.suffix == ".png":
            values |= set(np.unique(imread(file)).tolist())
        elif file.name.endswith(".nii.gz"):
            values |= set(np.unique(np.asarray(nibabel.load(file).dataobj)).astype(int).tolist())
    return values


def test_2d_registered_then_by_variable(nnunet_env, phantoms, clone_of_nnunet):
    """Register, doctor, train and predict; then the same prediction by the variable instead, where nnU-Net reads it."""
    assert "Registered in" in run("nnunet-skd", "register")
    assert str(clone_of_nnunet) in run("nnunet-skd", "doctor", PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}")

    printed = run("nnUNetv2_train", 900, "2d", 0, "-tr", "nnUNetTrainerDSKD_1epoch", "-device", "cpu")
    fold = fold_folder(phantoms, "nnUNetTrainerDSKD_1epoch", "2d")
    command = next(line for line in printed.splitlines() if line.startswith("nnUNetv2_predict"))
    assert (fold / "distillation.csv").is_file() and (fold / "distillation.png").is_file()

    predictions = []
    for way, processes in (
        ({}, ("-npp", 1, "-nps", 1)),
        ({"nnUNet_extTrainer": str(trainers_folder())} if READS_EXT_TRAINER else {}, IN_ONE_PROCESS),
    ):
        if way:
            assert "Removed" in run("nnunet-skd", "register", "--remove")
        output = nnunet_env / f"predicted{len(predictions)}"
        words = (
            command.replace("INPUT_FOLDER", str(phantoms / "imagesTs")).replace("OUTPUT_FOLDER", str(output)).split()
        )
        run(*words, "--disable_tta", *processes, **way)
        predictions.append({file.name: imread(file) for file in output.glob("*.png")})
    assert len(predictions[0]) == 3
    assert all(np.array_equal(predictions[0][name], predictions[1][name]) for name in predictions[0])

    run("nnunet-skd", "register", "--remove")
    done = subprocess.run(
        [BIN / words[0], *words[1:]], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )  # found by neither way
    assert done.returncode != 0
    assert re.search("Could not find requested nnunet trainer|Unable to locate trainer", done.stderr + done.stdout)


OWN_VARIANTS = f"""{HELD}
from nnunet_skd.trainers.nnUNetTrainerDSKD import nnUNetTrainerDSKD_5epochs
from nnunet_skd.trainers.nnUNetTrainerDSKD_ACW import nnUNetTrainerDSKD_ACW


class nnUNetTrainerDSKD_5epochs_brief(Held, nnUNetTrainerDSKD_5epochs):
    def initialize(self):
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 10, 2
        super().initialize()


class nnUNetTrainerDSKD_ACW_brief(nnUNetTrainerDSKD_ACW):
    def initialize(self):
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 2, 20, 2
        super().initialize()
"""


@pytest.fixture
def own_variants(tmp_path, make_known) -> None:
    """A user's own trainers in a folder of their own, beside ours: short, but with a teacher and a ramp."""
    folder = tmp_path / "my_trainers"
    folder.mkdir()
    (folder / "my_variant.py").write_text(OWN_VARIANTS)
    make_known(folder, trainers_folder())


def assert_everything_was_distilled(fold: Path) -> None:
    table = pd.read_csv(fold / "distillation.csv")
    assert len(table) == 2 and np.isfinite(table.drop(columns="alpha")).all(axis=None)
    assert np.isnan(table["alpha"][0]) and table["alpha"][1] > 0  # there is no teacher in the first epoch
    assert (table.loc[1, ["ddl", "adversarial", "reconstruction"]] > 0).all()
    # what these are depends on what so short a training has learnt
    assert table["psdl"][1] != 0 and {"class_wise", "class_wise_feature"} <= set(table)


def test_3d_regions_and_ignore_label(nnunet_env, own_variants):
    dataset = write_phantom_dataset(
        os.environ["nnUNet_raw"], 900, dim=3, num_train=5, num_test=2, size=(32,) * 3, regions=True, ignore_label=True
    )
    plan_and_preprocess("3d_fullres")
    shrink_plans(dataset, patch=16)
    trainer = "nnUNetTrainerDSKD_ACW_brief"
    run("nnUNetv2_train", 900, "3d_fullres", 0, "-tr", trainer, "-device", "cpu")
    assert_everything_was_distilled(fold_folder(dataset, trainer, "3d_fullres"))
    output = nnunet_env / "predicted"
    run("nnUNetv2_predict", "-i", dataset / "imagesTs", "-o", output, "-d", 900, "-c", "3d_fullres", "-tr", trainer,
        "-f", 0, "-device", "cpu", "--disable_tta", *IN_ONE_PROCESS)  # fmt: skip
    assert len(list(output.glob("*.nii.gz"))) == 2 and predicted_labels(output) <= {0, 1, 2, 3}


def test_residual_encoder_plans(phantoms, own_variants):
    plans = "nnUNetResEncUNetMPlans"
    run("nnUNetv2_plan_experiment", "-d", 900, "-pl", "nnUNetPlannerResEncM", nnUNet_n_proc_DA="1")
    shrink_plans(phantoms, plans)
    trainer = "nnUNetTrainerDSKD_ACW_brief"
    run("nnUNetv2_train", 900, "2d", 0, "-tr", trainer, "-p", plans, "-device", "cpu")
    assert_everything_was_distilled(fold_folder(phantoms, trainer, "2d", plans))
    checkpoint = torch.load(
        fold_folder(phantoms, trainer, "2d", plans) / "checkpoint_final.pth", map_location="cpu", weights_only=False
    )
    assert any("encoder.stages.0.blocks" in name for name in checkpoint["network_weights"])
    assert not any("reconstruction" in name for name in checkpoint["network_weights"])
    assert any("reconstruction" in name for name in checkpoint["distillation"]["terms"])


def test_a_calibrated_model_predicts_scaled_probabilities(nnunet_env, phantoms, own_variants, capsys):
    """A temperature from nnU-Net's probabilities; nnU-Net's mirrored prediction with the exported model has it."""
    trainer = "nnUNetTrainerDSKD_ACW_brief"
    run("nnUNetv2_train", 900, "2d", 0, "-tr", trainer, "-device", "cpu")
    model, calibrated = fold_folder(phantoms, trainer, "2d").parent, nnunet_env / "calibrated"

    def predict(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (classes, cases, 1, rows, columns) and labels (cases, rows, columns)."""
        run("nnUNetv2_predict_from_modelfolder", "-i", phantoms / "imagesTs", "-o", nnunet_env / name, "-m", folder,
            "-f", 0, "-device", "cpu", "--save_probabilities", "-npp", 1, "-nps", 1)  # fmt: skip
        files = sorted((nnunet_env / name).glob("*.npz"))
        labels = [imread(file.with_suffix(".png")) for file in files]
        return np.stack([np.load(file)["probabilities"] for file in files], axis=1), np.stack(labels)

    probabilities, labels = predict(model, "as_it_is")
    fit = ["calibrate", phantoms / "labelsTs", nnunet_env / "as_it_is", "-djfile", model / "dataset.json", "-np", 1]
    assert main(list(map(str, fit))) == 0
    assert re.search(r"T = [\d.]+, fitted on 3 predictions", capsys.readouterr().out)
    assert main(["export", "-m", str(model), "-f", "0", "-o", str(calibrated), "--temperature", "2"]) == 0
    at_2, labels_at_2 = predict(calibrated, "scaled")
    assert np.quantile(np.abs(scaled(probabilities, 2) - at_2), 0.95) < 2e-3
    assert np.abs(probabilities - at_2).mean() > 0.01
    assert (labels == labels_at_2).mean() > 0.999  # nnU-Net rounds logits to half precision


def test_a_killed_training_continues(phantoms, own_variants):
    """kill -9 in the middle of an epoch, then --c: the epochs that were saved are not repeated, and the run ends."""
    trainer = "nnUNetTrainerDSKD_5epochs_brief"
    command = ("nnUNetv2_train", "900", "2d", "0", "-tr", trainer, "-device", "cpu")
    fold = fold_folder(phantoms, trainer, "2d")
    kill_in_the_third_epoch(command, fold)
    saved = torch.load(fold / "checkpoint_best.pth", map_location="cpu", weights_only=False)["current_epoch"]
    before = epochs(fold)

    printed = run(*command, "--c")
    printed_epochs = [int(epoch) for epoch in re.findall(r": Epoch (\d+)$", printed, re.MULTILINE)]
    assert printed_epochs == list(range(saved, 5))
    after = epochs(fold)
    assert after["epoch"].tolist() == [0, 1, 2, 3, 4]
    assert after["alpha"][1:].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    pd.testing.assert_frame_equal(after[:saved], before[:saved])
    assert (after["ddl"][1:] > 0).all()
    assert (fold / "checkpoint_final.pth").is_file() and not list(fold.glob("*.tmp"))


def test_a_stock_trainer_never_imports_the_shim_and_uninstalling_us_breaks_nothing(clone_of_nnunet, tmp_path):
    run("nnunet-skd", "register")
    finder = "import sys; from nnunet_skd.compat import find_trainer as find\n"
    look_up = (
        "find('nnUNetTrainer_8000epochs'); find('nnUNetTrainer')\n"
        "assert not any('zz_nnunet_skd' in name for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", finder + look_up], check=True)
    without_us = (
        finder + "for name in [name for name in sys.modules if name.startswith('nnunet_skd')]: del sys.modules[name]\n"
        "sys.modules['nnunet_skd'] = None\n" + look_up + "try: find('nnUNetTrainerDSKD')\n"
        "except RuntimeError as error: assert 'Could not find requested nnunet trainer' in str(error)\n"
        "else: raise SystemExit('found without us')"
    )
    subprocess.run([sys.executable, "-c", without_us], check=True)
