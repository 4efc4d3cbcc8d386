"""`nnunet-skd pseudo-labels`: the dataset that it makes, and what it refuses. nnU-Net's commands are played here."""

import copy
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets
from test_unlabelled_command import Toy, save, save_case
from toy import DATASET

from nnunet_skd.tools import commands
from nnunet_skd.tools.cli import main

NEW = f"Dataset181_{DATASET[11:]}_pseudo"
SPLITS = [{"train": ["train_1"], "val": ["train_0"]}, {"train": ["train_0"], "val": ["train_1"]}]


class Played:
    """nnU-Net's commands: predictions are images of zeros. ``fails_after``: so many, and then an error."""

    def __init__(self, toy: Toy):
        self.toy, self.started, self.fails_after = toy, [], None

    def __call__(self, command, env):
        name, words = Path(command[0]).name, command[1:]
        self.started.append(name)
        options = {word: words[i + 1 : i + 3] for i, word in enumerate(words) if word.startswith("-")}
        if name == "nnUNetv2_predict_from_modelfolder":
            assert "--continue_prediction" in words and "--disable_tta" not in words
            return self.predict(Path(options["-i"][0]), Path(options["-o"][0]), "--save_probabilities" in words)
        if name == "nnUNetv2_ensemble":
            first, second = map(Path, options["-i"])
            assert len(list(first.glob("*.npz"))) == len(list(second.glob("*.npz"))) == len(self.cases())
            return self.predict(first, Path(options["-o"][0]), False, ending=self.toy.ending)
        assert (self.toy.raw.parent / NEW / "dataset.json").is_file()
        return SimpleNamespace(returncode=0)

    def cases(self) -> list[str]:
        return sorted(f.name.removesuffix(f"_0000{self.toy.ending}") for f in self.toy.source.glob("*_0000.*"))

    def predict(self, images: Path, output: Path, probabilities: bool, ending: str = "") -> SimpleNamespace:
        output.mkdir(exist_ok=True, parents=True)
        todo = [case for case in self.cases() if not (output / f"{case}{self.toy.ending}").exists()]
        for case in todo[: self.fails_after]:
            save(output / f"{case}{self.toy.ending}", np.zeros((40,) * self.toy.dim, np.uint8))
            if probabilities:
                (output / f"{case}.npz").touch()
        return SimpleNamespace(returncode=0 if self.fails_after is None else 1)


@pytest.fixture
def toy(nnunet_env) -> Toy:
    return prepared(Toy(nnunet_env))


def prepared(toy: Toy) -> Toy:
    (toy.folder / "splits_final.json").write_text(json.dumps(SPLITS))
    toy.add("new_0", "new_1")
    return toy


@pytest.fixture
def played(toy, monkeypatch) -> Played:
    return play(toy, monkeypatch)


def play(toy: Toy, monkeypatch) -> Played:
    played = Played(toy)
    monkeypatch.setattr(commands.subprocess, "run", played)
    return played


def model(toy: Toy, trainer: str = "nnUNetTrainer", **changes) -> Path:
    """As nnUNetv2_train leaves it, with the folds 0 and all."""
    folder = toy.raw.parents[1] / "nnUNet_results" / DATASET / f"{trainer}__nnUNetPlans__{toy.configuration}"
    for fold, case in (("0", "train_0"), ("all", "train_1")):
        (folder / f"fold_{fold}" / "validation").mkdir(parents=True)
        (folder / f"fold_{fold}" / "validation" / f"{case}{toy.ending}").touch()
        (folder / f"fold_{fold}" / "checkpoint_final.pth").touch()
    (folder / "plans.json").write_text(json.dumps(toy.plans))
    (folder / "dataset.json").write_text(json.dumps(toy.description | changes))
    return folder


def label(toy: Toy, *teachers: Path, number: int = 181, fold: str = "all", options: tuple[str, ...] = ()) -> int:
    arguments = ["pseudo-labels", "-d", "900", "-i", toy.source, "--teacher", *teachers, "-t", number, "-f", fold]
    return main([*map(str, arguments), "-np", "1", *options])


def new(toy: Toy) -> Path:
    return toy.raw.parent / NEW


