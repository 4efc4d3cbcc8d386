"""From a study's rows to what is said about each arm: mean, difference to the reference, interval, p, and verdict."""

import warnings

import numpy as np
import pandas as pd

from driver.definition import Study
from nnunet_skd.tools.compare.comparison import LOWER_IS_BETTER
from nnunet_skd.tools.evaluate.statistics import CONFIDENCE, holm, wilcoxon_p

ALPHA = 0.05
RESAMPLES = 4999
PAIR = ["draw", "seed", "case", "label"]


def compare(rows: pd.DataFrame, study: Study, metric: str, mirroring: bool, noise: float) -> pd.DataFrame:
    """Every arm against the arms that it is compared with, on the trainings and cases that both have.

    A case's difference is the mean over the classes for which both arms have a value.

    Args:
        rows: of the study.
        study: names the arms; the first is the reference.
        metric: a column of the rows.
        mirroring: the way of predicting.
        noise: a smaller difference is called level; nan where it is not known.

    Returns:
        A row for each arm that has rows, with its difference to the reference, and a row "ARM minus OTHER" for each
        other arm that it is compared with: ``trainings``, ``mean`` (over trainings, and cases), ``compared`` (the
        trainings that stand behind the difference, of the arm that has fewer), ``difference`` with ``low`` and ``high``
        (95 % interval), ``p`` (Wilcoxon over the cases' means over trainings), ``p_holm`` over all rows, ``verdict``.
        What an arm is not compared with, or has no draw in common with, has nan.
    """
    rows = rows[rows["mirroring"] == mirroring]
    table = []
    for name, arm in study.arms.items():
        mine = values(rows, name, metric)
        if mine.empty:
            continue
        table.append({"arm": name, "trainings": trainings_of(rows, name), "mean": mean_of(mine)})
        # the reference first: the difference to it stands in the arm's own row
        for other in sorted(study.compared_with(name), key=lambda other: other != study.reference):
            theirs = values(rows, other, metric)
            by_seed = not (arm.ensemble or study.arms[other].ensemble)
            draws = differences(theirs, mine, by_seed=by_seed)
            if not draws:  # none in common yet
                continue
            if other != study.reference:
                table.append({"arm": f"{name} minus {other}"})
            pairs = [sum(map(len, draws))] if by_seed else []
            table[-1]["compared"] = min(trainings_of(rows, name), trainings_of(rows, other), *pairs)
            table[-1].setdefault("trainings", table[-1]["compared"])
            table[-1]["difference"] = float(np.mean([np.nanmean(draw.to_numpy()) for draw in draws]))
            table[-1]["low"], table[-1]["high"] = nested_bootstrap(draws)
            table[-1]["p"] = wilcoxon_p(pd.concat([draw.mean() for draw in draws], axis=1).mean(axis=1))
    columns = ["arm", "trainings", "mean", "compared", "difference", "low", "high", "p"]
    table = pd.DataFrame(table, columns=columns).set_index("arm")
    table["p_holm"] = holm(table["p"])
    higher = metric not in LOWER_IS_BETTER
    table["verdict"] = [verdict(row, noise, higher) for row in table.itertuples()]
    return table


def values(rows: pd.DataFrame, arm: str, metric: str) -> pd.Series:
    """One number per draw, seed, case and class of an arm."""
    return rows[rows["arm"] == arm].set_index(PAIR)[metric].astype(float)


def trainings_of(rows: pd.DataFrame, arm: str) -> int:
    """How often an arm was trained: draws that share a training, as with all labels, count it once."""
    return rows[rows["arm"] == arm]["recipe"].nunique()


def mean_of(numbers: pd.Series) -> float:
    """Mean over classes, then cases, then trainings."""
    by_case = numbers.groupby(["draw", "seed", "case"]).mean()
    return float(by_case.groupby(["draw", "seed"]).mean().mean())


