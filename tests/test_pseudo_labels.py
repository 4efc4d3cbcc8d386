"""`nnunet-skd pseudo-labels`: the dataset that it makes, and what it refuses. nnU-Net's commands are played here."""

import copy
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from agreement import main as measure_agreement
from matplotlib.colors import to_rgb
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets
from PIL import Image
from toy import DATASET, toy_dataset_json
from toy_dataset import SPLITS, Toy, model, prepared, save, save_case

from nnunet_skd.tools import commands
from nnunet_skd.tools.beginning import OtherWeights
from nnunet_skd.tools.case_pictures import FIRST, SECOND
from nnunet_skd.tools.cli import main
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.pseudo_labels import command, second_look
from nnunet_skd.tools.pseudo_labels import model as labelling_model

NEW = f"Dataset181_{DATASET[11:]}_pseudo"


class Played:
    """nnU-Net's commands: predictions are images of zeros. ``fails_after``: so many, and then an error.

    ``models``: whose folds predicted. ``begun``: what the second training was to begin with. ``rows``: by folder and
    case, how many rows of a prediction are vessel.
    """

    def __init__(self, toy: Toy):
        self.toy, self.started, self.asked, self.fails_after, self.failing = toy, [], [], None, ""
        self.begun: list[tuple] = []
        self.models: list[tuple] = []
        self.rows: dict[tuple[str, str], int] = {}

    def __call__(self, command, env):
        name, words = Path(command[0]).name, command[1:]
        self.started.append(name)
        options = {word: words[i + 1] for i, word in enumerate(words[:-1]) if word.startswith("-")}
        if name == "nnUNetv2_predict_from_modelfolder":
            assert ("--disable_tta" in words) == (Path(options["-o"]).name == "unmirrored")
            self.models.append((options["-m"], words[words.index("-f") + 1 : words.index("-device")]))
            return self.predict(Path(options["-i"]), Path(options["-o"]))
        assert name == "nnUNetv2_preprocess" and (self.toy.raw.parent / NEW / "dataset.json").is_file()
        data = self.toy.manager().get_configuration(self.toy.configuration).data_identifier
        shutil.rmtree(self.toy.folder.parent / NEW / data, ignore_errors=True)
        (self.toy.folder.parent / NEW / data).mkdir()
        for image in (self.toy.raw.parent / NEW / "imagesTr").glob("*_0000.*"):
            for ending in ("b2nd", "pkl")[: 1 if name == self.failing else 2]:  # nnU-Net's order
                (self.toy.folder.parent / NEW / data / f"{image.name.partition('_0000')[0]}.{ending}").touch()
        return SimpleNamespace(returncode=int(name == self.failing))

    def begin(self, *arguments) -> Path:
        self.begun.append(arguments)
        return self.toy.folder.parents[1] / "nnUNet_results" / "second"

    def predict(self, images: Path, output: Path) -> SimpleNamespace:
        output.mkdir(exist_ok=True)
        cases = sorted(f.name.removesuffix(f"_0000{self.toy.ending}") for f in images.glob("*_0000.*"))
        self.asked.append(cases)
        for case in cases[: self.fails_after]:
            voxels = np.zeros((40,) * self.toy.dim, np.uint8)
            voxels[: self.rows.get((output.name, case), 0)] = 1
            save(output / f"{case}{self.toy.ending}", voxels)
        (output / "dataset.json").touch()
        return SimpleNamespace(returncode=0 if self.fails_after is None else 1)


@pytest.fixture
def toy(nnunet_env) -> Toy:
    return prepared(Toy(nnunet_env))


@pytest.fixture
def played(toy, monkeypatch) -> Played:
    return play(toy, monkeypatch)


def play(toy: Toy, monkeypatch) -> Played:
    played = Played(toy)
    monkeypatch.setattr(commands, "run_and_end", lambda command, env: played(command, env).returncode)
    monkeypatch.setattr(command, "begin", played.begin)
    monkeypatch.setattr(command, "find_device", lambda name: None)  # nothing is predicted
    return played


def label(toy: Toy, teacher: Path, number: int = 181, fold: str = "all", options: tuple[str, ...] = ()) -> int:
    arguments = ["pseudo-labels", "-d", "900", "-i", toy.source, "--teacher", teacher, "-t", number, "-f", fold]
    return main([*map(str, arguments), "-np", "1", *options])


def new(toy: Toy) -> Path:
    return toy.raw.parent / NEW


def with_checkpoints(folder: Path, trainer: str, **more: object) -> Path:
    """A model folder whose checkpoints can be read."""
    content = {
        "network_weights": {"weight": torch.zeros(1)},
        "trainer_name": trainer,
        "init_args": {"configuration": "2d", "fold": 0},
    }
    for file in folder.glob("*/checkpoint_final.pth"):
        torch.save(content | more, file)
    return folder


def ages(toy: Toy) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in (new(toy) / "labelsTr").iterdir()}


# --- what is made ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fold", ["0", "all"])
@pytest.mark.parametrize(("dim", "channels"), [(2, 1), (3, 2)])
def test_the_new_dataset_holds_all_files_and_the_old_one_stays(nnunet_env, monkeypatch, capsys, dim, channels, fold):
    toy = prepared(Toy(nnunet_env, dim, channels))
    played, teacher, before = play(toy, monkeypatch), model(toy), toy.hashes()
    assert label(toy, teacher, fold=fold, options=("-device", "cpu")) == 0
    assert toy.hashes() == before
    assert played.started == ["nnUNetv2_predict_from_modelfolder", "nnUNetv2_preprocess"]
    assert played.models == [(str(teacher), ["0"] if fold == "0" else ["0", "all"])]  # others have seen its validation
    found = get_filenames_of_train_images_and_targets(str(new(toy)))
    assert list(found) == ["new_0", "new_1", "train_0", "train_1"]
    for case, files in found.items():
        images = toy.raw / "imagesTr" if case.startswith("train") else toy.source
        sources = [images / f"{case}_{c:04d}{toy.ending}" for c in range(channels)]
        assert [Path(file).resolve() for file in files["images"]] == [source.resolve() for source in sources]
        assert Path(files["label"]).is_file() and not Path(files["label"]).is_symlink()
        if case.startswith("train"):
            assert Path(files["label"]).read_bytes() == (toy.raw / "labelsTr" / f"{case}{toy.ending}").read_bytes()
    assert sorted(path.name for path in new(toy).iterdir()) == [
        *("dataset.json", "imagesTr", "labelsTr", "pseudo_labels.csv", "pseudo_labels.json")
    ]

    preprocessed = toy.folder.parent / NEW
    description = json.loads((new(toy) / "dataset.json").read_text())
    assert description == toy.description | {"numTraining": 4}
    assert json.loads((preprocessed / "dataset.json").read_text()) == description
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    assert plans == toy.plans | {"dataset_name": NEW}, "its reader too"
    fingerprint = "dataset_fingerprint.json"
    assert (preprocessed / fingerprint).read_bytes() == (toy.folder / fingerprint).read_bytes()
    training, validation = (["train_1"], ["train_0"]) if fold == "0" else (["train_0", "train_1"], [])
    split = {"train": sorted([*training, "new_0", "new_1"]), "val": validation}
    assert json.loads((preprocessed / "splits_final.json").read_text()) == [split] * 5

    *_, line = capsys.readouterr().out.strip().splitlines()
    trainer, weights = "nnUNetTrainer_250epochs", teacher / f"fold_{fold}" / "checkpoint_final.pth"
    assert line.strip() == f"nnUNetv2_train 181 {toy.configuration} {fold} -tr {trainer} --c -device cpu"
    assert played.begun == [(NEW, toy.configuration, fold, trainer, "nnUNetPlans", weights)]


