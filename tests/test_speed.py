"""``nnunet-skd speed``: forward passes by hand, predictions of nnU-Net's own predictor, refusals, and real commands."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
from commands import IN_ONE_PROCESS, run
from matplotlib import image
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from skimage.io import imread, imsave
from toy import DATASET, make_trainer, toy_dataset_json, toy_plans
from volumes import write_volume

from nnunet_skd.tools.cli import main
from nnunet_skd.tools.devices import device_name
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.evaluate.calibration import ALL_CLASSES
from nnunet_skd.tools.evaluate.folders import evaluate_folders
from nnunet_skd.tools.model_arms import parse_model_arms, require_same_channels, same_dataset
from nnunet_skd.tools.speed import command
from nnunet_skd.tools.speed.cases import case_images
from nnunet_skd.tools.speed.measure import load_arm, measure
from nnunet_skd.tools.speed.report import speed_text, without_value, write_picture


@pytest.fixture
def toy(nnunet_env):
    """A model of two folds with random weights, and two images of 48 x 40 pixels: 2 x 2 windows of 32 x 32."""
    model = nnunet_env / "toy_model"
    for fold in range(2):
        trainer = make_trainer(nnUNetTrainer, seed=fold)
        trainer.initialize()
        trainer.inference_allowed_mirroring_axes = (0, 1)
        (model / f"fold_{fold}").mkdir(parents=True)
        trainer.save_checkpoint(str(model / f"fold_{fold}" / "checkpoint_final.pth"))
    (model / "plans.json").write_text(json.dumps(toy_plans()))
    (model / "dataset.json").write_text(json.dumps(toy_dataset_json()))
    rng = np.random.default_rng(0)
    for case in ("x", "y"):
        write_volume(nnunet_env / "images" / f"{case}_0000.nii.gz", rng.normal(size=(1, 48, 40)).astype(np.float32))
        write_volume(nnunet_env / "labels" / f"{case}.nii.gz", rng.integers(0, 3, (1, 48, 40)).astype(np.uint8))
    return nnunet_env


def speed(env, *arms, ref="labels", more=()):
    options = ["--images", str(env / "images"), *(["--ref", str(env / ref)] if ref else [])]
    named = [arm.format(env / "toy_model") for arm in arms]
    return main(["speed", "--arms", *named, *options, "-o", str(env / "out"), "-device", "cpu", "-np", "1", *more])


def segmentation(env, arm, case="x"):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(env / "out" / "predicted" / arm / f"{case}.nii.gz")))


def test_forward_passes_and_files(toy, capsys):
    arms = ["two folds={}", "two, not mirrored={}@nomirror", "one={}@1", "one, not mirrored={}@1@nomirror"]
    assert speed(toy, *arms) == 0
    table = pd.read_csv(toy / "out" / "speed.csv").set_index("arm")
    # folds x mirrored copies x windows
    assert table["forward_passes"].tolist() == [2 * 4 * 4, 2 * 4, 4 * 4, 4]
    assert table["networks"].tolist() == [2, 2, 1, 1] and table["cases"].tolist() == [2] * 4
    assert (table["seconds"] > 0).all() and table["mirrored"].tolist() == [True, False] * 2
    assert ((table["Dice_low"] <= table["Dice"]) & (table["Dice"] <= table["Dice_high"])).all()
    cases = pd.read_csv(toy / "out" / "cases.csv")
    assert len(cases) == 8 and cases["seconds"].gt(0).all()
    assert image.imread(toy / "out" / "speed.png").std() > 0.02
    assert "passes/case" in capsys.readouterr().out
    frame = evaluate_folders(
        toy / "labels", toy / "out" / "predicted" / "one", toy_dataset_json(), num_processes=1, metrics=["Dice"]
    )
    assert table["Dice"]["one"] == pytest.approx(frame["Dice"].mean())
    assert (segmentation(toy, "one") != segmentation(toy, "two_folds")).any()


def test_an_ensemble_of_folders(toy):
    """Twice the same network is that network; the probabilities are written and evaluated."""
    assert speed(toy, "twice={0}:{0}@0@nomirror", "once={0}@0@nomirror", more=["--metrics", "ECE", "Dice"]) == 0
    table = pd.read_csv(toy / "out" / "speed.csv").set_index("arm")
    assert table["forward_passes"].tolist() == [8, 4] and table["networks"].tolist() == [2, 1]
    np.testing.assert_array_equal(segmentation(toy, "twice"), segmentation(toy, "once"))
    p = np.load(toy / "out" / "predicted" / "once" / "x.npz")["probabilities"]
    assert p.shape == (3, 1, 48, 40)
    np.testing.assert_array_equal(p.argmax(0), segmentation(toy, "once"))
    assert table["ECE"].nunique() == 1 and table["ECE"].between(0, 1).all()


def test_no_processes_are_refused_before_anything_is_predicted(toy, capsys):
    assert speed(toy, "one={}", more=["-np", "0"]) == 2
    assert "-np is 0" in capsys.readouterr().err and not (toy / "out").exists()


def test_without_reference_there_is_no_picture(toy, capsys):
    assert speed(toy, "one={}@0@nomirror", ref=None, more=["--metrics", "HD95"]) == 2
    assert "--metrics needs --ref" in capsys.readouterr().err
    assert speed(toy, "one={}@0@nomirror", ref=None) == 0
    assert {path.name for path in (toy / "out").iterdir()} == {"speed.csv", "cases.csv", "predicted"}


def test_channels_of_one_file(toy):
    """As nnU-Net reads RGB: the number of channels is that of what was read."""
    colours = toy_dataset_json() | {"channel_names": {"0": "R", "1": "G", "2": "B"}}
    cases = case_images(toy / "images", colours, None)
    assert list(cases) == ["x", "y"]
    (arm,) = parse_model_arms([f"a={toy / 'toy_model'}@0"])
    loaded = load_arm(arm, "checkpoint_final.pth", torch.device("cpu"), {})
    with pytest.raises(BadInput, match="x has 1 channels in x_0000.nii.gz, but the models need 3"):
        measure([loaded], cases, toy / "out", colours, probabilities=False)

    png = colours | {"file_ending": ".png"}
    (toy / "photos").mkdir()
    imsave(toy / "photos" / "x_0000.png", np.full((48, 40, 3), 100, np.uint8))
    plans = SimpleNamespace(image_reader_writer_class=NaturalImage2DIO)
    loaded.predictors = [SimpleNamespace(plans_manager=plans, device=torch.device("cpu"))]
    loaded.predict = lambda image, *_, **__: (np.zeros(image.shape[1:]), None, len(image))
    times = measure([loaded], case_images(toy / "photos", png, None), toy / "photos_out", png, probabilities=False)
    assert times["forward_passes"].tolist() == [3]  # the three channels reached the network


def test_a_reference_at_fault_costs_no_prediction(toy, capsys):
    write_volume(toy / "labels" / "y.nii.gz", np.zeros((1, 40, 48), np.uint8))
    assert speed(toy, "a={}@0@nomirror") == 2
    error = capsys.readouterr().err
    assert "has the shape (48, 40), but its reference" in error and "predicted/a -djfile" in error
    assert "--chill --metrics Dice, and so for each arm" in error
    assert {path.name for path in (toy / "out").iterdir()} == {"speed.csv", "cases.csv", "predicted"}
    assert segmentation(toy, "a", "y").shape == (1, 48, 40)


def test_numbered_folds_predict_together_and_copies_are_none(toy):
    for name in ("fold_all", "fold_0_old"):
        shutil.copytree(toy / "toy_model" / "fold_0", toy / "toy_model" / name)
    assert speed(toy, "folds={}@nomirror", ref=None) == 0
    assert pd.read_csv(toy / "out" / "speed.csv")["folds"].tolist() == ["0,1"]


def test_a_model_that_nnunet_does_not_mirror_is_not_called_mirrored(toy):
    file = toy / "toy_model" / "fold_1" / "checkpoint_final.pth"
    torch.save(torch.load(file, weights_only=False) | {"inference_allowed_mirroring_axes": None}, file)
    assert speed(toy, "one={}@0", "other={}@1", ref=None) == 0
    table = pd.read_csv(toy / "out" / "speed.csv")
    assert table["mirrored"].tolist() == [True, False] and table["forward_passes"].tolist() == [16, 4]


def test_the_threads_are_those_that_nnunet_takes(toy, monkeypatch):
    with monkeypatch.context() as large:
        large.setattr(torch, "get_num_threads", lambda: 32)
        names = [device_name(torch.device("cpu"), *most) for most in ((), (8,), (64,))]
    assert [name.split(", ")[-1] for name in names] == ["32 threads", "8 threads", "32 threads"]
    monkeypatch.setattr(command, "default_num_processes", 3)
    monkeypatch.setattr(command, "device_name", lambda _, most: f"at most {most}")
    assert speed(toy, "a={}@0@nomirror", ref=None) == 0
    assert pd.read_csv(toy / "out" / "speed.csv")["device"].tolist() == ["at most 3"]


def test_an_image_that_was_cut_short_costs_no_prediction(toy, capsys, monkeypatch):
    monkeypatch.setattr(command, "measure", None)
    file = toy / "images" / "y_0000.nii.gz"
    file.write_bytes(file.read_bytes()[:3000])
    assert speed(toy, "a={}@0@nomirror") == 2
    assert "y_0000.nii.gz is damaged or cannot be read" in capsys.readouterr().err


def test_images_that_are_left_out_are_named(toy, capsys):
    (toy / "images" / "y_0000.nii.gz").rename(toy / "images" / "y.nii.gz")
    assert speed(toy, "a={}@0@nomirror") == 0
    assert "no channel number in the name" in capsys.readouterr().out


def test_models_of_pseudo_labels_are_of_the_dataset_that_they_were_made_of(toy):
    model = shutil.copytree(toy / "toy_model", toy / "second")
    (model / "plans.json").write_text(json.dumps(toy_plans() | {"dataset_name": "Dataset180_Toy_pseudo"}))
    with pytest.raises(BadInput, match="different datasets"):
        same_dataset([toy / "toy_model", model])
    record = Path(os.environ["nnUNet_raw"], "Dataset180_Toy_pseudo", "pseudo_labels.json")
    record.parent.mkdir()
    record.write_text(json.dumps({"dataset": DATASET}))
    assert same_dataset([toy / "toy_model", model]) == toy_dataset_json()


def test_regions_in_another_order_are_other_channels(toy):
    model = shutil.copytree(toy / "toy_model", toy / "second")
    regions = toy_dataset_json(regions=True)
    (toy / "toy_model" / "dataset.json").write_text(json.dumps(regions))
    (model / "dataset.json").write_text(json.dumps(regions, sort_keys=True))
    assert same_dataset([toy / "toy_model", model])
    with pytest.raises(BadInput, match="differ in labels"):
        require_same_channels([toy / "toy_model", model])


def cascade(env):
    trainer = make_trainer(nnUNetTrainer, dim=3, cascade=True)
    trainer.initialize()
    trainer.save_checkpoint(str(env / "toy_model" / "fold_0" / "checkpoint_final.pth"))
    (env / "toy_model" / "plans.json").write_text(json.dumps(trainer.plans_manager.plans))


def other_plans(env):
    plans = toy_plans()
    plans["configurations"]["2d"]["spacing"] = [9.0, 9.0]
    (env / "toy_model" / "plans.json").write_text(json.dumps(plans))


def unknown_trainer(env):
    path = env / "toy_model" / "fold_0" / "checkpoint_final.pth"
    torch.save(torch.load(path, weights_only=False) | {"trainer_name": "nnUNetTrainerNowhere"}, path)


@pytest.mark.parametrize(
    ("damage", "arms", "words"),
    [
        (None, ["a={}@7"], "for fold 7 (it is there for fold 0, 1)"),
        (None, ["a={}/fold_0"], "not a folder that nnUNetv2_train wrote"),
        (None, ["a b={}", "a_b={}"], "differ only in signs"),
        (lambda e: (e / "toy_model/fold_0/checkpoint_final.pth").write_bytes(b"half"), ["a={}"], "cannot be loaded"),
        (unknown_trainer, ["a={}"], "cannot be loaded"),
        (cascade, ["a={}@0"], "second stage of a cascade"),
        (other_plans, ["a={}@1"], "fold_1 was trained with other plans than those in"),
        (lambda e: (e / "labels" / "y.nii.gz").unlink(), ["a={}"], "has no reference for y"),
        (
            lambda e: (e / "images" / "y_0000.nii.gz").rename(e / "images" / "y_0001.nii.gz"),
            ["a={}@0"],
            "holds y_0001.nii.gz, but",
        ),
        (
            lambda e: write_volume(e / "images" / "y_0001.nii.gz", np.ones((1, 48, 40))),
            ["a={}"],
            "the models need y_0000.nii.gz",
        ),
        (lambda e: (e / "images" / "y_0000.nii.gz").write_bytes(b"no image"), ["a={}"], "y_0000.nii.gz is damaged"),
        (lambda e: [f.unlink() for f in (e / "images").iterdir()], ["a={}"], "holds no image named CASE_0000"),
        (lambda e: (e / "out").mkdir() or (e / "out" / "mine").touch(), ["a={}"], "not empty"),
    ],
)
def test_refusals(toy, damage, arms, words, capsys):
    if damage:
        damage(toy)
    assert speed(toy, *arms) == 2
    error = next(line for line in capsys.readouterr().err.splitlines() if "error:" in line)
    assert words in error
    assert not (toy / "out").exists() or [path.name for path in (toy / "out").iterdir()] == ["mine"]


def test_means_of_other_cases_are_said_to_be_so():
    table = pd.DataFrame({"arm": ["full", "compact"], "Dice_n": [4, 4], "HD95_n": [4, 3]})
    (line,) = without_value(table, ["Dice", "HD95"])
    assert line == (
        "HD95 has no value where an arm misses a class, so these means are not of the same cases: 4 values of full, "
        "3 values of compact"
    )


def test_an_arm_that_misses_a_class_has_fewer_values(toy, capsys):
    """Model b predicts only background."""
    shutil.copytree(toy / "toy_model", toy / "blind")
    file = toy / "blind" / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    for name, weight in checkpoint["network_weights"].items():
        if "seg_layers" in name and name.endswith("bias"):
            weight[0] = 100.0
    torch.save(checkpoint, file)
    assert speed(toy, "a={}@0@nomirror", f"b={toy / 'blind'}@0@nomirror", more=("--metrics", "Dice", "HD95")) == 0
    table = pd.read_csv(toy / "out" / "speed.csv").set_index("arm")
    assert table["Dice_n"].tolist() == [4, 4] and table.loc["b", "HD95_n"] == 0 < table.loc["a", "HD95_n"]
    assert "HD95 has no value where an arm misses a class" in capsys.readouterr().out


def test_a_picture_of_many_arms(tmp_path):
    """Names do not lie on each other where points do; a metric without a value has no point."""
    seconds = np.array([40, 20, 8, 4, 4.1, 1, 0.3])
    table = pd.DataFrame({"arm": [f"arm number {i}" for i in range(7)], "mirrored": [True, False] * 3 + [True]})
    table = table.assign(
        networks=5, forward_passes=20, seconds=seconds, seconds_q1=seconds * 0.9, seconds_q3=seconds * 1.2
    )
    for metric, values in {"Dice": [0.76, 0.76, 0.76, 0.74, 0.74, 0.7, np.nan], "ECE": [0.01] * 7}.items():
        table = table.assign(**{metric: values, f"{metric}_low": 0.69, f"{metric}_high": 0.8})
    table["ECE_low"], table["ECE_high"] = 0.005, 0.02
    write_picture(table, ["Dice", "ECE"], "title", tmp_path / "speed.png")
    assert image.imread(tmp_path / "speed.png").std() > 0.02
    assert speed_text(table, ["Dice"]).count("\n") == 7


BRIEF = """
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainerBrief(nnUNetTrainer):
    def initialize(self):
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 2, 10, 2
        super().initialize()
