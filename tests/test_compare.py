"""Compare: hand-made results folders, known differences, refusals, and what is written."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nnunetv2.evaluation.evaluate_predictions import compute_metrics, save_summary_json
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.utilities.json_export import recursive_fix_for_json_export
from skimage import io
from volumes import write_volume

from nnunet_skd.tools.case_pictures import CaseFiles, draw_differences, read_slice
from nnunet_skd.tools.cli import main
from nnunet_skd.tools.compare import report
from nnunet_skd.tools.compare.comparison import Metric, image_files, predicted_comparison, trained_comparison
from nnunet_skd.tools.compare.paired_table import paired_table, paired_values
from nnunet_skd.tools.compare.report import write_comparison
from nnunet_skd.tools.compare.values import label_names
from nnunet_skd.tools.compare.words import cautions, result_sentences
from nnunet_skd.tools.errors import BadInput

DATASET = "Dataset999_Squares"
LABELS = {"background": 0, "left": 1, "right": 2}
DATASET_JSON = {"channel_names": {"0": "grey"}, "labels": LABELS, "numTraining": 8, "file_ending": ".png"}
CASES = [f"case_{i}" for i in range(8)]


def frame(**arms):
    """One class, one value per case: frame(a=[...], b=[...])."""
    return pd.DataFrame(
        [
            {"arm": arm, "fold": "0", "case": f"c{i}", "label": "organ", "Dice": value}
            for arm, values in arms.items()
            for i, value in enumerate(values)
        ]
    )


def squares(case, *, lost=0):
    """Two squares of 12 x 12 pixels; a prediction that loses rows of the right one."""
    segmentation = np.zeros((40, 48), np.uint8)
    top = 4 + 2 * CASES.index(case)
    segmentation[top : top + 12, 4:16] = 1
    segmentation[top + lost : top + 12, 28:40] = 2
    return segmentation


def write_fold(model, fold, cases, references, lost, regions=(1, 2)):
    """A fold as nnUNetv2_train leaves it."""
    validation = model / f"fold_{fold}" / "validation"
    validation.mkdir(parents=True)
    (model / "dataset.json").write_text(json.dumps(DATASET_JSON))
    results = []
    for i, case in enumerate(cases):
        prediction = validation / f"{case}.png"
        io.imsave(prediction, squares(case, lost=lost[i]), check_contrast=False)
        result = compute_metrics(str(references / prediction.name), str(prediction), NaturalImage2DIO(), list(regions))
        recursive_fix_for_json_export(result)
        results.append(result)
    save_summary_json({"metric_per_case": results, "mean": {}, "foreground_mean": {}}, str(validation / "summary.json"))
    return validation


def write_log(fold, seconds, *, first=0, day=4, end=""):
    """The log of a training that began with epoch `first`."""
    lines = [
        line
        for epoch, s in enumerate(seconds, first)
        for line in (f"Epoch {epoch}", "Pseudo dice [np.float32(0.5)]", f"Epoch time: {s} s")
    ]
    text = "".join(f"2026-05-04 10:00:00.000000: {line} \n" for line in [*lines, end])
    (fold / f"training_log_2026_5_{day}_10_00_00.txt").write_text(text)


@pytest.fixture
def results(nnunet_env):
    """Two trainers, two folds of four cases; in every case the second one loses fewer rows of the right square."""
    raw = nnunet_env / "nnUNet_raw" / DATASET
    references = nnunet_env / "nnUNet_preprocessed" / DATASET / "gt_segmentations"
    (raw / "imagesTr").mkdir(parents=True)
    references.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for case in CASES:
        io.imsave(references / f"{case}.png", squares(case), check_contrast=False)
        noisy = squares(case) * 80 + rng.integers(0, 40, (40, 48))
        io.imsave(raw / "imagesTr" / f"{case}_0000.png", noisy.astype(np.uint8), check_contrast=False)
    for trainer, lost, seconds in (
        ("nnUNetTrainer", [4, 5, 6, 7], [12, 10, 11]),
        ("nnUNetTrainerDSKD", [1, 1, 2, 0], [15, 14, 90]),
    ):
        for fold, cases in enumerate((CASES[:4], CASES[4:])):
            model = nnunet_env / "nnUNet_results" / DATASET / f"{trainer}__nnUNetPlans__2d"
            write_log(write_fold(model, fold, cases, references, lost).parent, seconds)
    return nnunet_env


def read(metrics=("Dice",), folds=(0, 1), trainers=("nnUNetTrainer", "nnUNetTrainerDSKD"), **more):
    return trained_comparison(999, trainers, configurations=["2d"], folds=folds, metrics=metrics, **more)


def validation_of(env, trainer="nnUNetTrainerDSKD", fold=0):
    return env / "nnUNet_results" / DATASET / f"{trainer}__nnUNetPlans__2d" / f"fold_{fold}" / "validation"


# ------------------------------------------------------------------------------------------------ the table


def test_table_by_hand():
    table = paired_table(
        frame(a=[0.5, 0.6, 0.7, 0.8, 0.5, 0.6, 0.7, 0.9], b=[0.6, 0.8, 1.0, 0.9, 0.6, 0.7, 0.9, 0.9]), {"Dice": True}
    )
    row = table.iloc[0]
    assert len(table) == 1
    assert (row.cases, row.better, row.worse, row.same) == (8, 7, 0, 1)
    assert row.difference == pytest.approx((0.1 * 4 + 0.2 * 2 + 0.3) / 8)
    assert row.reference_mean == pytest.approx(0.6625)
    assert row.low < row.difference < row.high
    assert row.p == row.p_holm == pytest.approx(2 / 2**7)
    assert row.verdict == "better"


def test_direction_of_the_metric_decides_what_is_better():
    row = paired_table(frame(a=[1, 2, 3, 4, 5, 6, 7], b=[2, 3, 4, 5, 6, 8, 9]), {"Dice": False}).iloc[0]
    assert (row.better, row.worse, row.verdict) == (0, 7, "worse")
    assert row.difference > 0


def test_permutation_is_another_test():
    cases = frame(a=[0.5] * 8, b=[0.6, 0.62, 0.64, 0.66, 0.45, 0.58, 0.57, 0.1])
    wilcoxon, permutation = (paired_table(cases, {"Dice": True}, test=t).iloc[0] for t in ("wilcoxon", "permutation"))
    assert wilcoxon.p != permutation.p
    assert wilcoxon.difference == permutation.difference


def test_permutation_finds_what_all_cases_show_among_many_classes(monkeypatch):
    """The smallest p of 9999 random patterns is 0.0002, which is no verdict after Holm's correction for 300 tests."""
    monkeypatch.setattr("nnunet_skd.tools.compare.paired_table.bootstrap_interval", lambda *_, **__: (0.1, 0.2))
    gains = np.linspace(0.01, 0.4, 16)
    cases = pd.concat([frame(ref=0 * gains, arm=gains).assign(label=f"class {i}") for i in range(300)])
    assert set(paired_table(cases, {"Dice": True}, test="permutation")["verdict"]) == {"better"}