def differences(reference: pd.Series, arm: pd.Series, *, by_seed: bool = True) -> list[pd.DataFrame]:
    """Arm minus reference: for each draw that both have, a frame (seeds, cases).

    Args:
        reference: from :func:`values`.
        arm: the same.
        by_seed: trainings of equal seed are paired, and those whose seed the other arm has not are left out. Without a
            seed in common, or where one of both is an ensemble of several seeds, the means over the seeds are paired.
    """
    common = set(arm.index.unique("seed")) & set(reference.index.unique("seed"))
    if not (by_seed and common):
        reference, arm = (
            pd.concat({0: numbers.groupby(["draw", "case", "label"]).mean()}, names=["seed"]).reorder_levels(PAIR)
            for numbers in (reference, arm)
        )
    both = (arm - reference).round(12).groupby(["draw", "seed", "case"]).mean()  # of what only one has: nan
    both = both.unstack("case").dropna(how="all")
    return [both.loc[[draw]].droplevel("draw").dropna(axis=1, how="all") for draw in both.index.unique("draw")]


def nested_bootstrap(draws: list[pd.DataFrame]) -> tuple[float, float]:
    """Percentile interval of the mean: other draws, in each other seeds, and other cases.

    Draws are taken with replacement, and from each of them seeds. Where every draw has the same cases, one choice of
    cases serves the whole resample, as cases are crossed with trainings: a hard case is hard for each of them. Where
    the cases are a draw's own (folds), they are chosen within it. With two or three draws or seeds every bootstrap
    interval is too narrow; it is wider than one over cases alone.

    Args:
        draws: a frame (seeds, cases) per draw; nan is left out.

    Returns:
        (low, high) of 95 %.
    """
    rng = np.random.default_rng(0)
    same_cases = all(set(draw.columns) == set(draws[0].columns) for draw in draws)
    arrays = [draw[sorted(draw.columns)].to_numpy() for draw in draws]
    cases = rng.integers(arrays[0].shape[1], size=(RESAMPLES, arrays[0].shape[1]))
    chosen = rng.integers(len(arrays), size=(RESAMPLES, len(arrays)))
    means = np.empty(chosen.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a resample of nan alone
        for draw, array in enumerate(arrays):
            resample, place = np.nonzero(chosen == draw)
            seeds = rng.integers(array.shape[0], size=(len(resample), array.shape[0]))
            own = cases[resample] if same_cases else rng.integers(array.shape[1], size=(len(resample), array.shape[1]))
            means[resample, place] = np.nanmean(array[seeds[:, :, None], own[:, None, :]], axis=(1, 2))
        means = np.nanmean(means, axis=1)
    low, high = np.nanquantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def each_training(rows: pd.DataFrame, arm: str, metric: str, mirroring: bool) -> pd.DataFrame:
    """Mean of each training of an arm over classes and cases: a frame (draws, seeds)."""
    numbers = values(rows[rows["mirroring"] == mirroring], arm, metric)
    return numbers.groupby(["draw", "seed", "case"]).mean().groupby(["draw", "seed"]).mean().unstack("seed")


def noise_floor(rows: pd.DataFrame, arm: str, metric: str, mirroring: bool) -> float:
    """Standard deviation of single trainings of an arm over its seeds, pooled over draws; nan with one seed."""
    variances = each_training(rows, arm, metric, mirroring).var(axis=1, ddof=1)
    return float(np.sqrt(variances.mean()))


def verdict(row: tuple, noise: float, higher_is_better: bool) -> str:
    """``level`` under the noise floor; ``better`` or ``worse`` where interval and corrected p agree; else not shown.

    One training of an arm proves nothing, whatever its cases say.
    """
    if np.isnan(row.difference):
        return ""
    if row.compared < 2:
        return "one training"
    if np.isnan(noise):
        return "noise unknown"
    if abs(row.difference) < noise:
        return "level"
    if not (row.p_holm < ALPHA and (row.low > 0 or row.high < 0)):
        return "not shown"
    return "better" if (row.difference > 0) == higher_is_better else "worse"