def test_each_fold_that_may_label_joins(toy, played, capsys):
    assert label(toy, model(toy)) == 0
    assert "-f 0 all -device cuda -npp 1 -nps 1" in capsys.readouterr().out


def test_a_split_of_more_folds_than_nnunets(toy, played):
    (toy.folder / "splits_final.json").write_text(json.dumps(SPLITS[::-1] * 4 + SPLITS))
    folder = model(toy)
    for name in ("fold_0", "fold_all"):
        (folder / name).rename(folder / name.replace("0", "8"))
    assert label(toy, folder, fold="8") == 0
    splits = json.loads((toy.folder.parent / NEW / "splits_final.json").read_text())
    assert splits == [{"train": ["new_0", "new_1", "train_1"], "val": ["train_0"]}] * 9


@pytest.mark.parametrize(
    ("trainer", "options"),
    [
        ("nnUNetTrainer", ""),
        ("nnUNetTrainer_250epochs_NoMirroring", " -tr nnUNetTrainerNoMirroring"),
        ("nnUNetTrainerDA5", " -tr nnUNetTrainerDA5"),
    ],
)
def test_another_network_is_trained_from_scratch(trainer, options, toy, played, capsys):
    folder = model(toy, trainer)
    plans = copy.deepcopy(toy.plans)
    plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["features_per_stage"][0] += 1
    (folder / "plans.json").write_text(json.dumps(plans))
    assert label(toy, folder) == 0
    line = capsys.readouterr().out.strip().splitlines()[-1]
    assert line.strip() == f"nnUNetv2_train 181 2d all{options} --c" and not played.begun


@pytest.mark.parametrize("scheme", ["CTNormalization", "ZScoreNormalization"])
@pytest.mark.parametrize("what", ["intensity statistics", "spacing", "normalisation"])
def test_weights_that_have_seen_other_images_are_not_gone_on_from(nnunet_env, monkeypatch, capsys, scheme, what):
    """After nnunet-skd fingerprint and planning again. Intensities matter to the normalisation of CT alone."""
    toy = prepared(Toy(nnunet_env))
    entry, statistics = toy.plans["configurations"]["2d"], {"mean": 100.0, "std": 50.0}
    entry["normalization_schemes"] = [scheme]
    toy.plans["foreground_intensity_properties_per_channel"] = {
        "0": statistics | {"percentile_00_5": 0.0, "percentile_99_5": 255.0}
    }
    played, folder = play(toy, monkeypatch), model(toy)
    if what == "intensity statistics":
        toy.plans["foreground_intensity_properties_per_channel"]["0"]["mean"] = 60.0
    elif what == "spacing":
        entry["spacing"] = [0.5, 0.5]
    else:
        entry["normalization_schemes"] = ["RescaleTo01Normalization"]
    toy.write_plans()
    assert label(toy, folder) == 0
    *_, line = capsys.readouterr().out.strip().splitlines()
    if what == "intensity statistics" and scheme == "ZScoreNormalization":
        assert line.strip() == "nnUNetv2_train 181 2d all -tr nnUNetTrainer_250epochs --c" and played.begun
    else:
        assert line.strip() == "nnUNetv2_train 181 2d all --c" and not played.begun, "a stopped one goes on"


def test_why_a_training_begins_from_scratch_is_said(toy, played, capsys):
    folder = model(toy)
    toy.plans["configurations"]["2d"]["spacing"] = [0.5, 0.5]
    toy.plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["features_per_stage"][0] += 1
    toy.write_plans()
    assert label(toy, folder) == 0
    said = f"The training begins from scratch: {folder} and 2d of {DATASET} differ in network, spacing. "
    assert said in capsys.readouterr().out


def test_a_numbered_fold_of_a_low_resolution_leaves_the_second_stage_nothing_to_read(toy, played, capsys):
    """nnU-Net predicts for it the validation cases of five different folds; here all five are one."""
    toy.plans["configurations"]["2d"]["next_stage"] = "2d_w050"
    toy.write_plans()
    teacher, said = model(toy), "second stage needs predictions of all cases: of -f all, not of -f 0."
    assert label(toy, teacher, fold="0") == 0 and said in capsys.readouterr().out
    for root in ("nnUNet_raw", "nnUNet_preprocessed"):
        shutil.rmtree(toy.raw.parents[1] / root / NEW)
    assert label(toy, teacher) == 0 and "second stage" not in capsys.readouterr().out


def test_a_model_without_intensities_cannot_preprocess_an_image(toy, played, capsys):
    folder = model(toy)
    plans = {key: value for key, value in toy.plans.items() if not key.startswith("foreground")}
    (folder / "plans.json").write_text(json.dumps(plans))
    refused(toy, played, capsys, "plans.json: it lacks foreground_intensity_properties_per_channel", folder)


def test_after_a_trainer_that_needs_a_teacher_comes_a_plain_one(toy, played, capsys):
    assert label(toy, model(toy, "nnUNetTrainerDistill_50epochs")) == 0
    assert "181 2d all -tr nnUNetTrainer_250epochs --c" in capsys.readouterr().out