@pytest.mark.parametrize(
    ("cases", "arms", "verdict"), [(5, 1, "too few cases"), (6, 1, "better"), (6, 2, "too few cases"), (7, 2, "better")]
)
def test_too_few_cases_for_any_verdict(cases, arms, verdict):
    gains = np.arange(1, cases + 1) / 100
    table = paired_table(frame(ref=0 * gains, **{f"arm{i}": gains for i in range(arms)}), {"Dice": True})
    assert set(table["verdict"]) == {verdict}
    said = " ".join(cautions(table, folds=[], repeated=[]))
    assert ("Too few cases to conclude" in said) == (verdict == "too few cases")
    if (cases, arms) == (6, 2):
        assert "With 2 tests, Holm's correction requires at least 7" in said


def test_unchanged_cases_carry_no_information():
    gains = [0.01, 0.02, 0.03, 0.04, 0.05, 0, 0, 0, 0, 0]
    assert paired_table(frame(a=[0] * 10, b=gains), {"Dice": True}).iloc[0].verdict == "too few cases differ"
    same = paired_table(frame(a=[0.5] * 10, b=[0.5] * 10), {"Dice": True})
    assert same.iloc[0].verdict == "no difference shown"
    assert "Too few cases" not in " ".join(cautions(same, folds=[], repeated=[]))


def test_no_difference_and_a_shift_without_a_mean():
    noise = [0.1, -0.1, 0.2, -0.2, 0.15, -0.14, 0.05, -0.04]
    assert paired_table(frame(a=[0] * 8, b=noise), {"Dice": True}).iloc[0].verdict == "no difference shown"
    one_disaster = [0.01 + 0.0001 * i for i in range(19)] + [-0.9]
    row = paired_table(frame(a=[0] * 20, b=one_disaster), {"Dice": True}).iloc[0]
    assert (row.verdict, row.better) == ("shifted, mean unclear", 19)
    assert row.difference < 0


