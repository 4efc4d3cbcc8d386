"""The demo: the user's data as it comes, resume and refusal, table and picture, and one run of the real commands."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from skimage import io

from nnunet_skd.tools.cli import main
from nnunet_skd.tools.commands import program
from nnunet_skd.tools.demo import processes
from nnunet_skd.tools.demo.data import hold_out
from nnunet_skd.tools.demo.linked_dataset import link_dataset
from nnunet_skd.tools.demo.paired_folders import pair_folders
from nnunet_skd.tools.demo.phantoms import write_partly_labelled_phantoms, write_phantom_dataset
from nnunet_skd.tools.demo.picture import draw_predictions, read_slice
from nnunet_skd.tools.demo.processes import CommandFailed, Steps, demo_environment, stream
from nnunet_skd.tools.demo.run import TRAINER, run_demo
from nnunet_skd.tools.demo.state import NNUNET_FOLDERS, open_state
from nnunet_skd.tools.demo.table import DEMO_METRICS, format_table
from nnunet_skd.tools.errors import BadInput


def _folders(tmp_path, number=10, *, mask_value=255, mask_name="{}.png", image_name="{}.png", colour=False):
    """Two folders of small images and masks; mask i has a square of i + 1 pixels edge."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for i in range(number):
        image = rng.integers(0, 255, (12, 16, 3) if colour else (12, 16), dtype=np.uint8)
        mask = np.zeros((12, 16), np.uint8)
        mask[: i + 1, : i + 1] = mask_value
        io.imsave(tmp_path / "images" / image_name.format(f"case{i}"), image, check_contrast=False)
        io.imsave(tmp_path / "masks" / mask_name.format(f"case{i}"), mask, check_contrast=False)
    return tmp_path / "images", tmp_path / "masks"


def _bytes(folder):
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def _names(folder):
    return sorted(f.name for f in folder.iterdir())


# ------------------------------------------------------------------------------------------- two folders


def test_pairs_0_255_masks_and_leaves_the_users_files_alone(tmp_path, capsys):
    images, masks = _folders(tmp_path, mask_name="{}_mask.png", image_name="{}_0000.png")
    before = _bytes(images) | _bytes(masks)
    dataset = pair_folders(images, masks, tmp_path / "raw")
    assert _bytes(images) | _bytes(masks) == before
    assert "255 becomes label 1" in capsys.readouterr().out

    dataset_json = json.loads((dataset / "dataset.json").read_text())
    assert dataset_json["labels"] == {"background": 0, "object": 1}
    assert dataset_json["channel_names"] == {"0": "image"}
    assert dataset_json["numTraining"] == 8
    tests = _names(dataset / "labelsTs")
    assert len(tests) == 2 and sorted(tests + _names(dataset / "labelsTr")) == [f"case{i}.png" for i in range(10)]
    for split in ("Tr", "Ts"):
        for label in (dataset / f"labels{split}").iterdir():
            number = int(label.stem[4:]) + 1
            values = io.imread(label)
            assert set(np.unique(values)) == {0, 1} and (values == 1).sum() == number**2
            linked = dataset / f"images{split}" / f"{label.stem}_0000.png"
            assert linked.read_bytes() == before[f"{label.stem}_0000.png"]


def test_what_operating_systems_leave_behind_is_no_image(tmp_path):
    images, masks = _folders(tmp_path, mask_value=1)
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._case3.png"):
        (images / name).touch()
    assert len(_names(pair_folders(images, masks, tmp_path / "raw") / "imagesTr")) == 8