@pytest.mark.parametrize("trainer", ["nnUNetTrainerNoMirroring", "nnUNetTrainer_4000epochs_NoMirroring"])
def test_after_a_training_without_mirroring_comes_a_short_one_without_it(trainer, toy, played, capsys):
    assert label(toy, model(toy, trainer)) == 0
    assert "181 2d all -tr nnUNetTrainer_250epochs_NoMirroring --c" in capsys.readouterr().out


def test_the_trainer_can_be_chosen(toy, played, capsys):
    assert label(toy, model(toy), options=("-tr", "nnUNetTrainer_20epochs")) == 0
    assert "181 2d all -tr nnUNetTrainer_20epochs --c" in capsys.readouterr().out
    assert played.begun[0][3] == "nnUNetTrainer_20epochs"


def test_the_second_training_is_of_the_models_plans_and_of_its_trainer_if_that_is_not_nnunets(toy, played, capsys):
    toy.plans["plans_name"] = "nnUNetOtherPlans"
    toy.write_plans("nnUNetOtherPlans")
    assert label(toy, model(toy, "nnUNetTrainerDA5")) == 0
    printed = capsys.readouterr().out
    assert (toy.folder.parent / NEW / "nnUNetOtherPlans.json").is_file() and "-plans_name nnUNetOtherPlans" in printed
    line = printed.strip().splitlines()[-1]
    assert line.strip() == "nnUNetv2_train 181 2d all -tr nnUNetTrainerDA5 --c -p nnUNetOtherPlans"


def test_the_files_that_dataset_json_names(toy, played):
    """As nnU-Net takes them in place of imagesTr and labelsTr."""
    (toy.raw / "labelsTr").rename(toy.raw / "elsewhere")
    images = {case: [f"imagesTr/{case}_0000.png"] for case in ("train_0", "train_1")}
    named = {case: {"images": files, "label": f"elsewhere/{case}.png"} for case, files in images.items()}
    (toy.folder / "dataset.json").write_text(json.dumps(toy.description | {"dataset": named}))
    assert label(toy, model(toy)) == 0
    assert (new(toy) / "labelsTr" / "train_1.png").read_bytes() == (toy.raw / "elsewhere" / "train_1.png").read_bytes()
    assert "dataset" not in json.loads((new(toy) / "dataset.json").read_text())


def test_files_of_any_name_get_the_names_of_nnunet(toy, played):
    named = {case: {"images": [f"{case}.image.png"], "label": f"{case}.mask.png"} for case in ("train_0", "train_1")}
    for case, files in named.items():
        (toy.raw / "imagesTr" / f"{case}_0000.png").rename(toy.raw / files["images"][0])
        (toy.raw / "labelsTr" / f"{case}.png").rename(toy.raw / files["label"])
    (toy.folder / "dataset.json").write_text(json.dumps(toy.description | {"dataset": named}))
    assert label(toy, model(toy)) == 0
    assert (new(toy) / "imagesTr" / "train_1_0000.png").resolve() == (toy.raw / "train_1.image.png").resolve()
    assert (new(toy) / "labelsTr" / "train_1.png").read_bytes() == (toy.raw / "train_1.mask.png").read_bytes()


@pytest.mark.parametrize("case", ["train_0", "patient_1"])
def test_the_spacing_of_3d_tiff_lies_beside_images_and_labels(toy, played, case):
    """In a JSON file named after the image, which need not be named after its case."""
    (toy.source / "new_0.json").write_text("{}")
    for folder in ("imagesTr", "labelsTr"):
        (toy.raw / folder / "train_0.json").write_text(folder)
    if case != "train_0":
        named = {case: {"images": ["imagesTr/train_0_0000.png"], "label": "labelsTr/train_0.png"}}
        (toy.folder / "dataset.json").write_text(json.dumps(toy.description | {"dataset": named}))
        shutil.rmtree(toy.folder / "nnUNetPlans_2d")
    assert label(toy, model(toy)) == 0
    assert (new(toy) / "imagesTr" / "new_0.json").is_file()
    for folder in ("imagesTr", "labelsTr"):
        assert (new(toy) / folder / f"{case}.json").read_text() == folder


def test_plans_whose_file_has_another_name(toy, played):
    """nnU-Net finds plans by the file's name."""
    toy.write_plans("edited")
    assert label(toy, model(toy), options=("-p", "edited")) == 0
    written = json.loads((toy.folder.parent / NEW / "edited.json").read_text())
    assert written["plans_name"] == "edited" and not (toy.folder.parent / NEW / "nnUNetPlans.json").exists()


def test_a_model_is_the_same_by_whichever_path(toy, played, monkeypatch):
    folder = model(toy)
    assert label(toy, folder) == 0
    monkeypatch.chdir(folder / "fold_all")
    assert label(toy, Path("..")) == 0 and label(toy, Path("..", "..", folder.name)) == 0


def test_a_folder_of_another_name_and_a_link_to_one(toy, played, capsys, tmp_path):
    """The checkpoint names the trainer. A model may lie elsewhere."""
    folder = model(toy)
    with_checkpoints(folder, "nnUNetTrainerDA5")
    elsewhere = folder.rename(tmp_path / "job17")
    renamed = folder.with_name("round1__nnUNetPlans__2d")
    renamed.symlink_to(elsewhere)
    assert label(toy, renamed) == 0
    line = capsys.readouterr().out.strip().splitlines()[-1]
    assert line.strip() == "nnUNetv2_train 181 2d all -tr nnUNetTrainerDA5 --c"
    assert played.begun[0][-1] == renamed / "fold_all" / "checkpoint_final.pth"


# --- a second look ---------------------------------------------------------------------------------------------------


def mirrors(folder: Path, axes: tuple[int, ...] | None = (0, 1)) -> Path:
    """A model folder's checkpoints say that nnU-Net mirrors what they predict."""
    return with_checkpoints(folder, "nnUNetTrainer", inference_allowed_mirroring_axes=axes)