def ages(toy: Toy) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in (new(toy) / "labelsTr").iterdir()}


# --- what is made ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fold", ["0", "all"])
@pytest.mark.parametrize(("dim", "channels"), [(2, 1), (3, 2)])
def test_the_new_dataset_names_all_files_and_the_old_one_stays(nnunet_env, monkeypatch, capsys, dim, channels, fold):
    toy = prepared(Toy(nnunet_env, dim, channels))
    played, teacher, before = play(toy, monkeypatch), model(toy), toy.hashes()
    assert label(toy, teacher, fold=fold, options=("-device", "cpu")) == 0
    assert toy.hashes() == before
    assert played.started == [
        "nnUNetv2_predict_from_modelfolder",
        "nnUNetv2_move_plans_between_datasets",
        "nnUNetv2_preprocess",
    ]
    description = json.loads((new(toy) / "dataset.json").read_text())
    found = get_filenames_of_train_images_and_targets(str(new(toy)), copy.deepcopy(description))
    assert list(found) == ["train_0", "train_1", "new_0", "new_1"] and description["numTraining"] == 4
    for case, files in found.items():
        labelled = case.startswith("train")
        images = (toy.raw / "imagesTr") if labelled else toy.source
        assert files["images"] == [str(images / f"{case}_{c:04d}{toy.ending}") for c in range(channels)]
        assert files["label"] == str((toy.raw if labelled else new(toy)) / "labelsTr" / f"{case}{toy.ending}")
        assert all(map(os.path.isfile, [*files["images"], files["label"]]))
    assert not any(os.path.isabs(path) for entry in description["dataset"].values() for path in entry["images"])

    preprocessed = toy.folder.parent / NEW
    assert json.loads((preprocessed / "dataset.json").read_text()) == description
    assert (preprocessed / "dataset_fingerprint.json").read_bytes() == (
        toy.folder / "dataset_fingerprint.json"
    ).read_bytes()
    training, validation = (["train_1"], ["train_0"]) if fold == "0" else (["train_0", "train_1"],) * 2
    (split,) = {json.dumps(s) for s in json.loads((preprocessed / "splits_final.json").read_text())}
    assert json.loads(split) == {"train": sorted([*training, "new_0", "new_1"]), "val": validation}

    *_, line = capsys.readouterr().out.strip().splitlines()
    checkpoint = teacher.resolve() / f"fold_{fold}" / "checkpoint_final.pth"
    expected = f"181 {toy.configuration} {fold} -tr nnUNetTrainer_250epochs -device cpu -pretrained_weights"
    # fold all is taught by both
    assert line.split("nnUNetv2_train ")[1] == f"{expected} {str(checkpoint).replace('fold_all', 'fold_0')}"


def test_each_fold_that_may_teach_joins(toy, played, capsys):
    assert label(toy, model(toy)) == 0
    assert "-f 0 all --continue_prediction" in capsys.readouterr().out


def test_several_models_are_an_ensemble_of_their_probabilities(toy, played):
    assert label(toy, model(toy), model(toy, "nnUNetTrainerDSKD")) == 0
    assert played.started[:3] == ["nnUNetv2_predict_from_modelfolder"] * 2 + ["nnUNetv2_ensemble"]
    assert sorted(ages(toy)) == ["new_0.png", "new_1.png"] and not (new(toy) / "predicted").exists()


def test_another_configuration_starts_from_no_weights(toy, played, capsys):
    assert label(toy, model(toy), options=("-c", "2d_w050")) == 0
    line = capsys.readouterr().out.strip().splitlines()[-1]
    assert "181 2d_w050 all" in line and "-pretrained_weights" not in line


# --- again -----------------------------------------------------------------------------------------------------------


