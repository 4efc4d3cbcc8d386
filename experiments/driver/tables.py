"""A study's tables in Markdown, for the terminal and for docs/results.md."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from driver.comparison import compare, each_training, noise_floor, values
from driver.definition import Study, load_study
from driver.markdown import markdown
from driver.rows import read_rows, refuse_mixtures
from driver.trainings import plan
from nnunet_skd.messages import counted
from nnunet_skd.tools.compare.comparison import DISTANCES
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.evaluate.calibration import CALIBRATION, labels_of

WAYS = {False: "without mirroring", True: "with mirroring"}


def study_tables(name: str, study: Study, results: Path) -> str:
    """All tables of a study: the arms against the reference, each training, and each class where there are several.

    Raises:
        BadInput: no rows yet, or rows of different code.
    """
    command = f"python experiments/study.py run {name} --raw DIR"
    rows = read_rows(results / f"{name}.csv")
    if rows.empty:
        raise BadInput(f"the study {name} has no rows yet. Run: {command}")
    cells = plan(study)
    refuse_mixtures(rows, cells)
    done, asked = rows["recipe"].nunique(), len({training.key for training in cells.values()})
    parts = [
        f"**{study.question}** {study.dataset}, `{study.configuration}` with the network of {study.preset}, "
        f"{study.steps} steps, {_tested(study)}. {done} of {asked} trainings done. `{command}`{_commit(name, results)}"
    ]
    noise = _noise(name, study, rows, results)
    for mirroring in study.mirroring:
        parts.append(_arms(rows, study, mirroring, *noise))
    parts.append(_trainings(rows, study))
    if (of_classes := rows.dropna(subset=study.metrics[0]))["label"].nunique() > 1:
        parts.append(_classes(of_classes, study))
    return "\n\n".join(parts)


def _commit(name: str, results: Path) -> str:
    """Whose driver runs the study again, where it is not this one."""
    file = results / "commits.json"
    commits = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return f" with commit {commits[name]}" if name in commits else ""


def _tested(study: Study) -> str:
    seeds = counted(len(study.seeds), "seed")
    if study.annotated_slices is not None:
        seeds = f"{counted(study.annotated_slices, 'annotated slice')} per volume, {seeds}"
    if study.folds:
        return f"{counted(len(study.draws), 'fold')} x {seeds}, validation cases"
    draws = "" if study.labelled is None else f"{study.labelled} labelled cases, {counted(len(study.draws), 'draw')} x "
    if study.test == "imagesTs":
        return f"{draws}{seeds}, test cases"
    unlabelled = any(arm.prepare for arm in study.arms.values())
    also = ", which some arms have seen without their labels" if unlabelled else ""
    return f"{draws}{seeds}, tested on the labelled cases outside the draw{also}"


def _noise(name: str, study: Study, rows: pd.DataFrame, results: Path) -> tuple[pd.DataFrame, str, str]:
    """The rows, the arm in them whose seeds say what a difference is worth, and where these rows are from."""
    if study.noise in (None, name):
        return rows, study.reference, "this study"
    other_name, other = load_study(study.noise)
    return read_rows(results / f"{other_name}.csv"), other.reference, other_name


def _arms(
    rows: pd.DataFrame, study: Study, mirroring: bool, noise_rows: pd.DataFrame, noise_arm: str, noise_from: str
) -> str:
    """The arms against the reference; p and verdict for the primary metric alone, which was named beforehand."""
    header, lines = [f"{WAYS[mirroring]}", "trainings"], {}
    floors = []
    for metric in study.metrics:
        primary = metric == study.metrics[0]
        known = metric in noise_rows and not noise_rows.empty
        noise = noise_floor(noise_rows, noise_arm, metric, mirroring) if known else np.nan
        unknown = "unknown, as one seed has no spread" if known else "unknown, as it was not measured there"
        floors.append(f"{metric} {_number(noise, metric) or unknown}")
        table = compare(rows, study, metric, mirroring, noise)
        if not primary:  # two arms that have no value of it in common have no row for their difference
            table = table.reindex(list(lines))
        header += [metric, "difference [95 %]", *(["p (Holm)", "verdict"] if primary else [])]
        for row in table.itertuples():
            line = lines.setdefault(row.Index, [row.Index, f"{row.trainings}"])
            line += [_number(row.mean, metric), _difference(row, metric)]
            line += [_p(row.p_holm), row.verdict] if primary else []
    notes = [f"Noise floor ({noise_arm} of {noise_from}, {WAYS[mirroring]}): {', '.join(floors)}."]
    notes += [
        f"{metric} has no value where an arm misses a class: its mean is over what the arm has, its difference over "
        "what both have, so read it beside the primary metric."
        for metric in study.metrics
        if rows[rows["label"].isin(labels_of(metric, rows["label"].unique()))][metric].isna().any()
    ]
    return f"{markdown(header, list(lines.values()))}\n\n{' '.join(notes)}"


def _trainings(rows: pd.DataFrame, study: Study) -> str:
    """The primary metric of each training, as the range of luck must be seen, and the seconds."""
    metric = study.metrics[0]
    draws = sorted(rows["draw"].unique())
    ways = [(mirroring, WAYS[mirroring]) for mirroring in study.mirroring]
    header = [
        "each training",
        *(f"{metric} {way}" for _, way in ways),
        "s per step",
        *(f"s per case {w}" for _, w in ways),
    ]
    lines = []
    for arm in study.arms:
        mine = rows[rows["arm"] == arm]
        if mine.empty:
            continue
        line = [arm]
        seeds = [seed for seed in study.arms[arm].seeds or study.seeds if seed in rows["seed"].values]
        for mirroring, _ in ways:
            frame = each_training(mine, arm, metric, mirroring).reindex(index=draws, columns=seeds)
            texts = [" ".join(_number(value, metric) or "-" for value in draw) for _, draw in frame.iterrows()]
            line.append(" / ".join(texts))
        line.append(_seconds(mine["step_seconds"]))
        line += [_seconds(mine[mine["mirroring"] == mirroring]["case_seconds"]) for mirroring, _ in ways]
        lines.append(line)
    note = "Seeds side by side" + (", draws between slashes" if len(draws) > 1 else "")
    note += ". Seconds are medians on one core and depend on what else ran that day: docs/cost.md compares steps"
    return f"{markdown(header, lines)}\n\n{note}."


def _classes(rows: pd.DataFrame, study: Study) -> str:
    """The primary metric of each class: mean over cases, then trainings."""
    metric, mirroring = study.metrics[0], study.mirroring[0]
    labels = list(dict.fromkeys(rows["label"]))
    lines = []
    for arm in study.arms:
        numbers = values(rows[rows["mirroring"] == mirroring], arm, metric)
        if not numbers.empty:
            means = numbers.groupby(["draw", "seed", "label"]).mean().groupby("label").mean()
            lines.append([arm, *(_number(means.get(label, np.nan), metric) for label in labels)])
    return markdown([f"{metric} {WAYS[mirroring]}", *labels], lines)


def _digits(metric: str) -> int:
    if metric in CALIBRATION:
        return 4
    return 2 if metric == "ASD" else 1 if metric in (*DISTANCES, "b0_error") else 3


def _number(value: float, metric: str) -> str:
    return "" if np.isnan(value) else f"{value:.{_digits(metric)}f}"


def _difference(row: tuple, metric: str) -> str:
    if np.isnan(row.difference):
        return ""
    digits = _digits(metric)
    return f"{row.difference:+.{digits}f} [{row.low:+.{digits}f}, {row.high:+.{digits}f}]"


def _p(p: float) -> str:
    return "" if np.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _seconds(seconds: pd.Series) -> str:
    return "" if seconds.isna().all() else f"{seconds.median():.2f}"