@pytest.mark.parametrize(("dim", "channels"), [(2, 1), (2, 3), (3, 2)])
def test_labels_on_which_the_model_disagrees_with_itself_are_named_and_drawn(
    nnunet_env, monkeypatch, capsys, dim, channels
):
    toy = prepared(Toy(nnunet_env, dim, channels))
    toy.add("NA", "new_3")
    played = play(toy, monkeypatch)
    played.rows = {("predicted", "new_0"): 20, ("predicted", "new_1"): 10}
    played.rows |= {("unmirrored", "new_0"): 10, ("unmirrored", "new_1"): 10, ("unmirrored", "NA"): 5}
    assert label(toy, mirrors(model(toy))) == 0
    assert played.started == [*["nnUNetv2_predict_from_modelfolder"] * 2, "nnUNetv2_preprocess"]
    table = pd.read_csv(new(toy) / "pseudo_labels.csv", keep_default_na=False).set_index(["case", "label"])
    assert table["found"].to_dict() == {
        (case, label): case in ("new_0", "new_1") and label == "a"
        for case in ("NA", "new_0", "new_1", "new_3")
        for label in "ab"
    }
    agreement = table["agreement"]
    assert float(agreement["new_0", "a"]) == pytest.approx(2 * 10 / (20 + 10))
    assert [float(agreement[case, "a"]) for case in ("NA", "new_1")] == [0, 1]
    assert set(agreement[:, "b"]) == {agreement["new_3", "a"]} == {""}, "nobody predicts it"
    said, picture = capsys.readouterr().out, new(toy) / "look_first.png"
    assert f"Look at the labels of NA (0.00), new_0 (0.67), drawn in {picture}. There" in said
    assert "The model found no b in any of the 4 images. A training on these labels would unlearn it.\n" in said
    pixels = np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3)
    for colour in (FIRST, SECOND):
        drawn = np.abs(pixels - 255 * np.array(to_rgb(colour))).max(axis=1) < 3
        assert drawn.sum() > 100, "contours of both predictions"
    assert not {"predicted", "unmirrored", "waiting"} & {path.name for path in new(toy).iterdir()}


def test_images_in_which_nothing_was_found_do_not_hide_those_that_are_doubtful(toy, played, capsys):
    """Lesions are missing in most images. Only six cases are named, the least agreeing first."""
    toy.description["labels"].pop("b")
    (toy.folder / "dataset.json").write_text(json.dumps(toy.description))
    for i in range(2, 18):
        toy.add(f"new_{i}")
    for i in range(1, 9):
        played.rows |= {("predicted", f"new_{i}"): 10, ("unmirrored", f"new_{i}"): 10 + i}
    played.rows |= {(folder, "new_9"): 7 for folder in ("predicted", "unmirrored")}
    assert label(toy, mirrors(model(toy))) == 0
    said = capsys.readouterr().out
    least = ", ".join(f"new_{i} ({20 / (20 + i):.2f})" for i in range(8, 2, -1))
    assert f"Look at the labels of {least}, drawn in" in said
    empty = "new_0, new_10, new_11, new_12, new_13, new_14, new_15, new_16 and 1 more"
    assert f"The model found nothing in 9 of the 18 images: {empty}.\n" in said and "unlearn" not in said


@pytest.mark.parametrize("axes", [None, (), "unreadable"])
def test_a_model_that_does_not_mirror_has_nothing_to_disagree_about(toy, played, capsys, axes):
    folder = model(toy)
    played.rows = {("predicted", "new_0"): 20}
    assert label(toy, folder if axes == "unreadable" else mirrors(folder, axes)) == 0
    assert played.started == ["nnUNetv2_predict_from_modelfolder", "nnUNetv2_preprocess"]
    said = capsys.readouterr().out
    assert "Look at" not in said and not (new(toy) / "look_first.png").exists()
    assert "The model found no b in any of the 2 images. " in said


@pytest.mark.parametrize("axes", [None, (0, 1)])
def test_ignored_voxels_of_the_labelled_cases_are_no_matter(nnunet_env, monkeypatch, capsys, axes):
    toy = prepared(Toy(nnunet_env, ignore=True))
    for case in ("train_0", "train_1"):
        save(toy.raw / "labelsTr" / f"{case}.png", np.full((40, 40), 3, np.uint8))
    played = play(toy, monkeypatch)
    played.rows = {("predicted", "new_0"): 20}
    assert label(toy, mirrors(model(toy), axes)) == 0
    said = capsys.readouterr().out
    assert "found no b in any of the 2 images" in said and "could not be looked at" not in said
    table = pd.read_csv(new(toy) / "pseudo_labels.csv")
    assert set(table["case"]) == {"new_0", "new_1"} and set(table["label"]) == {"a", "b"}
    assert not [path for path in new(toy).iterdir() if path.name.startswith(".")]


def test_the_first_fold_says_whether_an_ensemble_mirrors(toy, played):
    """As in nnU-Net's prediction."""
    folder = mirrors(model(toy))
    content = torch.load(folder / "fold_0" / "checkpoint_final.pth")
    torch.save(content | {"inference_allowed_mirroring_axes": None}, folder / "fold_0" / "checkpoint_final.pth")
    assert label(toy, folder) == 0 and played.started.count("nnUNetv2_predict_from_modelfolder") == 1


def test_predictions_that_agree_everywhere_are_not_doubtful(toy, played, capsys):
    played.rows = {(folder, case): 9 for folder in ("predicted", "unmirrored") for case in ("new_0", "new_1")}
    assert label(toy, mirrors(model(toy))) == 0
    assert "Look at" not in capsys.readouterr().out and not (new(toy) / "look_first.png").exists()


