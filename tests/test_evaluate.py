"""``nnunet-skd evaluate``: agreement with nnU-Net, units, refusals and files."""

import json
import os
import re
import shutil
import subprocess
import time

import nibabel
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import tifffile
from commands import BIN, HAS_PROC, workers_after_kill_9
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from skimage import io
from volumes import write_segmentation

from nnunet_skd.tools import cli
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.evaluate.command import CASES_CSV, JSON, SUMMARY_CSV
from nnunet_skd.tools.evaluate.folders import evaluate_folders
from nnunet_skd.tools.evaluate.metrics import METRICS
from nnunet_skd.tools.evaluate.statistics import bootstrap_interval
from nnunet_skd.tools.evaluate.summary import FOREGROUND, format_summary, summarize

LABELS = {
    "labels": {"background": 0, "liver": 1, "vessel": 2, "tumour": 3, "ignore": 4},
    "file_ending": ".nii.gz",
}
REGIONS = {
    "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4},
    "regions_class_order": [1, 2, 3],
    "file_ending": ".nii.gz",
}


@pytest.fixture
def folders(tmp_path):
    """Four 3D cases: noise with ignore; class 3 only in the reference, only in the prediction, in neither."""
    rng = np.random.default_rng(0)
    reference, prediction = tmp_path / "reference", tmp_path / "prediction"
    for name, dropped_r, dropped_p in (("a", [], []), ("b", [], [3]), ("c", [3], []), ("d", [2, 3], [2, 3])):
        truth, guess = rng.integers(0, 5, (4, 7, 8)), rng.integers(0, 4, (4, 7, 8))
        guess = np.where((rng.random(truth.shape) < 0.6) & (truth < 4), truth, guess)
        for folder, array, dropped in ((reference, truth, dropped_r), (prediction, guess, dropped_p)):
            folder.mkdir(exist_ok=True)
            write_segmentation(
                folder / f"{name}.nii.gz", np.where(np.isin(array, dropped), 0, array), spacing=(0.5, 0.7, 3)
            )
    return reference, prediction


@pytest.mark.parametrize("dataset_json", [LABELS, REGIONS], ids=["labels", "regions"])
def test_dice_and_iou_are_those_of_nnunet(folders, dataset_json):
    manager = LabelManager(dataset_json["labels"], dataset_json.get("regions_class_order"))
    classes = manager.foreground_regions if manager.has_regions else manager.foreground_labels
    theirs = compute_metrics_on_folder(
        *map(str, folders), None, SimpleITKIO(), ".nii.gz", classes, manager.ignore_label, num_processes=1
    )
    ours = evaluate_folders(*folders, dataset_json, num_processes=1, metrics=["IoU", "Dice"])
    names = [name for name in dataset_json["labels"] if name not in ("background", "ignore")]
    assert list(ours.columns) == ["case", "label", "Dice", "IoU"]
    assert list(ours["case"]) == [case for case in "abcd" for _ in names]
    assert list(ours["label"]) == names * 4
    assert ours["Dice"].isna().any() and (ours["Dice"] == 0).any()  # the empty cases are there
    for metric in ("Dice", "IoU"):
        expected = [case["metrics"][label][metric] for case in theirs["metric_per_case"] for label in classes]
        np.testing.assert_allclose(ours[metric], expected, rtol=0, atol=1e-9)
        means = summarize(ours).query("metric == @metric").set_index("label")["mean"]
        np.testing.assert_allclose(means[names], [theirs["mean"][c][metric] for c in classes], rtol=0, atol=1e-9)
        assert means[FOREGROUND] == pytest.approx(theirs["foreground_mean"][metric], abs=1e-9)


def test_processes_change_nothing(folders):
    alone = evaluate_folders(*folders, LABELS, num_processes=1)
    pd.testing.assert_frame_equal(evaluate_folders(*folders, LABELS, num_processes=2), alone)
    assert list(alone.columns[2:]) == list(METRICS)
    assert alone.attrs["distance_unit"] == "mm"


