"""From one number per case, class and arm to the table that answers "did it help?"."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from nnunet_skd.tools.evaluate.calibration import labels_of
from nnunet_skd.tools.evaluate.statistics import (
    RESAMPLES,
    bootstrap_interval,
    holm,
    sign_flip_p,
    smallest_p,
    wilcoxon_p,
)

ALPHA = 0.05
MEAN = "mean"
TOO_FEW, TOO_FEW_DIFFER = "too few cases", "too few cases differ"
PAIRS_ALONE = " where both have a value"
TESTS = {"wilcoxon": wilcoxon_p, "permutation": sign_flip_p}


def paired_values(cases: pd.DataFrame, metric: str, reference: str, arm: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The two arms' values of one metric, case by case.

    ``mean`` is the case's mean over the classes for which both arms have a value, so that it compares the same classes.
    A case that several folds validated counts once, with the mean of its values.

    Args:
        cases: one row per ``arm``, ``fold``, ``case`` and ``label``, with a column per metric; nan where not defined.
        metric: a column of ``cases``.
        reference, arm: two values of ``cases.arm``.

    Returns:
        Two frames (cases, labels) with the same rows and columns, labels in the order of ``cases``; with several
        classes ``mean`` is the first column.
    """
    labels = labels_of(metric, list(cases["label"].unique()))
    first, second = (
        cases[cases["arm"] == name]
        .groupby(["case", "label"])[metric]
        .mean()
        .unstack("label")
        .reindex(columns=labels)
        .sort_index()
        for name in (reference, arm)
    )
    if len(labels) > 1:
        both = first.notna() & second.notna()
        first, second = (
            pd.concat([frame.where(both).mean(axis=1).rename(MEAN), frame], axis=1) for frame in (first, second)
        )
    return first, second


def paired_table(cases: pd.DataFrame, higher_is_better: dict[str, bool], *, test: str = "wilcoxon") -> pd.DataFrame:
    """Compare every arm with the first one, per metric and class and for the mean over the classes.

    Args:
        cases: one row per ``arm``, ``fold``, ``case`` and ``label``, with a column per metric; nan where not defined.
            All arms hold the same cases; the arm of the first row is the reference.
        higher_is_better: the metrics to compare, and their direction.
        test: ``wilcoxon`` or ``permutation`` (sign flips of the mean).

    Returns:
        One row per metric, arm and class: ``cases`` (pairs compared), ``only_reference`` and ``only_arm`` (cases left
        out because the other arm has no value; of the mean over the classes: those that lack a class for this reason),
        the two means, ``difference`` (arm - reference) with ``low`` and ``high`` (95 % bootstrap), how many cases got
        ``better``, ``worse`` or stayed the ``same``, ``p``, ``p_holm`` over all rows, and a ``verdict``.
    """
    reference, *arms = cases["arm"].unique()
    rows = []
    p_value, tests = TESTS[test], len(higher_is_better) * len(arms) * (cases["label"].nunique() + 1)
    if p_value is sign_flip_p:  # the fewer random patterns, the larger the smallest p, which Holm multiplies
        p_value = partial(sign_flip_p, resamples=max(RESAMPLES, round(3 * tests / ALPHA)))
    for metric, arm in tqdm(list(product(higher_is_better, arms)), desc="statistics", delay=2):
        first, second = paired_values(cases, metric, reference, arm)
        for label in tqdm(first.columns, desc=f"{metric} of {arm}", delay=2, leave=False):
            rows.append(
                {"metric": metric, "label": label, "arm": arm, "reference": reference}
                | _compare(first[label], second[label], higher_is_better[metric], p_value)
                | _left_out(first, second, label)
            )
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p"])
    differing = table["better"] + table["worse"]
    few, few_differ = _hopeless(table, table["cases"]), _hopeless(table, differing) & (differing > 0)
    table["verdict"] = [
        TOO_FEW if few[i] else TOO_FEW_DIFFER if few_differ[i] else _verdict(row, higher_is_better[row.metric])
        for i, row in enumerate(table.itertuples())
    ]
    return table


def _hopeless(table: pd.DataFrame, counts: pd.Series) -> pd.Series:
    """Which rows cannot reach a verdict with so many differences, whatever these are."""
    # Holm multiplies the smallest p by the number of tests, so not even it can pass if this is above alpha.
    none_can = smallest_p(counts.max()) * table["p"].notna().sum() > ALPHA
    return counts.map(lambda count: none_can or smallest_p(count) > ALPHA)


def _compare(first: pd.Series, second: pd.Series, higher: bool, p_value: Callable) -> dict:
    both = first.notna() & second.notna()
    # Rounded: the same change must not count as two different ones, nor as better, for its last bit.
    differences = np.round((second - first)[both].to_numpy(), 12)
    low, high = bootstrap_interval(differences)
    gains = differences if higher else -differences
    return {
        "cases": int(both.sum()),
        "reference_mean": first[both].mean(),
        "arm_mean": second[both].mean(),
        "difference": differences.mean() if len(differences) else np.nan,
        "low": low,
        "high": high,
        "better": int((gains > 0).sum()),
        "worse": int((gains < 0).sum()),
        "same": int((gains == 0).sum()),
        "p": p_value(differences),
    }


def _left_out(first: pd.DataFrame, second: pd.DataFrame, label: str) -> dict[str, int]:
    """The cases in which one arm alone has a value of this class, or of any class where the label is their mean."""
    of = [name for name in first.columns if name != MEAN] if label == MEAN else [label]
    has_first, has_second = first[of].notna(), second[of].notna()
    return {
        "only_reference": int((has_first & ~has_second).any(axis=1).sum()),
        "only_arm": int((has_second & ~has_first).any(axis=1).sum()),
    }


def _verdict(row: NamedTuple, higher: bool) -> str:
    if not row.p_holm < ALPHA:
        return "no difference shown"
    low, high = (row.low, row.high) if higher else (-row.high, -row.low)
    where = PAIRS_ALONE if row.only_reference + row.only_arm else ""
    if low > 0:
        return f"better{where}"
    if high < 0:
        return f"worse{where}"
    return "shifted, mean unclear"
