"""How far a network's probabilities can be trusted: expected calibration error and Brier score of one case.

The probabilities are those that nnU-Net writes with --save_probabilities (nnUNetv2_predict) or --npz (nnUNetv2_train).
"""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnunet_skd.tools.errors import BadInput

CALIBRATION = ("ECE", "Brier")
BINS = 15
ALL_CLASSES = "all classes"
KEY = "probabilities"


def softmax_calibration(
    probabilities: np.ndarray, reference: np.ndarray, valid: np.ndarray | None = None
) -> dict[str, float]:
    """ECE and Brier score of probabilities that sum to 1 over the classes, background among them.

    Args:
        probabilities: (C, spatial), channel c for label c.
        reference: (spatial) integer labels.
        valid: (spatial) bool, False where nobody knows the truth; nan if it is False everywhere.

    Returns:
        ``ECE`` of the most probable class and its probability, see :func:`expected_calibration_error`. ``Brier = mean
        over the voxels of sum_c (p_c - [reference = c])^2`` (Brier, Monthly Weather Review 78, 1950), from 0 to 2.
    """
    valid = slice(None) if valid is None else valid.ravel()
    p = probabilities.reshape(len(probabilities), -1)[:, valid]
    truth = reference.ravel()[valid].astype(int)
    # class by class: the probabilities of many classes fill the memory, and more so in double precision
    brier = sum(((of_class.astype(float) - (truth == label)) ** 2).sum() for label, of_class in enumerate(p))
    return {
        "ECE": expected_calibration_error(p.max(0).astype(float), p.argmax(0) == truth),
        "Brier": float(brier / truth.size) if truth.size else np.nan,
    }


def region_calibration(
    probability: np.ndarray, reference: np.ndarray, valid: np.ndarray | None = None
) -> dict[str, float]:
    """ECE and Brier score of one region, which the network tells from the rest by a sigmoid.

    Args:
        probability: (spatial) of the region.
        reference: (spatial) bool.
        valid: (spatial) bool, False where nobody knows the truth; nan if it is False everywhere.

    Returns:
        ``ECE``, in which a voxel's confidence is ``max(p, 1 - p)`` and a voxel is correct where ``p > 0.5`` agrees with
        the reference; ``Brier = mean of (p - reference)^2``, from 0 to 1.
    """
    valid = slice(None) if valid is None else valid.ravel()
    p, truth = probability.ravel()[valid].astype(float), reference.ravel()[valid]
    return {
        "ECE": expected_calibration_error(np.maximum(p, 1 - p), (p > 0.5) == truth),
        "Brier": float(((p - truth) ** 2).mean()) if p.size else np.nan,
    }


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """The mean distance of confidence and accuracy, over bins of equal width (Guo et al., ICML 2017, equation 3).

    ``ECE = sum_m |B_m| / n * |accuracy(B_m) - confidence(B_m)|``, where bin m holds the voxels whose confidence lies in
    ``((m - 1) / bins, m / bins]``.

    Args:
        confidence: (n,) probability of what was predicted, 0 to 1.
        correct: (n,) bool, whether the prediction is right.
        bins: their number.

    Returns:
        0 (what is said with 80 % holds in 80 % of the voxels) to 1; nan without voxels.
    """
    if not confidence.size:
        return np.nan
    return error_of_bins(reliability_bins(confidence, correct, bins))


def error_of_bins(bins: np.ndarray) -> float:
    """The expected calibration error of :func:`reliability_bins`, (3, bins), of one case or of several blocks of it."""
    voxels, right, sure = bins
    # |B| cancels: the difference of a bin's sums is |B| times the difference of its means
    return float(np.abs(right - sure).sum() / voxels.sum())


def reliability_bins(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> np.ndarray:
    """What an expected calibration error and a reliability diagram are made of; sums over cases are those of all cases.

    Args:
        confidence: (n,) probability of what was predicted, 0 to 1.
        correct: (n,) bool, whether the prediction is right.
        bins: their number.

    Returns:
        (3, bins): the voxels whose confidence lies in ``((m - 1) / bins, m / bins]``, how many of them are right, and
        the sum of their confidence.
    """
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return np.stack([np.bincount(index, weights, bins) for weights in (np.ones(len(index)), correct, confidence)])


def labels_of(metric: str, labels: Sequence[str]) -> list[str]:
    """The rows of a table of cases that hold a metric.

    The calibration of a softmax has one row for all classes at once; all other metrics have one per class or region.
    """
    if ALL_CLASSES not in labels:
        return list(labels)
    return [label for label in labels if (label == ALL_CLASSES) == (metric in CALIBRATION)]


def probabilities_file(prediction: Path, file_ending: str) -> Path:
    """The file with a prediction's probabilities."""
    return prediction.with_name(prediction.name.removesuffix(file_ending) + ".npz")


def read_probabilities(path: Path, channels: int, shape: tuple[int, ...]) -> np.ndarray:
    """nnU-Net's probabilities, in the axis order of its reader.

    Args:
        path: CASE.npz.
        channels: classes with background, or regions.
        shape: (spatial) of the segmentation without an axis of a single slice.

    Returns:
        (channels, spatial).

    Raises:
        BadInput: unreadable, or not the probabilities of this case.
    """
    again = "Predict this case again with --save_probabilities"
    try:
        with np.load(path) as content:
            probabilities = content[KEY]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BadInput(f"cannot read the probabilities in {path} ({error}). {again}") from error
    found = probabilities.shape
    if 1 in found[1:]:
        probabilities = probabilities.squeeze(1 + found[1:].index(1))
    if probabilities.shape != (channels, *shape):
        raise BadInput(
            f"{path} holds probabilities of the shape {found}, but dataset.json and the segmentation beside it ask for "
            f"{(channels, *shape)}. {again}"
        )
    fractions = np.issubdtype(probabilities.dtype, np.floating)
    if not (fractions and probabilities.min() >= 0 and probabilities.max() <= 1 + 1e-3):  # half precision rounds
        raise BadInput(
            f"{path} holds numbers that are not probabilities (no fractions, below 0, above 1 or nan). {again}"
        )
    return probabilities