def test_an_arm_that_misses_a_class_is_not_simply_better():
    """B has no tumour in 15 of 20 cases, and a slightly better organ in all: its mean is one of other classes."""
    rows = [
        {"arm": arm, "case": f"c{i:02d}", "label": label, "fold": "-", "HD95": value}
        for i in range(20)
        for arm, label, value in (
            ("A", "organ", 5 + i / 10),
            ("A", "tumour", 20 + i / 10),
            ("B", "organ", 4.5 + i / 11),
            ("B", "tumour", np.nan if i < 15 else 19 + i / 11),
        )
    ]
    table = paired_table(pd.DataFrame(rows), {"HD95": False})
    row = table.set_index("label").loc["mean"]
    assert (row.cases, row.only_reference, row.only_arm) == (20, 15, 0)
    assert row.verdict == "better where both have a value"
    assert table.set_index("label").loc["organ", "verdict"] == "better"
    (sentence,) = result_sentences(table, {"HD95": Metric(False, " mm", 2)})
    assert "**B** is better where both have a value in mean HD95 over the classes" in sentence
    assert "In 15 cases only A has a value of some class. These values do not count" in sentence
    said = " ".join(cautions(table, folds=[], repeated=[]))
    assert "The other arm misses the class there. Leaving such a case out favours the arm in error" in said


@pytest.mark.parametrize(
    ("metric", "ignored", "why"),
    [
        ("Dice", False, "The class is absent there, and the other arm rightly does not find it. "),
        ("Dice", True, "The class is absent there, and the other arm rightly does not find it. "),
        ("HD95", True, "The other arm misses the class there, or its objects touch ignored voxels. "),
        ("clDice", True, "rightly does not find it, or its objects touch ignored voxels. "),
        ("Precision", False, "The other arm does not find the class there, be it present or absent. "),
    ],
)
def test_why_one_arm_alone_has_a_value(metric, ignored, why):
    cases = frame(a=[1.0] * 7, b=[2.0] * 6 + [np.nan]).rename(columns={"Dice": metric})
    said = " ".join(cautions(paired_table(cases, {metric: True}), folds=[], repeated=[], ignored=ignored))
    assert why in said


def test_holm_counts_all_rows():
    gains = np.arange(1, 11) / 100
    table = paired_table(frame(ref=0 * gains, b=gains, c=gains, d=gains), {"Dice": True})
    assert table["p_holm"].tolist() == pytest.approx([3 * 2 / 2**10] * 3)


def test_mean_takes_only_classes_that_both_arms_have():
    cases = pd.DataFrame(
        [
            ("a", "c1", "left", 0.5), ("a", "c1", "right", 0.9), ("a", "c2", "left", 0.5), ("a", "c2", "right", np.nan),
            ("b", "c1", "left", 0.6), ("b", "c1", "right", 0.8), ("b", "c2", "left", 0.8), ("b", "c2", "right", 0.0),
        ],
        columns=["arm", "case", "label", "Dice"],
    ).assign(fold="0")  # fmt: skip
    first, second = paired_values(cases, "Dice", "a", "b")
    assert first["mean"].tolist() == pytest.approx([0.7, 0.5])
    assert second["mean"].tolist() == pytest.approx([0.7, 0.8])
    table = paired_table(cases, {"Dice": True}).set_index("label")
    assert list(table.index) == ["mean", "left", "right"]
    assert (table.loc["right", "cases"], table.loc["right", "only_arm"], table.loc["right", "only_reference"]) == (
        1,
        1,
        0,
    )
    assert "1 case, Dice of right has a value for one arm only (0 x a, 1 x b)" in " ".join(
        cautions(table.reset_index(), folds=[], repeated=[])
    )


def test_a_case_of_several_folds_counts_once():
    cases = pd.concat([frame(a=[0.5, 0.6], b=[0.7, 0.7]), frame(a=[0.7], b=[0.8]).assign(fold="1")])
    row = paired_table(cases, {"Dice": True}).iloc[0]
    assert row.cases == 2
    assert row.difference == pytest.approx(((0.75 - 0.6) + (0.7 - 0.6)) / 2)


def test_cautions_name_folds_and_seeds():
    table = paired_table(frame(a=[0.1] * 7, b=np.arange(7) / 10), {"Dice": True})
    one, several, everything = (
        " ".join(cautions(table, folds=folds, repeated=[])) for folds in (["0"], ["0", "1"], ["all"])
    )
    assert all("one seed says nothing about training noise" in text for text in (one, several, everything))
    assert "Intervals of fewer than 30 cases are too narrow" in one
    assert "folds are not independent" in several and "folds are not independent" not in one
    assert "validates on its own training cases" in everything
    assert "Validated by more than one fold: 3 cases (e.g. x)" in " ".join(
        cautions(table, folds=[], repeated=list("xyz"))
    )
    assert "What a model gets wrong there is not seen" in " ".join(cautions(table, folds=[], repeated=[], ignored=True))


# ------------------------------------------------------------------------------------------------ trained folds


