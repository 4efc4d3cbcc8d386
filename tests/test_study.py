"""The studies behind docs/results.md: what makes a row, what refuses it, and what the tables say about the rows."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
from toy import make_trainer, run_epoch
from volumes import write_segmentation, write_volume

from driver import run as driver_run
from driver.comparison import compare, differences, nested_bootstrap, noise_floor, values, verdict
from driver.datasets import Raw, choose, draw_dataset, fill_ignored, keep_slices, outside
from driver.definition import EXPERIMENTS, Arm, Cell, Model, Study, cells, load_study
from driver.finding import find_trainer
from driver.fingerprint import fingerprint, hash_sources
from driver.making import Making
from driver.page import fill
from driver.place import Place, locked, write_whole
from driver.rows import add_cell, read_rows, refuse_mixed_code
from driver.run import Paths, Run, lock
from driver.status import status
from driver.tables import _trainings, study_tables
from driver.trainings import plan, training_of, with_needs
from nnunet_skd.compat import READS_EXT_TRAINER
from nnunet_skd.tools.demo.phantoms import write_phantom_dataset
from nnunet_skd.tools.errors import BadInput
from protocol import Protocol
from study import main as study_main

CODE = "nnunetv2=1 torch=1 protocol=1"


def small_study(**changes) -> Study:
    settings = {
        "question": "Does it work?",
        "dataset": "Dataset900_Toy",
        "arms": {"stock": Arm(), "ours": Arm("nnUNetTrainerDSKD")},
        "seeds": (0, 1),
        "steps": 20,
        "iterations": 10,
    }
    return Study(**settings | changes)


# ------------------------------------------------------------------------------------------------ studies


@pytest.mark.parametrize("file", sorted((EXPERIMENTS / "studies").glob("*.py")), ids=lambda file: file.stem)
def test_every_study_can_be_planned(file):
    name, study = load_study(file.stem)
    assert name == file.stem
    assert len(plan(study)) == len(cells(study)) > 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arms": {}}, "needs arms"),
        ({"dataset": "900"}, "is no dataset"),
        ({"arms": {"a": Arm(annotated_intensities=True)}}, "no voxel is ignored"),
        ({"test": "train"}, "'imagesTs' or 'rest'"),
        ({"folds": True}, "validation cases"),
        ({"draws": (0, 1)}, "one draw"),
        ({"test": "rest"}, "one draw"),
        ({"steps": 25}, "no whole epochs"),
        ({"arms": {"a": Arm(models=(Model("b"),))}}, "needs 'b'"),
        ({"arms": {"a": Arm(start=Model("b"))}}, "needs 'b'"),
        ({"arms": {"a": Arm(prepare="pseudo_labels")}, "labelled": 5}, "come from finished models"),
        ({"arms": {"a": Arm(prepare="unlabelled")}}, "nothing to prepare"),
        ({"arms": {"a": Arm(prepare="magic")}}, "prepare is one of"),
        ({"arms": {"a": Arm(prepare="unlabelled", review="doubtful corrected")}, "labelled": 5}, "could be reviewed"),
        ({"arms": {"a": Arm(review="all of them")}}, "review is one of"),
        ({"arms": {"a": Arm(keeps_last_layer=True)}}, "name it in start"),
        ({"arms": {"a": Arm(ensemble=True)}}, "two models or more"),
        ({"arms": {"a": Arm(labelled="all")}, "labelled": 5, "test": "rest"}, "cases that it is tested on"),
        ({"arms": {"a": Arm(labelled="fold 5")}}, "'fold 0' to 'fold 4'"),
    ],
)
def test_a_study_that_makes_no_sense_is_refused(changes, words):
    with pytest.raises(BadInput, match=words):
        small_study(**changes)


def test_studies_with_equal_recipes_share_their_trainings():
    _, floor = load_study("noise_floor")
    _, methods = load_study("methods_080")
    for seed in (0, 1, 2):
        cell = Cell("nnUNetTrainer", 0, seed)
        assert training_of(floor, cell).key == training_of(methods, cell).key
    assert len({training.key for training in plan(methods).values()}) == 20
    _, few = load_study("few_labels_080")
    everything = plan(few)
    assert len({everything[Cell("all labels, twice the steps", draw, 0)].key for draw in few.draws}) == 1


def test_teachers_come_first_and_once():
    _, few = load_study("few_labels_080")
    student = training_of(few, Cell("Distill, three teachers", 1, 0))
    ordered = with_needs([student, training_of(few, Cell("Distill, one teacher", 1, 0))])
    assert [str(training.cell) for training in ordered] == [
        "labelled only, draw 1, seed 0",
        "labelled only, draw 1, seed 1",
        "labelled only, draw 1, seed 2",
        "Distill, three teachers, draw 1, seed 0",
        "Distill, one teacher, draw 1, seed 0",
    ]


def test_the_questions_that_were_asked_can_be_written_down():
    """Slices and sparse annotations of volumes from equal starts, and one network instead of five folds."""
    taught = {"nnUNet_skd_teacher": "{models}"}
    slices = small_study(
        dataset="Dataset081_HeadNeckCT",
        labelled=4,
        draws=(0, 1, 2),
        metrics=("Dice", "HD95"),
        arms={
            "labelled only": Arm(),
            "second round": Arm("nnUNetTrainerDistill", models=(Model("taught"),), environment=taught),
            "taught": Arm("nnUNetTrainerDistill", models=(Model("labelled only"),), environment=taught),
        },
    )
    assert len(with_needs(list(plan(slices).values()))) == 3 * 3 * 2
    sparse = small_study(
        dataset="Dataset081_HeadNeckCT",
        configuration="3d_fullres",
        annotated_slices=3,
        arms={
            "start": Arm(labelled="all"),
            "labelled only": Arm(start=Model("start", seed=0)),
            "advice": Arm(models=(Model("labelled only"),), prepare="pseudo_labels", start=Model("start", seed=0)),
        },
    )
    recipes = {cell.arm: training.recipe for cell, training in plan(sparse).items()}
    assert [recipes[arm]["annotated_slices"] for arm in sparse.arms] == [None, 3, 3]
    measured = {name: replace(arm, annotated_intensities=True) for name, arm in sparse.arms.items()}
    keys = {cell.arm: (plan(sparse)[cell].key, t.key) for cell, t in plan(replace(sparse, arms=measured)).items()}
    assert [before == after for before, after in keys.values()] == [True, False, False], "all labels: nothing ignored"
    starts = {t.recipe["start"] for cell, t in plan(sparse).items() if cell.arm != "start"}
    assert starts == {plan(sparse)[Cell("start", 0, 0)].key}, "one start for all seeds"
    folds = {f"fold {i}": Arm(labelled=f"fold {i}") for i in range(5)}
    five = tuple(Model(name) for name in folds)
    one_for_five = small_study(
        arms={
            "all": Arm(),
            **folds,
            "five folds": Arm(models=five, ensemble=True),
            "one for five": Arm(
                "nnUNetTrainerDistill", models=five, environment=taught, preset="plans/compact_w025.json"
            ),
        }
    )
    assert [t.recipe["cases"] for t in plan(one_for_five).values()][:6] == ["all", *folds]
    half = small_study(folds=True, draws=(0, 1, 2, 3, 4), test="rest")
    assert plan(half)[Cell("ours", 3, 0)].recipe["test"] == "outside fold 3"


def test_steps_are_a_property_of_the_training():
    study = small_study(arms={"once": Arm(), "twice": Arm(steps=2)})
    once, twice = (training_of(study, Cell(arm, 0, 3)) for arm in study.arms)
    assert (once.recipe["epochs"], twice.recipe["epochs"]) == (2, 4)
    assert (once.class_name, twice.class_name) == ("nnUNetTrainer_20steps_seed3", "nnUNetTrainer_40steps_seed3")


def test_draws_and_folds():
    names = [f"case{i:02d}" for i in range(20)]
    five, ten = choose(names, "5 of draw 3"), choose(names, "10 of draw 3")
    assert len(five) == 5 and set(five) < set(ten) and five == sorted(five)
    assert five != choose(names, "5 of draw 4")
    assert outside(names, "5 of draw 3") == sorted(set(names) - set(five))
    held_out = [case for fold in range(5) for case in outside(names, f"fold {fold}")]
    assert sorted(held_out) == names
    assert choose(names, "all") == names


def test_annotated_slices_and_their_pseudo_labels(tmp_path):
    label = np.zeros((9, 4, 5), np.uint8)
    label[2:8, 1:3, 1:4] = 2
    image = sitk.GetImageFromArray(label)
    image.SetSpacing((1.0, 2.0, 3.0))
    sitk.WriteImage(image, tmp_path / "label.nii.gz")
    keep_slices(tmp_path / "label.nii.gz", tmp_path / "sparse.nii.gz", 2, ignore=3)
    sparse = sitk.ReadImage(tmp_path / "sparse.nii.gz")
    array = sitk.GetArrayFromImage(sparse)
    known = [z for z in range(9) if (array[z] != 3).any()]
    assert sparse.GetSpacing() == image.GetSpacing()
    assert len(known) == 2 and all(2 <= z < 8 and (array[z] == label[z]).all() for z in known)

    sitk.WriteImage(sitk.GetImageFromArray(np.ones_like(label)), tmp_path / "prediction.nii.gz")
    fill_ignored(tmp_path / "sparse.nii.gz", tmp_path / "prediction.nii.gz", ignore=3)
    filled = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "prediction.nii.gz"))
    assert (filled[known] == label[known]).all() and (np.delete(filled, known, 0) == 1).all()


def test_each_draw_has_a_dataset_of_its_own_where_intensities_are_those_of_annotated_slices(tmp_path, monkeypatch):
    raw, source = tmp_path / "raw", tmp_path / "given" / "Dataset081_X"
    raw.mkdir()
    for case in "abc":
        write_volume(source / "imagesTr" / f"{case}_0000.nii.gz", np.ones((6, 4, 5), np.int16))
        write_segmentation(source / "labelsTr" / f"{case}.nii.gz", np.ones((6, 4, 5)))
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"}
    (source / "dataset.json").write_text(json.dumps(description))
    monkeypatch.setenv("nnUNet_raw", str(raw))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    folder = tmp_path / "work" / "trainings" / "key"
    folder.mkdir(parents=True)
    recipe = {"dataset": source.name, "annotated_slices": 2, "annotated_intensities": True}
    (folder / "job.json").write_text(json.dumps({"recipe": recipe, "raw": str(source.parent), "models": []}))
    making = Making(folder)
    draws = ("2 of draw 0", "2 of draw 1", "fold 0", "all", "2 of draw 0")
    names = [making.given_dataset(which) for which in draws]
    assert names[0] == names[4] and names[2] == names[3] and len(set(names)) == 3
    for which, name in zip(draws, names, strict=True):
        expected = ["a", "b", "c"] if which == "fold 0" else choose(["a", "b", "c"], which)
        assert Raw(raw / name).cases() == expected


def test_the_labels_that_agree_least_are_reviewed_or_any_six(tmp_path, monkeypatch):
    names = [f"case{i}" for i in range(9)]
    source = tmp_path / "given" / "Dataset081_X"
    for case in names:
        write_volume(source / "imagesTr" / f"{case}_0000.nii.gz", np.ones((2, 8, 8), np.int16))
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"}
    (source / "dataset.json").write_text(json.dumps(description))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    folder = tmp_path / "work" / "trainings" / "key"
    folder.mkdir(parents=True)
    recipe = {"dataset": source.name, "seed": 1}
    (folder / "job.json").write_text(json.dumps({"recipe": recipe, "raw": str(source.parent), "models": []}))

    def predict(models, images, output, *, mirroring):
        """The later a case, the more do both predictions agree; the last one holds nothing."""
        for i, case in enumerate(images):
            label = np.zeros((2, 8, 8))
            label[:, : 0 if i == 8 else 8 if mirroring else i] = 1
            write_segmentation(output / f"{case}.nii.gz", label)

    monkeypatch.setattr("driver.making.predict", predict)
    making = Making(folder)
    images = {case: making.source.images(case) for case in names}
    predict([], images, tmp_path / "mirrored", mirroring=True)
    assert making.reviewed("doubtful corrected", images, tmp_path / "mirrored") == names[:6]
    any_six = making.reviewed("random corrected", images, tmp_path / "mirrored")
    assert len(set(any_six)) == 6 and set(any_six) < set(names) and any_six != names[:6]


# ------------------------------------------------------------------------------------------------ fingerprints


def test_a_hash_sees_code_and_nothing_else(tmp_path):
    file = tmp_path / "trainer.py"
    hashes = []
    for text in (
        'class A:\n    """One."""\n\n    weight = 1\n',
        "class A:  # two\n    weight=1\n",
        "class A:\n    weight = 2\n",
    ):
        file.write_text(text)
        os.utime(file, ns=(len(hashes), len(hashes)))
        hashes.append(hash_sources([file]))
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_fingerprint_names_what_a_training_depends_on():
    stock, ours = (training_of(small_study(), Cell(arm, 0, 0)).recipe for arm in ("stock", "ours"))
    drawn = training_of(small_study(labelled=3), Cell("stock", 0, 0)).recipe

    def parts(recipe: dict) -> list[str]:
        return [part.split("=")[0] for part in fingerprint(recipe).split()]

    assert parts(stock) == ["nnunetv2", "torch", "protocol"]
    assert parts(ours) == ["nnunetv2", "torch", "protocol", "package"]
    assert parts(drawn) == ["nnunetv2", "torch", "protocol", "datasets"]
    with pytest.raises(LookupError, match="no trainer 'nnUNetTrainerNobody'"):
        fingerprint(stock | {"trainer": "nnUNetTrainerNobody"})


def test_a_trainer_of_a_file_is_hashed_with_its_file():
    recipe = training_of(small_study(), Cell("stock", 0, 0)).recipe | {"trainer": "protocol:Protocol"}
    assert find_trainer("protocol:Protocol") is Protocol
    assert fingerprint(recipe).split()[-1].startswith("file=")
    with pytest.raises(LookupError, match="there is no trainer 'protocol:Nobody'"):
        find_trainer("protocol:Nobody")


# ------------------------------------------------------------------------------------------------ protocol


class Drawing(Protocol):
    """A trainer that draws random numbers of its own in each step."""

    def train_step(self, batch: dict) -> dict:
        np.random.uniform(size=7)
        torch.rand(3)
        return super().train_step(batch)


def test_batches_depend_on_seed_and_step_alone(nnunet_env):
    drawn = {}
    for trainer_class in (Protocol, Drawing):
        trainer = make_trainer(trainer_class)
        trainer.initialize()
        weights = next(trainer.network.parameters()).detach().clone()
        numbers = []
        for epoch in range(2):
            run_epoch(trainer, epoch, steps=2)
            numbers.append((np.random.uniform(), torch.rand(1).item()))
        drawn[trainer_class] = (weights.flatten().tolist(), numbers)
    assert drawn[Protocol] == drawn[Drawing]


def test_a_checkpoint_is_there_after_each_epoch_and_whole(nnunet_env):
    trainer = make_trainer(Protocol)
    trainer.epochs = 3
    trainer.initialize()
    run_epoch(trainer, 0, steps=1)
    names = {file.name for file in Path(trainer.output_folder).iterdir()}
    assert "checkpoint_latest.pth" in names and not any(name.endswith(".part") for name in names)
    assert trainer.num_iterations_per_epoch == 100


# ------------------------------------------------------------------------------------------------ runs

FAKE = """
import sys, json, time
from pathlib import Path
place, key, code, arm, tested, fails = sys.argv[1:]
print("training", arm)
if fails == "True":
    sys.exit("no memory left")