@pytest.mark.slow
@pytest.mark.skipif(not HAS_PROC, reason="finds the processes in /proc")
def test_kill_9_leaves_no_worker(tmp_path):
    boxes = np.zeros((70, 70, 70))
    boxes[10:40, 10:60, 10:60] = 1
    boxes[45:60, 10:60, 10:60] = 2
    for folder in ("reference", "prediction"):
        (tmp_path / folder).mkdir()
        for number in range(60):
            write_segmentation(tmp_path / folder / f"{number}.nii.gz", np.roll(boxes, number, axis=2))
    content = {"labels": {"background": 0, "one": 1, "two": 2}, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    command = [BIN / "nnunet-skd", "evaluate", "reference", "prediction", "-djfile", "dataset.json", "-np", "2"]
    log = tmp_path / "log.txt"
    with log.open("w") as printed:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=printed, stderr=printed
        )
    end = time.monotonic() + 300
    while not re.search(r" [1-9]\d*/60 ", log.read_text()):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    assert not workers_after_kill_9(process), log.read_text()


def test_spacing_comes_from_the_files(tmp_path):
    square = np.zeros((20, 30, 30))
    square[4:8, 8:20, 8:20] = 1
    for name, array in (("reference", square), ("prediction", np.roll(square, 1, axis=0))):
        (tmp_path / name).mkdir()
        write_segmentation(tmp_path / name / "x.nii.gz", array, spacing=(0.5, 0.5, 3.0))  # SimpleITK's order: x, y, z
    dataset_json = {"labels": {"background": 0, "box": 1}, "file_ending": ".nii.gz"}
    frame = evaluate_folders(
        tmp_path / "reference", tmp_path / "prediction", dataset_json, num_processes=1, metrics=["HD95_voxel", "HD95"]
    )
    assert frame["HD95"].item() == frame["HD95_voxel"].item() == pytest.approx(3)


def test_png_is_measured_in_pixels(tmp_path):
    square = np.zeros((30, 30), np.uint8)
    square[5:20, 5:20] = 1
    for name, array in (("reference", square), ("prediction", np.roll(square, 2, axis=1))):
        (tmp_path / name).mkdir()
        io.imsave(tmp_path / name / "x.png", array, check_contrast=False)
    frame = evaluate_folders(
        tmp_path / "reference",
        tmp_path / "prediction",
        {"labels": {"background": 0, "vessel": 1}, "file_ending": ".png"},
        num_processes=1,
        tolerance=2,
    )
    assert frame.attrs == {"distance_unit": "pixel", "nsd_tolerance": 2, "ignore_label": None}
    assert frame["HD95"].item() == pytest.approx(2)
    assert frame["NSD"].item() == pytest.approx(1)
    assert frame["b0_error"].item() == 0


def test_missing_predictions_are_named_or_left_out_with_chill(folders):
    reference, prediction = folders
    (prediction / "b.nii.gz").unlink()
    with pytest.raises(BadInput, match=r"lacks b\.nii\.gz .*--chill"):
        evaluate_folders(*folders, LABELS, num_processes=1)
    frame = evaluate_folders(*folders, LABELS, num_processes=1, metrics=["Dice"], chill=True)
    assert set(frame["case"]) == {"a", "c", "d"}


def test_command_names_what_chill_leaves_out(folders, tmp_path, capsys):
    (folders[1] / "b.nii.gz").unlink()
    (tmp_path / "dataset.json").write_text(json.dumps(LABELS))
    command = ["evaluate", *map(str, folders), "-djfile", str(tmp_path / "dataset.json"), "-o", str(tmp_path / "new")]
    assert cli.main([*command, "-np", "1", "--metrics", "Dice", "--chill"]) == 0
    assert "Left out: 1 reference without a prediction: b\n" in capsys.readouterr().out
    assert json.loads((tmp_path / "new" / "evaluation.json").read_text())["settings"]["left_out"] == ["b"]