def test_folds_are_read_from_summary_json(results):
    comparison = read()
    values = comparison.cases.set_index(["arm", "case", "label"])["Dice"]
    assert len(values) == 2 * 8 * 2
    assert values["nnUNetTrainer", "case_1", "left"] == 1
    assert values["nnUNetTrainer", "case_1", "right"] == pytest.approx(2 * 7 / (12 + 7))
    assert comparison.folds == ["0", "1"]
    row = paired_table(comparison.cases, {"Dice": True}).set_index("label").loc["right"]
    assert (row.better, row.worse) == (8, 0)
    assert row.verdict == "better"


def test_other_metrics_are_computed_and_agree_with_summary_json(results):
    columns = ["arm", "fold", "case", "label"]
    computed = read(metrics=["Sensitivity", "Dice"], folds=[0], num_processes=1)
    expected = read(folds=[0]).cases.set_index(columns)["Dice"]
    pd.testing.assert_series_equal(computed.cases.set_index(columns)["Dice"], expected, check_like=True)
    sensitivity = computed.cases.set_index(columns)["Sensitivity"]
    assert sensitivity["nnUNetTrainer", "0", "case_0", "right"] == pytest.approx(8 / 12)


def test_metrics_know_their_direction_and_unit(results):
    metrics = read(metrics=["HD95", "HD95_voxel", "b0_error", "NSD"], folds=[0], num_processes=1).metrics
    assert [m.higher_is_better for m in metrics.values()] == [False, False, False, True]
    assert [m.unit for m in metrics.values()] == [" pixel", " pixel", "", ""]


def test_tiffs_are_compared_where_their_spacing_lies(results):
    """nnU-Net copies a label to gt_segmentations, but not the JSON file beside a 3D TIFF."""
    raw = results / "nnUNet_raw" / DATASET / "labelsTr"
    raw.mkdir()
    assert read().reference_dir == results / "nnUNet_preprocessed" / DATASET / "gt_segmentations"
    for file in (results / "nnUNet_results").rglob("dataset.json"):
        file.write_text(file.read_text().replace(".png", ".tif"))
    assert read().reference_dir == raw


def test_arms_may_differ_in_plans(results):
    model = results / "nnUNet_results" / DATASET / "nnUNetTrainer__nnUNetPlans__2d"
    shutil.copytree(model, model.with_name("nnUNetTrainer__small__2d"))
    comparison = trained_comparison(
        DATASET, ["nnUNetTrainer"], configurations=["2d"], plans=["nnUNetPlans", "small"], folds=[0]
    )
    assert [arm.name for arm in comparison.arms] == ["nnUNetPlans", "small"]


def test_regions_and_a_missing_class(results):
    assert label_names({"labels": {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}}) == {
        "0": "background",
        "(1, 2)": "whole",
        "(2,)": "core",
        "3": "ignore",
    }
    references = results / "nnUNet_preprocessed" / DATASET / "gt_segmentations"
    labels = {"background": 0, "whole": [1, 2], "right": 2}
    io.imsave(references / "case_0.png", (squares("case_0") == 1).astype(np.uint8), check_contrast=False)
    for trainer, lost in (("regionsA", [12, 3]), ("regionsB", [4, 2])):  # all 12 rows lost: rightly empty
        model = results / "nnUNet_results" / DATASET / f"{trainer}__nnUNetPlans__2d"
        write_fold(model, 0, CASES[:2], references, lost, regions=((1, 2), 2))
        (model / "dataset.json").write_text(
            json.dumps({**DATASET_JSON, "labels": labels, "regions_class_order": [1, 2]})
        )
    cases = read(trainers=["regionsA", "regionsB"], folds=[0]).cases
    assert list(cases["label"].unique()) == ["whole", "right"]
    table = paired_table(cases, {"Dice": True}).set_index("label")
    assert (table.loc["right", "cases"], table.loc["right", "only_arm"]) == (1, 1)


def test_epoch_times_come_from_every_log_and_a_repeated_epoch_counts_once(results):
    comparison = read()
    assert comparison.arms[0].epoch_seconds == [12, 10, 11] * 2
    write_log(validation_of(results).parent, [13.25, 16], first=2, day=10)  # killed in epoch 3, and continued from 2
    assert read().arms[1].epoch_seconds == [15, 14, 13.25, 16] + [15, 14, 90]


def test_refuses_other_cases_and_names_them(results):
    summary = validation_of(results) / "summary.json"
    content = json.loads(summary.read_text())
    content["metric_per_case"] = [c for c in content["metric_per_case"] if "case_2" not in c["prediction_file"]]
    summary.write_text(json.dumps(content))
    with pytest.raises(BadInput, match="fold 0: only nnUNetTrainer has case_2\n"):
        read()
    assert len(read(folds=[1]).cases) == 2 * 4 * 2


