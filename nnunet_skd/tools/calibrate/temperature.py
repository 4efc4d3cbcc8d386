"""One temperature for all logits of a network: ``softmax(logits / T)``, or ``sigmoid(logits / T)`` of regions.

Temperature scaling (Guo et al., ICML 2017, section 4.2): T minimises the negative log-likelihood of cases that the
network was not trained on. The most probable class of a voxel stays the same. The weights of cases, and the draw of
voxels where there are many, are ours.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax

from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.evaluate.calibration import (
    BINS,
    CALIBRATION,
    region_calibration,
    reliability_bins,
    softmax_calibration,
)
from nnunet_skd.tools.evaluate.case import Case, probabilities_of, read_pair

LOWEST, HIGHEST = 0.1, 10.0  # of T; trained networks have 0.8 to 3
VOXELS = 100_000  # drawn from a case's clear voxels, and as many from its unclear ones
CLEAR = 0.99  # probability of the true class


@dataclass(frozen=True)
class Sample:
    """Voxels of one case, or of one of its regions, that stand for all of them.

    ``log_probabilities`` (classes, n), ``truth`` (n,) indices of classes, ``weights`` (n,) whose sum over the samples
    of a case is 1.
    """

    log_probabilities: np.ndarray
    truth: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class Calibration:
    """One case at one temperature: ``scores`` are ECE and Brier score, with regions their means over the regions."""

    scores: dict[str, float]
    bins: np.ndarray  # see reliability_bins


def scaled(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """``softmax(log p / T)``, which is ``softmax(logits / T)`` for ``p = softmax(logits)``.

    Args:
        probabilities: (classes, ...), which sum to 1; what was rounded to 0 is taken for the smallest number above 0.
        temperature: above 0.
    """
    return softmax(_log(probabilities) / np.float32(temperature), axis=0)


def fit_temperature(samples: list[Sample]) -> float:
    """The T of the smallest negative log-likelihood, in the mean over the cases.

    Raises:
        BadInput: it lies outside ``LOWEST`` to ``HIGHEST``.
    """

    def loss(log_temperature: float) -> float:
        return sum(_negative_log_likelihood(sample, np.exp(log_temperature)) for sample in samples)

    found = minimize_scalar(loss, bounds=np.log([LOWEST, HIGHEST]), method="bounded")
    temperature = float(np.exp(found.x))
    if not 1.01 * LOWEST < temperature < HIGHEST / 1.01:
        raise BadInput(
            f"no temperature from {LOWEST:g} to {HIGHEST:g} fits best: these probabilities say nothing about these "
            "references. Are they of the same cases, and has dataset.json the labels that the model was trained with?"
        )
    return temperature


def sample_case(case: Case) -> list[Sample]:
    """The voxels of a case that the fit uses, in one sample, with regions in one per region.

    Raises:
        BadInput: unreadable files, or files that do not fit each other or dataset.json.
    """
    rng = np.random.default_rng(0)
    decisions = list(_decisions(case))
    return [_drawn(p, truth, len(decisions), rng) for p, truth in decisions if truth.size]


def calibration_at(case: Case, temperatures: tuple[float, ...]) -> list[Calibration]:
    """How well calibrated a case is at each of these temperatures, over all its voxels.

    Raises:
        BadInput: as :func:`sample_case`.
    """
    decisions = list(_decisions(case))
    return [_calibration(decisions, temperature, case.regions) for temperature in temperatures]


def _calibration(decisions: list[tuple[np.ndarray, np.ndarray]], temperature: float, regions: bool) -> Calibration:
    scores, bins = [], np.zeros((3, BINS))
    for probabilities, truth in decisions:
        p = scaled(probabilities, temperature)
        scores.append(region_calibration(p[1], truth == 1) if regions else softmax_calibration(p, truth))
        bins += reliability_bins(p.max(0), p.argmax(0) == truth)
    return Calibration({name: float(np.mean([score[name] for score in scores])) for name in CALIBRATION}, bins)


def _decisions(case: Case) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What a network decides in each voxel whose truth is known, among classes, or for each region between no and yes.

    Yields:
        Probabilities (classes, n) that sum to 1, and the index of the true one (n,).
    """
    reference, _, _ = read_pair(case)
    probabilities = probabilities_of(case, reference.shape)
    valid = np.ones(reference.shape, bool) if case.ignore is None else reference != case.ignore
    known, p = reference[valid], probabilities[:, valid]
    if not case.regions:
        yield p, known.astype(int)
        return
    rounded = np.finfo(p.dtype).eps  # 1 - p is 0 where p is nearly 1, and its logarithm would be too large
    for of_region, values in zip(np.clip(p, rounded, 1 - rounded), case.classes.values(), strict=True):
        yield np.stack([1 - of_region, of_region]), np.isin(known, values).astype(int)


def _drawn(probabilities: np.ndarray, truth: np.ndarray, parts: int, rng: np.random.Generator) -> Sample:
    """At most ``VOXELS`` of the unclear and of the clear voxels, which are most; each stands for as many as were left
    out."""
    clear = np.take_along_axis(probabilities, truth[None], 0)[0] >= CLEAR
    chosen, weights = [], []
    for stratum in (np.flatnonzero(~clear), np.flatnonzero(clear)):
        drawn = stratum if len(stratum) <= VOXELS else rng.choice(stratum, VOXELS, replace=False)
        chosen.append(drawn)
        weights.append(np.full(len(drawn), len(stratum) / max(len(drawn), 1) / truth.size / parts))
    index = np.concatenate(chosen)
    return Sample(_log(probabilities[:, index]), truth[index], np.concatenate(weights))


def _negative_log_likelihood(sample: Sample, temperature: float) -> float:
    logits = sample.log_probabilities / temperature
    of_truth = np.take_along_axis(logits, sample.truth[None], 0)[0]
    return float(sample.weights @ (logsumexp(logits, axis=0) - of_truth))


def _log(probabilities: np.ndarray) -> np.ndarray:
    half = probabilities.dtype == np.float16
    smallest = np.finfo(np.float16).smallest_subnormal if half else np.finfo(np.float32).tiny
    return np.log(np.maximum(probabilities.astype(np.float32), np.float32(smallest)))
