"""Quartiles, a bootstrap interval, two paired tests and Holm's correction."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

CONFIDENCE = 0.95  # the share of such intervals that would hold the true mean
RESAMPLES = 9999
# What one batch of resamples may hold (8 bytes each), so that memory stays bounded over thousands of cases.
NUMBERS_AT_ONCE = 2_000_000


def quartiles(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    q1, middle, q3 = np.percentile(values, [25, 50, 75])
    return {"median": float(middle), "q1": float(q1), "q3": float(q3)}


def bootstrap_interval(values: ArrayLike) -> tuple[float, float]:
    """Bootstrap interval of the mean, 95 %: what it could have been with other cases of the same kind.

    Bias-corrected and accelerated (BCa; Efron 1987, "Better bootstrap confidence intervals"), which follows the skewed
    values of overlap and distance metrics better than plain percentiles. With few cases every bootstrap interval is too
    narrow: in simulations the nominal 95 % were 87 % with 6, 91 % with 10 and 94 % with 20 normal values, and 83 %,
    86 % and 90 % with skewed ones (gamma, shape 1.5).

    Args:
        values: (cases,) one number per case; nan (the metric is not defined there) is left out.

    Returns:
        (lower, upper); (v, v) when all values equal v; (nan, nan) with fewer than two values or an infinite one.
    """
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    if values.size < 2 or np.isinf(values).any():
        return float("nan"), float("nan")
    if np.allclose(values, values[0], rtol=1e-12, atol=1e-15):  # scipy divides by a spread that is only rounding
        return float(values[0]), float(values[0])
    return bootstrapped(values, np.mean, values.size, "BCa")


def bootstrapped(sample: np.ndarray, statistic: Callable, numbers: int, method: str) -> tuple[float, float]:
    """scipy's bootstrap interval of a statistic, 95 %, the same in each call.

    Args:
        sample: (cases,).
        statistic: of a resample, along its ``axis``.
        numbers: that a resample holds.
        method: scipy's name of it.
    """
    interval = stats.bootstrap(
        (sample,),
        statistic,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        batch=resamples_at_once(numbers),
        method=method,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def wilcoxon_p(differences: ArrayLike) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test: are the differences symmetric about zero?

    Zero differences are dropped, as Wilcoxon did. Exact up to 50 differences without ties; scipy's choice beyond.

    Args:
        differences: (cases,) paired differences; nan is left out.

    Returns:
        p; 1.0 when every difference is zero; nan without any difference or with an infinite one.
    """
    differences = _finite_differences(differences)
    if differences.size == 0:
        return float("nan")
    differences = differences[differences != 0]
    if differences.size == 0:
        return 1.0
    return float(stats.wilcoxon(differences).pvalue)


def sign_flip_p(differences: ArrayLike, *, resamples: int = RESAMPLES) -> float:
    """Two-sided p-value of the sign-flip permutation test of the mean difference.

    If nothing had changed, every difference could as well have had the other sign. p is the share of sign patterns
    whose mean lies at least as far from zero as the observed one: all patterns when there are at most ``resamples`` of
    them (of 13 differences there are 8192), otherwise a random choice of that many, so that p is at least
    2 / (resamples + 1).

    Args:
        differences: (cases,) paired differences; nan is left out.
        resamples: random sign patterns, the same ones in each call.

    Returns:
        p; 1.0 when every difference is zero; nan without any difference or with an infinite one.
    """
    differences = _finite_differences(differences)
    if differences.size == 0:
        return float("nan")
    # A zero has no sign to flip: dropping it leaves p as it is and makes the exact test possible more often.
    differences = differences[differences != 0]
    if differences.size < 2:  # one difference: both of its signs are equally far from zero
        return 1.0
    return float(
        stats.permutation_test(
            (differences,),
            np.sum,
            permutation_type="samples",
            n_resamples=resamples,
            batch=resamples_at_once(differences.size),
            vectorized=True,
            rng=np.random.default_rng(0),
        ).pvalue
    )


def holm(p_values: ArrayLike) -> np.ndarray:
    """Holm's step-down correction: the chance of even one false claim among all these tests stays below alpha.

    With the m p-values in ascending order, ``adjusted_j = min(1, max over i <= j of (m - i + 1) * p_i)`` (Holm 1979, "A
    simple sequentially rejective multiple test procedure"). It needs no independence of the tests.

    Args:
        p_values: (tests,); nan (a test that could not be done) stays nan and does not count.

    Returns:
        (tests,) adjusted p-values in the order given.
    """
    p_values = np.asarray(p_values, dtype=float)
    adjusted = np.full_like(p_values, np.nan)
    order = [i for i in np.argsort(p_values, kind="stable") if not np.isnan(p_values[i])]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * p_values[order]))
    return adjusted


def smallest_p(informative: int) -> float:
    """The smallest two-sided p that either test can reach with so many differences other than zero: 2 / 2**n.

    It needs every difference to have the same sign. Five cases end at 0.0625, six at 0.031.
    """
    return min(1.0, 2.0 ** (1 - informative))


def _finite_differences(differences: ArrayLike) -> np.ndarray:
    differences = np.asarray(differences, dtype=float)
    differences = differences[~np.isnan(differences)]
    if np.isinf(differences).any():
        return np.empty(0)
    # 0.8 - 0.7 and 0.6 - 0.5 are the same change; without rounding they would not be a tie.
    return np.round(differences, 12)


def resamples_at_once(size: int) -> int:
    """How many resamples of so many numbers one batch may hold."""
    return max(1, NUMBERS_AT_ONCE // size)