def test_pairs_colour_images_and_links_masks_that_fit(tmp_path):
    images, masks = _folders(tmp_path, mask_value=1, colour=True)
    dataset = pair_folders(images, masks, tmp_path / "raw")
    assert json.loads((dataset / "dataset.json").read_text())["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    assert all(label.is_symlink() for label in (dataset / "labelsTr").iterdir())


def test_mask_in_another_format_takes_the_images_format(tmp_path):
    images, masks = _folders(tmp_path, mask_value=1, mask_name="{}.bmp")
    dataset = pair_folders(images, masks, tmp_path / "raw")
    assert (io.imread(dataset / "labelsTr" / "case9.png") == 1).sum() == 100


def test_pairs_volumes(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for i in range(6):
        volume = np.random.default_rng(i).normal(size=(6, 5, 4))
        affine = np.diag([1, 2, 3, 1])
        nib.save(nib.Nifti1Image(volume.astype(np.float32), affine), tmp_path / "images" / f"v{i}.nii.gz")
        mask = (255 * (volume > 0)).astype(np.uint8)
        nib.save(nib.Nifti1Image(mask, affine), tmp_path / "masks" / f"v{i}_seg.nii.gz")
    dataset = pair_folders(tmp_path / "images", tmp_path / "masks", tmp_path / "raw")
    label = nib.load(dataset / "labelsTr" / "v0.nii.gz")
    image = nib.load(tmp_path / "images" / "v0.nii.gz")
    np.testing.assert_array_equal(label.get_fdata() == 1, image.get_fdata() > 0)
    np.testing.assert_allclose(label.header.get_zooms(), (1, 2, 3))


def _spoil(kind, images, masks):
    if kind == "unpaired":
        (masks / "case3.png").rename(masks / "other.png")
    elif kind == "size":
        io.imsave(masks / "case3.png", np.zeros((12, 15), np.uint8), check_contrast=False)
    elif kind == "value":
        io.imsave(masks / "case3.png", np.full((12, 16), 7, np.uint8), check_contrast=False)
    elif kind == "colour mask":
        mask = np.zeros((12, 16, 3), np.uint8)
        mask[0, 0] = 0, 1, 0
        io.imsave(masks / "case3.png", mask, check_contrast=False)
    elif kind == "channels":
        io.imsave(images / "case3.png", np.zeros((12, 16, 3), np.uint8), check_contrast=False)
    elif kind == "broken":
        (images / "case3.png").write_bytes(b"no png")
    elif kind == "jpeg":
        (images / "case3.jpg").write_bytes(b"")
    elif kind == "double":
        (masks / "case3_mask.png").write_bytes((masks / "case3.png").read_bytes())
    elif kind == "few":
        for i in range(4, 10):
            (images / f"case{i}.png").unlink()
            (masks / f"case{i}.png").unlink()
    elif kind == "empty":
        for mask in masks.iterdir():
            io.imsave(mask, np.zeros((12, 16), np.uint8), check_contrast=False)


@pytest.mark.parametrize(
    "kind, message",
    [
        ("unpaired", "No mask for: case3.png\nNo image for: other.png"),
        ("size", "mask case3.png is 12 x 15, but image case3.png is 12 x 16"),
        ("value", r"must be 0, 1, .. n without a gap, or 0 and 255, but there is 7 in case3.png"),
        ("colour mask", "case3.png is in colour"),
        ("channels", r"most images have 1 channel, but these do not: case3.png \(3\)"),
        ("broken", "images/case3.png is damaged"),
        ("jpeg", "does not read: case3.jpg.*JPEG to PNG"),
        ("double", "more than one mask of a case: case3.png, case3_mask.png"),
        ("few", "leaves 3 training cases.*at least 5"),
        ("empty", "all masks are empty"),
    ],
)
def test_unusable_folders_are_refused_by_name(tmp_path, kind, message):
    images, masks = _folders(tmp_path, mask_value=1)
    _spoil(kind, images, masks)
    with pytest.raises(BadInput, match=message):
        pair_folders(images, masks, tmp_path / "raw")
    assert not (tmp_path / "raw").exists() or _names(tmp_path / "raw") == []


def test_every_offender_is_listed_once(tmp_path):
    images, masks = _folders(tmp_path, mask_value=1)
    for i in (2, 5, 7):
        io.imsave(masks / f"case{i}.png", np.zeros((3, 3), np.uint8), check_contrast=False)
    with pytest.raises(BadInput) as error:
        pair_folders(images, masks, tmp_path / "raw")
    assert [str(error.value).count(f"case{i}.png is 3 x 3") for i in range(8)] == [0, 0, 1, 0, 0, 1, 0, 1]


# ------------------------------------------------------------------------------------- nnU-Net's raw format


@pytest.mark.parametrize("number, held", [(5, 1), (10, 2), (14, 2), (40, 8), (500, 8)])
def test_hold_out(number, held):
    cases = {f"{i:03d}": i for i in range(number)}
    train, test = hold_out(cases)
    assert len(test) == held and train | test == cases and not set(train) & set(test)


def test_links_a_dataset_with_test_labels(tmp_path):
    source = write_phantom_dataset(tmp_path / "source", 12, num_train=5, num_test=2, size=(48, 48))
    (source / "labelsTs" / "test_001.png").unlink()  # one test case without label: left out
    before = _bytes(source)
    dataset = link_dataset(source, tmp_path / "raw")
    assert dataset == tmp_path / "raw" / source.name
    assert _bytes(source) == before
    left_out = {"imagesTs/test_001_0000.png", "dataset.json"}
    assert {n: b for n, b in before.items() if n not in left_out} == {
        n: b for n, b in _bytes(dataset).items() if n != "dataset.json"
    }
    assert json.loads((dataset / "dataset.json").read_text()) == json.loads(before["dataset.json"])


def test_channels_may_be_named_as_in_older_datasets(tmp_path):
    """nnU-Net's check of a dataset asks for channel_names."""
    source = write_phantom_dataset(tmp_path / "source", 12, num_train=5, num_test=2, size=(48, 48))
    content = json.loads((source / "dataset.json").read_text())
    older = {"modality" if key == "channel_names" else key: value for key, value in content.items()}
    (source / "dataset.json").write_text(json.dumps(older))
    dataset = link_dataset(source, tmp_path / "raw")
    assert json.loads((dataset / "dataset.json").read_text()) == content


def test_holds_out_training_cases_where_no_test_case_has_a_label(tmp_path, capsys):
    source = write_phantom_dataset(tmp_path / "source", 12, num_train=10, num_test=0, size=(48, 48))
    dataset = link_dataset(source, tmp_path / "raw")
    assert "2 of 10 training cases are held out" in capsys.readouterr().out
    assert json.loads((dataset / "dataset.json").read_text())["numTraining"] == 8
    assert [len(_names(dataset / f)) for f in ("imagesTr", "labelsTr", "imagesTs", "labelsTs")] == [8, 8, 2, 2]


def test_an_image_that_belongs_to_no_case_is_not_left_out_silently(tmp_path):
    source = write_phantom_dataset(tmp_path / "source", 12, num_train=6, num_test=0, size=(48, 48))
    (source / "imagesTr" / "train_003_0000.png").rename(source / "imagesTr" / "train_003.png")
    with pytest.raises(BadInput, match=r"train_003.png in .*imagesTr belong to no case. Name them CASE_0000.png"):
        link_dataset(source, tmp_path / "raw")


def test_unusable_datasets_are_refused(tmp_path):
    source = write_phantom_dataset(tmp_path / "source", 12, num_train=5, num_test=0, size=(48, 48))
    with pytest.raises(BadInput, match="leaves 4 training cases"):
        link_dataset(source, tmp_path / "raw")
    (source / "labelsTr" / "train_003.png").unlink()
    with pytest.raises(BadInput, match=r"missing: .*train_003.png"):
        link_dataset(source, tmp_path / "raw")
    for file in (source / "imagesTr").iterdir():
        file.unlink()
    with pytest.raises(BadInput, match=r"imagesTr has no image named CASE_0000.png"):
        link_dataset(source, tmp_path / "raw")
    content = json.loads((source / "dataset.json").read_text())
    (source / "dataset.json").write_text(json.dumps({k: v for k, v in content.items() if k != "channel_names"}))
    with pytest.raises(BadInput, match=r"dataset.json lacks channel_names. .* nnU-Net's dataset_format.md"):
        link_dataset(source, tmp_path / "raw")
    (source / "dataset.json").write_text("{}")
    with pytest.raises(BadInput, match="lacks labels, file_ending"):
        link_dataset(source, tmp_path / "raw")
    (source / "dataset.json").unlink()
    with pytest.raises(BadInput, match="has no dataset.json"):
        link_dataset(source, tmp_path / "raw")
    with pytest.raises(BadInput, match="not named like DatasetXXX_Name"):
        link_dataset(tmp_path, tmp_path / "raw")


# ----------------------------------------------------------------------------------------- resume and refusal


def test_same_arguments_resume_and_others_are_refused(tmp_path):
    out = tmp_path / "demo"
    state = open_state(out, {"trainer": "A", "device": "cpu"}, overwrite=False)
    state.set("data", "Dataset001_X")
    state.set("plan", True)
    assert open_state(out, {"trainer": "A", "device": "cpu"}, overwrite=False).finished("plan")
    with pytest.raises(BadInput, match="trainer was A, now is B.*-o, or --overwrite"):
        open_state(out, {"trainer": "B", "device": "cpu"}, overwrite=False)


def test_arguments_may_change_as_long_as_there_is_no_data(tmp_path):
    open_state(tmp_path / "demo", {"images": "typo"}, overwrite=False)
    state = open_state(tmp_path / "demo", {"images": "right"}, overwrite=False)
    assert state.content == {"arguments": {"images": "right"}}


def test_overwrite_removes_what_the_demo_made_and_nothing_else(tmp_path):
    out = tmp_path / "demo"
    open_state(out, {"trainer": "A"}, overwrite=False).set("data", "Dataset001_X")
    (out / "nnUNet_raw").mkdir()
    (out / "notes.txt").write_text("mine")
    state = open_state(out, {"trainer": "B"}, overwrite=True)
    assert not state.finished("data")
    assert _names(out) == ["demo.json", "notes.txt"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_demo_is_never_touched(tmp_path, overwrite):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(BadInput, match="not empty and does not hold a demo"):
        open_state(tmp_path, {"trainer": "A"}, overwrite)
    assert _names(tmp_path) == ["thesis.txt"]


def test_the_command_gives_the_signals_back(tmp_path):
    """Processes that are forked later in this one, as by nnU-Net's Pool, must end when they are told to."""
    before = signal.getsignal(signal.SIGTERM)
    assert main(["demo", "-o", str(tmp_path / "demo"), "--data", str(tmp_path / "absent")]) == 2
    assert signal.getsignal(signal.SIGTERM) is before


def test_unusable_arguments_are_refused_at_once(tmp_path):
    for wrong, message in (
        ({"data": tmp_path, "images": tmp_path, "masks": tmp_path}, "cannot be combined"),
        ({"images": tmp_path}, "belong together"),
        ({"data": tmp_path / "absent"}, "absent is not a folder"),
        ({"num_processes": -1}, "-np is -1"),
    ):
        with pytest.raises(BadInput, match=message):
            run_demo(tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()


def test_a_missing_device_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(BadInput, match="no CUDA device. Use -device cpu"):
        run_demo(tmp_path / "out", device="cuda")
    assert not (tmp_path / "out").exists()


def test_a_demo_that_has_begun_does_not_ask_for_its_device(tmp_path, monkeypatch):
    """It may be finished, and only be shown again."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    asked = {"phantoms": "2D", "trainer": TRAINER, "device": "cuda"}
    open_state(tmp_path / "out", asked, overwrite=False).set("data", "Dataset901_X")
    with pytest.raises(BadInput, match="Dataset901_X/dataset.json"):
        run_demo(tmp_path / "out", device="cuda")


def _steps(out):
    state = open_state(out / "demo", {}, overwrite=False)
    state.set("data", "Dataset001_X")
    return Steps(out, state, demo_environment(out, "cpu", 1))


def test_a_step_is_shown_logged_and_skipped_when_done(tmp_path, capsys):
    command = ["python", "-c", "import os; print('result', os.environ['nnUNet_raw'])"]
    _steps(tmp_path)("first", "First", command)
    shown = capsys.readouterr().out
    assert "$ python -c " in shown and f"result {tmp_path / 'nnUNet_raw'}" in shown
    assert "result" in (tmp_path / "logs" / "first.log").read_text()
    _steps(tmp_path)("first", "First", command)
    assert "skipped" in capsys.readouterr().out


def test_a_failed_step_names_command_log_and_way_out(tmp_path):
    step = _steps(tmp_path)
    with pytest.raises(CommandFailed) as error:
        step("second", "Second", ["python", "-c", "print('the cause'); raise SystemExit(3)"])
    message = str(error.value)
    assert "exit status 3" in message and "python -c" in message and "same demo again" in message
    assert str(tmp_path / "logs" / "second.log") in message
    assert "the cause" in (tmp_path / "logs" / "second.log").read_text()
    assert not step.state.finished("second")


def test_output_comes_while_the_command_runs(tmp_path, monkeypatch):
    shown, seen = [], tmp_path / "seen"

    class Screen:
        def write(self, text):
            shown.append(text)
            if "early" in text:
                seen.touch()

        def flush(self):
            pass

    monkeypatch.setattr(sys, "stdout", Screen())
    code = f"""
import pathlib, time
print("early")
end = time.monotonic() + 60
while not pathlib.Path({str(seen)!r}).exists():
    assert time.monotonic() < end
    time.sleep(0.01)
print("late")
"""
    assert stream([sys.executable, "-c", code], tmp_path / "log", demo_environment(tmp_path, "cpu", 1)) == 0
    assert "late" in "".join(shown)


def test_commands_are_those_of_this_python_before_those_on_path(tmp_path, monkeypatch):
    for name in ("nnUNetv2_train", "only_on_path"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program("nnUNetv2_train").startswith(str(Path(sys.executable).parent))
    assert program("only_on_path") == str(tmp_path / "only_on_path")
    with pytest.raises(BadInput, match="no_such_program is neither in .* nor on PATH.*pip install"):
        program("no_such_program")


def test_environment_keeps_the_users_external_trainers(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", "/mine")
    monkeypatch.setenv("nnUNet_raw", "/users/raw")
    environment = demo_environment(tmp_path, "cpu", 2)
    ours, mine = environment["nnUNet_extTrainer"].split(os.pathsep)
    assert (Path(ours) / "nnUNetTrainerDSKD.py").is_file() and mine == "/mine"
    assert environment["nnUNet_raw"] == str(tmp_path / "nnUNet_raw")


def test_environment_starts_no_more_workers_than_nnunet_would(tmp_path, monkeypatch):
    monkeypatch.delenv("nnUNet_n_proc_DA", raising=False)
    for cores, workers in ((2, "2"), (128, "12")):
        monkeypatch.setattr(processes, "cpu_cores", lambda cores=cores: cores)
        assert demo_environment(tmp_path, "cuda", 1)["nnUNet_n_proc_DA"] == workers


# ------------------------------------------------------------------------------------------- table and picture


def test_table():
    table = pd.DataFrame(
        [("a", "x", 0.5, 0.4, 1, 1, 1), ("a", "y", np.nan, 0.2, 1, 1, 1), ("b", "x", 1, 0.8, 1, 1, 1)]
        + [("b", "y", 0.25, 0.4, 1, 1, 1)],
        columns=["case", "label", *DEMO_METRICS],
    ).assign(trainer="nnUNetTrainerDSKD")
    lines = [line.split() for line in format_table(table).splitlines()]
    assert lines[0] == ["case", "label", *DEMO_METRICS]
    assert lines[2][:4] == ["a", "x", "0.500", "0.400"]
    assert lines[3][2] == "-"
    assert lines[7][:4] == ["mean", "x", "0.750", "0.600"]
    assert lines[8][:4] == ["mean", "y", "0.250", "0.300"]
    assert lines[9][:5] == ["mean", "all", "labels", "0.500", "0.450"]
    short = format_table(table, most_rows=1)
    assert "3 more rows in metrics.csv" in short and "0.750" in short


def test_table_of_two_trainers_shows_their_means_below_each_other():
    table = pd.DataFrame(
        [("A", "a", "x", 0.5, 1, 1, 1, 1), ("A", "b", "x", 0.7, 1, 1, 1, 1), ("B", "a", "x", 0.9, 1, 1, 1, 1)],
        columns=["trainer", "case", "label", *DEMO_METRICS],
    )
    lines = [line.split() for line in format_table(table).splitlines()]
    assert [line[:3] for line in lines[2:]] == [["A", "x", "0.600"], ["B", "x", "0.900"]]


def test_partly_labelled_phantoms_are_the_fully_labelled_ones(tmp_path):
    options = {"dim": 2, "num_train": 5, "num_test": 1, "size": (64, 64)}
    whole = write_phantom_dataset(tmp_path / "whole", 3, **options)
    part = write_partly_labelled_phantoms(tmp_path / "part", tmp_path / "images", 3, 2, **options)
    expected = {name: content for name, content in _bytes(whole).items() if name != "dataset.json"}
    found = {name: content for name, content in _bytes(part).items() if name != "dataset.json"}
    images = {f"imagesTr/{name}": content for name, content in _bytes(tmp_path / "images").items()}
    labels = [f"labelsTr/train_{i:03d}.png" for i in (2, 3, 4)]
    assert len(images) == 3 and found | images == {n: c for n, c in expected.items() if n not in labels}
    assert json.loads((part / "dataset.json").read_text())["numTraining"] == 2


def test_unlabelled_is_for_phantoms(tmp_path):
    with pytest.raises(BadInput, match="on phantoms.*nnunet-skd pseudo-labels"):
        run_demo(tmp_path / "out", data=tmp_path, unlabelled=True)


def test_slice_with_most_foreground_in_physical_proportions(tmp_path):
    # 4 x 6 x 10 voxels (x, y, z) of 2 x 1 x 5 mm: slices across z; most foreground is in z = 7.
    (tmp_path / "dataset.json").write_text(
        json.dumps({"labels": {"background": 0, "a": 1}, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"})
    )
    label = np.zeros((4, 6, 10), np.uint8)
    label[0, 0, 2] = 1
    label[1:3, 2:5, 7] = 1
    image = np.full(label.shape, -160, np.int16)
    image[3, 5, 7] = 240
    for folder, name, content in (("imagesTs", "c_0000", image), ("labelsTs", "c", label), ("predictions", "c", label)):
        (tmp_path / folder).mkdir()
        nib.save(nib.Nifti1Image(content, np.diag([2, 1, 5, 1])), tmp_path / folder / f"{name}.nii.gz")
    dataset_json = json.loads((tmp_path / "dataset.json").read_text())
    shown = read_slice(tmp_path, [tmp_path / "predictions"], dataset_json, "c")
    np.testing.assert_array_equal(shown.truth, label[:, :, 7].T)
    np.testing.assert_array_equal(shown.predictions, [shown.truth])
    assert shown.aspect == 0.5 and shown.where == ", slice 7"
    assert shown.image[5, 3] == 1 and shown.image.sum() == 1


@pytest.mark.parametrize("options", [{"dim": 2, "size": (64, 64)}, {"dim": 3, "size": (16, 32, 32), "regions": True}])
def test_picture_shows_the_prediction_in_the_right_place(tmp_path, options):
    dataset = write_phantom_dataset(tmp_path, 3, num_train=1, num_test=2, **options)
    table = pd.DataFrame({"trainer": "A", "case": ["test_000", "test_001"], "label": "x", "Dice": [0.5, 1.0]})
    predictions = {"A": dataset / "labelsTs"}
    draw_predictions(dataset, predictions, table, tmp_path / "demo.png")
    picture = io.imread(tmp_path / "demo.png")[:-100, :, :3].astype(int)  # without the legend
    assert _names(tmp_path) == [dataset.name, "demo.png"]
    coloured = (picture.max(-1) - picture.min(-1) > 60).sum(0)
    third = picture.shape[1] // 3
    assert coloured[: third - 20].sum() == 0  # the image itself is grey
    assert coloured[third : 2 * third].sum() > 500 and coloured[2 * third :].sum() > 500


# ------------------------------------------------------------------------------------------------ for real


QUICK_TRAINER = """
from nnunet_skd.trainers.nnUNetTrainerDSKD import nnUNetTrainerDSKD_1epoch


class nnUNetTrainerTenSteps(nnUNetTrainerDSKD_1epoch):
    def initialize(self):
        super().initialize()
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 10, 2
"""


@pytest.mark.slow
def test_the_real_commands_and_a_second_run(tmp_path, nnunet_env, make_known, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "nnUNetTrainerTenSteps.py").write_text(QUICK_TRAINER)
    make_known(tmp_path / "mine")
    source = write_phantom_dataset(tmp_path / "source", 12, num_train=6, num_test=2, size=(64, 64))
    demo = ["demo", "--data", str(source), "-o", str(tmp_path / "out"), "-device", "cpu", "-np", "1"]
    demo += ["-tr", "nnUNetTrainerTenSteps"]
    first = subprocess.run(
        [sys.executable, "-m", "nnunet_skd.tools.cli", *demo], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr
    out = tmp_path / "out"
    metrics = pd.read_csv(out / "metrics.csv")
    assert list(metrics["case"]) == ["test_000", "test_001"] and metrics["Accuracy"].between(0.05, 1).all()
    assert (out / "demo.png").is_file()
    for shown in ("nnUNetv2_plan_and_preprocess -d 12", "-tr nnUNetTrainerTenSteps -device cpu", "mean", "logs"):
        assert shown in first.stdout
    for folder in NNUNET_FOLDERS:  # the user's own folders stay empty
        assert _names(nnunet_env / folder) == []

    assert main(demo) == 0
    assert capsys.readouterr().out.count("skipped") == 4
    assert main([*demo, "--dim", "3", "-tr", "nnUNetTrainer_1epoch"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert pd.read_csv(out / "metrics.csv").equals(metrics)


@pytest.mark.slow
def test_an_unknown_trainer_is_refused_before_any_work(tmp_path):
    with pytest.raises(BadInput, match="^nnU-Net does not find the trainer nnUNetTrainerTypo"):
        run_demo(tmp_path / "out", trainer="nnUNetTrainerTypo", device="cpu")
    assert not (tmp_path / "out").exists()
