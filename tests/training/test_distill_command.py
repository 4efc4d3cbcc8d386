"""nnunet-skd distill: what it starts, and what it refuses before it starts anything."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint
from toy import DATASET, assert_equal, toy_dataset_json, toy_plans
from toy_data import LABELLED
from toy_models import finish

from nnunet_skd.model_checks import VARIABLE
from nnunet_skd.tools import commands
from nnunet_skd.tools.cli import main
from nnunet_skd.tools.install.discovery import trainers_folder
from nnunet_skd.trainers.nnUNetTrainerDSKD import nnUNetTrainerDSKD


@pytest.fixture
def started(nnunet_env, monkeypatch, make_known) -> list:
    """The commands that are started, each with its teachers."""
    make_known(trainers_folder())
    started = []

    def note(arguments, env):
        started.append((arguments[1:], env.get(VARIABLE)))
        return 0

    monkeypatch.setattr(commands, "run_and_end", note)
    return started


def prepare_student(folds=5, ignore=False) -> None:
    folder = Path(os.environ["nnUNet_preprocessed"], DATASET)
    splits = [{"train": [c for c in LABELLED if c != case], "val": [case]} for case in LABELLED[:folds]]
    contents = {"nnUNetPlans.json": toy_plans(), "dataset.json": toy_dataset_json(ignore=ignore)}
    for name, content in (contents | ({"splits_final.json": splits} if folds else {})).items():
        (folder / name).write_text(json.dumps(content))


def distill(fold, model: Path, *options: str, folds=5, ignore=False) -> int:
    prepare_student(folds, ignore)
    arguments = ["distill", "-d", "900", "-c", "2d", "--teacher", str(model), "-f", str(fold), "-device", "cpu"]
    return main([*arguments, *options])


@pytest.mark.parametrize("fold", [0, "all"])
def test_starts_nnunets_own_command(started, fold):
    model = finish()
    assert distill(fold, model) == 0
    train = ["900", "2d", str(fold), "-tr", "nnUNetTrainerDistill", "-p", "nnUNetPlans", "-device", "cpu"]
    assert started == [(train, str(model.resolve()))]


@pytest.mark.parametrize("ignore", [False, True])
def test_says_what_is_taught_without_a_label(started, capsys, ignore):
    assert distill(0, finish(), ignore=ignore) == 0
    said = "no images without labels" + ", and the ignored voxels of its training cases" * ignore
    assert f"Student: 2d, fold 0, {said}\n" in capsys.readouterr().out


def test_without_a_split_the_training_compares_the_validation_cases(started):
    assert distill(0, finish(), folds=0) == 0 and len(started) == 1


@pytest.mark.parametrize(("folds", "there_are"), [(3, "3"), (0, "5")])
def test_refuses_a_fold_beyond_the_split(started, capsys, folds, there_are):
    """Without a split, nnU-Net makes one of five folds."""
    model = finish()
    (model / "fold_0").rename(model / f"fold_{there_are}")
    assert distill(there_are, model, folds=folds) == 2 and not started
    said = capsys.readouterr().err
    where = "splits_final.json holds 3" if folds else "nnU-Net will make 5 in the first training"
    assert f"there is no fold {there_are}: " in said and f"{where}, counted from 0" in said


def test_refuses_a_trainer_that_the_models_would_not_teach(started, capsys):
    assert distill("all", finish(), "-tr", "nnUNetTrainerDSKD") == 2 and not started
    assert "-tr nnUNetTrainerDSKD is not taught by finished models" in capsys.readouterr().err
    assert distill("all", finish(), "-tr", "nnUNetTrainerDistil") == 2 and not started
    assert "does not find the trainer nnUNetTrainerDistil." in capsys.readouterr().err


def test_starts_from_weights(started, capsys):
    weights = str(finish() / "fold_0" / "checkpoint_final.pth")
    options = ["-tr", "nnUNetTrainerDistill_250epochs", "-pretrained_weights", weights]
    assert distill("all", finish(), *options) == 0
    assert started[0][0][3:5] == options[:2] and started[0][0][-1] == "--c"
    (beginning,) = Path(os.environ["nnUNet_results"]).rglob(
        "nnUNetTrainerDistill_250epochs__*/fold_all/checkpoint_*.pth"
    )
    checkpoint = torch.load(beginning, weights_only=False)
    assert checkpoint["current_epoch"] == 0
    assert_equal(checkpoint["network_weights"], torch.load(weights, weights_only=False)["network_weights"])
    assert distill("all", finish(), "-pretrained_weights", weights, "--c") == 2
    assert "does not go with --c" in capsys.readouterr().err
    assert distill("all", finish(), "-pretrained_weights", f"{weights}.old") == 2
    assert f"{weights}.old is not a file" in capsys.readouterr().err and len(started) == 1


def test_a_training_that_is_there_is_not_begun_anew(started, capsys):
    weights = str(finish() / "fold_0" / "checkpoint_final.pth")
    assert distill("all", finish(), "-pretrained_weights", weights) == 0
    (beginning,) = Path(os.environ["nnUNet_results"]).rglob("nnUNetTrainerDistill__*/fold_all/checkpoint_best.pth")
    content = beginning.read_bytes()
    beginning.with_name("checkpoint_latest.pth").write_bytes(content)
    for options in (("-pretrained_weights", weights), ()):
        assert distill("all", finish(), *options) == 2 and len(started) == 1
        assert "holds a training already. Continue it with --c" in capsys.readouterr().err
    assert beginning.read_bytes() == content
    assert distill("all", finish(), "--c") == 0


def test_what_does_not_exist_is_not_continued(started, capsys):
    assert distill("all", finish(), "--c", "-tr", "nnUNetTrainerDistill_250epochs") == 2 and not started
    assert "fold_all holds no training to continue. Check -tr" in capsys.readouterr().err


def test_a_training_is_found_by_the_name_inside_its_plans(started, capsys):
    """Where nnU-Net itself writes it."""
    model = finish()
    prepare_student()
    folder = Path(os.environ["nnUNet_preprocessed"], DATASET)
    (folder / "edited.json").write_text((folder / "nnUNetPlans.json").read_text())
    there = model.with_name("nnUNetTrainerDistill__nnUNetPlans__2d") / "fold_all"
    there.mkdir(parents=True)
    (there / "checkpoint_latest.pth").touch()
    assert distill("all", model, "-p", "edited") == 2 and not started
    assert f"{there} holds a training already" in capsys.readouterr().err


def test_the_beginning_remembers_the_teachers(started, monkeypatch):
    model = finish()
    weights = str(model / "fold_0" / "checkpoint_final.pth")
    assert distill("all", model, "-pretrained_weights", weights) == 0
    monkeypatch.delenv(VARIABLE, raising=False)
    trainer = get_trainer_from_args(DATASET, "2d", "all", "nnUNetTrainerDistill", device=torch.device("cpu"))
    maybe_load_checkpoint(trainer, True, False, None)
    assert trainer.teacher.state_dict() == {"folders": [str(model.resolve())]}


def test_a_bare_name_is_the_model_of_this_dataset(started, monkeypatch, tmp_path):
    """A folder of another dataset's models may be where the user stands."""
    model = finish()
    (tmp_path / "elsewhere" / model.name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert distill("all", Path(model.name)) == 0
    assert started[0][1] == str(model.resolve())


def test_of_other_weights_nnunet_takes_what_fits(started, capsys):
    weights = str(finish(stages=4) / "fold_0" / "checkpoint_final.pth")
    shutil.move(Path(weights).parents[1], elsewhere := Path(weights).parents[2] / "deeper__nnUNetPlans__2d")
    weights = str(elsewhere / "fold_0" / "checkpoint_final.pth")
    assert distill("all", finish(), "-pretrained_weights", weights) == 0
    assert started[0][0][-2:] == ["-pretrained_weights", weights] and "--c" not in started[0][0]
    assert f"Not all weights of {weights} fit" in capsys.readouterr().out


def test_the_last_layer_of_other_labels_is_not_kept_where_the_checkpoint_was_copied_alone(started, capsys, tmp_path):
    weights, teacher = tmp_path / "weights.pth", finish()
    content = torch.load(teacher / "fold_0" / "checkpoint_final.pth", weights_only=False)
    torch.save(content, weights)
    assert distill("all", teacher, "-pretrained_weights", str(weights)) == 0 and started[0][0][-1] == "--c"
    for beginning in Path(os.environ["nnUNet_results"]).rglob("nnUNetTrainerDistill__*"):
        shutil.rmtree(beginning)
    description = content["init_args"]["dataset_json"]
    content["init_args"]["dataset_json"] = description | {"channel_names": {"0": "another"}}
    torch.save(content, weights)
    assert distill("all", teacher, "-pretrained_weights", str(weights)) == 0 and "--c" not in started[1][0]
    assert f"{weights} is of other labels or channels" in capsys.readouterr().out


def test_the_last_layer_of_other_labels_is_not_kept(started, capsys):
    weights = finish() / "fold_0" / "checkpoint_final.pth"
    shutil.move(weights.parents[1], elsewhere := weights.parents[2] / "other__nnUNetPlans__2d")
    weights = elsewhere / "fold_0" / "checkpoint_final.pth"
    description = json.loads((elsewhere / "dataset.json").read_text())
    names = [name for name in description["labels"] if name != "background"]
    swapped = description["labels"] | {
        names[0]: description["labels"][names[1]],
        names[1]: description["labels"][names[0]],
    }
    (elsewhere / "dataset.json").write_text(json.dumps(description | {"labels": swapped}))
    assert distill("all", finish(), "-pretrained_weights", str(weights)) == 0
    assert started[0][0][-2:] == ["-pretrained_weights", str(weights)] and "--c" not in started[0][0]
    assert f"{weights} is of other labels or channels" in capsys.readouterr().out


def test_starting_weights_have_not_seen_the_validation_cases(started, capsys):
    model = finish(folds=(0, 1, "all"))
    for fold in ("1", "all"):
        assert distill(0, model, "-pretrained_weights", str(model / f"fold_{fold}" / "checkpoint_final.pth")) == 2
        assert "has seen validation cases of fold 0" in capsys.readouterr().err and not started
    assert distill(0, model, "-pretrained_weights", str(model / "fold_0" / "checkpoint_final.pth")) == 0


def test_starting_weights_of_a_dataset_with_pseudo_labels(started, capsys):
    """It holds the labelled cases of dataset 900."""
    model = finish(folds=(0, "all"))
    other = "Dataset901_Toy_pseudo"
    plans = json.loads((model / "plans.json").read_text()) | {"dataset_name": other}
    (model / "plans.json").write_text(json.dumps(plans))
    raw = Path(os.environ["nnUNet_raw"], other)
    raw.mkdir(parents=True)
    (raw / "pseudo_labels.json").write_text(json.dumps({"dataset": DATASET}))
    weights = str(model / "fold_all" / "checkpoint_final.pth")
    teacher = finish(nnUNetTrainerDSKD, folds=(0,))
    assert distill(0, teacher, "-pretrained_weights", weights) == 2 and not started
    assert f"-pretrained_weights {weights}: it has seen validation cases of fold 0" in capsys.readouterr().err
    assert distill(0, teacher, "-pretrained_weights", str(model / "fold_0" / "checkpoint_final.pth")) == 0


def test_weights_of_which_nothing_is_known(started, capsys, tmp_path):
    weights = tmp_path / "weights.pth"
    weights.touch()
    assert distill(0, finish(), "-pretrained_weights", str(weights)) == 0
    assert "has seen the validation cases of fold 0 is not known" in capsys.readouterr().out


def test_the_teachers_that_the_checkpoint_remembers_are_not_replaced(started, monkeypatch):
    monkeypatch.setenv(VARIABLE, "of another training")
    weights = str(finish() / "fold_0" / "checkpoint_final.pth")
    assert distill("all", finish(), "-pretrained_weights", weights) == 0  # a training that can be continued
    started.clear()
    assert main(["distill", "-d", "900", "-c", "2d", "--c", "-device", "cpu"]) == 0
    assert started[0][1] == ""


def test_refuses_a_missing_device_before_weights_are_laid(started, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    weights = str(finish() / "fold_0" / "checkpoint_final.pth")
    assert distill("all", finish(), "-pretrained_weights", weights, "-device", "cuda") == 2 and not started
    assert "no CUDA device. Use -device cpu" in capsys.readouterr().err
    assert not list(Path(os.environ["nnUNet_results"]).rglob("nnUNetTrainerDistill__*"))


def test_refuses_a_path_that_the_variable_would_split(started, capsys):
    model = finish()
    other = model.parent / f"a{os.pathsep}b__nnUNetPlans__2d"
    model.rename(other)
    assert distill("all", other) == 2 and not started
    assert f"has a {os.pathsep!r} in its path, which separates teachers. Rename it" in capsys.readouterr().err
