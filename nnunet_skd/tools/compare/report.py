"""Write what ``nnunet-skd compare`` found: the report, the tables and the pictures."""

from pathlib import Path

import numpy as np
import pandas as pd

from nnunet_skd import __version__
from nnunet_skd.messages import counted
from nnunet_skd.tools.case_pictures import CaseFiles, draw_differences
from nnunet_skd.tools.compare import words
from nnunet_skd.tools.compare.arms import Arm
from nnunet_skd.tools.compare.comparison import Comparison, image_files
from nnunet_skd.tools.compare.paired_plot import Panel, draw_paired_boxes
from nnunet_skd.tools.compare.paired_table import MEAN, paired_table, paired_values
from nnunet_skd.tools.files import as_file_name, new_folder

MOST_PANELS = 24  # a picture with more would not fit a page


def write_comparison(
    comparison: Comparison, output: str | Path, *, test: str = "wilcoxon", changed: int = 4
) -> pd.DataFrame:
    """Compare the arms and write report, tables and pictures.

    Args:
        comparison: from ``trained_comparison`` or ``predicted_comparison``.
        output: folder to make; it appears only when everything in it is complete.
        test: ``wilcoxon`` or ``permutation``.
        changed: how many of the most changed cases are drawn per arm.

    Returns:
        The table, as ``paired_table`` describes it.

    Raises:
        BadInput: the folder exists and is not empty.
    """
    output = Path(output).resolve()
    table = paired_table(
        comparison.cases, {m: metric.higher_is_better for m, metric in comparison.metrics.items()}, test=test
    )
    with new_folder(output) as folder:
        table.to_csv(folder / "comparison.csv", index=False)
        comparison.cases.to_csv(folder / "cases.csv", index=False)
        pictures = [
            _draw_values(comparison, table, metric, folder)
            for metric in comparison.metrics
            if (table.loc[table["metric"] == metric, "cases"] > 0).any()
        ]
        notes = []
        for arm in comparison.arms[1:] if changed > 0 else []:
            picture, remarks = _draw_changed(comparison, arm, changed, folder)
            pictures += [picture] if picture else []
            notes += remarks
        report = _report(comparison, table, test, pictures, list(dict.fromkeys(notes)))
        (folder / "report.md").write_text(report, encoding="utf-8")
    return table


def _report(comparison: Comparison, table: pd.DataFrame, test: str, pictures: list[tuple], notes: list[str]) -> str:
    reference = comparison.arms[0].name
    folds = comparison.folds
    per_case = comparison.cases[comparison.cases["arm"] == reference].groupby("case")["fold"].nunique()
    direction = "; ".join(
        f"{m}: {'higher' if metric.higher_is_better else 'lower'} is better" for m, metric in comparison.metrics.items()
    )
    if "NSD" in comparison.metrics:
        direction += ". NSD within {nsd_tolerance:g} {distance_unit}".format(**comparison.cases.attrs)
    repeated = sorted(per_case.index[per_case > 1])
    ignored = "ignore" in comparison.dataset_json["labels"]
    parts = [
        f"# {comparison.title}",
        f"{len(per_case)} cases"
        + (f" of fold {', '.join(folds)}" if folds else "")
        + f". Reference arm: {reference}. Differences are arm minus reference. {direction}.",
        "## Answer",
        _bullets(words.result_sentences(table, comparison.metrics)),
        "## Table",
        words.result_table(table, comparison.metrics),
        ("'mean' is a case's mean over its classes. " if MEAN in set(table["label"]) else "")
        + "Intervals: 95 % BCa bootstrap over cases. "
        f"p: {words.TEST_WORDS[test]}; corrected after Holm for {counted(int(table['p'].notna().sum()), 'test')}. "
        "A verdict needs a corrected p below 0.05 and an interval on one side of zero.",
        "## What these numbers cannot say",
        _bullets(words.cautions(table, folds=folds, repeated=repeated, ignored=ignored)),
    ]
    if any(arm.epoch_seconds for arm in comparison.arms):
        parts += [
            "## Training time",
            words.time_table({arm.name: arm.epoch_seconds for arm in comparison.arms}),
            "From the training logs. A ratio is fair only between runs on the same machine, with nothing else running.",
        ]
    if pictures or notes:
        parts += ["## Pictures", *(f"![{text}]({name})" for name, text in pictures), *filter(None, [_bullets(notes)])]
    parts.append(f"Made by `nnunet-skd compare` {__version__}.")
    return "\n\n".join(parts) + "\n"