def test_refuses_a_fold_without_result_and_says_how_to_make_it(results):
    (validation_of(results, fold=1) / "summary.json").unlink()
    with pytest.raises(BadInput, match=f"nnUNetv2_train {DATASET} 2d 1 -tr nnUNetTrainerDSKD -p nnUNetPlans$"):
        read()
    (validation_of(results, fold=1).parent / "checkpoint_best.pth").touch()  # without --c nnU-Net would begin anew
    with pytest.raises(BadInput, match="-p nnUNetPlans --c$"):
        read()
    (validation_of(results, fold=1).parent / "checkpoint_final.pth").touch()
    with pytest.raises(BadInput, match="-p nnUNetPlans --val"):
        read()


def test_refuses_the_validation_of_an_earlier_training(results):
    """nnU-Net leaves both summary.json and the last checkpoint where somebody trains anew in the same folder."""
    fold = validation_of(results).parent
    write_log(fold, [15, 14, 90], end="Validation complete")
    assert len(read().cases)
    write_log(fold, [15], day=7)
    with pytest.raises(BadInput, match=rf"that of an earlier training.*\n  {fold}$"):
        read()
    write_log(fold, [14], first=1, day=8, end="Validation complete")
    assert len(read().cases)


def test_refuses_a_changed_reference(results):
    references = results / "nnUNet_preprocessed" / DATASET / "gt_segmentations"
    io.imsave(references / "case_3.png", squares("case_3", lost=1), check_contrast=False)
    shutil.rmtree(validation_of(results).parent)
    write_fold(validation_of(results).parents[1], 0, CASES[:4], references, [1, 1, 2, 0])
    with pytest.raises(BadInput, match="reference segmentation changed between the arms' validations, in case_3."):
        read()


def test_refuses_other_labels(results):
    model = validation_of(results).parents[1]
    (model / "dataset.json").write_text(json.dumps({**DATASET_JSON, "labels": {"background": 0, "both": 1}}))
    with pytest.raises(BadInput, match="trained on different labels"):
        read()


@pytest.mark.parametrize("trainer", ["nnUNetTrainer", "nnUNetTrainerDSKD"])
def test_an_ignore_label_is_no_other_label(results, trainer):
    model = validation_of(results, trainer).parents[1]
    with_ignore = DATASET_JSON["labels"] | {"ignore": max(DATASET_JSON["labels"].values()) + 1}
    (model / "dataset.json").write_text(json.dumps({**DATASET_JSON, "labels": with_ignore}))
    assert read().dataset_json["labels"] == with_ignore


def test_refuses_a_broken_summary(results):
    (validation_of(results) / "summary.json").write_text('{"metric_per_case": []}')
    with pytest.raises(BadInput, match="holds no case"):
        read()
    (validation_of(results) / "summary.json").write_text('{"metric')
    with pytest.raises(BadInput, match="summary.json .*Write it again"):
        read()


def test_refuses_what_cannot_be_compared(results, monkeypatch):
    with pytest.raises(BadInput, match="nothing to compare"):
        read(trainers=["nnUNetTrainer"])
    with pytest.raises(BadInput, match="nothing to compare"):
        read(trainers=["nnUNetTrainer", "nnUNetTrainer"])
    with pytest.raises(BadInput, match="-p names 2, but there are 3 arms"):
        read(trainers=["a", "b", "c"], plans=["p", "q"])
    with pytest.raises(BadInput, match="there is no metric Dcie. Choose from Dice, IoU"):
        read(metrics=["Dcie"])
    with pytest.raises(BadInput, match="ID 998"):
        trained_comparison(998, ["a", "b"], configurations=["2d"])
    shutil.rmtree(results / "nnUNet_preprocessed" / DATASET)
    with pytest.raises(BadInput, match="neither nnUNet_preprocessed/.*labelsTr"):
        read(metrics=["HD95"])
    monkeypatch.delenv("nnUNet_results")
    with pytest.raises(BadInput, match="nnUNet_results is not set"):
        read()


# ------------------------------------------------------------------------------------------------ a test set


@pytest.fixture
def predictions(tmp_path):
    """labelsTs, imagesTs and two folders of predictions; returns their parent."""
    for folder, losses in (("labelsTs", [0] * 8), ("plain", range(1, 9)), ("skd", [0, 1, 1, 2, 2, 3, 3, 4])):
        (tmp_path / folder).mkdir()
        for case, lost in zip(CASES, losses, strict=True):
            io.imsave(tmp_path / folder / f"{case}.png", squares(case, lost=lost), check_contrast=False)
    (tmp_path / "imagesTs").mkdir()
    for case in CASES:
        io.imsave(tmp_path / "imagesTs" / f"{case}_0000.png", squares(case) * 90, check_contrast=False)
    (tmp_path / "dataset.json").write_text(json.dumps(DATASET_JSON))
    return tmp_path