def test_what_fails_at_the_second_look_costs_nothing_else(toy, played, capsys, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no font")

    monkeypatch.setattr(second_look, "draw_differences", fail)
    played.rows = {("predicted", "new_0"): 20}
    assert label(toy, mirrors(model(toy))) == 0
    said = capsys.readouterr().out
    assert "The labels could not be looked at a second time: no font\n" in said
    assert "Look at the labels of new_0 (0.00). There" in said
    assert json.loads((new(toy) / "pseudo_labels.json").read_text())["labels"]


def test_an_image_that_cannot_be_drawn_is_named(toy, played, capsys):
    played.rows = {("predicted", "new_0"): 20, ("predicted", "new_1"): 20}
    save_case(toy.source, "new_0", 2, size=30)
    assert label(toy, mirrors(model(toy))) == 0
    said = capsys.readouterr().out
    shapes = "image (1, 30, 30), first (1, 40, 40), second (1, 40, 40)"
    assert f"new_0 (0.00): not drawn, the shapes differ: {shapes}\n" in said
    assert (new(toy) / "look_first.png").is_file()


def test_the_second_look_goes_on_after_each_failure_and_is_taken_once(toy, played, capsys, monkeypatch):
    teacher, predict = mirrors(model(toy)), played.predict
    played.rows = {("predicted", "new_0"): 20}

    def fail_at_the_second_look(images, output):
        played.fails_after = 1 if output.name == "unmirrored" else None
        return predict(images, output)

    with monkeypatch.context() as failing:
        failing.setattr(played, "predict", fail_at_the_second_look)
        assert label(toy, teacher) == 1
    played.fails_after = None
    assert not (new(toy) / "dataset.json").exists()
    (new(toy) / "unmirrored" / "new_0.png").write_bytes(b"half")
    played.failing = "nnUNetv2_preprocess"
    assert label(toy, teacher) == 1
    played.failing = ""
    assert label(toy, teacher) == 0
    assert played.asked == [["new_0", "new_1"]] * 3
    before, played.started, said = ages(toy), [], capsys.readouterr().out.split("Look at")[-1]
    assert label(toy, teacher) == 0 and not played.started
    assert capsys.readouterr().out.split("Look at")[-1] == said and said.startswith(" the labels of new_0 (0.00)")
    shutil.rmtree(toy.folder.parent / NEW / "nnUNetPlans_2d")
    assert label(toy, teacher) == 0 and played.started == ["nnUNetv2_preprocess"] and ages(toy) == before


def test_a_kill_in_the_second_look_costs_no_preprocessing(toy, played, monkeypatch):
    def kill(*_):
        raise KeyboardInterrupt

    teacher = mirrors(model(toy))
    with monkeypatch.context() as killed, suppress(KeyboardInterrupt, SystemExit):
        killed.setattr(command, "look_again", kill)
        label(toy, teacher)
    assert "nnUNetv2_preprocess" not in played.started
    assert label(toy, teacher) == 0 and played.started.count("nnUNetv2_preprocess") == 1
    assert (new(toy) / "pseudo_labels.csv").is_file()


def test_labels_that_may_have_been_corrected_are_not_judged_again(toy, played, monkeypatch):
    """Of a dataset that an earlier version finished, without a table, and without a GPU today."""
    teacher = mirrors(model(toy))
    assert label(toy, teacher) == 0
    (new(toy) / "pseudo_labels.csv").unlink()
    shutil.rmtree(toy.folder.parent / NEW / "nnUNetPlans_2d")
    played.started = []
    monkeypatch.setattr(command, "find_device", None)
    assert label(toy, teacher) == 0
    assert played.started == ["nnUNetv2_preprocess"] and not (new(toy) / "pseudo_labels.csv").exists()


def test_how_well_agreement_finds_the_worst_labels(tmp_path, capsys):
    """Ten pseudo-labels whose true Dice falls from case to case; agreement does too, but for the last two."""
    (tmp_path / "dataset.json").write_text(json.dumps(toy_dataset_json() | {"file_ending": ".png"}))
    truth = np.ones((20, 20), np.uint8)
    rows = ["case,label,found,agreement", "empty,a,False,", "empty,b,False,"]
    for i, agreement in enumerate([1 - i / 20 for i in range(8)] + [0.1, 0.2]):
        rows.append(f"{i},a,True,{agreement}\n{i},b,False,")
        save(tmp_path / "truth" / f"{i}.png", truth)
        save(tmp_path / "labelsTr" / f"{i}.png", np.where(np.arange(20)[:, None] < i, 0, truth).astype(np.uint8))
    for case, found in (("labelled", truth), ("empty", 0 * truth)):
        save(tmp_path / "truth" / f"{case}.png", truth)
        save(tmp_path / "labelsTr" / f"{case}.png", found)
    (tmp_path / "pseudo_labels.csv").write_text("\n".join(rows))
    measure_agreement(tmp_path, tmp_path / "truth")
    rank = 1 - 6 * (1 + 1) / (10 * (10**2 - 1))
    dice = np.mean([2 * (20 - i) / (40 - i) for i in range(10)])
    said = f"10 cases (and 1 where nothing was found), Dice {dice:.3f}: Spearman {rank:.2f}, 2 of the worst 2 are among"
    assert said in capsys.readouterr().out


# --- again -----------------------------------------------------------------------------------------------------------


def test_goes_on_after_each_failure(toy, played, capsys):
    teacher = model(toy)
    played.fails_after = 1
    assert label(toy, teacher) == 1
    assert "ended with exit status 1; its message is above. The same command" in capsys.readouterr().err
    predicted = new(toy) / "predicted"
    assert sorted(f.name for f in predicted.glob("*.png")) == ["new_0.png"] and not (new(toy) / "dataset.json").exists()
    (predicted / "new_0.png").write_bytes(b"half")
    assert label(toy, teacher) == 1 and (predicted / "new_0.png").stat().st_size > 4
    played.fails_after = None
    first = (predicted / "new_0.png").stat().st_mtime_ns
    for name in ("nnUNetv2_preprocess", ""):
        played.failing, played.started = name, []
        assert label(toy, teacher) == int(name != "")
    assert ages(toy)["new_0.png"] == first
    assert played.asked == [["new_0", "new_1"], ["new_0", "new_1"], ["new_1"]]
    assert sorted(ages(toy)) == ["new_0.png", "new_1.png", "train_0.png", "train_1.png"]
    assert "nnUNetv2_predict_from_modelfolder" not in played.started


def test_what_is_complete_is_left_alone(toy, played, capsys):
    teacher = model(toy)
    assert label(toy, teacher) == 0
    line, played.started = capsys.readouterr().out.strip().splitlines()[-1], []
    before = ages(toy)
    (new(toy) / "labelsTr" / "._new_0.png").touch()  # by macOS
    assert label(toy, teacher) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1] == line and not played.started
    (new(toy) / "labelsTr" / "._new_0.png").unlink()
    assert ages(toy) == before


def test_a_corrected_label_is_preprocessed_and_stays(toy, played, capsys):
    """However old the file is that takes the label's place."""
    teacher = mirrors(model(toy))
    played.rows = {("predicted", "new_0"): 20}
    assert label(toy, teacher) == 0
    said = capsys.readouterr().out
    assert "If you correct a label, repeat this command before you train: it preprocesses again." in said
    (toy.folder.parent / NEW / "gt_segmentations").mkdir()  # where nnU-Net lets a newer file be
    corrected = toy.source.parent / "by_an_expert.png"
    corrected.write_bytes(b"corrected by hand")
    os.utime(corrected, (0, 0))
    corrected.rename(new(toy) / "labelsTr" / "new_0.png")
    played.started, played.failing = [], "nnUNetv2_preprocess"
    assert label(toy, teacher) == 1
    assert not (toy.folder.parent / NEW / "gt_segmentations").exists()
    played.failing = ""
    for _ in range(2):
        assert label(toy, teacher) == 0
    assert played.started == ["nnUNetv2_preprocess"] * 2
    assert (new(toy) / "labelsTr" / "new_0.png").read_bytes() == b"corrected by hand"
    assert capsys.readouterr().out.strip().splitlines()[-1] == said.strip().splitlines()[-1]