def _bullets(sentences: list[str]) -> str:
    return "\n".join(f"* {sentence}" for sentence in sentences)


def _draw_values(comparison: Comparison, table: pd.DataFrame, metric: str, folder: Path) -> tuple[str, str]:
    rows = table[(table["metric"] == metric) & (table["cases"] > 0)]
    arms = list(rows["arm"].unique())
    text = f"{metric} per case, one panel per row of the table"
    if len(rows) > MOST_PANELS:
        largest = rows["difference"].abs().sort_values(ascending=False).index[:MOST_PANELS]
        rows = rows.loc[rows.index.isin(largest)]
        text = f"{metric} per case, the {MOST_PANELS} rows of the table with the largest difference"
    elif len(arms) > 1:  # a row of panels per class, a column per arm
        rows = pd.concat([rows[rows["label"] == label] for label in rows["label"].unique()])
    reference = comparison.arms[0].name
    pairs = {arm: paired_values(comparison.cases, metric, reference, arm) for arm in arms}
    panels = []
    for row in rows.itertuples():
        first, second = (frame[row.label] for frame in pairs[row.arm])
        both = first.notna() & second.notna()
        panels.append(
            Panel(
                title=f"{row.label}\np (Holm) {words.p_value(row.p_holm)}",
                unit=f"{metric}{comparison.metrics[metric].unit and f' ({comparison.metrics[metric].unit.strip()})'}",
                names=(row.reference, row.arm),
                first=first[both].to_numpy(),
                second=second[both].to_numpy(),
                higher_is_better=comparison.metrics[metric].higher_is_better,
            )
        )
    name = f"paired_{as_file_name(metric)}.png"
    draw_paired_boxes(panels, folder / name, columns=len(arms) if len(arms) > 1 else 4)
    return name, text


def _draw_changed(
    comparison: Comparison, arm: Arm, count: int, folder: Path
) -> tuple[tuple[str, str] | None, list[str]]:
    """Draw the most changed cases of one arm; returns (file name, text) or None, and remarks on what is missing."""
    reference, metric = comparison.arms[0], next(iter(comparison.metrics))
    if comparison.images_dir is None:
        return None, [f"There are no pictures of cases, because the images were not found: {comparison.no_images}."]
    if comparison.reference_dir is None:
        return None, ["There are no pictures of cases, because no folder with the reference segmentations was found."]
    first, second = (frame.iloc[:, 0] for frame in paired_values(comparison.cases, metric, reference.name, arm.name))
    change = np.round(second - first, 12).dropna()
    change = change[change != 0]
    largest = change.reindex(change.abs().sort_values(ascending=False, kind="stable").index[:count])
    ending, d = comparison.dataset_json["file_ending"], comparison.metrics[metric].decimals
    fold_of = comparison.cases.drop_duplicates("case").set_index("case")["fold"]
    files, remarks = [], []
    for case in largest.index:
        images = image_files(comparison.images_dir, case, comparison.dataset_json)
        segmentations = [
            parent / f"{case}{ending}"
            for parent in (comparison.reference_dir, *(a.folders[fold_of[case]] for a in (reference, arm)))
        ]
        missing = [str(f) for f in segmentations if not f.is_file()]
        if not images:
            missing.append(f"the image in {comparison.images_dir}")
        if missing:
            remarks.append(f"{case}: not drawn. Missing: {', '.join(missing)}.")
            continue
        title = f"{case}: {metric} {first[case]:.{d}f} to {second[case]:.{d}f} ({change[case]:+.{d}f})"
        files.append(CaseFiles(title, images, *segmentations))
    name = f"changed_{as_file_name(arm.name)}.png"
    if (folder / name).exists():  # of an arm whose name differs in signs alone
        name = f"changed_{as_file_name(arm.name)}_{comparison.arms.index(arm) + 1}.png"
    remarks += draw_differences(
        files, folder / name, dataset_json=comparison.dataset_json, first_name=reference.name, second_name=arm.name
    )
    if not (folder / name).exists():
        return None, remarks
    return (name, f"Cases whose {metric} changed most, {reference.name} to {arm.name}"), remarks
