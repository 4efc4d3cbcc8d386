"""nnunet-skd calibrate: the temperature that is found, what the command says, and what it refuses."""

import json
import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.special import expit, softmax
from sklearn.metrics import log_loss
from volumes import write_segmentation

from nnunet_skd.tools.calibrate import command
from nnunet_skd.tools.calibrate import temperature as module
from nnunet_skd.tools.calibrate.temperature import Sample, calibration_at, fit_temperature, sample_case, scaled
from nnunet_skd.tools.cli import main
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.evaluate.calibration import BINS, expected_calibration_error, reliability_bins
from nnunet_skd.tools.evaluate.folders import evaluate_folders, paired_cases

LABELS = {"labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".png"}
IGNORE = {"labels": {"background": 0, "a": 1, "b": 2, "ignore": 3}, "file_ending": ".png"}
REGIONS = {
    "labels": {"background": 0, "whole": [1, 2], "core": 2},
    "regions_class_order": [1, 2],
    "file_ending": ".png",
}


def write_case(folder: Path, case: str, truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> None:
    for name, labels in (("labels", truth), ("predicted", predicted)):
        (folder / name).mkdir(exist_ok=True)
        Image.fromarray(labels.astype(np.uint8)).save(folder / name / f"{case}.png")
    np.savez(folder / "predicted" / f"{case}.npz", probabilities=probabilities[:, None])


def overconfident(folder: Path, *, factor: float = 2, cases: str = "abcdef") -> Namespace:
    """Cases whose labels are drawn from a softmax, and whose probabilities are those of logits ``factor`` as large."""
    rng = np.random.default_rng(0)
    for case in cases:
        logits = 2 * rng.normal(size=(3, 60, 70))
        truth = (rng.gumbel(size=logits.shape) + logits).argmax(0)  # drawn from softmax(logits)
        write_case(folder, case, truth, logits.argmax(0), softmax(factor * logits, axis=0).astype(np.float32))
    return described(folder, LABELS)


def described(folder: Path, dataset_json: dict) -> Namespace:
    (folder / "dataset.json").write_text(json.dumps(dataset_json))
    return Namespace(folder=folder, labels=folder / "labels", predicted=folder / "predicted")


def calibrate(made: Namespace, *more: str) -> int:
    common = ["-djfile", str(made.folder / "dataset.json"), "-np", "1"]
    return main(["calibrate", str(made.labels), str(made.predicted), *more, *common])


def cases_of(made: Namespace, dataset_json: dict) -> list:
    return paired_cases(made.labels, made.predicted, dataset_json, chill=True, probabilities=True)


def samples_of(cases: list) -> list[Sample]:
    return [sample for case in cases for sample in sample_case(case, len(cases))]


def halve(file: Path) -> None:
    np.savez(file, probabilities=np.load(file)["probabilities"].astype(np.float16))


# ------------------------------------------------------------------------------------------------- the temperature
def test_scaled_by_hand():
    # odds 9 : 1 become their square root, 3 : 1
    assert scaled(np.array([[0.9], [0.1]]), 2).ravel() == pytest.approx([0.75, 0.25])
    assert scaled(np.array([[0.75], [0.25]]), 0.5).ravel() == pytest.approx([0.9, 0.1])


def test_scaled_is_the_softmax_of_divided_logits():
    logits = 6 * np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    p = softmax(logits, axis=0)
    assert scaled(p, 1.7) == pytest.approx(softmax(logits / 1.7, axis=0), abs=1e-5)
    assert np.array_equal(scaled(p, 1.7).argmax(0), p.argmax(0))
    certain = scaled(np.eye(3), 3)
    assert np.isfinite(certain).all() and certain.max() > 0.999


def test_two_voxels_by_hand():
    # Says 0.9 and is right in 3 of 4: 9 : 1 has to become 3 : 1, which T = 2 does
    sample = Sample(np.log(np.tile([[0.9], [0.1]], 4)), np.array([0, 0, 0, 1]), np.full(4, 0.25))
    assert fit_temperature([sample]) == pytest.approx(2, abs=1e-3)


@pytest.mark.parametrize("factor", [0.5, 2])
def test_the_factor_of_the_logits_is_found(tmp_path, factor):
    made = overconfident(tmp_path, factor=factor)
    samples = samples_of(cases_of(made, LABELS))
    assert fit_temperature(samples) == pytest.approx(factor, rel=0.03)


def test_a_plain_search_agrees(tmp_path):
    made = overconfident(tmp_path, cases="ab")
    cases = cases_of(made, LABELS)

    def loss(temperature):
        of_cases = []
        for case in cases:
            powers = np.load(case.probabilities)["probabilities"].reshape(3, -1).T.astype(float) ** (1 / temperature)
            truth = np.asarray(Image.open(case.reference)).ravel()
            of_cases.append(log_loss(truth, powers / powers.sum(1, keepdims=True)))
        return np.mean(of_cases)

    grid = np.arange(1.6, 2.4, 0.02)
    best = grid[np.argmin([loss(t) for t in grid])]
    assert fit_temperature(samples_of(cases)) == pytest.approx(best, abs=0.02)


@pytest.mark.parametrize(("limit", "value"), [("VOXELS", 900), ("VOXELS_OF_ALL", 6 * 899)])
def test_drawn_voxels_stand_for_all(tmp_path, monkeypatch, limit, value):
    made = overconfident(tmp_path)
    cases = cases_of(made, LABELS)
    everything = fit_temperature(samples_of(cases))
    monkeypatch.setattr(module, limit, value)
    drawn = samples_of(cases)
    assert [len(s.truth) for s in drawn] == [1800] * 6  # of 4200, and more of the unclear ones are left out
    assert [s.weights.sum() for s in drawn] == pytest.approx([1] * 6)
    assert fit_temperature(drawn) == pytest.approx(everything, rel=0.03)
    alike = [Sample(s.log_probabilities, s.truth, np.full(1800, 1 / 1800)) for s in drawn]
    assert abs(fit_temperature(alike) - everything) > 0.05  # weights matter


def test_regions_have_a_sigmoid_each(tmp_path):
    """Three of four columns are background that the network is sure of, and half of it nnU-Net has cropped away."""
    rng = np.random.default_rng(0)
    for case in "abcd":
        logits = np.full((2, 60, 280), -12.0)
        logits[..., :70] = 2 * rng.normal(size=(2, 60, 70))
        is_whole, is_core = rng.random(logits.shape) < expit(logits)
        logits[1, ~is_whole] = -20  # a voxel of the core is one of the whole: only there the core is asked for
        truth = np.where(is_whole & is_core, 2, np.where(is_whole, 1, 0))
        probabilities = expit(2 * logits).astype(np.float32)
        probabilities[..., 175:] = 0
        truth[:, 175:] = 0
        predicted = np.where(probabilities[1] > 0.5, 2, probabilities[0] > 0.5)
        write_case(tmp_path, case, truth, predicted, probabilities)
    made = described(tmp_path, REGIONS)
    cases = cases_of(made, REGIONS)
    samples = [sample_case(case, len(cases)) for case in cases]
    assert [len(of_case) for of_case in samples] == [2] * 4
    assert sum(s.weights.sum() for s in samples[0]) == pytest.approx(175 / 280)
    assert fit_temperature([s for of_case in samples for s in of_case]) == pytest.approx(2, rel=0.03)
    before = calibration_at(cases[0], (1.0,))[0]
    table = evaluate_folders(made.labels, made.predicted, REGIONS, num_processes=1, metrics=["ECE", "Brier"])
    of_case = table[table["case"] == "a"]
    assert before.scores == pytest.approx({name: of_case[name].mean() for name in ("ECE", "Brier")}, abs=1e-6)


def test_what_nnunet_cropped_away_does_not_count_in_the_fit(tmp_path):
    """There it writes 0 and 1 itself, and a label there would cost 87 nats that no temperature changes."""
    made = overconfident(tmp_path, cases="ab")
    expected = fit_temperature(samples_of(cases_of(made, LABELS)))
    for case in "ab":
        truth = np.asarray(Image.open(made.labels / f"{case}.png"))
        p = np.load(made.predicted / f"{case}.npz")["probabilities"][:, 0]
        outside = np.zeros_like(p)
        outside[0] = 1
        both = np.concatenate([p, outside], axis=1)
        write_case(tmp_path, case, np.concatenate([truth, np.ones_like(truth)]), both.argmax(0), both)
    cases = cases_of(made, LABELS)
    assert fit_temperature(samples_of(cases)) == pytest.approx(expected, rel=1e-3)
    assert calibration_at(cases[0], (1.0,))[0].bins[0].sum() == 2 * 60 * 70


def test_ignored_voxels_do_not_count(tmp_path):
    made = overconfident(tmp_path, cases="ab")
    expected = fit_temperature(samples_of(cases_of(made, LABELS)))
    for case in "ab":  # a second half that is wrong everywhere, and ignored
        truth = np.asarray(Image.open(made.labels / f"{case}.png"))
        p = np.load(made.predicted / f"{case}.npz")["probabilities"][:, 0]
        wrong = np.roll(np.eye(3)[truth].transpose(2, 0, 1), 1, axis=0).astype(np.float32)
        both = np.concatenate([p, wrong], axis=1)
        write_case(tmp_path, case, np.concatenate([truth, np.full_like(truth, 3)]), both.argmax(0), both)
    made = described(tmp_path, IGNORE)
    cases = cases_of(made, IGNORE)
    assert fit_temperature(samples_of(cases)) == pytest.approx(expected, rel=1e-3)
    assert calibration_at(cases[0], (1.0,))[0].bins[0].sum() == 60 * 70


def test_unscaled_scores_are_those_of_evaluate(tmp_path):
    made = overconfident(tmp_path, cases="ab")
    table = evaluate_folders(made.labels, made.predicted, LABELS, num_processes=1, metrics=["ECE", "Brier"])
    of_all = table[table["label"] == "all classes"].set_index("case")
    for case in cases_of(made, LABELS):
        found = calibration_at(case, (1.0,))[0]
        assert found.scores == pytest.approx(of_all.loc[case.name, ["ECE", "Brier"]].to_dict(), abs=1e-6)
        voxels, right, sure = found.bins
        assert np.abs(right - sure).sum() / voxels.sum() == pytest.approx(found.scores["ECE"], abs=1e-6)


def test_blocks_add_up(tmp_path, monkeypatch):
    case = cases_of(overconfident(tmp_path, cases="ab"), LABELS)[0]
    whole = calibration_at(case, (1.0, 2.0))
    monkeypatch.setattr(module, "BLOCK", 1000)  # of 4200
    for before, blocks in zip(whole, calibration_at(case, (1.0, 2.0)), strict=True):
        assert blocks.scores == pytest.approx(before.scores) and blocks.bins == pytest.approx(before.bins)


def test_bins_add_up():
    rng = np.random.default_rng(0)
    confidence, correct = rng.uniform(size=500), rng.random(500) < 0.5
    whole = reliability_bins(confidence, correct)
    assert whole.shape == (3, BINS)
    halves = reliability_bins(confidence[:200], correct[:200]) + reliability_bins(confidence[200:], correct[200:])
    assert halves == pytest.approx(whole)
    assert np.abs(whole[1] - whole[2]).sum() / 500 == pytest.approx(expected_calibration_error(confidence, correct))


# -------------------------------------------------------------------------------------------------- the command
def test_command(tmp_path, capsys):
    made = overconfident(tmp_path)
    assert calibrate(made, "-o", str(tmp_path / "out")) == 0
    said = capsys.readouterr().out
    temperature = float(said.split("T = ")[1].split(",")[0])
    assert temperature == pytest.approx(2, rel=0.03)
    assert f"nnunet-skd export ... --temperature {temperature:.3f}" in said
    table = pd.read_csv(tmp_path / "out" / "calibration.csv")
    assert table["case"].tolist() == list("abcdef") and table["T"].nunique() == 5
    assert table["T"][0] == table["T"][1]  # neighbours in one part: they may be slices of a patient
    assert (table["ECE"] > 0.05).all() and (table["ECE_scaled"] < 0.03).all()
    assert (table["Brier_scaled"] < table["Brier"]).all()
    assert f"{table['ECE'].mean():.4f}" in said and f"{table['ECE_scaled'].mean():.4f}" in said and "6 of 6" in said
    assert (tmp_path / "out" / "calibration.png").stat().st_size > 5000
    assert calibrate(made, "-o", str(tmp_path / "out")) == 2
    assert "calibration.csv exists already" in capsys.readouterr().err


def test_each_case_is_judged_by_others(tmp_path):
    """One case is calibrated otherwise: it changes the temperature of all others, not its own."""
    made = overconfident(tmp_path, cases="abcd")
    overconfident(tmp_path, cases="e", factor=8)
    assert calibrate(made, "-o", str(tmp_path / "out")) == 0
    table = pd.read_csv(tmp_path / "out" / "calibration.csv").set_index("case")
    assert table["T"]["e"] == pytest.approx(2, rel=0.03)
    assert (table["T"][list("abcd")] > 2.2).all()


def test_folders_of_several_folds(tmp_path):
    made = overconfident(tmp_path, cases="abcd")
    second = tmp_path / "second"
    second.mkdir()
    for case in "cd":
        for ending in ("png", "npz"):
            (made.predicted / f"{case}.{ending}").rename(second / f"{case}.{ending}")
    assert calibrate(made, str(second), "-o", str(tmp_path / "out")) == 0
    table = pd.read_csv(tmp_path / "out" / "calibration.csv")
    assert table["case"].tolist() == list("abcd")
    assert [Path(folder).name for folder in table["prediction"]] == ["predicted"] * 2 + ["second"] * 2


def test_volumes(tmp_path):
    """NIfTI in 3D, two processes."""
    rng = np.random.default_rng(0)
    for case in ("one", "two", "three"):
        logits = 2 * rng.normal(size=(2, 8, 30, 40))
        truth = (rng.gumbel(size=logits.shape) + logits).argmax(0)
        write_segmentation(tmp_path / "my labels" / f"{case}.nii.gz", truth)
        write_segmentation(tmp_path / "predicted" / f"{case}.nii.gz", logits.argmax(0))
        p = softmax(2 * logits, axis=0).astype(np.float32)
        np.savez_compressed(tmp_path / "predicted" / f"{case}.npz", probabilities=p)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"}))
    folders = [str(tmp_path / name) for name in ("my labels", "predicted", "out")]
    command = ["calibrate", *folders[:2], "-o", folders[2], "-djfile", str(tmp_path / "dataset.json"), "-np", "2"]
    assert main(command) == 0
    table = pd.read_csv(tmp_path / "out" / "calibration.csv")
    assert table["case"].tolist() == ["one", "three", "two"]
    assert table["T"].tolist() == pytest.approx([2] * 3, rel=0.05)


def test_a_temperature_that_does_not_help_is_not_recommended(tmp_path, capsys):
    made = overconfident(tmp_path, cases="a", factor=0.3)
    overconfident(tmp_path, cases="b", factor=3)
    assert calibrate(made) == 0
    said = capsys.readouterr().out
    assert "It does not help" in said and "nnunet-skd export" not in said


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda made: [f.unlink() for f in made.predicted.glob("[b-f].*")], "at least two cases .* found: 1"),
        (lambda made: (made.predicted / "b.npz").unlink(), "no .npz beside b.png .*--save_probabilities"),
        (lambda made: (made.labels / "b.png").unlink(), "holds b.png without a reference"),
        (lambda made: halve(made.predicted / "b.npz"), "b.npz holds half precision"),
        (lambda made: [Image.open(f).save(made.labels / f.name) for f in made.predicted.glob("*.png")], "hardly ever"),
    ],
)
def test_refusals(tmp_path, capsys, spoil, words):
    made = overconfident(tmp_path)
    spoil(made)
    assert calibrate(made, "-o", str(tmp_path / "out")) == 2
    assert re.search(words, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_probabilities_that_say_nothing_are_refused(tmp_path):
    made = overconfident(tmp_path)
    for file in made.predicted.glob("*.npz"):
        p = np.roll(np.load(file)["probabilities"], 1, axis=0)  # of labels in another order
        np.savez(file, probabilities=p)
        Image.fromarray(p[:, 0].argmax(0).astype(np.uint8)).save(file.with_suffix(".png"))
    samples = samples_of(cases_of(made, LABELS))
    with pytest.raises(BadInput, match="say nothing about these references.*dataset.json"):
        fit_temperature(samples)


@pytest.mark.parametrize("target", ["labels", "predicted", "labels/../predicted"])
def test_no_picture_among_the_cases(tmp_path, capsys, target):
    made = overconfident(tmp_path)
    assert calibrate(made, "-o", str(tmp_path / target)) == 2
    assert "is one of the folders that are read" in capsys.readouterr().err
    assert not list(tmp_path.glob("*/calibration.*"))


def test_folders_with_two_roles(tmp_path, capsys):
    made = overconfident(tmp_path, cases="abc")
    assert calibrate(made, f"{made.predicted}/../predicted/") == 0
    assert "fitted on 3 predictions" in capsys.readouterr().out
    assert calibrate(made, str(made.labels)) == 2
    assert "named twice" in capsys.readouterr().err
    validation = tmp_path / "fold_all" / "validation"
    made.predicted.rename(validation.parent.mkdir() or validation)
    made.predicted = validation
    assert calibrate(made) == 2
    assert "was trained on, as nnU-Net validates fold all on them" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_known_before_the_work(tmp_path, capsys, monkeypatch):
    made = overconfident(tmp_path, cases="ab")
    monkeypatch.setattr(command, "in_order", None)  # no work
    (tmp_path / "file").touch()
    assert calibrate(made, "-o", str(tmp_path / "file")) == 2
    assert f"cannot write to {tmp_path / 'file'}" in capsys.readouterr().err