place = Path(place)
(place / "model.json").write_text(json.dumps({"folder": "m", "step_seconds": 1.0, "fingerprint": code}))
if tested == "True":
    lines = [f"False,case{i},vessel,0.{i}5,0.2,0.1,{key},{code}" for i in range(3)]
    (place / "rows.csv").write_text("\\n".join(
        ["mirroring,case,label,Dice,case_seconds,step_seconds,recipe,fingerprint", *lines]))
"""


class FakeRun(Run):
    """The driver with trainings that take no time."""

    fails: tuple[str, ...] = ()

    def start(self, training, tested):
        self.started = [*getattr(self, "started", []), str(training.cell)]
        place = self.place(training)
        place.folder.mkdir(parents=True, exist_ok=True)
        code = self.codes[training.key]
        words = [place.folder, training.key, code, training.cell.arm, tested, training.cell.arm in self.fails]
        with place.log.open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-c", FAKE, *map(str, words)],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


@pytest.fixture
def code(monkeypatch) -> dict[str, str]:
    """What each trainer's fingerprint is; a trainer that is not in it does not exist."""
    codes = {"nnUNetTrainer": CODE, "nnUNetTrainerDSKD": f"{CODE} package=1"}

    def of(recipe: dict) -> str:
        if recipe["trainer"] not in codes:
            raise LookupError
        return codes[recipe["trainer"]]

    monkeypatch.setattr(driver_run, "fingerprint", of)
    monkeypatch.setattr(driver_run, "POLL_SECONDS", 0.02)
    return codes


