"""ECE and Brier score: values by hand, an independent loop, and the commands on nnU-Net's .npz files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from sklearn.metrics import brier_score_loss
from volumes import write_segmentation

from nnunet_skd.tools.cli import main
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.evaluate.calibration import (
    ALL_CLASSES,
    expected_calibration_error,
    region_calibration,
    softmax_calibration,
)
from nnunet_skd.tools.evaluate.case import Case, probabilities_of
from nnunet_skd.tools.evaluate.folders import evaluate_folders
from nnunet_skd.tools.evaluate.summary import FOREGROUND, summarize

LABELS = {"labels": {"background": 0, "a": 1, "b": 2, "ignore": 3}, "file_ending": ".nii.gz"}
REGIONS = {
    "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
    "regions_class_order": [1, 2],
    "file_ending": ".nii.gz",
}


def two_classes(p):
    """(2, 1, n): background and one class."""
    return np.array([1 - np.asarray(p), p])[:, None]


def test_every_voxel_in_a_bin_of_its_own():
    # confidences 0.9, 0.8 and 0.7 are right, 0.6 is wrong: (0.1 + 0.2 + 0.3 + 0.6) / 4
    p, truth = np.array([0.9, 0.8, 0.6, 0.3]), np.array([1, 1, 0, 0])
    softmax = softmax_calibration(two_classes(p), truth[None])
    assert softmax["ECE"] == pytest.approx(0.3)
    assert softmax["Brier"] == pytest.approx(2 * (0.01 + 0.04 + 0.36 + 0.09) / 4)
    region = region_calibration(p, truth == 1)
    assert region["ECE"] == pytest.approx(0.3)
    assert region["Brier"] == pytest.approx(0.125) == brier_score_loss(truth, p)


def test_one_bin():
    # all in (12/15, 13/15]: accuracy 3/4, confidence 0.825
    confidence = np.array([0.81, 0.82, 0.83, 0.84])
    assert expected_calibration_error(confidence, np.array([True, True, False, True])) == pytest.approx(0.075)


def test_best_and_worst():
    truth = np.array([[0, 1, 2]])
    certain = np.eye(3)[:, None]
    assert softmax_calibration(certain, truth) == {"ECE": 0, "Brier": 0}
    assert softmax_calibration(np.roll(certain, 1, axis=0), truth) == {"ECE": 1, "Brier": 2}
    assert region_calibration(np.array([0.0, 1.0]), np.array([True, False])) == {"ECE": 1, "Brier": 1}


def test_bins_are_closed_on_the_right():
    # 0.5 belongs to (0, 0.5]: with two bins |(1 - 0.5) + (0 - 0.4)| + |0 - 0.6| over 3
    value = expected_calibration_error(np.array([0.5, 0.4, 0.6]), np.array([True, False, False]), bins=2)
    assert value == pytest.approx((0.1 + 0.6) / 3)
    assert expected_calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0


def test_a_plain_loop_agrees():
    rng = np.random.default_rng(0)
    p = rng.dirichlet([0.5] * 3, (6, 7, 8)).transpose(3, 0, 1, 2)
    truth = rng.integers(0, 3, (6, 7, 8))
    valid = rng.random(truth.shape) < 0.7
    voxels = [(p[:, z, y, x], truth[z, y, x]) for z, y, x in zip(*np.nonzero(valid), strict=True)]
    ece = 0
    for low in range(15):
        inside = [(q.max(), q.argmax() == t) for q, t in voxels if low / 15 < q.max() <= (low + 1) / 15]
        if inside:
            confidence, accuracy = np.mean(inside, axis=0)
            ece += len(inside) / len(voxels) * abs(accuracy - confidence)
    brier = np.mean([sum((q[c] - (c == t)) ** 2 for c in range(3)) for q, t in voxels])
    assert softmax_calibration(p, truth, valid) == pytest.approx({"ECE": ece, "Brier": brier})


def test_nothing_to_judge():
    nothing = np.zeros((2, 2), bool)
    assert np.isnan(list(softmax_calibration(np.ones((2, 2, 2)) / 2, nothing, nothing).values())).all()
    assert np.isnan(list(region_calibration(np.ones((2, 2)), nothing, nothing).values())).all()


# ------------------------------------------------------------------------------------------------ the commands
@pytest.fixture
def folders(tmp_path):
    """Two cases, random probabilities in two prediction folders; the second is more certain."""
    rng = np.random.default_rng(0)
    for case in "xy":
        reference = rng.integers(0, 4, (3, 5, 6))
        write_segmentation(tmp_path / "reference" / f"{case}.nii.gz", reference)
        logits = rng.normal(size=(3, 3, 5, 6)) + 2 * (reference == np.arange(3)[:, None, None, None])
        for name, scale in (("soft", 1), ("sure", 5)):
            p = np.exp(scale * logits)
            p = (p / p.sum(0)).astype(np.float32)
            write_segmentation(tmp_path / name / f"{case}.nii.gz", p.argmax(0))
            np.savez_compressed(tmp_path / name / f"{case}.npz", probabilities=p)
    for name, content in (("labels", LABELS), ("regions", REGIONS)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def reference_of(folders, case):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(folders / "reference" / f"{case}.nii.gz")))


def test_one_value_for_all_classes(folders):
    frame = evaluate_folders(
        folders / "reference", folders / "soft", LABELS, num_processes=1, metrics=["Brier", "Dice", "ECE"]
    )
    assert list(frame.columns) == ["case", "label", "Dice", "ECE", "Brier"]
    assert list(frame["label"]) == ["a", "b", ALL_CLASSES] * 2
    overall = frame["label"] == ALL_CLASSES
    assert (frame["Dice"].isna() == overall).all() and (frame["ECE"].notna() == overall).all()
    reference = reference_of(folders, "y")
    p = np.load(folders / "soft" / "y.npz")["probabilities"]
    expected = softmax_calibration(p, reference, reference != 3)
    assert frame[overall].iloc[1][["ECE", "Brier"]].to_dict() == pytest.approx(expected)
    without = evaluate_folders(folders / "reference", folders / "soft", LABELS, num_processes=1, metrics=["Dice"])
    summary, plain = summarize(frame), summarize(without)
    assert summary.query("metric == 'ECE'")["label"].tolist() == [ALL_CLASSES]
    pd.testing.assert_frame_equal(summary.query("metric == 'Dice'").reset_index(drop=True), plain)


def test_one_value_per_region(folders):
    for case in "xy":  # two channels, as nnU-Net writes them for two regions
        p = np.load(folders / "soft" / f"{case}.npz")["probabilities"]
        whole, core = p[1] + p[2], p[2]
        np.savez_compressed(folders / "soft" / f"{case}.npz", probabilities=np.stack([whole, core]))
        write_segmentation(folders / "soft" / f"{case}.nii.gz", np.where(core > 0.5, 2, whole > 0.5))
    frame = evaluate_folders(folders / "reference", folders / "soft", REGIONS, num_processes=1, metrics=["ECE"])
    assert list(frame["label"]) == ["whole", "core"] * 2
    reference = reference_of(folders, "x")
    core = np.load(folders / "soft" / "x.npz")["probabilities"][1]
    assert frame["ECE"][1] == pytest.approx(region_calibration(core, reference == 2, reference != 3)["ECE"])
    assert FOREGROUND in summarize(frame)["label"].tolist()


def test_a_single_slice_has_two_axes(folders):
    seen = []
    for case in "xy":
        for name in ("reference", "soft"):
            array = sitk.GetArrayFromImage(sitk.ReadImage(str(folders / name / f"{case}.nii.gz")))
            write_segmentation(folders / name / f"{case}.nii.gz", array[:1])
        p = np.load(folders / "soft" / f"{case}.npz")["probabilities"]
        np.savez_compressed(folders / "soft" / f"{case}.npz", probabilities=p[:, :1])
        seen.append((p, sitk.GetArrayFromImage(sitk.ReadImage(str(folders / "reference" / f"{case}.nii.gz")))))
    frame = evaluate_folders(folders / "reference", folders / "soft", LABELS, num_processes=1, metrics=["ECE"])
    expected = [softmax_calibration(p[:, 0], array[0], array[0] != 3)["ECE"] for p, array in seen]
    assert frame["ECE"].tolist() == pytest.approx(expected)


def test_not_among_the_default_metrics(folders):
    assert "ECE" not in evaluate_folders(folders / "reference", folders / "soft", LABELS, num_processes=1)


@pytest.mark.parametrize("regions", [False, True], ids=["labels", "regions"])
def test_probabilities_of_another_prediction_are_refused(tmp_path, regions):
    """A percent of the foreground may differ, as by half precision."""
    p = np.random.default_rng(0).dirichlet(np.ones(3), (100, 100)).transpose(2, 0, 1)
    prediction = p.argmax(0)
    classes = {"a": (1,), "b": (2,)}
    if regions:
        p, classes = np.stack([p[1] + p[2], p[2]]), {"whole": (1, 2), "core": (2,)}
        prediction = np.where(p[1] > 0.5, 2, p[0] > 0.5)
    np.savez(tmp_path / "x.npz", probabilities=p)
    case = Case("x", Path(), Path("x.png"), NaturalImage2DIO, classes, None, regions, tmp_path / "x.npz")
    percent = (prediction > 0).sum() // 100
    found = np.flatnonzero(prediction)
    prediction.flat[found[:percent]] = 0
    assert np.array_equal(probabilities_of(case, prediction), p)
    prediction.flat[found[: percent + 1]] = 0
    with pytest.raises(BadInput, match=rf"another prediction than x.png .* disagree in {percent + 1} voxels, where"):
        probabilities_of(case, prediction)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: f.unlink(), "no .npz beside y.nii.gz .*--save_probabilities"),
        (lambda f: f.write_bytes(f.read_bytes()[:60]), "cannot read the probabilities in .*y.npz"),
        (lambda f: f.write_text("no archive"), "cannot read the probabilities in .*y.npz"),
        (lambda f: np.savez(f, softmax=np.zeros(3)), "cannot read the probabilities in .*y.npz"),
        (lambda f: np.savez(f, probabilities=np.zeros((2, 3, 5, 6))), r"\(2, 3, 5, 6\).*ask for \(3, 3, 5, 6\)"),
        (lambda f: np.savez(f, probabilities=np.zeros((3, 6, 5, 3))), r"\(3, 6, 5, 3\).*ask for \(3, 3, 5, 6\)"),
        (lambda f: np.savez(f, probabilities=np.full((3, 3, 5, 6), 4.2)), "not probabilities"),
        (lambda f: np.savez(f, probabilities=np.full((3, 3, 5, 6), np.nan)), "not probabilities"),
        (lambda f: np.savez(f, probabilities=np.ones((3, 3, 5, 6), bool)), "not probabilities"),
        (lambda f: np.savez(f, probabilities=np.ones((3, 3, 5, 6), complex)), "not probabilities"),
        (lambda f: shutil.copy(f.with_name("x.npz"), f), "y.npz holds the probabilities of another prediction"),
    ],
)
def test_refusals(folders, damage, words):
    damage(folders / "soft" / "y.npz")
    with pytest.raises(BadInput, match=words) as error:
        evaluate_folders(folders / "reference", folders / "soft", LABELS, num_processes=1, metrics=["ECE"])
    assert "\n" not in str(error.value)


def test_commands(folders, capsys):
    common = ["-djfile", str(folders / "labels.json"), "-np", "1", "--metrics", "ECE", "Brier", "Dice"]
    assert main(["evaluate", str(folders / "reference"), str(folders / "soft"), *common, "-o", str(folders / "e")]) == 0
    assert ALL_CLASSES in capsys.readouterr().out
    arms = ["--pred", str(folders / "soft"), str(folders / "sure"), "--ref", str(folders / "reference")]
    assert main(["compare", *arms, *common, "-o", str(folders / "c")]) == 0
    table = pd.read_csv(folders / "c" / "comparison.csv")
    assert table.query("metric == 'ECE'")["label"].tolist() == [ALL_CLASSES]
    assert table.query("metric == 'Dice'")["label"].tolist() == ["mean", "a", "b"]
    report = (folders / "c" / "report.md").read_text()
    assert "ECE: lower is better" in report and "Brier of all classes" in report
    assert (folders / "c" / "paired_ECE.png").stat().st_size > 1000