def test_images_that_were_taken_out_do_not_hinder_the_second_look(toy, played, capsys, monkeypatch):
    teacher, predict = mirrors(model(toy)), played.predict
    played.rows = {("predicted", "new_1"): 20}

    def stopped_at_the_second_look(images, output):
        predict(images, output)
        return SimpleNamespace(returncode=int(output.name == "unmirrored"))

    with monkeypatch.context() as stopped:
        stopped.setattr(played, "predict", stopped_at_the_second_look)
        assert label(toy, teacher) == 1
    (toy.source / "new_0_0000.png").unlink()
    assert label(toy, teacher) == 0
    assert "Look at the labels of new_1 (0.00)" in capsys.readouterr().out


def test_a_trainer_of_another_network_begins_from_scratch(toy, played, capsys, monkeypatch):
    def begin(*_):
        raise OtherWeights("does not fit")

    monkeypatch.setattr(command, "begin", begin)
    teacher = model(toy)
    assert label(toy, teacher, options=("-tr", "nnUNetTrainerBN")) == 0
    said = capsys.readouterr().out
    assert f"The training begins from scratch: nnUNetTrainerBN has another network than {teacher}." in said
    assert said.strip().splitlines()[-1].strip() == "nnUNetv2_train 181 2d all -tr nnUNetTrainerBN --c"
    assert label(toy, teacher) == 2 and "does not fit" in capsys.readouterr().err


def test_a_label_that_was_removed_is_made_again_and_the_others_stay(toy, played):
    teacher, played.failing = model(toy), "nnUNetv2_preprocess"
    assert label(toy, teacher) == 1
    (new(toy) / "labelsTr" / "new_0.png").unlink()
    for case in ("new_1", "train_0"):
        (new(toy) / "labelsTr" / f"{case}.png").write_bytes(b"corrected by hand")
    played.failing = ""
    assert label(toy, teacher) == 0 and played.asked[1:] == [["new_0"]]
    assert (new(toy) / "labelsTr" / "new_0.png").is_file()
    for case in ("new_1", "train_0"):
        assert (new(toy) / "labelsTr" / f"{case}.png").read_bytes() == b"corrected by hand"
    assert (toy.raw / "labelsTr" / "train_0.png").read_bytes() != b"corrected by hand"


def test_a_prediction_that_was_cut_short_is_no_label(toy, played, capsys, monkeypatch):
    """SimpleITK says nothing where the disk is full."""
    teacher, predict = model(toy), played.predict

    def predict_half(images, output):
        done = predict(images, output)
        file = output / "new_1.png"
        file.write_bytes(file.read_bytes()[:-30])
        return done

    with monkeypatch.context() as full:
        full.setattr(played, "predict", predict_half)
        assert label(toy, teacher) == 1
    assert "left out new_1, or could not write them to their end. If the disk of" in capsys.readouterr().err
    assert label(toy, teacher) == 0 and played.asked == [["new_0", "new_1"], ["new_1"]]


def test_an_image_that_cannot_be_predicted_may_be_taken_out(toy, played, capsys):
    teacher, played.fails_after = model(toy), 1
    assert label(toy, teacher) == 1
    assert f"use fewer processes (-np), or take that image out of {toy.source}." in capsys.readouterr().err
    (toy.source / "new_1_0000.png").rename(toy.source.parent / "large.png")
    save_case(toy.source, "new_2", 2)
    played.fails_after = None
    assert label(toy, teacher) == 0 and played.asked[1:] == [["new_2"]]
    assert sorted(ages(toy)) == ["new_0.png", "new_2.png", "train_0.png", "train_1.png"]


def test_another_image_of_that_name_is_predicted_anew(toy, played):
    """The wrong series was taken out, and comes back as the right one."""
    teacher, played.fails_after = model(toy), 1
    assert label(toy, teacher) == 1 and played.asked == [["new_0", "new_1"]]
    (toy.source / "new_0_0000.png").unlink()
    played.fails_after = 0
    assert label(toy, teacher) == 1 and played.asked[1:] == [["new_1"]]
    save_case(toy.source, "new_0", 2)
    played.fails_after = None
    assert label(toy, teacher) == 0 and played.asked[2:] == [["new_0", "new_1"]]


def test_but_no_image_may_have_changed(toy, played, capsys):
    teacher, played.fails_after = model(toy), 1
    assert label(toy, teacher) == 1
    save_case(toy.source, "new_0", 2)
    assert label(toy, teacher) == 2 and "was made with other images" in capsys.readouterr().err


def test_the_model_may_have_moved(toy, played):
    teacher, played.fails_after = model(toy), 1
    assert label(toy, teacher) == 1
    played.fails_after = None
    moved = shutil.move(teacher, toy.source.parent / teacher.name)
    assert label(toy, moved) == 0 and played.models[-1][0] == str(moved)


def test_a_second_preprocessing_that_was_stopped_goes_on(toy, played):
    teacher = model(toy)
    assert label(toy, teacher) == 0
    (toy.folder.parent / NEW / "nnUNetPlans_2d" / "train_1.b2nd").unlink()
    played.started = []
    assert label(toy, teacher) == 0 and played.started == ["nnUNetv2_preprocess"]
    assert label(toy, teacher) == 0 and played.started == ["nnUNetv2_preprocess"]


def test_of_plans_of_one_name_the_models_own_are_taken(toy, played, capsys):
    """A copy by hand of the plans file keeps the plans_name inside."""
    teacher, plans = model(toy), copy.deepcopy(toy.plans)
    plans["configurations"]["2d"]["batch_size"] += 1
    for file in (toy.folder / "Mine.json", teacher / "plans.json"):
        file.write_text(json.dumps(plans))
    assert label(toy, teacher) == 0
    assert capsys.readouterr().out.strip().endswith("nnUNetv2_train 181 2d all -tr nnUNetTrainer_250epochs --c -p Mine")
    assert json.loads((toy.folder.parent / NEW / "Mine.json").read_text())["configurations"] == plans["configurations"]


def test_after_a_trainer_of_your_own_its_variant_of_250_epochs_is_named(toy, played, capsys, monkeypatch):
    monkeypatch.setattr(command, "look_up", lambda name: None)
    monkeypatch.setattr(labelling_model, "is_known", lambda name: name == "nnUNetTrainerMine_250epochs")
    assert label(toy, with_checkpoints(model(toy, "nnUNetTrainerMine"), "nnUNetTrainerMine")) == 0
    assert "nnUNetv2_train 181 2d all -tr nnUNetTrainerMine_250epochs --c" in capsys.readouterr().out