def fake_run(tmp_path: Path, study: Study, name: str = "toy", *, fails=(), restart=()) -> tuple[int, list[str]]:
    """Exit code, and the cells that were started."""
    paths = Paths(tmp_path / "raw", tmp_path / "work", tmp_path / "results")
    one = FakeRun(name, study, paths, lock_number=0)
    one.fails = fails
    return one.run(2, list(restart)), sorted(getattr(one, "started", []))


def test_what_is_missing_runs_and_nothing_twice(tmp_path, code):
    study = small_study()
    assert fake_run(tmp_path, study) == (0, sorted(str(cell) for cell in cells(study)))
    file = tmp_path / "results" / "toy.csv"
    rows = read_rows(file)
    assert len(rows) == 2 * 2 * 3 and not rows.duplicated(["arm", "draw", "seed", "case"]).any()
    assert list(rows["arm"].unique()) == ["stock", "ours"]
    before = file.read_bytes()
    assert fake_run(tmp_path, study) == (0, [])
    assert file.read_bytes() == before

    # one cell lost its rows, but its training is in the work folder; another one lost both
    lost, kept = Cell("ours", 0, 0), Cell("stock", 0, 1)
    gone = (rows["arm"] == "ours") & (rows["seed"] == 0) | (rows["arm"] == "stock") & (rows["seed"] == 1)
    rows[~gone].to_csv(file, index=False)
    shutil.rmtree(Place(tmp_path / "work", training_of(study, lost).key).folder)
    assert fake_run(tmp_path, study) == (0, [str(lost)])
    assert len(read_rows(file)) == 12 and str(kept) in status("toy", study, tmp_path / "work", tmp_path / "results")