def read_predictions(folder, **more):
    dirs = [folder / "plain", folder / "skd"]
    return predicted_comparison(dirs, folder / "labelsTs", folder / "dataset.json", num_processes=1, **more)


def test_predictions_are_evaluated(predictions):
    comparison = read_predictions(predictions)
    assert comparison.folds == []
    row = paired_table(comparison.cases, {"Dice": True}).set_index("label").loc["right"]
    dice = [2 * (12 - n) / (24 - n) for n in range(13)]
    lost = [0, 1, 1, 2, 2, 3, 3, 4]
    assert row.difference == pytest.approx(np.mean([dice[b] - dice[a] for a, b in zip(range(1, 9), lost, strict=True)]))
    assert (row.arm, row.reference, row.verdict) == ("skd", "plain", "better")


def test_predictions_of_other_cases_are_refused(predictions):
    (predictions / "skd" / "case_5.png").unlink()
    with pytest.raises(BadInput, match="only plain has case_5\n"):
        read_predictions(predictions)
    (predictions / "plain" / "case_5.png").unlink()
    with pytest.raises(BadInput, match="no arm predicted case_5 of"):
        read_predictions(predictions)
    (predictions / "labelsTs" / "case_5.png").unlink()
    (predictions / "labelsTs" / "case_6.png").unlink()
    with pytest.raises(BadInput, match="has no reference segmentation for case_6"):
        read_predictions(predictions)


def test_prediction_folders_must_be_there_and_differ(predictions):
    labels, djfile = predictions / "labelsTs", predictions / "dataset.json"
    with pytest.raises(BadInput, match="two or more different folders"):
        predicted_comparison([labels, labels], labels, djfile)
    with pytest.raises(BadInput, match="nowhere is not a folder"):
        predicted_comparison([labels, predictions / "nowhere"], labels, djfile)
    with pytest.raises(BadInput, match=r"no file in .* ends with \.png"):
        (predictions / "empty").mkdir()
        predicted_comparison([labels, predictions / "empty"], labels, djfile)
    djfile.write_text("{}")
    with pytest.raises(BadInput, match="dataset.json lacks labels, file_ending"):
        read_predictions(predictions)


def test_a_wrong_images_folder_is_refused_before_the_work(predictions):
    with pytest.raises(BadInput, match="imagesTx is not a folder"):
        read_predictions(predictions, images_dir=predictions / "imagesTx")


def test_the_tolerance_of_the_nsd_is_taken_and_told(predictions, capsys):
    command = ["compare", "--pred", *(str(predictions / arm) for arm in ("plain", "skd"))]
    command += ["--ref", str(predictions / "labelsTs"), "-djfile", str(predictions / "dataset.json")]
    command += ["--metrics", "NSD", "--pictures", "0", "-np", "1", "-o"]
    means = []
    for name, tolerance in (("one", []), ("two", ["--tolerance", "2.5"])):
        assert main([*command, str(predictions / name), *tolerance]) == 0
        assert f"NSD within {tolerance[1] if tolerance else 1} pixel" in capsys.readouterr().out
        means.append(pd.read_csv(predictions / name / "comparison.csv")["reference_mean"].iloc[0])
    assert means[0] < means[1]
    assert main([*command, str(predictions / "three"), "--curves", "--tolerance", "2"]) == 2
    assert "does not go with --curves" in capsys.readouterr().err


def test_folders_of_one_name_get_longer_names(predictions):
    shutil.copytree(predictions / "skd", predictions / "old" / "skd")
    comparison = predicted_comparison(
        [predictions / "old" / "skd", predictions / "skd"],
        predictions / "labelsTs",
        predictions / "dataset.json",
        num_processes=1,
    )
    assert [arm.name for arm in comparison.arms] == [str(predictions / "old" / "skd"), str(predictions / "skd")]


# ------------------------------------------------------------------------------------------------ what is written


