"""One temperature for all logits of a network: ``softmax(logits / T)``, or ``sigmoid(logits / T)`` of regions.

Temperature scaling (Guo et al., ICML 2017, section 4.2): T minimises the negative log-likelihood of cases that the
network was not trained on. The most probable class of a voxel stays the same. That each case counts alike, and the draw
of voxels, are ours. Voxels that nnU-Net has cropped away, where it writes probabilities of 0 and 1 itself, do not count
in the fit, as no temperature changes them; in the scores they do.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax

from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.evaluate.calibration import BINS, error_of_bins, reliability_bins
from nnunet_skd.tools.evaluate.case import Case, probabilities_of, read_pair

LOWEST, HIGHEST = 0.1, 10.0  # of T; 0.8 to 3 are usual
VOXELS_OF_ALL = 1_000_000  # of all cases together: the fit holds them in memory
VOXELS = 10_000  # drawn from a case's clear voxels, and as many from its unclear ones: T of four CTs was right to 0.001
CLEAR = 0.99  # probability of the true class
BLOCK = 2**18  # voxels whose scaled probabilities are in memory at a time


@dataclass(frozen=True)
class Sample:
    """Voxels of one case, or of one of its regions, that stand for all of them.

    ``log_probabilities`` (classes, n), ``truth`` (n,) indices of classes, ``weights`` (n,) whose sum over the samples
    of a case is at most 1.
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
        probabilities: (classes, ...), which sum to 1; 0 is taken for the smallest number above it.
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
    if temperature < 1.01 * LOWEST:
        raise BadInput(
            "no temperature fits: the predictions are hardly ever wrong in these cases, or in some of them. Name more"
        )
    if temperature > HIGHEST / 1.01:
        raise BadInput(
            "no temperature fits: these probabilities say nothing about these references. Are they of the same cases, "
            "and has dataset.json the labels that the model was trained with?"
        )
    return temperature


def sample_case(case: Case, cases: int) -> list[Sample]:
    """The voxels of a case that the fit uses, in one sample, with regions in one per region.

    Args:
        case: with its probabilities.
        cases: how many there are. Of very many, fewer voxels are drawn from each.

    Raises:
        BadInput: unreadable files, files that do not fit each other or dataset.json, or half precision.
    """
    probabilities, known = _known_voxels(case)
    if not known.size:
        return []
    zeros = (probabilities == 0).sum(0)
    of_the_network = zeros < len(probabilities) - (not case.regions)
    share = 1 / known.size / _heads(case)
    rng = np.random.default_rng(0)
    decisions = _decisions(case, probabilities[:, of_the_network], known[of_the_network])
    most = min(VOXELS, VOXELS_OF_ALL // cases + 1)
    return [_drawn(p, truth, share, most, rng) for p, truth in decisions]


def calibration_at(case: Case, temperatures: tuple[float, ...]) -> list[Calibration]:
    """How well calibrated a case is at each of these temperatures, over all its voxels.

    Raises:
        BadInput: as :func:`sample_case`.
    """
    probabilities, known = _known_voxels(case)
    return [_calibration(case, probabilities, known, temperature) for temperature in temperatures]


def _calibration(case: Case, probabilities: np.ndarray, known: np.ndarray, temperature: float) -> Calibration:
    bins, squared = np.zeros((_heads(case), 3, BINS)), np.zeros(_heads(case))
    for start in range(0, known.size, BLOCK):
        block = slice(start, start + BLOCK)
        for head, (p, truth) in enumerate(_decisions(case, probabilities[:, block], known[block])):
            p = p if temperature == 1 else scaled(p, temperature)
            bins[head] += reliability_bins(p.max(0), p.argmax(0) == truth)
            squared[head] += ((p - (np.arange(len(p))[:, None] == truth)) ** 2).sum(dtype=float)
    brier = squared / known.size / (2 if case.regions else 1)  # a region's is that of its yes alone
    ece = np.mean([error_of_bins(of_head) for of_head in bins])
    return Calibration({"ECE": float(ece), "Brier": float(brier.mean())}, bins.sum(0))


def _known_voxels(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """nnU-Net's probabilities (classes with background, or regions; n) and labels (n,) where the truth is known."""
    reference, prediction, _ = read_pair(case)
    probabilities = probabilities_of(case, prediction)
    if probabilities.dtype == np.float16:
        raise BadInput(
            f"{case.probabilities} holds half precision, in which small probabilities are lost and a temperature would "
            "be wrong. Predict this case again: nnU-Net writes single precision"
        )
    if case.ignore is None:
        return probabilities.reshape(len(probabilities), -1), reference.ravel()
    valid = reference != case.ignore
    return probabilities[:, valid], reference[valid]


def _heads(case: Case) -> int:
    return len(case.classes) if case.regions else 1


def _decisions(case: Case, probabilities: np.ndarray, known: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What a network decides in each voxel: among the classes, or for each region between no and yes.

    Yields:
        Probabilities (classes, n) that sum to 1, and the index of the true one (n,).
    """
    if not case.regions:
        yield probabilities, known.astype(int)
        return
    nearly_1 = 1 - np.finfo(probabilities.dtype).eps  # 1 - p is 0 above it, and its logarithm would be too large
    for of_region, values in zip(probabilities, case.classes.values(), strict=True):
        yes = np.minimum(of_region, nearly_1)
        yield np.stack([1 - yes, yes]), np.isin(known, values).astype(int)


def _drawn(probabilities: np.ndarray, truth: np.ndarray, share: float, most: int, rng: np.random.Generator) -> Sample:
    """At most so many of the unclear and of the clear voxels; each stands for those that were left out, too.

    ``share`` is the weight of one voxel.
    """
    clear = np.take_along_axis(probabilities, truth[None], 0)[0] >= CLEAR
    chosen, weights = [], []
    for stratum in (np.flatnonzero(~clear), np.flatnonzero(clear)):
        drawn = stratum if len(stratum) <= most else rng.choice(stratum, most, replace=False)
        chosen.append(drawn)
        weights.append(np.full(len(drawn), share * len(stratum) / max(len(drawn), 1)))
    index = np.concatenate(chosen)
    return Sample(_log(probabilities[:, index]), truth[index], np.concatenate(weights))


def _negative_log_likelihood(sample: Sample, temperature: float) -> float:
    logits = sample.log_probabilities / np.float32(temperature)
    of_truth = np.take_along_axis(logits, sample.truth[None], 0)[0]
    return float(sample.weights @ (logsumexp(logits, axis=0) - of_truth))


def _log(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities.astype(np.float32, copy=False), np.finfo(np.float32).tiny))
