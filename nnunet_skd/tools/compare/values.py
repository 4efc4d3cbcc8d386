"""The values of all cases and arms as one table, from nnU-Net's summary.json or from the predictions."""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from nnunet_skd.messages import listed
from nnunet_skd.tools.cases import require_segmented_cases
from nnunet_skd.tools.compare.arms import NO_FOLD, Arm
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.evaluate.folders import TOLERANCE, evaluate_folders
from nnunet_skd.tools.json_file import INTEGER, NUMBER, TEXT, read_json

SUMMARY_METRICS = ("Dice", "IoU")  # what summary.json holds; its other entries are numbers of voxels


def summary_values(arms: Sequence[Arm], metrics: Sequence[str], dataset_json: dict) -> pd.DataFrame:
    """The values of all cases from nnU-Net's summary.json.

    Returns:
        One row per ``arm``, ``fold``, ``case`` and ``label``, with one column per metric.

    Raises:
        BadInput: unreadable files, different cases, or reference segmentations that changed between the validations.
    """
    rows = []
    for arm in arms:
        for fold, folder in arm.folders.items():
            rows += _read_summary(arm.name, fold, folder / "summary.json", metrics, dataset_json)
    cases = pd.DataFrame(rows).astype(dict.fromkeys(metrics, float))
    check_same_cases(cases.groupby(["arm", "fold"], sort=False)["case"].agg(set).to_dict())
    _check_same_reference(cases)
    return cases.drop(columns="n_ref")


def evaluated_values(
    arms: Sequence[Arm],
    reference_dir: Path,
    dataset_json: dict,
    metrics: Sequence[str],
    num_processes: int,
    *,
    tolerance: float = TOLERANCE,
    all_references: bool = False,
) -> pd.DataFrame:
    """The values of all cases, computed from the predictions as ``nnunet-skd evaluate`` does.

    Args:
        arms: their folders hold the predictions.
        reference_dir: reference segmentations.
        dataset_json: labels, regions, ignore label and file ending.
        metrics: names that ``evaluate`` knows.
        num_processes: cases evaluated at once.
        tolerance: of the NSD, as ``evaluate`` takes it.
        all_references: refuse references that nobody predicted.

    Returns:
        One row per ``arm``, ``fold``, ``case`` and ``label``, with one column per metric.

    Raises:
        BadInput: different cases, or a case without its counterpart.
    """
    ending = dataset_json["file_ending"]
    files = {
        (arm.name, fold): require_segmented_cases(folder, ending)
        for arm in arms
        for fold, folder in arm.folders.items()
    }
    check_same_cases(files)
    references, predicted = require_segmented_cases(reference_dir, ending), set().union(*files.values())
    if predicted - references:
        raise BadInput(f"{reference_dir} has no reference segmentation for {listed(sorted(predicted - references))}")
    if all_references and references - predicted:
        raise BadInput(
            f"no arm predicted {listed(sorted(references - predicted))} of {reference_dir}: predict them, or name a "
            "folder with the references of the predicted cases only"
        )
    frames = []
    for arm in arms:
        for fold, folder in arm.folders.items():
            print(f"Evaluating {arm.name}{'' if fold == NO_FOLD else f', fold {fold}'}")
            frame = evaluate_folders(
                reference_dir,
                folder,
                dataset_json,
                num_processes=num_processes,
                metrics=metrics,
                tolerance=tolerance,
                chill=True,
            )
            frames.append(frame.assign(arm=arm.name, fold=fold))
    cases = pd.concat(frames, ignore_index=True)[["arm", "fold", "case", "label", *metrics]]
    cases.attrs = frames[0].attrs
    return cases


def check_same_cases(cases: dict[tuple[str, str], set[str]]) -> None:
    """Refuse arms whose cases differ.

    Args:
        cases: (arm, fold) -> names of the cases; the first arm is the one that the others are held against.

    Raises:
        BadInput: with the cases that only one of two arms has.
    """
    reference = next(iter(cases))[0]
    problems = []
    for (arm, fold), names in cases.items():
        expected = cases[reference, fold]
        where = "" if fold == NO_FOLD else f"fold {fold}: "
        problems += [
            f"  {where}only {who} has {listed(sorted(only))}"
            for who, only in ((reference, expected - names), (arm, names - expected))
            if only
        ]
    if problems:
        raise BadInput(
            "the arms hold different cases, so they cannot be paired:\n"
            + "\n".join(problems)
            + "\nTrain with the same splits_final.json, predict the missing cases, or leave the fold out with -f"
        )


def label_names(dataset_json: dict) -> dict[str, str]:
    """Names of the classes by their key in summary.json: ``"1"`` for a label, ``"(1, 2)"`` for a region."""
    return {
        str(tuple(int(i) for i in value)) if isinstance(value, (list, tuple)) else str(int(value)): name
        for name, value in dataset_json["labels"].items()
    }


def _read_summary(arm: str, fold: str, path: Path, metrics: Sequence[str], dataset_json: dict) -> list[dict]:
    names = label_names(dataset_json)
    entries = {"n_ref": INTEGER, **dict.fromkeys(metrics, NUMBER)}
    shape = {"metric_per_case": [{"prediction_file": TEXT, "metrics": {str: entries}}]}
    remedy = "Write it again with nnUNetv2_train ... --val"
    rows = [
        {
            "arm": arm,
            "fold": fold,
            # Both kinds of slashes: the training may have run elsewhere.
            "case": re.split(r"[\\/]", entry["prediction_file"])[-1].removesuffix(dataset_json["file_ending"]),
            "label": names.get(key, key),
            "n_ref": values["n_ref"],
            **{metric: values[metric] for metric in metrics},
        }
        for entry in read_json(path, shape, remedy)["metric_per_case"]
        for key, values in entry["metrics"].items()
    ]
    if not rows:
        raise BadInput(f"{path} holds no case. {remedy}")
    return rows


def _check_same_reference(cases: pd.DataFrame) -> None:
    """The reference has as many voxels of a class in every arm, or somebody changed it between the validations."""
    sizes = cases.groupby(["fold", "case", "label"])["n_ref"].nunique(dropna=False)
    changed = sizes.index[sizes > 1].get_level_values("case").unique()
    if len(changed):
        raise BadInput(
            f"the reference segmentation changed between the arms' validations, in {listed(sorted(changed))}. "
            "Validate every arm again with nnUNetv2_train ... --val"
        )