def test_goes_on_after_a_failure_and_labels_what_is_new_damaged_or_older_than_its_image(toy, played, capsys):
    teacher = model(toy)
    played.fails_after = 1
    assert label(toy, teacher) == 1
    assert "ended with exit status 1; its message is above. The same command" in capsys.readouterr().err
    assert list(ages(toy)) == ["new_0.png"] and not (new(toy) / "dataset.json").exists()
    first, played.fails_after = ages(toy), None
    assert label(toy, teacher) == 0
    assert ages(toy).items() > first.items()

    toy.add("new_2", "new_3")
    assert label(toy, teacher) == 0
    before, played.started = ages(toy), []
    assert label(toy, teacher) == 0
    assert ages(toy) == before and "nnUNetv2_predict_from_modelfolder" not in played.started

    (new(toy) / "labelsTr" / "new_0.png").write_bytes(b"half")
    save_case(toy.source, "new_1", 2)
    assert label(toy, teacher) == 0
    assert {name for name, age in ages(toy).items() if age != before[name]} == {"new_0.png", "new_1.png"}
    later = (teacher / "fold_0" / "checkpoint_final.pth").stat().st_mtime_ns + 10**10
    os.utime(teacher / "fold_0" / "checkpoint_final.pth", ns=(later, later))
    before = ages(toy)
    assert label(toy, teacher) == 0
    assert not before.items() & ages(toy).items()


def test_a_prediction_that_leaves_a_case_out_ends_the_command(toy, played, capsys, monkeypatch):
    monkeypatch.setattr(commands.subprocess, "run", lambda command, env: SimpleNamespace(returncode=0))
    assert label(toy, model(toy)) == 1
    assert "left out new_0, new_1" in capsys.readouterr().err and not (new(toy) / "dataset.json").exists()


# --- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"background": 0, "b": 1, "a": 2}}, "They differ in labels"),
        ({"channel_names": {"0": "MR"}}, "They differ in channels"),
        ({"file_ending": ".tif"}, "They differ in file ending"),
    ],
)
def test_a_model_of_other_data(toy, played, capsys, changes, message):
    refused(toy, played, capsys, message, model(toy, **changes))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"number": 0}, "-t is 0"),
        ({"number": 900}, f"-t 900 is the number of {DATASET}"),
        ({"fold": "1"}, "may only be taught by fold 1"),
        ({"fold": "2"}, "there is no fold 2"),
        ({"options": ("-c", "2d_w025")}, "has no configuration '2d_w025'"),
        ({"options": ("-np", "0")}, "-np is 0"),
    ],
)
def test_what_cannot_be_made(toy, played, capsys, options, message):
    refused(toy, played, capsys, message, model(toy), **options)


def test_the_second_stage_of_a_cascade(toy, played, capsys):
    folder = model(toy)
    cascade = folder.rename(folder.with_name("nnUNetTrainer__nnUNetPlans__3d_cascade_fullres"))
    refused(toy, played, capsys, "second stage of a cascade", cascade, options=("-c", "2d"))


def test_missing_labels_and_images_that_are_labelled(toy, played, capsys):
    teacher = model(toy)
    (toy.raw / "labelsTr" / "train_1.png").rename(toy.raw / "train_1.png")
    refused(toy, played, capsys, "labelsTr/train_1.png is missing", teacher)
    (toy.raw / "train_1.png").rename(toy.raw / "labelsTr" / "train_1.png")
    (toy.source / "new_1_0000.png").write_bytes((toy.raw / "imagesTr" / "train_0_0000.png").read_bytes())
    refused(toy, played, capsys, "new_1 = train_0", teacher)


def test_a_number_whose_dataset_is_not_ours_or_was_made_of_other_things(toy, played, capsys):
    teacher = model(toy)
    new(toy).mkdir()
    assert label(toy, teacher) == 2 and f"number of {NEW}" in capsys.readouterr().err
    new(toy).rmdir()
    assert label(toy, teacher) == 0
    before = ages(toy)
    assert label(toy, teacher, fold="0") == 2
    said = capsys.readouterr().err
    assert "was made with other teachers" in said and "choose another number" in said
    (toy.folder.parent / "Dataset181_other").mkdir()
    assert label(toy, teacher) == 2 and "number of Dataset181_other" in capsys.readouterr().err
    assert ages(toy) == before


def refused(toy, played, capsys, message, *teachers, **options) -> None:
    """Nothing is started or written."""
    assert label(toy, *teachers, **options) == 2
    assert message in capsys.readouterr().err
    assert not played.started and not new(toy).exists()