@pytest.mark.parametrize("which", [0, 1])
def test_a_link_to_a_file_that_is_gone(folders, which):
    file = folders[which] / "b.nii.gz"
    file.unlink()
    file.symlink_to("gone.nii.gz")
    with pytest.raises(BadInput, match=r"b\.nii\.gz is a link to gone\.nii\.gz, which is not there"):
        evaluate_folders(*folders, LABELS, num_processes=1)
    (folders[1] / "b.nii.gz").unlink()  # what nobody predicted, or what --chill leaves out, may be gone
    frame = evaluate_folders(*folders, LABELS, num_processes=1, metrics=["Dice"], chill=True)
    assert set(frame["case"]) == {"a", "c", "d"}


def test_an_ending_in_capitals(folders):
    (folders[1] / "old.NII.GZ").mkdir()
    assert len(evaluate_folders(*folders, LABELS, num_processes=1, metrics=["Dice"]))
    (folders[1] / "b.nii.gz").rename(folders[1] / "b.nii.GZ")
    with pytest.raises(BadInput, match=r"b\.nii\.GZ has to end with \.nii\.gz"):
        evaluate_folders(*folders, LABELS, num_processes=1, chill=True)


def test_labels_that_are_not_whole_numbers(folders):
    image = sitk.ReadImage(folders[1] / "c.nii.gz")
    array = np.where(sitk.GetArrayFromImage(image) == 1, np.float32(0.9999999), 0).astype(np.float32)
    array.flat[0] = 0.9999999
    fractions = sitk.GetImageFromArray(array)
    fractions.CopyInformation(image)
    sitk.WriteImage(fractions, folders[1] / "c.nii.gz")
    with pytest.raises(BadInput, match=r"c\.nii\.gz holds 0\.99999\d+, which is not a whole number"):
        evaluate_folders(*folders, LABELS, num_processes=1, metrics=["Dice"])


def test_many_names_are_cut_short(folders):
    reference, _ = folders
    for number in range(9):
        write_segmentation(reference / f"z{number}.nii.gz", np.zeros((2, 2, 2)))
    with pytest.raises(BadInput, match=r"z0.*z7\.nii\.gz and 1 more"):
        evaluate_folders(*folders, LABELS, num_processes=1)


def test_predictions_without_reference_are_named(folders):
    reference, prediction = folders
    write_segmentation(prediction / "stranger.nii.gz", np.zeros((2, 2, 2)))
    with pytest.raises(BadInput, match=r"stranger\.nii\.gz without a reference"):
        evaluate_folders(*folders, LABELS, num_processes=1, chill=True)


@pytest.mark.parametrize(
    "array, spacing, message",
    [
        (np.zeros((4, 7, 9)), (0.5, 0.7, 3), r"c\.nii\.gz has the shape \(4, 7, 9\).*\(4, 7, 8\)"),
        (np.zeros((4, 7, 8)), (0.5, 0.7, 2.5), r"c\.nii\.gz has the spacing \[2\.5, .*\[3\.0, "),
        (np.full((4, 7, 8), 7), (0.5, 0.7, 3), r"c\.nii\.gz holds the label 7,.*\[0, 1, 2, 3\]"),
        (np.full((4, 7, 8), 4), (0.5, 0.7, 3), r"c\.nii\.gz holds the ignore label 4, which nnU-Net never predicts"),
    ],
    ids=["shape", "spacing", "label", "ignore"],
)
def test_prediction_that_does_not_fit(folders, array, spacing, message):
    write_segmentation(folders[1] / "c.nii.gz", array, spacing)
    with pytest.raises(BadInput, match=message):
        evaluate_folders(*folders, LABELS, num_processes=1, metrics=["Dice"])


@pytest.mark.parametrize(
    "move", [lambda i: i.SetOrigin((0, 0, 3.0)), lambda i: i.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))]
)
def test_a_prediction_that_lies_elsewhere(folders, move):
    def change(how):
        image = sitk.ReadImage(folders[1] / "c.nii.gz")
        how(image)
        sitk.WriteImage(image, folders[1] / "c.nii.gz")

    change(lambda image: image.SetOrigin((0.1, 0, 0)))  # headers are rounded
    evaluate_folders(*folders, LABELS, num_processes=1, metrics=["Dice"])
    change(move)
    with pytest.raises(BadInput, match=r"c\.nii\.gz lies elsewhere than its reference.*copy the image's into it"):
        evaluate_folders(*folders, LABELS, num_processes=1, metrics=["Dice"])