@pytest.mark.parametrize("gone", ["", "nnUNetPlans.json", "nnUNetPlans_2d", "splits_final.json"])
def test_what_vanished_from_the_preprocessed_data_is_made_again(toy, played, gone):
    teacher = mirrors(model(toy))
    assert label(toy, teacher) == 0
    before, played.started, gone = ages(toy), [], toy.folder.parent / NEW / gone
    gone.unlink() if gone.is_file() else shutil.rmtree(gone)
    played.failing = "nnUNetv2_preprocess"
    assert label(toy, teacher) == 1
    played.failing = ""
    assert label(toy, teacher) == 0
    assert played.started == ["nnUNetv2_preprocess"] * 2 and ages(toy) == before and gone.exists()


@pytest.mark.parametrize(
    "what",
    [
        *("images", "checkpoints", "fold", "configuration", "plans", "labelled cases", "preprocessing"),
        "network, patch or batch size",
    ],
)
def test_other_things_need_another_number(toy, played, capsys, what):
    teacher, options, fold = model(toy), (), "all"
    assert label(toy, teacher) == 0
    before, played.started = ages(toy), []
    if what == "images":
        old = (toy.source / "new_1_0000.png").stat()
        save_case(toy.source, "new_1", 2)
        os.utime(toy.source / "new_1_0000.png", ns=(old.st_atime_ns, old.st_mtime_ns))
    elif what == "checkpoints":
        (teacher / "fold_0" / "checkpoint_final.pth").write_bytes(b"trained again")
    elif what == "fold":
        fold = "0"
    elif what == "configuration":
        options = ("-c", "2d_w050")
    elif what == "labelled cases":
        save(toy.raw / "labelsTr" / "train_0.png", np.ones((40, 40), np.uint8))
    elif what == "preprocessing":
        toy.plans["configurations"]["2d"]["spacing"] = [2.0, 2.0]
        toy.write_plans()
    elif what.startswith("network"):
        toy.plans["configurations"]["2d"]["batch_size"] += 1
        toy.write_plans()
    else:
        toy.plans["plans_name"] = "nnUNetOtherPlans"
        toy.write_plans("nnUNetOtherPlans")
        options = ("-p", "nnUNetOtherPlans")
    assert label(toy, teacher, fold=fold, options=options) == 2
    said = capsys.readouterr().err
    assert f"was made with other {what}" in said
    assert f". Choose another number, or remove what was made: {new(toy)} " in said
    assert str(toy.folder.parent / NEW) in said
    assert ages(toy) == before and not played.started
    for root in ("nnUNet_raw", "nnUNet_preprocessed"):
        shutil.rmtree(toy.raw.parents[1] / root / NEW)
    assert label(toy, teacher, fold=fold, options=options) == 0


def test_times_do_not_matter_nor_what_else_a_checkpoint_holds(toy, played):
    """nnUNetv2_train --c, which repeats a validation that was stopped, saves the finished model again."""
    teacher = with_checkpoints(model(toy), "nnUNetTrainer", logging={"epochs": 1})
    played.fails_after = 1
    assert label(toy, teacher) == 1 and played.asked == [["new_0", "new_1"]]
    with_checkpoints(teacher, "nnUNetTrainer", logging={"epochs": 2})
    os.utime(toy.raw / "labelsTr" / "train_0.png", ns=(1, 1))
    played.fails_after = None
    assert label(toy, teacher) == 0 and played.asked == [["new_0", "new_1"], ["new_1"]]
    with_checkpoints(teacher, "nnUNetTrainer", network_weights={"weight": torch.ones(1)})
    assert label(toy, teacher) == 2


def test_a_corrected_spacing_is_another_image(nnunet_env, monkeypatch, capsys):
    toy = prepared(Toy(nnunet_env, dim=3))
    play(toy, monkeypatch)
    teacher = model(toy)
    assert label(toy, teacher) == 0
    file = toy.source / "new_0_0000.nii.gz"
    save(file, np.asarray(nibabel.load(file).dataobj), spacing=(2.0, 2.0, 2.0))
    assert label(toy, teacher) == 2 and "was made with other images" in capsys.readouterr().err


def test_two_runs_at_once_do_not_disturb_each_other(toy, played, monkeypatch, capsys):
    teacher, predict, at_once = model(toy), played.predict, []

    def meanwhile(*arguments):
        if not at_once:
            at_once.append(label(toy, teacher))
        return predict(*arguments)

    monkeypatch.setattr(played, "predict", meanwhile)
    assert label(toy, teacher) == 0 and at_once == [2]
    assert f"another run works in {toy.raw.parent}" in capsys.readouterr().err
    assert sorted(folder.name for folder in toy.raw.parent.iterdir()) == [NEW, DATASET]


def test_a_prediction_that_leaves_a_case_out_ends_the_command(toy, played, capsys, monkeypatch):
    monkeypatch.setattr(commands, "run_and_end", lambda command, env: 0)
    assert label(toy, model(toy)) == 1
    assert "left out new_0, new_1" in capsys.readouterr().err and not (new(toy) / "dataset.json").exists()


# --- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"background": 0, "b": 1, "a": 2}}, "They differ in labels"),
        ({"channel_names": {"0": "MR"}}, "They differ in channels"),
        ({"file_ending": ".tif"}, "They differ in file ending"),
        ({"regions_class_order": [2, 1]}, "They differ in regions_class_order"),
    ],
)
def test_a_model_of_other_data(toy, played, capsys, changes, message):
    refused(toy, played, capsys, message, model(toy, **changes))


def test_the_order_of_regions_is_their_meaning(toy, played, capsys):
    """regions_class_order gives the first region its value, whatever that region is."""
    regions = {"background": 0, "whole": [1, 2], "core": [2]}
    toy.description |= {"labels": regions, "regions_class_order": [1, 2]}
    (toy.folder / "dataset.json").write_text(json.dumps(toy.description))
    other = {"background": 0, "core": [2], "whole": [1, 2]}
    refused(toy, played, capsys, "They differ in labels", model(toy, labels=other))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"number": 0}, "-t is 0"),
        ({"number": 1000}, "-t is 1000"),
        ({"number": 900}, f"-t 900 is the number of {DATASET}"),
        ({"fold": "1"}, "may only be taught by fold 1"),
        ({"fold": "2"}, "there is no fold 2"),
        ({"options": ("-c", "2d_w025")}, "has no configuration '2d_w025'"),
        ({"options": ("-np", "0")}, "-np is 0"),
        ({"options": ("-tr", "nnUNetTrainerNobody")}, "does not find the trainer nnUNetTrainerNobody"),
    ],
)
def test_what_cannot_be_made(toy, played, capsys, options, message):
    refused(toy, played, capsys, message, model(toy), **options)