def test_rows_are_shared_between_studies(tmp_path, code):
    fake_run(tmp_path, small_study(arms={"alone": Arm()}), "floor")
    shutil.rmtree(tmp_path / "work")
    assert fake_run(tmp_path, small_study()) == (0, ["ours, draw 0, seed 0", "ours, draw 0, seed 1"])
    rows = read_rows(tmp_path / "results" / "toy.csv")
    assert len(rows[rows["arm"] == "stock"]) == 6

    # but not those of other code
    shutil.rmtree(tmp_path / "work")
    (tmp_path / "results" / "toy.csv").unlink()
    code["nnUNetTrainer"] = "nnunetv2=2 torch=1 protocol=1"
    assert len(fake_run(tmp_path, small_study())[1]) == 4


def test_other_code_is_refused_until_the_arm_is_restarted(tmp_path, code):
    arms = {"stock": Arm(), "ours": Arm("nnUNetTrainerDSKD"), "taught, by ours": Arm(models=(Model("ours"),))}
    study = small_study(arms=arms, seeds=(0,))
    fake_run(tmp_path, study)
    code["nnUNetTrainerDSKD"] = f"{CODE} package=2"
    with pytest.raises(BadInput, match=r'rows of ours.*package=1; now .*package=2.*--restart "ours"'):
        fake_run(tmp_path, study)
    with pytest.raises(BadInput, match="no arm theirs"):
        fake_run(tmp_path, study, restart=["theirs"])
    # the arm that was taught by the old model goes with it
    assert fake_run(tmp_path, study, restart=["ours"]) == (
        0,
        ["ours, draw 0, seed 0", "taught, by ours, draw 0, seed 0"],
    )
    assert set(read_rows(tmp_path / "results" / "toy.csv").groupby("arm")["fingerprint"].first()) == set(code.values())

    with pytest.raises(BadInput, match="other settings"):
        fake_run(tmp_path, small_study(arms=arms, seeds=(0,), steps=40))
    with pytest.raises(BadInput, match="rows that the study does not have: ours, draw 0"):
        fake_run(tmp_path, small_study(arms={"stock": Arm()}, seeds=(0,)))


def test_an_old_teacher_is_refused(tmp_path, code):
    study = small_study(arms={"taught": Arm(models=(Model("ours", 5),)), "ours": Arm("nnUNetTrainerDSKD")}, seeds=(0,))
    fake_run(tmp_path, study)
    (tmp_path / "results" / "toy.csv").unlink()
    shutil.rmtree(Place(tmp_path / "work", training_of(study, Cell("taught", 0, 0)).key).folder)
    code["nnUNetTrainerDSKD"] = f"{CODE} package=2"
    with pytest.raises(BadInput, match=r'model of ours, draw 0, seed 5.*--restart "ours"'):
        fake_run(tmp_path, study)
    assert fake_run(tmp_path, study, restart=["ours"])[0] == 0


def test_a_failed_training_is_told_and_the_others_go_on(tmp_path, code, capsys):
    arms = {
        "stock": Arm(),
        "ours": Arm("nnUNetTrainerDSKD"),
        "pupil": Arm(start=Model("ours")),
        "future": Arm("nnUNetTrainerFuture"),
    }
    study = small_study(arms=arms, seeds=(0,))
    assert fake_run(tmp_path, study, fails=("ours",)) == (1, ["ours, draw 0, seed 0", "stock, draw 0, seed 0"])
    printed = capsys.readouterr().out
    assert "no memory left" in printed
    assert "pupil, draw 0, seed 0" in printed and "it needs ours, draw 0, seed 0" in printed
    assert "there is no trainer nnUNetTrainerFuture" in printed
    assert set(read_rows(tmp_path / "results" / "toy.csv")["arm"]) == {"stock"}
    code["nnUNetTrainerFuture"] = CODE
    assert fake_run(tmp_path, study)[0] == 0


def test_a_run_that_cannot_work_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(driver_run, "READS_EXT_TRAINER", True)
    paths = Paths(tmp_path / "raw", tmp_path / "work", tmp_path / "results")

    def refused(study: Study) -> str:
        with pytest.raises(BadInput) as error:
            driver_run.run("toy", study, paths, jobs=1, restart=[])
        return str(error.value)

    assert "has no dataset Dataset900_Toy; name the folder of your raw datasets with --raw" in refused(small_study())
    raw_dataset(paths.raw / "Dataset900_Toy")
    assert "there is nothing to test on" in refused(small_study())
    assert "a draw of 4 is no draw" in refused(small_study(labelled=4, test="rest"))
    monkeypatch.setattr(driver_run, "READS_EXT_TRAINER", False)
    assert "studies need nnU-Net 2.8" in refused(small_study())
    assert not paths.work.exists()