@pytest.mark.parametrize("reader", [None, "NibabelIO", "NibabelIOWithReorient"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_the_place_that_a_nifti_header_names(tmp_path, reader, ending):
    """nnU-Net reads .nii by nibabel, unless told otherwise: a shift, or a flip of an axis, is seen there, too."""
    labels = {"labels": {"background": 0, "a": 1}, "file_ending": ending}
    labels |= {"overwrite_image_reader_writer": reader} if reader else {}
    array, affine = np.zeros((8, 7, 4), np.uint8), np.diag([0.5, 0.7, 3, 1])
    array[1:3, 2:5, 1:3] = 1
    moved, flipped = affine.copy(), affine @ np.diag([-1, 1, 1, 1])
    moved[2, 3] = 30
    flipped[0, 3] = 0.5 * 7  # the same place, stored from the other side
    for name in ("reference", "prediction"):
        (tmp_path / name).mkdir()

    def dice(prediction, prediction_affine):
        for name, content in (("reference", (array, affine)), ("prediction", (prediction, prediction_affine))):
            nibabel.save(nibabel.Nifti1Image(*content), tmp_path / name / f"a{ending}")
        folders = tmp_path / "reference", tmp_path / "prediction"
        return evaluate_folders(*folders, labels, num_processes=1, metrics=["Dice"])["Dice"].item()

    assert dice(array, affine) == 1
    with pytest.raises(BadInput, match="lies elsewhere than its reference"):
        dice(array, moved)
    if reader == "NibabelIOWithReorient":
        assert dice(array[::-1], flipped) == 1
    else:
        with pytest.raises(BadInput, match="another orientation, resample it"):
            dice(array[::-1], flipped)


def test_a_3d_tiff_without_its_spacing(tmp_path):
    """nnU-Net writes the JSON file beside predictions, but does not copy it to gt_segmentations."""
    for name in ("gt_segmentations", "validation"):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "a.tif", np.zeros((4, 7, 8), np.uint8), photometric="minisblack")
    (tmp_path / "validation" / "a.json").write_text(json.dumps({"spacing": [3.0, 0.7, 0.7]}))
    folders, labels = (
        (tmp_path / "gt_segmentations", tmp_path / "validation"),
        LABELS | {"file_ending": ".tif", "overwrite_image_reader_writer": "Tiff3DIO"},
    )
    with pytest.raises(BadInput, match=r"No JSON file with the spacing is beside .*a\.tif: labelsTr in nnUNet_raw"):
        evaluate_folders(*folders, labels, num_processes=1, metrics=["Dice"])
    shutil.copy(tmp_path / "validation" / "a.json", tmp_path / "gt_segmentations")
    frame = evaluate_folders(*folders, labels, num_processes=1, metrics=["Dice"])
    assert len(frame) > 0 and frame.attrs["distance_unit"] == "mm"
    for folder in folders:
        shutil.copy(folder / "a.tif", folder / "b.tif")
    with pytest.raises(BadInput, match=r"b\.tif lack the JSON file with the spacing, and others have it"):
        evaluate_folders(*folders, labels, num_processes=1, metrics=["Dice"])
    for folder in folders:
        (folder / "a.json").unlink()
    assert evaluate_folders(*folders, labels, num_processes=1, metrics=["Dice"]).attrs["distance_unit"] == "voxel"


def test_unknown_label_in_a_reference(folders):
    write_segmentation(folders[0] / "c.nii.gz", np.full((4, 7, 8), 9), (0.5, 0.7, 3))
    with pytest.raises(BadInput, match=r"reference/c\.nii\.gz holds the label 9"):
        evaluate_folders(*folders, LABELS, num_processes=1, metrics=["Dice"])


@pytest.mark.parametrize("name", ["a", "c"])  # a is also the file by which the reader is chosen
def test_corrupt_file_is_named(folders, name):
    (folders[0] / f"{name}.nii.gz").write_bytes(b"no image")
    with pytest.raises(BadInput, match=rf"reference/{name}\.nii\.gz"):
        evaluate_folders(*folders, LABELS, num_processes=1)


def test_what_macos_leaves_beside_a_file_is_no_case(folders):
    for folder in folders:
        next(folder.glob("*.nii.gz")).with_name("._a.nii.gz").write_bytes(b"attributes")
    frame = evaluate_folders(*folders, LABELS, num_processes=1, metrics=["Dice"])
    assert frame["case"].unique().tolist() == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"metrics": ["Dise"]}, "no metric Dise. Choose from Dice, IoU"),
        ({"num_processes": 0}, "-np is 0"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"tolerance": float("nan")}, "tolerance"),
        ({"dataset_json": {**LABELS, "file_ending": ".mha"}}, r"no file in .*reference ends with \.mha"),
        ({"dataset_json": {**LABELS, "labels": {"background": 0}}}, "nothing to evaluate"),
        ({"reference_dir": "nowhere"}, "nowhere is not a folder"),
    ],
)
def test_refusals(folders, change, message):
    arguments = {"reference_dir": folders[0], "prediction_dir": folders[1], "dataset_json": LABELS, "num_processes": 1}
    with pytest.raises(BadInput, match=message):
        evaluate_folders(**arguments | change)


