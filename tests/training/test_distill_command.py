"""nnunet-skd distill: what it starts, and what it refuses before it starts anything."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_finished_models import finish
from toy import DATASET, toy_dataset_json, toy_plans
from toy_data import LABELLED

from nnunet_skd.model_checks import VARIABLE
from nnunet_skd.tools.cli import main
from nnunet_skd.tools.distill import command


@pytest.fixture
def started(nnunet_env, monkeypatch) -> list:
    """The commands that are started, each with its teachers."""
    commands = []

    def note(arguments, env):
        commands.append((arguments[1:], env.get(VARIABLE)))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(command.subprocess, "run", note)
    return commands


def distill(fold, model: Path, *, folds=5) -> int:
    folder = Path(os.environ["nnUNet_preprocessed"], DATASET)
    splits = [{"train": [c for c in LABELLED if c != case], "val": [case]} for case in LABELLED[:folds]]
    contents = {"nnUNetPlans.json": toy_plans(), "dataset.json": toy_dataset_json()}
    for name, content in (contents | ({"splits_final.json": splits} if folds else {})).items():
        (folder / name).write_text(json.dumps(content))
    return main(["distill", "-d", "900", "-c", "2d", "--teacher", str(model), "-f", str(fold), "-device", "cpu"])


@pytest.mark.parametrize("fold", [0, "all"])
def test_starts_nnunets_own_command(started, fold):
    model = finish()
    assert distill(fold, model) == 0
    train = ["900", "2d", str(fold), "-tr", "nnUNetTrainerDistill", "-p", "nnUNetPlans", "-device", "cpu"]
    assert started == [(train, str(model.resolve()))]


@pytest.mark.parametrize(("folds", "there_are"), [(3, "3"), (0, "5")])
def test_refuses_a_fold_beyond_the_split(started, capsys, folds, there_are):
    """Without a split, nnU-Net makes one of five folds."""
    model = finish()
    (model / "fold_0").rename(model / f"fold_{there_are}")
    assert distill(there_are, model, folds=folds) == 2 and not started
    said = capsys.readouterr().err
    where = "splits_final.json holds 3" if folds else "nnU-Net will make 5 in the first training"
    assert f"there is no fold {there_are}: " in said and f"{where}, counted from 0" in said