def test_the_command_writes_everything(results, capsys):
    output = results / "out"
    command = ["compare", "-d", "999", "-c", "2d", "-tr", "nnUNetTrainer", "nnUNetTrainerDSKD", "-f", "0", "1"]
    assert main([*command, "-o", str(output), "--pictures", "2"]) == 0
    report = (output / "report.md").read_text()
    assert report in capsys.readouterr().out
    assert report.startswith(f"# {DATASET}, nnUNetPlans, 2d\n")
    assert "**nnUNetTrainerDSKD** is better in mean Dice over the classes" in report
    assert "8 of 8 cases better, 0 worse" in report
    assert "| nnUNetTrainerDSKD | 6                  | 15.0               | 1.36  |" in report
    assert sorted(p.name for p in output.iterdir()) == [
        "cases.csv",
        "changed_nnUNetTrainerDSKD.png",
        "comparison.csv",
        "paired_Dice.png",
        "report.md",
    ]
    for picture in output.glob("*.png"):
        assert f"({picture.name})" in report
    assert io.imread(output / "changed_nnUNetTrainerDSKD.png").shape[1] == 2100  # 7 inches at 300 dpi
    assert len(pd.read_csv(output / "cases.csv")) == 2 * 8 * 2
    table = pd.read_csv(output / "comparison.csv")
    pd.testing.assert_frame_equal(table, paired_table(read().cases, {"Dice": True}))
    assert main([*command, "-o", str(output)]) == 2
    assert "exists and is not empty" in capsys.readouterr().err


def test_the_command_asks_for_what_is_missing(capsys):
    assert main(["compare", "-o", "x"]) == 2
    assert "either by -d -c -tr" in capsys.readouterr().err
    assert main(["compare", "-o", "x", "-d", "999", "-tr", "a", "b"]) == 2
    assert "-c missing" in capsys.readouterr().err
    assert main(["compare", "-o", "x", "--pred", "a", "b"]) == 2
    assert "--ref, -djfile missing" in capsys.readouterr().err


def test_without_images_the_report_says_so(predictions):
    write_comparison(read_predictions(predictions), predictions / "out")
    assert (
        "There are no pictures of cases, because the images were not found: give --images."
        in (predictions / "out" / "report.md").read_text()
    )
    assert not list((predictions / "out").glob("changed*"))


def test_a_case_without_files_is_named_and_the_others_are_drawn(predictions):
    (predictions / "imagesTs" / "case_7_0000.png").unlink()
    comparison = read_predictions(predictions, images_dir=predictions / "imagesTs")
    write_comparison(comparison, predictions / "out", changed=2)
    assert "* case_7: not drawn. Missing: the image in " in (predictions / "out" / "report.md").read_text()
    assert (predictions / "out" / "changed_skd.png").is_file()


def test_a_metric_that_never_exists_has_no_picture(predictions):
    for case in CASES:
        io.imsave(predictions / "skd" / f"{case}.png", np.zeros((40, 48), np.uint8), check_contrast=False)
    table = write_comparison(read_predictions(predictions, metrics=["HD95"]), predictions / "out")
    assert set(table["cases"]) == {0}
    assert set(table["only_reference"][1:]) == {8}
    assert not list((predictions / "out").glob("*.png"))
    assert "Leaving such a case out favours the arm in error" in (predictions / "out" / "report.md").read_text()


def test_nothing_stays_behind_when_writing_fails(predictions, monkeypatch):
    comparison = read_predictions(predictions)
    before = sorted(predictions.iterdir())

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(report, "draw_paired_boxes", fail)
    with pytest.raises(OSError, match="disk full"):
        write_comparison(comparison, predictions / "out")
    assert sorted(predictions.iterdir()) == before


def test_a_picture_takes_the_rows_with_the_largest_difference(predictions, monkeypatch):
    gains = np.linspace(0.5, -0.4, 30)
    rows = [
        {"arm": arm, "fold": "-", "case": case, "label": f"organ {k}", "Dice": 0.5 + gains[k] * (arm == "skd")}
        for k in range(30)
        for arm in ("plain", "skd")
        for case in CASES
    ]
    drawn = []
    monkeypatch.setattr(report, "draw_paired_boxes", lambda panels, path, columns: drawn.extend(panels))
    write_comparison(replace(read_predictions(predictions), cases=pd.DataFrame(rows)), predictions / "out", changed=0)
    assert "the 24 rows of the table with the largest difference" in (predictions / "out" / "report.md").read_text()
    smallest = set(np.argsort(np.abs(gains))[:6])
    assert [p.title.split("\n")[0] for p in drawn] == [f"organ {k}" for k in range(30) if k not in smallest]


# ------------------------------------------------------------------------------------------------ slices