def test_the_commands_refuse_bad_input_with_one_line(tmp_path, capsys):
    for words in (["run", "nobody", "--raw", "."], ["status", "nobody"], ["page", "nowhere.md"], ["table", "__file__"]):
        assert study_main(words) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert study_main(["status", "noise_floor", "--work", str(tmp_path), "--results", str(tmp_path)]) == 0
    assert "noise_floor: 0 of 3 cells done" in capsys.readouterr().out
    assert study_main(["run", "noise_floor", "--raw", str(tmp_path), "--jobs", "0"]) == 2


def raw_dataset(folder: Path) -> Raw:
    """Four cases whose files are empty."""
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    for case in range(4):
        (folder / "imagesTr" / f"case{case}_0000.png").touch()
        (folder / "labelsTr" / f"case{case}.png").touch()
    content = {"channel_names": {"0": "XA"}, "labels": {"background": 0, "vessel": 1}, "file_ending": ".png"}
    (folder / "dataset.json").write_text(json.dumps(content))
    return Raw(folder)


def test_the_dataset_of_a_draw_holds_its_cases_alone(tmp_path, monkeypatch):
    source, raw = raw_dataset(tmp_path / "Dataset900_Toy"), tmp_path / "work" / "raw"
    raw.mkdir(parents=True)
    assert draw_dataset(source, "all", None, raw) == draw_dataset(source, "fold 2", None, raw) == "Dataset900_Toy"
    name = draw_dataset(source, "2 of draw 1", None, raw)
    assert name == "Dataset500_Toy_2ofdraw1"
    made = Raw(raw / name)
    assert made.cases() == choose(source.cases(), "2 of draw 1") and made.json["numTraining"] == 2
    assert draw_dataset(source, "2 of draw 2", None, raw) == "Dataset501_Toy_2ofdraw2"

    preprocessed = tmp_path / "work" / "preprocessed" / name
    preprocessed.mkdir(parents=True)
    assert draw_dataset(source, "2 of draw 1", None, raw) == name and preprocessed.is_dir()
    (raw / name / "ready").unlink()  # a kill came before its end
    assert draw_dataset(source, "2 of draw 1", None, raw) == name and not preprocessed.exists()


def test_two_runs_in_one_folder_are_refused(tmp_path):
    with lock(tmp_path), pytest.raises(BadInput, match=f"another run \\(process {os.getpid()}\\)"):
        lock(tmp_path)
    lock(tmp_path).close()


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    write_whole(tmp_path / "rows.csv", "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "rows.csv", "new")
    assert (tmp_path / "rows.csv").read_text() == "old"
    with locked(tmp_path / "lock"):
        pass


# ------------------------------------------------------------------------------------------------ tables


def rows_of_arms(arms: dict[str, np.ndarray], metric: str = "Dice", draws: int = 1) -> pd.DataFrame:
    """Rows of one class from an array (draws, seeds, cases) per arm."""
    rows = [
        {"arm": arm, "draw": d, "seed": s, "mirroring": False, "case": f"c{c}", "label": "vessel", metric: value}
        | {"recipe": f"{arm} {d} {s}"}
        for arm, array in arms.items()
        for (d, s, c), value in np.ndenumerate(array)
    ]
    return pd.DataFrame(rows).assign(fingerprint=CODE, step_seconds=0.2, case_seconds=0.1)


def of_study(rows: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The rows with the recipes of the study's trainings."""
    keys = {(cell.arm, cell.draw, cell.seed): training.key for cell, training in plan(study).items()}
    return rows.assign(recipe=[keys[cell] for cell in zip(rows["arm"], rows["draw"], rows["seed"], strict=True)])


def test_a_table_by_hand():
    """Six cases, two seeds: differences +0.01 ... +0.06 in the mean of the seeds; the other arm alternates."""
    base = np.full((1, 2, 6), 0.5)
    steps = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.06])
    arms = {
        "stock": base,
        "up": base + np.stack([steps - 0.005, steps + 0.005])[None],
        "mixed": base + (steps * [1, -1, 1, -1, 1, -1])[None, None],
    }
    study = small_study(arms={name: Arm() for name in arms})
    table = compare(rows_of_arms(arms), study, "Dice", False, noise=0.02)
    assert table["mean"].tolist() == pytest.approx([0.5, 0.535, 0.495])
    assert table["difference"].tolist()[1:] == pytest.approx([0.035, -0.005])
    # six positive differences: p = 2 / 2^6. For the ranks 1, 3, 5 against 2, 4, 6, W = 9: 54 of the 64 sign
    # patterns are at least as far from the middle
    assert table["p"].tolist()[1:] == pytest.approx([2 / 64, 54 / 64])
    assert table["p_holm"].tolist()[1:] == pytest.approx([4 / 64, 54 / 64])
    assert table["verdict"].tolist() == ["", "not shown", "level"]
    assert table["trainings"].tolist() == [2, 2, 2]
    assert 0.01 < table.loc["up", "low"] < 0.035 < table.loc["up", "high"] < 0.06


def test_classes_that_one_arm_lacks_are_not_compared():
    rows = rows_of_arms({"stock": np.full((1, 1, 2), 0.5), "ours": np.full((1, 1, 2), 0.7)}, "HD95")
    other = rows.assign(label="organ", HD95=[4.0, 4.0, 9.0, np.nan])
    rows = pd.concat([rows, other])
    (frame,) = differences(values(rows, "stock", "HD95"), values(rows, "ours", "HD95"))
    assert frame.loc[0].tolist() == pytest.approx([(0.2 + 5.0) / 2, 0.2])