def test_a_missing_device_is_named_before_anything_is_written_and_only_where_something_is_predicted(
    toy, played, capsys, monkeypatch
):
    def none(name: str) -> None:
        raise BadInput(f"PyTorch finds no {name}")

    teacher = model(toy)
    with monkeypatch.context() as without:
        without.setattr(command, "find_device", none)
        refused(toy, played, capsys, "PyTorch finds no cuda", teacher)
    assert label(toy, teacher) == 0
    monkeypatch.setattr(command, "find_device", none)
    assert label(toy, teacher) == 0


def test_results_that_cannot_be_written_are_named_before_hours_of_prediction(toy, played, capsys, monkeypatch):
    teacher = model(toy)
    monkeypatch.setenv("nnUNet_results", str(toy.folder / "nnUNetPlans.json" / "results"))
    refused(toy, played, capsys, "cannot write to ", teacher)


def test_the_second_stage_of_a_cascade(toy, played, capsys):
    folder = model(toy)
    cascade = folder.rename(folder.with_name("nnUNetTrainer__nnUNetPlans__3d_cascade_fullres"))
    refused(toy, played, capsys, "second stage of a cascade", cascade, options=("-c", "2d"))


def test_the_second_stage_of_a_cascade_as_the_student(toy, played, capsys):
    refused(toy, played, capsys, "second stage of a cascade", model(toy), options=("-c", "3d_cascade_fullres"))


def test_a_folder_that_is_not_named_as_nnunet_does(toy, played, capsys):
    refused(toy, played, capsys, "is not named TRAINER__PLANS__CONFIGURATION", model(toy).rename(toy.source / "mine"))


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"])
def test_folders_that_are_not_set(toy, played, capsys, monkeypatch, variable):
    teacher = model(toy)
    monkeypatch.delenv(variable)
    refused(toy, played, capsys, f"{variable} is not set", teacher)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("nnUNet_raw/{}/labelsTr/train_1.png", "labelsTr/train_1.png. Put them back"),
        ("nnUNet_raw/{}/imagesTr/train_1_0000.png", "lacks the images of train_1, which are labelled"),
        ("nnUNet_preprocessed/{}/dataset_fingerprint.json", "Make it: nnUNetv2_extract_fingerprint -d 900"),
        ("nnUNet_preprocessed/{}/splits_final.json", "where the model was trained: copy it from there"),
    ],
)
def test_missing_files_of_the_labelled_cases(toy, played, capsys, missing, message):
    teacher = model(toy)
    (toy.raw.parents[1] / missing.format(DATASET)).unlink()
    refused(toy, played, capsys, message, teacher, fold="0" if "splits" in missing else "all")


def test_a_case_that_was_taken_out_of_the_dataset(toy, played):
    """nnU-Net leaves its label in gt_segmentations, and its data of configurations that are not preprocessed again."""
    for file in ("gt_segmentations/train_0.png", "gt_segmentations/bad.png", "lowres/bad.b2nd", "lowres/bad.pkl"):
        (toy.folder / file).parent.mkdir(exist_ok=True)
        (toy.folder / file).touch()
    toy.add("bad")
    assert label(toy, model(toy)) == 0
    assert sorted(ages(toy)) == ["bad.png", "new_0.png", "new_1.png", "train_0.png", "train_1.png"]


def test_a_case_that_was_taken_out_and_is_still_in_the_split(toy, played, capsys):
    for file in ("imagesTr/train_1_0000.png", "labelsTr/train_1.png"):
        (toy.raw / file).unlink()
    for file in (toy.folder / "nnUNetPlans_2d").glob("train_1*"):
        file.unlink()
    refused(toy, played, capsys, "splits_final.json names in fold 0. Put them back", model(toy), fold="0")


def test_without_any_labelled_image(toy, played, capsys):
    for folder in (toy.raw / "imagesTr", toy.folder / "nnUNetPlans_2d"):
        shutil.rmtree(folder)
    refused(toy, played, capsys, "has no images with labels", model(toy))


def test_files_of_another_ending(toy, played, capsys):
    """nnU-Net's preprocessing takes what dataset.json names. A link of another ending it cannot read."""
    named = {
        case: {"images": [f"imagesTr/{case}.mha"], "label": f"labelsTr/{case}.png"} for case in ("train_0", "train_1")
    }
    for case in named:
        (toy.raw / "imagesTr" / f"{case}_0000.png").rename(toy.raw / "imagesTr" / f"{case}.mha")
    (toy.folder / "dataset.json").write_text(json.dumps(toy.description | {"dataset": named}))
    refused(toy, played, capsys, "train_0.mha", model(toy))


def test_a_stray_file_in_the_preprocessed_data(toy, played, capsys):
    (toy.folder / "nnUNetPlans_2d" / ".DS_Store").touch()
    refused(toy, played, capsys, "holds files that nnU-Net did not write", model(toy))


def test_a_stray_file_in_the_new_preprocessed_data(toy, played, capsys):
    teacher = model(toy)
    assert label(toy, teacher) == 0
    (toy.folder.parent / NEW / "nnUNetPlans_2d" / ".DS_Store").touch()
    assert label(toy, teacher) == 2
    assert "holds files that nnU-Net did not write" in capsys.readouterr().err


def test_images_that_are_labelled(toy, played, capsys):
    (toy.source / "new_1_0000.png").write_bytes((toy.raw / "imagesTr" / "train_0_0000.png").read_bytes())
    refused(toy, played, capsys, "new_1 = train_0", model(toy))


@pytest.mark.parametrize("name", [NEW, "Dataset181_other"])
@pytest.mark.parametrize("root", ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"])
def test_the_number_of_another_dataset(toy, played, capsys, root, name):
    (toy.raw.parents[1] / root / name).mkdir()
    assert label(toy, model(toy)) == 2 and f"-t 181 is the number of {name}" in capsys.readouterr().err
    assert not played.started


def refused(toy, played, capsys, message, teacher, **options) -> None:
    """Nothing is started or written."""
    assert label(toy, teacher, **options) == 2
    assert message in capsys.readouterr().err
    assert not played.started and not new(toy).exists()
