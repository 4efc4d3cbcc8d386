"""``nnunet-skd compare --curves``: logs of finished, running, killed and continued trainings, by hand."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from curve_logs import DATASET, STAMP, make_model, write_log
from matplotlib import image

from nnunet_skd.tools.cli import main
from nnunet_skd.tools.compare.curves import curve_table, model_curves, reached_table, reached_text
from nnunet_skd.tools.compare.training_logs import read_training
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.model_arms import parse_model_arms


# ------------------------------------------------------------------------------------------------ one training
def test_values_time_and_moving_average(tmp_path):
    write_log(tmp_path, ["np.float32(0.2), np.float64(0.4)", "0.5, nan", 0.7], seconds=90)
    (tmp_path / "debug.json").write_text('{"num_iterations_per_epoch": "100"}')
    training = read_training(tmp_path)
    assert training.epochs["epoch"].tolist() == [0, 1, 2]
    np.testing.assert_allclose(training.epochs["pseudo_dice"], [0.3, 0.5, 0.7])
    np.testing.assert_allclose(training.epochs["ema"], [0.3, 0.32, 0.9 * 0.32 + 0.07])
    np.testing.assert_allclose(training.epochs["minutes"], [1.5, 3, 4.5])
    assert training.iterations == 100 and not training.finished


@pytest.mark.parametrize(
    "end",
    [
        f"{STAMP} \n{STAMP}Epoch 2 \n{STAMP}Current learning rate: 0.01 \n",
        f"{STAMP}Epoch 2 \n{STAMP}Pseudo dice [np.float32(0.9)] \n",
        f"{STAMP}Epoch 2 \n{STAMP}Pseudo dice [np.float32(0.",
        f"{STAMP}Epoch 2 \n{STAMP}Pseudo dice [np.float32(0.9)] \n{STAMP}Epoch time: 6",
    ],
)
def test_a_running_training_is_in_the_middle_of_an_epoch(tmp_path, end):
    write_log(tmp_path, [0.1, 0.2], end=end)
    assert read_training(tmp_path).epochs["pseudo_dice"].tolist() == [0.1, 0.2]


def test_a_continued_training_repeats_epochs(tmp_path):
    write_log(tmp_path, [0.1, 0.2, 0.3, 0.4], name="training_log_2026_9_30_10_00_00", end=f"{STAMP}Epoch 4 \n")
    write_log(tmp_path, [0.6, 0.7], first=2, name="training_log_2026_10_1_09_00_00", seconds=30)
    write_log(tmp_path, [], name="training_log_2026_10_2_09_00_00")  # --val
    epochs = read_training(tmp_path).epochs
    assert epochs["pseudo_dice"].tolist() == [0.1, 0.2, 0.6, 0.7]
    assert epochs["minutes"].tolist() == [1, 2, 2.5, 3]


def test_a_training_that_began_anew(tmp_path):
    write_log(tmp_path, [0.1, 0.2, 0.3], name="training_log_2026_5_4_10_00_00")
    (tmp_path / "checkpoint_final.pth").touch()
    assert read_training(tmp_path).finished
    write_log(tmp_path, [0.1, 0.2, 0.3], name="training_log_2026_5_4_10_00_00", end=f"{STAMP}Training done. \n")
    assert read_training(tmp_path).finished
    write_log(tmp_path, [0.5], name="training_log_2026_5_4_11_00_00")
    training = read_training(tmp_path)
    assert training.epochs["pseudo_dice"].tolist() == [0.5]
    assert not training.finished  # the checkpoint is the earlier one's


def write_checkpoint(path, dice, seconds=60.0):
    starts = 1e9 + 100.0 * np.arange(len(dice))
    log = {
        "mean_fg_dice": [np.float64(d) for d in dice],
        "epoch_start_timestamps": starts.tolist(),
        "epoch_end_timestamps": (starts + seconds).tolist(),
    }
    content = {"network_weights": {}, "trainer_name": "nnUNetTrainer", "init_args": {"configuration": "2d"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content | {"logging": log}, path)


def test_checkpoints_serve_where_logs_are_missing(tmp_path):
    write_checkpoint(tmp_path / "checkpoint_best.pth", [0.1])
    write_checkpoint(tmp_path / "checkpoint_latest.pth", [0.1, 0.2, 0.3])
    assert read_training(tmp_path).epochs["pseudo_dice"].tolist() == [0.1, 0.2, 0.3]
    write_log(tmp_path, [0.9], first=1)  # the first log is gone
    training = read_training(tmp_path)
    np.testing.assert_allclose(training.epochs["minutes"], [1, 2, 3])
    write_log(tmp_path, [0.4, 0.5])
    assert read_training(tmp_path).epochs["pseudo_dice"].tolist() == [0.4, 0.5]


def damaged_checkpoint(fold):
    fold.mkdir(parents=True, exist_ok=True)
    (fold / "checkpoint_final.pth").write_bytes(b"PK\x03\x04 half a file")


def checkpoint_without(key):
    def damage(fold):
        write_checkpoint(fold / "checkpoint_final.pth", [])
        content = torch.load(fold / "checkpoint_final.pth", weights_only=False)
        del content[key]
        torch.save(content, fold / "checkpoint_final.pth")

    return damage


def checkpoint_with_code(fold):
    write_checkpoint(fold / "checkpoint_final.pth", [])
    content = torch.load(fold / "checkpoint_final.pth", weights_only=False)
    torch.save(content | {"code": os.getcwd}, fold / "checkpoint_final.pth")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: None, "no training log and no checkpoint"),
        (lambda f: write_log(f, []), "no epoch has ended yet"),
        (lambda f: write_log(f, [0.1, "np.float32(0.x"]), "line 20 of .* is damaged"),
        (lambda f: write_log(f, [0.1], seconds="6.0.1"), "line .* is damaged"),
        (lambda f: write_log(f, [0.5], first=3), "lack epoch 0"),
        (damaged_checkpoint, "is damaged or not a checkpoint"),
        (checkpoint_without("logging"), "holds no log of nnU-Net"),
        (checkpoint_without("trainer_name"), r"not a checkpoint of nnU-Net .* Copy all training_log_\*.txt beside it"),
        (checkpoint_with_code, r"would have to execute .* can do anything. Copy all training_log_\*.txt beside it"),
        (lambda f: write_checkpoint(f / "checkpoint_final.pth", []), "no training log"),
    ],
)
def test_refused_trainings(tmp_path, damage, words):
    damage(tmp_path / "fold_0")
    with pytest.raises(BadInput, match=words) as error:
        read_training(tmp_path / "fold_0")
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------------ arms
@pytest.fixture
def models(tmp_path):
    """The second one is faster per step and better; constant values, so that the moving average is the value."""
    make_model(tmp_path / "seed_0" / "model", {"0": [0.5] * 4, "1": [0.7] * 6})
    make_model(tmp_path / "seed_1" / "model", {"0": [0.6] * 5, "1": [0.6] * 5})
    make_model(tmp_path / "better", {"0": [0.4, 4.4, 0.9], "1": [0.6, 4.6, 0.9]}, seconds=30, iterations=100)
    make_model(tmp_path / "worse", {"0": [0.1], "1": [0.2]}, finished=False)
    return tmp_path


def texts(models):
    seeds = f"{models / 'seed_0' / 'model'}:{models / 'seed_1' / 'model'}"
    return [f"two seeds={seeds}", f"better={models / 'better'}", f"worse={models / 'worse'}@0,1"]


def test_mean_range_and_when_the_reference_was_reached(models):
    arms = model_curves(parse_model_arms(texts(models)))
    assert [len(arm.trainings) for arm in arms] == [4, 2, 2]
    curves = [curve_table(arm) for arm in arms]
    first = curves[0]
    assert len(first) == 4  # what all four have ended
    assert first.iloc[-1][["mean", "low", "high"]].tolist() == pytest.approx([0.6, 0.5, 0.7])
    assert first["steps"].tolist() == [250, 500, 750, 1000]
    reached = reached_table(arms, curves).set_index("arm")
    assert reached.loc["better", ["epoch", "steps", "minutes"]].tolist() == [1, 200, 1]
    assert reached.loc["two seeds", "epoch"] == 0
    assert reached.loc["worse", "epoch":].isna().all() and reached.loc["worse", "running"] == 2
    text = reached_text(reached.reset_index())
    assert "not yet" in next(line for line in text.splitlines() if line.startswith("worse"))
    assert "2 (2 running)" in text
    for fold in models.glob("worse/fold_*"):
        (fold / "checkpoint_final.pth").touch()
    arms = model_curves(parse_model_arms(texts(models)))
    text = reached_text(reached_table(arms, curves))
    assert "never" in next(line for line in text.splitlines() if line.startswith("worse"))


def test_command_with_model_folders(models, tmp_path, capsys):
    assert main(["compare", "--curves", "--models", *texts(models), "-o", str(tmp_path / "out")]) == 0
    assert "not yet" in capsys.readouterr().out
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"curves.png", "curves.csv", "trainings.csv", "reached.csv"}
    assert image.imread(tmp_path / "out" / "curves.png").std() > 0.05
    trainings = pd.read_csv(tmp_path / "out" / "trainings.csv")
    assert trainings.groupby("arm")["training"].nunique().to_dict() == {"two seeds": 4, "better": 2, "worse": 2}
    assert len(pd.read_csv(tmp_path / "out" / "curves.csv")) == 4 + 3 + 1


def test_steps_are_unknown_where_one_training_does_not_say_how_many_an_epoch_has(models):
    (models / "seed_0" / "model" / "fold_1" / "debug.json").unlink()
    curve = curve_table(model_curves(parse_model_arms(texts(models)))[0])
    assert curve["steps"].isna().all() and curve["minutes"].notna().all()


def test_a_copy_of_a_fold_is_no_training(models):
    shutil.copytree(models / "better" / "fold_0", models / "better" / "fold_0_old")
    assert len(model_curves(parse_model_arms([f"better={models / 'better'}"]))[0].trainings) == 2


def test_command_with_trainers(nnunet_env, capsys):
    results = nnunet_env / "nnUNet_results" / DATASET
    (nnunet_env / "nnUNet_raw" / DATASET).mkdir()
    for trainer in ("nnUNetTrainer", "nnUNetTrainerDSKD"):
        make_model(results / f"{trainer}__nnUNetPlans__2d", {"0": [0.5, 0.6]}, iterations=None)
    named = ["-d", "900", "-c", "2d", "-f", "0", "-tr", "nnUNetTrainer"]
    assert main(["compare", "--curves", *named, "nnUNetTrainerDSKD", "-o", str(nnunet_env / "two")]) == 0
    assert "nnUNetTrainerDSKD" in capsys.readouterr().out
    assert pd.read_csv(nnunet_env / "two" / "curves.csv")["steps"].isna().all()
    assert main(["compare", "--curves", *named, "-o", str(nnunet_env / "one")]) == 0
    assert main(["compare", "--curves", *named, "nnUNetTrainerACWSKD", "-o", str(nnunet_env / "x")]) == 2
    assert "there is no" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        (["no equals sign"], "does not name an arm"),
        (["a={0}/better", "a={0}/worse"], "two arms are named 'a'"),
        (["a={0}/nowhere"], "not a folder that nnUNetv2_train wrote"),
        (["a={0}/better@nomirror"], "does not depend on"),
        (["a={0}/better@0@1"], "says twice"),
        (["a={0}/better@0", "b={0}/worse@1"], "b has fold 1, but a has 0"),
        (["a={0}/better@0,7"], "fold_7 holds no training log"),
        (["a={0}/better", "b={0}/other"], "different datasets: Dataset900_Toy and Dataset901_Other"),
        (["a={0}/better", "b={0}/labels"], "different labels"),
        (["a={0}/better", "b={0}/broken"], "plans.json"),
        (["a={0}/better:{0}/worse"], "different numbers of iterations"),
        (["a={0}/empty"], "no fold_"),
    ],
)
def test_refused_arms(models, arms, words, capsys):
    make_model(models / "other", {"0": [0.1], "1": [0.1]}, dataset="Dataset901_Other")
    make_model(models / "labels", {"0": [0.1], "1": [0.1]}, labels={"background": 0, "b": 1})
    make_model(models / "broken", {"0": [0.1]})
    make_model(models / "empty", {})
    (models / "broken" / "plans.json").write_text("{")
    named = [arm.format(models) for arm in arms]
    assert main(["compare", "--curves", "--models", *named, "-o", str(models / "out")]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (models / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--models", "a=b"], "Add --curves"),
        (["--curves"], "-d, -tr, -c missing"),
        (["--curves", "--models", "a=b", "-tr", "T"], "-tr does not go with --models"),
        (["--curves", "-d", "1", "--pred", "p"], "--pred does not go with --curves"),
        (["--curves", "-d", "1", "--metrics", "Dice"], "--metrics does not go with --curves"),
        (["--curves", "--models", "a=b", "-f", "0"], "-f does not go with --models"),
        (["--pred", "a", "b", "--ref", "c", "-djfile", "d", "-p", "e"], "-p does not go with --pred"),
    ],
)
def test_refused_options(tmp_path, options, words, capsys):
    assert main(["compare", *options, "-o", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err