def test_an_ensemble_is_compared_with_the_mean_over_seeds():
    rows = pd.concat([
        rows_of_arms({"stock": np.array([[[0.4, 0.6], [0.6, 0.6]]])}),
        rows_of_arms({"both": np.array([[[0.7, 0.7]]])}),
    ])  # fmt: skip
    (frame,) = differences(values(rows, "stock", "Dice"), values(rows, "both", "Dice"), by_seed=False)
    assert frame.to_numpy().tolist() == [pytest.approx([0.2, 0.1])]


def test_trainings_are_paired_by_the_seeds_that_both_arms_have():
    """The seed that only one arm has is left out: it may have been a lucky one."""
    rows = rows_of_arms({"stock": np.array([[[0.4], [0.5], [0.9]]]), "ours": np.array([[[0.41], [0.51]]])})
    (frame,) = differences(values(rows, "stock", "Dice"), values(rows, "ours", "Dice"))
    assert frame["c0"].tolist() == pytest.approx([0.01, 0.01])
    rows = rows[(rows["arm"] == "stock") | (rows["seed"] == 1)].replace({"seed": {2: 1, 1: 2}})
    (frame,) = differences(values(rows, "stock", "Dice"), values(rows, "ours", "Dice"))
    assert frame["c0"].tolist() == pytest.approx([0.01])
    alone = rows[(rows["arm"] == "stock") & (rows["seed"] < 2) | (rows["arm"] == "ours")]
    (frame,) = differences(values(alone, "stock", "Dice"), values(alone, "ours", "Dice"))
    assert frame["c0"].tolist() == pytest.approx([0.51 - 0.65])  # no seed in common: the means


def test_what_stands_behind_a_difference_is_counted():
    """Two trainings of each arm are one comparison if they have one seed in common, and none without a draw."""
    study = small_study(arms={"stock": Arm(), "ours": Arm()}, labelled=3, draws=(0, 1))
    rows = rows_of_arms({"stock": np.full((2, 3, 6), 0.5), "ours": np.full((2, 3, 6), 0.7)})
    stock, ours = (rows[rows["arm"] == arm] for arm in study.arms)

    def compared(*parts: pd.DataFrame) -> pd.Series:
        return compare(pd.concat(parts), study, "Dice", False, noise=0.01).loc["ours"]

    assert compared(stock, ours)["compared"] == 6
    one_draw = [arm[arm["draw"] == 0] for arm in (stock, ours)]
    one_seed = compared(one_draw[0][one_draw[0]["seed"] != 1], one_draw[1][one_draw[1]["seed"] != 2])
    assert (one_seed["trainings"], one_seed["compared"], one_seed["verdict"]) == (2, 1, "one training")
    apart = compared(stock[stock["draw"] == 0], ours[ours["draw"] == 1])
    assert apart["trainings"] == 3 and np.isnan(apart["difference"]) and apart["verdict"] == ""
    shared = ours.assign(recipe=[f"seed {seed}" for seed in ours["seed"]])  # as of all labels in each draw
    assert compared(stock, shared)[["trainings", "compared"]].tolist() == [3, 3]


def test_a_training_that_is_missing_leaves_its_place_empty():
    rows = rows_of_arms({"stock": np.full((2, 2, 3), 0.5), "ours": np.full((2, 2, 3), 0.7)})
    rows = rows[(rows["arm"] == "stock") | (rows["draw"] == 1) & (rows["seed"] == 1)]
    table = _trainings(rows, small_study(labelled=3, draws=(0, 1), arms={"stock": Arm(), "ours": Arm()}))
    assert "| 0.500 0.500 / 0.500 0.500 |" in table and "| - - / - 0.700 |" in table


def test_an_arm_is_compared_with_those_that_it_names():
    study = small_study(
        arms={"stock": Arm(), "small": Arm(), "taught": Arm(against=("stock", "small")), "fold": Arm(against=())}
    )
    arms = {name: np.full((1, 2, 6), mean) for name, mean in zip(study.arms, (0.5, 0.4, 0.45, 0.1), strict=True)}
    table = compare(rows_of_arms(arms), study, "Dice", False, noise=0.01)
    assert table.index.tolist() == ["stock", "small", "taught", "taught minus small", "fold"]
    assert table["difference"].tolist()[1:4] == pytest.approx([-0.1, -0.05, 0.05])
    assert table["difference"].isna().tolist() == [True, False, False, False, True]
    assert table["p_holm"].dropna().tolist() == pytest.approx([3 * 2 / 64] * 3)  # a family of three
    with pytest.raises(BadInput, match="needs 'other'"):
        small_study(arms={"stock": Arm(), "taught": Arm(against=("other",))})


def frame(array) -> pd.DataFrame:
    return pd.DataFrame(np.asarray(array, dtype=float)).rename(columns=lambda c: f"c{c}")


def test_the_nested_bootstrap_of_known_cases():
    # no spread
    assert nested_bootstrap([frame(np.full((2, 5), 0.3))]) == pytest.approx((0.3, 0.3))
    # cases alike, two seeds at -1 and +1: means -1, 0, 1 with chances 1/4, 1/2, 1/4
    assert nested_bootstrap([frame([[-1] * 4, [1] * 4])]) == pytest.approx((-1, 1))
    # the same for two draws of one seed each
    assert nested_bootstrap([frame([[-1] * 4]), frame([[1] * 4])]) == pytest.approx((-1, 1))
    # one training: the plain bootstrap over cases
    values = np.random.default_rng(1).normal(size=400)
    low, high = nested_bootstrap([frame([values])])
    error = values.std() / np.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.1 * error)
    # three trainings that agree know no more about other cases than one does ...
    three = nested_bootstrap([frame([values] * 3)])
    assert three[1] - three[0] == pytest.approx(high - low, rel=0.05)
    # ... but folds hold other cases each
    folds = [frame([values]).rename(columns=lambda c, f=fold: f"{f}{c}") for fold in range(4)]
    apart = nested_bootstrap(folds)
    assert apart[1] - apart[0] == pytest.approx((high - low) / 2, rel=0.05)