"""


@pytest.mark.slow
def test_real_commands(nnunet_env, phantoms, make_known):
    """Two epochs of one network: predictions and probabilities are those of nnUNetv2_predict, its curve is read."""
    (nnunet_env / "trainers").mkdir()
    (nnunet_env / "trainers" / "nnUNetTrainerBrief.py").write_text(BRIEF)
    make_known(nnunet_env / "trainers")
    trainer = "nnUNetTrainerBrief"
    run("nnUNetv2_train", 900, "2d", 0, "-tr", trainer, "-device", "cpu")
    model = Path(os.environ["nnUNet_results"], phantoms.name, f"{trainer}__nnUNetPlans__2d")

    images, labels, output = phantoms / "imagesTs", phantoms / "labelsTs", nnunet_env / "speed"
    metrics = ("--metrics", "Dice", "ECE", "Brier")
    arms = ("--arms", f"mirrored={model}", f"not mirrored={model}@0@nomirror")
    run("nnunet-skd", "speed", *arms, "--images", images, "--ref", labels, "-o", output, "-device", "cpu", "-np", 1,
        *metrics)  # fmt: skip
    table = pd.read_csv(output / "speed.csv")
    assert table["forward_passes"].tolist() == [4 * 9, 9]  # 3 x 3 windows of 32 in 64 pixels

    predicted = nnunet_env / "predicted"
    run("nnUNetv2_predict", "-i", images, "-o", predicted, "-d", 900, "-c", "2d", "-f", 0, "-tr", trainer,
        "-device", "cpu", "--save_probabilities", *IN_ONE_PROCESS)  # fmt: skip
    for file in predicted.glob("*.png"):
        np.testing.assert_array_equal(imread(output / "predicted" / "mirrored" / file.name), imread(file))
        ours, theirs = (
            np.load(folder / f"{file.stem}.npz")["probabilities"]
            for folder in (output / "predicted" / "mirrored", predicted)
        )
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
    evaluate = ("evaluate", labels, predicted, "-djfile", phantoms / "dataset.json", "-np", 1, *metrics)
    assert main(list(map(str, evaluate))) == 0
    summary = pd.read_csv(predicted / "evaluation_summary.csv").set_index(["label", "metric"])["mean"]
    assert summary[ALL_CLASSES, "ECE"] == pytest.approx(table["ECE"][0], abs=1e-3)

    curves = nnunet_env / "curves"
    assert main(["compare", "--curves", "-d", "900", "-c", "2d", "-tr", trainer, "-f", "0", "-o", str(curves)]) == 0
    epochs = pd.read_csv(curves / "trainings.csv")
    assert epochs["steps"].tolist() == [10, 20]
    assert epochs["pseudo_dice"].between(0, 1).all() and epochs["minutes"].gt(0).all()
    for log in (model / "fold_0").glob("training_log_*.txt"):
        log.unlink()  # a model that was copied without them: the checkpoint says the same
    assert main(["compare", "--curves", "--models", f"copied={model}", "-o", str(nnunet_env / "copied")]) == 0
    pd.testing.assert_frame_equal(
        pd.read_csv(nnunet_env / "copied" / "trainings.csv")[["steps", "pseudo_dice", "minutes"]],
        epochs[["steps", "pseudo_dice", "minutes"]],
        atol=1e-3,
    )