@pytest.mark.parametrize(("spacing", "axis"), [((1, 1, 3), 0), ((1, 3, 1), 1), ((2, 2, 2), 0), ((1, 1.5, 1), 0)])
def test_the_slice_lies_across_the_coarse_axis_where_most_differs(tmp_path, spacing, axis):
    image = np.random.default_rng(0).random((6, 7, 8)).astype(np.float32)
    truth = np.zeros((6, 7, 8), np.uint8)
    truth[1:5, 1:6, 1:7] = 1
    second = truth.copy()
    second[3, 2:5, 2:5] = 0
    second[:, 4, 6] = 2
    files = CaseFiles(
        "case",
        [write_volume(tmp_path / "image.nii.gz", image, spacing)],
        write_volume(tmp_path / "truth.nii.gz", truth, spacing),
        write_volume(tmp_path / "first.nii.gz", truth, spacing),
        write_volume(tmp_path / "second.nii.gz", second, spacing),
    )
    shown = read_slice(files, {"labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".nii.gz"})
    index = int(np.argmax((truth != second).sum(axis=tuple(a for a in range(3) if a != axis))))
    turn = slice(None, None, -1 if axis else 1)
    np.testing.assert_array_equal(shown.second, np.take(second, index, axis)[turn])
    np.testing.assert_allclose(shown.image, np.take(image, index, axis)[turn])
    assert index == (3 if axis == 0 else 4)
    assert shown.spacing == pytest.approx([s for a, s in enumerate(spacing[::-1]) if a != axis])


def test_where_nothing_differs_the_slice_is_the_fullest_one(tmp_path):
    label = np.zeros((6, 7, 8), np.uint8)
    label[2:5, 2, 2] = label[3, 3] = 1
    paths = [write_volume(tmp_path / f"{n}.nii.gz", volume, (1, 1, 1)) for n, volume in enumerate((label * 1.0, label))]
    shown = read_slice(
        CaseFiles("case", paths[:1], None, paths[1], paths[1]), DATASET_JSON | {"file_ending": ".nii.gz"}
    )
    assert not shown.truth.any() and not shown.differ.any()
    np.testing.assert_array_equal(shown.first, label[3])


def test_ignored_voxels_do_not_choose_the_slice_and_are_not_drawn(tmp_path):
    truth = np.zeros((4, 5, 5), np.uint8)
    truth[2] = truth[1, 4] = 2
    first, second = np.zeros_like(truth), np.zeros_like(truth)
    second[2] = second[1, 4] = 1
    second[1, 0, 0] = 1
    paths = [
        write_volume(tmp_path / f"{name}.nii.gz", volume, (1, 1, 1))
        for name, volume in (("image", truth.astype(np.float32)), ("truth", truth), ("a", first), ("b", second))
    ]
    files = CaseFiles("case", paths[:1], *paths[1:])
    shown = read_slice(files, {"labels": {"background": 0, "a": 1, "ignore": 2}, "file_ending": ".nii.gz"})
    assert shown.differ.sum() == shown.second.sum() == 1
    assert not shown.truth.any()


def test_colour_images_stay_in_colour_and_other_shapes_are_reported(tmp_path):
    colours = np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)
    io.imsave(tmp_path / "image.png", colours, check_contrast=False)
    for name, segmentation in (("a", squares("case_0")), ("b", squares("case_0", lost=3)), ("c", np.zeros((9, 9)))):
        io.imsave(tmp_path / f"{name}.png", segmentation.astype(np.uint8), check_contrast=False)
    a, b, c = (tmp_path / f"{name}.png" for name in "abc")
    shown = read_slice(CaseFiles("case", [tmp_path / "image.png"], a, a, b), DATASET_JSON)
    np.testing.assert_array_equal(shown.image, colours)
    bad = CaseFiles("bad", [tmp_path / "image.png"], a, a, c)
    problems = draw_differences(
        [bad], tmp_path / "none.png", dataset_json=DATASET_JSON, first_name="a", second_name="c"
    )
    shapes = "image (1, 40, 48), reference (1, 40, 48), first (1, 40, 48), second (1, 9, 9)"
    assert problems == [f"bad: not drawn, the shapes differ: {shapes}"]
    assert not (tmp_path / "none.png").exists()


def test_image_files_of_a_case(tmp_path):
    for name in ("a_0000.png", "a_0001.png", "a_b_0000.png", "a_0000.nii.gz"):
        (tmp_path / name).touch()
    assert [f.name for f in image_files(tmp_path, "a", DATASET_JSON)] == ["a_0000.png", "a_0001.png"]
    (tmp_path / "raw" / "imagesTr").mkdir(parents=True)
    (tmp_path / "raw" / "imagesTr" / "z_0000.png").touch()
    assert [f.name for f in image_files(tmp_path / "raw", "z", DATASET_JSON)] == ["z_0000.png"]
    listed = {**DATASET_JSON, "dataset": {"q": {"images": ["imagesTr/z_0000.png"], "label": "labelsTr/q.png"}}}
    assert [Path(f).name for f in image_files(tmp_path / "raw", "q", listed)] == ["z_0000.png"]
    assert image_files(tmp_path, "missing", DATASET_JSON) == []