def test_the_noise_floor_is_the_spread_of_seeds_within_draws():
    array = np.stack([np.full((3, 4), 0.5), np.full((3, 4), 0.8)])
    array[:, :, :] += np.array([-0.01, 0, 0.01])[None, :, None]  # both draws: standard deviation 0.01
    assert noise_floor(rows_of_arms({"stock": array}), "stock", "Dice", False) == pytest.approx(0.01)
    assert np.isnan(noise_floor(rows_of_arms({"stock": array[:, :1]}), "stock", "Dice", False))


@pytest.mark.parametrize(
    ("difference", "low", "high", "p", "higher", "expected"),
    [
        (0.004, 0.003, 0.005, 0.001, True, "level"),
        (0.03, 0.01, 0.05, 0.001, True, "better"),
        (-0.03, -0.05, -0.01, 0.001, True, "worse"),
        (-0.03, -0.05, -0.01, 0.001, False, "better"),
        (0.03, -0.01, 0.05, 0.001, True, "not shown"),
        (0.03, 0.01, 0.05, 0.06, True, "not shown"),
        (0.03, 0.01, 0.05, np.nan, True, "not shown"),
        (np.nan, np.nan, np.nan, np.nan, True, ""),
    ],
)
def test_verdicts(difference, low, high, p, higher, expected):
    row = pd.Series({"difference": difference, "low": low, "high": high, "p_holm": p, "compared": 2})
    assert verdict(row, 0.01, higher) == expected
    assert verdict(row, np.nan, higher) == (expected and "noise unknown")
    assert verdict(row.replace(2, 1), 0.01, higher) == (expected and "one training")


def written_study(tmp_path: Path, monkeypatch) -> Path:
    """A study ``toy`` with its rows; returns the folder of the rows."""
    arms = {"stock": np.full((1, 2, 3), 0.5), "ours": np.full((1, 2, 3), 0.75)}
    arms["stock"][0, 1] = 0.52
    of_study(rows_of_arms(arms), small_study()).to_csv(tmp_path / "toy.csv", index=False)
    for module in ("driver.page", "driver.tables"):
        monkeypatch.setattr(f"{module}.load_study", lambda name: (name, small_study()))
    return tmp_path


def test_a_page_is_filled_between_its_markers(tmp_path, monkeypatch):
    results = written_study(tmp_path, monkeypatch)
    page = "before\n<!-- table: toy -->\nold\n<!-- end -->\nafter\n"
    filled = fill(page, results)
    assert filled.startswith("before\n<!-- table: toy -->\n") and filled.endswith("\n<!-- end -->\nafter\n")
    assert "| stock | 2 | 0.510 |  |  |  |" in filled
    assert "| ours | 2 | 0.750 | +0.240 [+0.230, +0.250] | 0.250 | not shown |" in filled
    assert "Noise floor (stock of this study, without mirroring): Dice 0.014." in filled
    assert "| stock | 0.500 0.520 | 0.20 | 0.10 |" in filled
    assert "python experiments/study.py run toy --raw DIR" in filled
    assert fill(filled, results) == filled
    for broken in ("<!-- table: toy -->\n", "<!-- end -->\n", "<!-- table: a -->\n<!-- table: b -->\n<!-- end -->\n"):
        with pytest.raises(BadInput, match="pair them"):
            fill(broken, results)


@pytest.mark.parametrize("metric", ["HD95", "HD95_voxel"])
def test_several_classes_and_millimetres(metric, tmp_path):
    study = small_study(metrics=(metric, "Dice"), seeds=(0,))
    arms = {"stock": np.full((1, 1, 3), 10.04), "ours": np.full((1, 1, 3), 8.0)}
    rows = of_study(rows_of_arms(arms, metric), study).assign(Dice=0.5)
    pd.concat([rows, rows.assign(label="organ", **{metric: rows[metric] + 2})]).to_csv(
        tmp_path / "toy.csv", index=False
    )
    tables = study_tables("toy", study, tmp_path)
    assert "| ours | 1 | 9.0 | -2.0 [-2.0, -2.0] | 0.250 | one training | 0.500 | +0.000 [+0.000, +0.000] |" in tables
    assert "misses a class" not in tables
    assert f"| {metric} without mirroring | vessel | organ |" in tables and "| stock | 10.0 | 12.0 |" in tables


def test_an_arm_that_found_nothing_has_no_distance_to_compare(tmp_path):
    arms = {"stock": Arm(), "lost": Arm("nnUNetTrainerDSKD"), "ours": Arm("nnUNetTrainerBN", against=("stock", "lost"))}
    study = small_study(metrics=("Dice", "HD95"), seeds=(0,), arms=arms)
    found = {"stock": np.full((1, 1, 3), 0.5), "lost": np.zeros((1, 1, 3)), "ours": np.full((1, 1, 3), 0.75)}
    rows = of_study(rows_of_arms(found), study)
    rows["HD95"] = np.where(rows["arm"] == "lost", np.nan, 4.0)
    rows.to_csv(tmp_path / "toy.csv", index=False)
    tables = study_tables("toy", study, tmp_path)
    lost = "| lost | 1 | 0.000 | -0.500 [-0.500, -0.500] | 0.750 | one training |  |  |"
    against = "| ours minus lost | 1 |  | +0.750 [+0.750, +0.750] | 0.750 | one training |  |  |"
    assert lost in tables and against in tables
    assert "HD95 has no value where an arm misses a class" in tables