@pytest.mark.parametrize(
    "content, message",
    [
        ({"labels": {"background": 0, "a": 1}}, "lacks file_ending"),
        ({**LABELS, "labels": {"a": 1}}, "refuses the labels"),
        ({**REGIONS, "regions_class_order": None}, "regions_class_order"),
        (None, "nowhere/dataset.json cannot be read"),
    ],
)
def test_refused_dataset_json(folders, tmp_path, capsys, content, message):
    file = tmp_path / "nowhere" / "dataset.json"
    if content:
        file.parent.mkdir()
        file.write_text(json.dumps(content))
    assert cli.main(["evaluate", *map(str, folders), "-djfile", str(file)]) == 2
    assert message in capsys.readouterr().err


def _frame(**columns):
    """Cases 0, 1, 2, ... with a Dice per class."""
    return pd.DataFrame(
        {"case": str(number), "label": label, "Dice": value}
        for label, values in columns.items()
        for number, value in enumerate(values)
    )


def test_summary_by_hand():
    summary = summarize(_frame(one=[0.2, 0.4, 0.9], two=[0.6, 0.8, 0.7])).set_index("label")
    assert list(summary.index) == ["one", "two", FOREGROUND]
    assert list(summary["mean"]) == pytest.approx([0.5, 0.7, 0.6])
    assert list(summary["std"]) == pytest.approx([0.13**0.5, 0.1, np.std([0.4, 0.6, 0.8], ddof=1)])
    assert list(summary["n"]) == [3, 3, 3]
    assert tuple(summary.loc["one", ["low", "high"]]) == bootstrap_interval([0.2, 0.4, 0.9])
    assert tuple(summary.loc[FOREGROUND, ["low", "high"]]) == bootstrap_interval([0.4, 0.6, 0.8])


def test_one_class_has_no_foreground_row():
    assert list(summarize(_frame(vessel=[0.2, 0.4]))["label"]) == ["vessel"]


def test_a_class_may_be_called_foreground():
    summary = summarize(_frame(foreground=[0.2, 0.4], other=[0.6, 0.8]))
    assert list(summary["mean"]) == pytest.approx([0.3, 0.7, 0.5])


def test_foreground_interval_holds_its_mean_when_classes_are_absent():
    """19 of 20 cases lack the bad class: the cases' own mean, 0.88, is far from the mean of the class means, 0.5."""
    nan = float("nan")
    good, bad = list(np.linspace(0.85, 0.95, 20)), [nan] * 16 + [0.05, 0.1, 0.15, 0.1]
    row = summarize(_frame(good=good, bad=bad)).set_index("label").loc[FOREGROUND]
    assert row["mean"] == pytest.approx((0.9 + 0.1) / 2)
    assert row["low"] < row["mean"] < row["high"]
    assert row["n"] == 4  # of the class that has the fewest


