"""From values per case to mean, standard deviation and interval per class."""

import warnings
from itertools import product

import numpy as np
import pandas as pd
from tqdm import tqdm

from nnunet_skd.tools.evaluate.calibration import labels_of
from nnunet_skd.tools.evaluate.statistics import bootstrap_interval, bootstrapped
from nnunet_skd.tools.text_table import aligned

FOREGROUND = "foreground mean"


def summarize(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation and 95 % bootstrap interval over cases, per class and for the foreground.

    Args:
        frame: of ``evaluate_folders``.

    Returns:
        One row per class and metric, the classes in their order and ``foreground mean`` last (left out if there is
        only one class): ``label, metric, mean, std, low, high, n``. n counts the cases with a value; that of the
        foreground is the smallest of its classes'. A class without any value is left out of the foreground's mean.
    """
    metrics = [name for name in frame.columns if name not in ("case", "label")]
    labels = list(frame["label"].unique())
    groups = {label: [label] for label in labels}
    if len(labels) > 1:
        groups[FOREGROUND] = labels
    rows = []
    # delay: a bar for thousands of cases, none for a few.
    for group, metric in tqdm(list(product(groups, metrics)), desc="bootstrap", delay=2, leave=False):
        names = labels_of(metric, labels)
        members = [name for name in groups[group] if name in names]
        if not members or (group == FOREGROUND and len(members) == 1):
            continue
        table = frame.pivot(index="case", columns="label", values=metric)[members]
        of_case = table.mean(axis=1)
        low, high = _interval(table)
        rows.append(
            {
                "label": group,
                "metric": metric,
                "mean": table.mean().mean(),
                "std": of_case.std(),
                "low": low,
                "high": high,
                "n": table.count().min(),
            }
        )
    return pd.DataFrame(rows)


def format_summary(summary: pd.DataFrame) -> str:
    """The summary as a table to read: one block per class."""
    is_first = ~summary["label"].duplicated()
    cells = [["class", "metric", "mean", "std", "95 % interval", "n"]]
    for row, first in zip(summary.itertuples(), is_first, strict=True):
        interval = f"{_number(row.low)} .. {_number(row.high)}"
        cells.append([row.label * first, row.metric, _number(row.mean), _number(row.std), interval, str(row.n)])
    header, *lines = aligned(cells, left=(0, 1))
    return header + "".join(
        f"\n\n{line}" if first else f"\n{line}" for line, first in zip(lines, is_first, strict=True)
    )


def _interval(table: pd.DataFrame) -> tuple[float, float]:
    """Bootstrap interval of the mean of the class means; ``table`` has a row per case and a column per class."""
    values = table.to_numpy()
    if values.shape[1] == 1 or not np.isnan(values).any():
        return bootstrap_interval(values.mean(axis=1))
    # A class is missing from some cases: the cases' means would weigh the classes otherwise than nnU-Net does.
    values = values[~np.isnan(values).all(axis=1)]
    if len(values) < 2:
        return np.nan, np.nan

    def mean_of_class_means(rows: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.nanmean(np.nanmean(values[rows], axis=-2), axis=-1)

    with warnings.catch_warnings():  # a class that no case of a resample holds is left out of its mean
        warnings.filterwarnings("ignore", message="Mean of empty slice", category=RuntimeWarning)
        # BCa is 0 / 0 where a class hardly varies
        return bootstrapped(np.arange(len(values)), mean_of_class_means, values.size, "percentile")


def _number(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else "-"