def test_calibration_has_a_row_of_its_own(tmp_path):
    study = small_study(metrics=("Dice", "ECE"))
    rows = of_study(rows_of_arms({"stock": np.full((1, 2, 3), 0.5), "ours": np.full((1, 2, 3), 0.7)}), study)
    whole = rows.assign(label="all classes", Dice=np.nan, ECE=np.where(rows["arm"] == "ours", 0.01, 0.02))
    pd.concat([rows, whole]).to_csv(tmp_path / "toy.csv", index=False)
    tables = study_tables("toy", study, tmp_path)
    assert "| ours | 2 | 0.700 | +0.200 [+0.200, +0.200] |" in tables and "-0.0100 [-0.0100, -0.0100] |" in tables
    assert "misses a class" not in tables and "all classes" not in tables


def test_rows_of_other_metrics_are_left_out():
    rows = pd.DataFrame(
        [("A", 0, 0, False, "x", "vessel", 0.5, np.nan), ("A", 0, 0, False, "x", "all", np.nan, 0.1)],
        columns=["arm", "draw", "seed", "mirroring", "case", "label", "Dice", "ECE"],
    ).assign(case_seconds=1.0, step_seconds=1.0, recipe="key", fingerprint="code")
    study = Study("?", "Dataset001_X", {"B": Arm()})
    found = add_cell(rows.head(0), Cell("B", 0, 0), rows, study)
    assert found["label"].tolist() == ["vessel"] and "ECE" not in found


def test_a_table_takes_no_rows_of_another_study(tmp_path):
    study = small_study()
    rows = of_study(rows_of_arms({"stock": np.zeros((1, 2, 2))}), study)
    rows.to_csv(tmp_path / "toy.csv", index=False)
    with pytest.raises(BadInput, match="other settings"):
        study_tables("toy", small_study(steps=40), tmp_path)
    with pytest.raises(BadInput, match="does not have: stock, draw 0, seed 1"):
        study_tables("toy", small_study(seeds=(0,)), tmp_path)


def test_tables_refuse_what_they_cannot_stand_on(tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="has no rows yet. Run: python experiments/study.py run toy"):
        study_tables("toy", small_study(), tmp_path)
    rows = rows_of_arms({"stock": np.zeros((1, 1, 2)), "ours": np.zeros((1, 1, 2))})
    rows.loc[0, "fingerprint"] = f"{CODE} package=9"
    with pytest.raises(BadInput, match='arm .stock. were made by different code.*--restart "stock"'):
        refuse_mixed_code(rows)
    rows["fingerprint"] = np.where(rows["arm"] == "ours", "nnunetv2=2 torch=1 protocol=1 package=3", CODE)
    with pytest.raises(BadInput, match="different versions of nnunetv2: 1, 2"):
        refuse_mixed_code(rows)
    refuse_mixed_code(rows.assign(fingerprint=np.where(rows["arm"] == "ours", f"{CODE} package=3", CODE)))


# ------------------------------------------------------------------------------------------------ the real thing

PHANTOM_STUDY = """
from driver.definition import Arm, Model, Study

STUDY = Study(
    question="Does it survive?",
    dataset="Dataset900_PhantomXA",
    preset="{preset}",
    labelled=3,
    draws=(4,),
    seeds=(0,),
    steps=12,
    iterations=4,
    arms={{"stock": Arm(), "DSKD": Arm("nnUNetTrainerDSKD")}},
)
"""
PRESET = {
    "name": "tiny", "max_convs_per_stage": 1,
    "2d": {"features_base": 4, "features_max": 8, "max_stages": 4, "patch_size": [32, 32], "batch_size": 2},
}  # fmt: skip


@pytest.mark.skipif(not READS_EXT_TRAINER, reason="studies need nnU-Net 2.8")
@pytest.mark.slow
def test_a_study_of_phantoms_killed_and_resumed(nnunet_env, monkeypatch):
    """Killed with -9 in the middle of a training, then continued; an uninterrupted training gives the same rows."""
    raw = nnunet_env / "nnUNet_raw"
    write_phantom_dataset(raw, 900, dim=2, num_train=5, num_test=2, size=(64, 64))
    (nnunet_env / "tiny.json").write_text(json.dumps(PRESET))
    file = nnunet_env / "survival.py"
    file.write_text(PHANTOM_STUDY.format(preset=nnunet_env / "tiny.json"))
    work, results = nnunet_env / "work", nnunet_env / "results"
    folders = ("--raw", raw, "--work", work, "--results", results)
    command = [sys.executable, EXPERIMENTS / "study.py", "run", file, *folders]
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable)
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    study = load_study(str(file))[1]
    place = Place(work, training_of(study, Cell("DSKD", 4, 0)).key)
    deadline = time.monotonic() + 300
    while not list(place.results.glob("*/*/fold_all/checkpoint_latest.pth")):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    assert place.read_model() is None
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not place.rows.exists()

    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read_rows(results / "survival.csv")
    assert rows.groupby("arm").size().to_dict() == {"DSKD": 2, "stock": 2}  # test cases; one class
    assert rows["Dice"].between(0, 1).all() and (rows[["step_seconds", "case_seconds"]] > 0).all(axis=None)
    assert rows.groupby("arm")["fingerprint"].nunique().eq(1).all()
    labelled = next((work / "raw").glob("Dataset5*"))
    assert len(list((labelled / "imagesTr").iterdir())) == 3
    fingerprint_file = work / "preprocessed" / labelled.name / "dataset_fingerprint.json"
    assert len(json.loads(fingerprint_file.read_text())["spacings"]) == 3

    again = subprocess.run([*command, "--restart", "DSKD"], capture_output=True, text=True)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "start  stock" not in again.stdout
    fresh = read_rows(results / "survival.csv")
    seconds = ["step_seconds", "case_seconds"]
    pd.testing.assert_frame_equal(rows.drop(columns=seconds), fresh.drop(columns=seconds))
    table = subprocess.run(
        [sys.executable, EXPERIMENTS / "study.py", "table", file, "--results", results], capture_output=True, text=True
    )
    assert table.returncode == 0 and "| DSKD | 1 |" in table.stdout, table.stdout + table.stderr