def test_class_that_no_case_has():
    summary = summarize(_frame(there=[0.2, 0.4], absent=[np.nan, np.nan])).set_index("label")
    assert summary.loc["absent", "n"] == 0 and np.isnan(summary.loc["absent", "mean"])
    assert summary.loc[FOREGROUND, "mean"] == pytest.approx(0.3) and summary.loc[FOREGROUND, "n"] == 0
    assert "-" in format_summary(summary.reset_index())


def test_command_says_that_ignored_voxels_do_not_count(folders, tmp_path, capsys):
    (tmp_path / "dataset.json").write_text(json.dumps(LABELS))
    command = ["evaluate", *map(str, folders), "-djfile", str(tmp_path / "dataset.json"), "-o", str(tmp_path / "new")]
    assert cli.main([*command, "-np", "1", "--metrics", "Dice", "HD95"]) == 0
    assert "Voxels with the ignore label do not count" in capsys.readouterr().out
    cases = pd.read_csv(tmp_path / "new" / CASES_CSV)
    assert cases["Dice"].notna().any() and cases["HD95"].isna().all()  # all objects touch ignored voxels


def test_command_writes_three_files_and_a_table(folders, tmp_path, capsys):
    labels = {name: value for name, value in LABELS["labels"].items() if name != "ignore"}
    (tmp_path / "dataset.json").write_text(json.dumps(LABELS | {"labels": labels}))
    for file in folders[0].iterdir():
        truth = sitk.GetArrayFromImage(sitk.ReadImage(file))
        write_segmentation(file, np.where(truth == 4, 0, truth), spacing=(0.5, 0.7, 3))
    out = tmp_path / "new" / "evaluation"
    command = ["evaluate", *map(str, folders), "-djfile", str(tmp_path / "dataset.json"), "-o", str(out), "-np", "1"]
    command += ["--metrics", "Dice", "HD95"]
    assert cli.main(command) == 0
    assert sorted(path.name for path in out.iterdir()) == sorted((CASES_CSV, SUMMARY_CSV, JSON))
    cases = pd.read_csv(out / CASES_CSV)
    assert list(cases.columns) == ["case", "label", "Dice", "HD95"]
    content = json.loads((out / JSON).read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    assert len(content["cases"]) == len(cases) == 12
    assert content["cases"][0]["Dice"] == pytest.approx(cases["Dice"][0], abs=1e-12)
    assert content["settings"]["distance_unit"] == "mm"
    tumour = next(row for row in content["summary"] if row["label"] == "tumour" and row["metric"] == "HD95")
    assert tumour["n"] == 1  # the other three cases lack it on one side or on both
    table = capsys.readouterr().out
    assert FOREGROUND in table and "4 cases; distances in mm" in table and "ignore" not in table

    before = (out / CASES_CSV).read_bytes()
    assert cli.main([*command, "--tolerance", "2"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main([*command, "--overwrite", "--metrics", "IoU"]) == 0
    assert (out / CASES_CSV).read_bytes() != before


def test_failed_command_leaves_no_result(folders, tmp_path, capsys):
    (tmp_path / "dataset.json").write_text(json.dumps(LABELS))
    write_segmentation(folders[1] / "d.nii.gz", np.zeros((4, 7, 9)))
    files = sorted(folders[1].iterdir())
    command = [
        "evaluate",
        *map(str, folders),
        "-djfile",
        str(tmp_path / "dataset.json"),
        "-np",
        "1",
        "--metrics",
        "Dice",
    ]
    assert cli.main(command) == 2
    assert "d.nii.gz has the shape" in capsys.readouterr().err
    assert sorted(folders[1].iterdir()) == files


def test_output_that_cannot_be_written_is_refused_before_the_work(folders, tmp_path, capsys):
    (tmp_path / "dataset.json").write_text(json.dumps(LABELS))
    (tmp_path / "file").write_text("in the way")
    command = ["evaluate", *map(str, folders), "-djfile", str(tmp_path / "dataset.json"), "-o", str(tmp_path / "file")]
    assert cli.main(command) == 2
    captured = capsys.readouterr()
    assert "cannot write to" in captured.err and "evaluate:" not in captured.err.replace("nnunet-skd evaluate:", "")
