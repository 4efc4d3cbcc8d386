"""Evaluate one case: read its two files, check that they fit, and compute the metrics of each class."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunet_skd.messages import listed
from nnunet_skd.tools.cases import spacing_file
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.evaluate.calibration import (
    ALL_CLASSES,
    CALIBRATION,
    read_probabilities,
    region_calibration,
    softmax_calibration,
)
from nnunet_skd.tools.evaluate.metrics import mask_metrics
from nnunet_skd.tools.images import read_segmentation, same_place

# Headers round the spacing to float32 and sometimes to three digits.
_SPACING_RTOL = 1e-3
# nnU-Net makes both files of the same numbers; whoever stores probabilities in half precision changes single voxels.
_DISAGREEMENT = 0.01


@dataclass(frozen=True)
class Case:
    """What a worker process needs to know.

    ``classes`` maps each name to the label values that belong to it, in nnU-Net's order; ``regions`` says whether they
    may overlap; ``probabilities`` is needed for the calibration only.
    """

    name: str
    reference: Path
    prediction: Path
    reader: type[BaseReaderWriter]
    classes: dict[str, tuple[int, ...]]
    ignore: int | None
    regions: bool = False
    probabilities: Path | None = None


def evaluate_case(case: Case, tolerance: float, metrics: Sequence[str]) -> list[dict]:
    """One dict per class: ``case``, ``label`` and the metrics; one more for the calibration of a softmax.

    Raises:
        BadInput: unreadable files, shapes or spacings that differ, a label that is not in dataset.json.
    """
    reference, prediction, spacing = read_pair(case)
    valid = None if case.ignore is None else reference != case.ignore
    calibration = _calibration(case, reference, prediction, valid) if set(metrics) & set(CALIBRATION) else {}
    rows = []
    for name, values in case.classes.items():
        masks = np.isin(reference, values), np.isin(prediction, values)
        scores = mask_metrics(*masks, spacing, valid=valid, tolerance=tolerance, metrics=metrics)
        scores |= calibration.pop(name, {})
        if scores:
            rows.append({"case": case.name, "label": name, **scores})
    return rows + [{"case": case.name, "label": name, **scores} for name, scores in calibration.items()]


def read_pair(case: Case) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Reference and prediction (spatial), which fit each other, and their spacing.

    Raises:
        BadInput: unreadable files, shapes or spacings that differ, a label that is not in dataset.json.
    """
    reference, spacing, geometry = _read(case.reference, case.reader)
    prediction, prediction_spacing, prediction_geometry = _read(case.prediction, case.reader)
    if reference.shape != prediction.shape:
        raise BadInput(
            f"{case.prediction} has the shape {prediction.shape}, but its reference {case.reference} has "
            f"{reference.shape}. Predictions must be in the geometry of the original images"
        )
    if not np.allclose(spacing, prediction_spacing, rtol=_SPACING_RTOL):
        ending, hint = case.reference.suffix, ""
        if ending in (".tif", ".tiff") and not spacing_file(case.reference, ending).is_file():
            hint = f". No JSON file with the spacing is beside {case.reference}: labelsTr in nnUNet_raw has it"
        raise BadInput(
            f"{case.prediction} has the spacing {prediction_spacing} mm, but its reference {case.reference} has "
            f"{spacing} mm (axes in array order). Predictions must be in the geometry of the original images{hint}"
        )
    if not same_place(geometry, prediction_geometry, spacing):
        raise BadInput(
            f"{case.prediction} lies elsewhere than its reference {case.reference}: origin or direction in the headers "
            "differ. nnU-Net gives a prediction the header of its image. If the reference's voxels fit the image and "
            "its header alone is wrong, copy the image's into it (SimpleITK: CopyInformation); if it is stored in "
            "another orientation, resample it onto the image; else the prediction is of another image"
        )
    known = {0, *chain.from_iterable(case.classes.values())}
    _check_labels(case.reference, reference, known | ({case.ignore} - {None}))
    if case.ignore is not None and (prediction == case.ignore).any():
        raise BadInput(
            f"{case.prediction} holds the ignore label {case.ignore}, which nnU-Net never predicts. Was it annotated, "
            "or were the two folders exchanged?"
        )
    _check_labels(case.prediction, prediction, known)
    return reference, prediction, spacing


def probabilities_of(case: Case, prediction: np.ndarray) -> np.ndarray:
    """nnU-Net's probabilities (classes with background, or regions; spatial).

    Args:
        case: the case.
        prediction: (spatial), see :func:`read_pair`.

    Raises:
        BadInput: unreadable, not the probabilities of this case, or those of another prediction of it.
    """
    channels = len(case.classes) + (not case.regions)  # a softmax has the background too
    probabilities = read_probabilities(case.probabilities, channels, prediction.shape)
    if case.regions:  # in which order nnU-Net paints them is not asked for
        found, segmented = (probabilities > 0.5).any(0), prediction > 0
    else:
        found, segmented = probabilities.argmax(0), prediction
    differing, foreground = np.sum(found != segmented), np.sum((found > 0) | (segmented > 0))
    if differing > _DISAGREEMENT * foreground:
        raise BadInput(
            f"{case.probabilities} holds the probabilities of another prediction than {case.prediction.name} beside "
            f"it: they disagree in {differing} voxels, where {foreground} are foreground in either. A prediction or "
            "validation that is repeated without --save_probabilities or --npz leaves the old file, and postprocessing "
            "changes segmentations alone. Predict again into an empty folder"
        )
    return probabilities


def _calibration(
    case: Case, reference: np.ndarray, prediction: np.ndarray, valid: np.ndarray | None
) -> dict[str, dict[str, float]]:
    """ECE and Brier score by region, or of all classes."""
    probabilities = probabilities_of(case, prediction)
    if not case.regions:
        return {ALL_CLASSES: softmax_calibration(probabilities, reference, valid)}
    return {
        name: region_calibration(p, np.isin(reference, values), valid)
        for p, (name, values) in zip(probabilities, case.classes.items(), strict=True)
    }


def _read(path: Path, reader: type[BaseReaderWriter]) -> tuple[np.ndarray, list[float], dict]:
    """Segmentation (spatial), spacing, and the properties of nnU-Net's reader.

    nnU-Net reads a 2D file as a single slice, which is made 2D again.
    """
    segmentation, properties = read_segmentation(reader, path)
    if segmentation.shape[0] != 1:
        raise BadInput(f"{path} has {segmentation.shape[0]} channels; a segmentation must have one")
    segmentation, spacing = segmentation[0], [float(size) for size in properties["spacing"]]
    if 1 in segmentation.shape:
        axis = segmentation.shape.index(1)
        segmentation = segmentation.squeeze(axis)
        del spacing[axis]
    return segmentation, spacing, properties


def _check_labels(path: Path, segmentation: np.ndarray, known: set[int]) -> None:
    unknown = np.unique(segmentation[~np.isin(segmentation, list(known))])
    if unknown.size:
        if (fractions := unknown[unknown % 1 != 0]).size:
            raise BadInput(
                f"{path} holds {float(fractions[0])!r}, which is not a whole number: round it and save integers"
            )
        values = listed([f"{value:g}" for value in unknown])
        raise BadInput(f"{path} holds the label {values}, which is not in dataset.json (it has {sorted(known)})")
