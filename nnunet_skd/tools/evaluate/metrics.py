"""What one mask is worth against another: overlap, surface distance and topology, on arrays.

Every function takes two boolean arrays of equal shape, 2D or 3D. One rule for empty masks, which is nnU-Net's:

* neither mask holds the class: nothing to measure, nan;
* one of them does: the scores (Dice, IoU, NSD, clDice) are 0; HD95, HD95_voxel and ASD are nan, because no number of
  millimetres is right; sensitivity without reference and precision without prediction are nan (0 / 0).
"""

from collections.abc import Sequence

import cc3d
import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree
from skimage.measure import find_contours, marching_cubes
from skimage.morphology import skeletonize

OVERLAP = ("Dice", "IoU", "Sensitivity", "Specificity", "Precision", "Accuracy")
SURFACE = ("HD95", "ASD", "NSD")
TOPOLOGY = ("clDice", "b0_error")
METRICS = OVERLAP + SURFACE + TOPOLOGY
VOXEL_HD95 = "HD95_voxel"  # only where it is asked for: it repeats HD95 as other tools count it
# Pixels and voxels that touch at a corner are one object: a thin oblique vessel must not fall into pieces.
_FULL_CONNECTIVITY = {2: 8, 3: 26}
# The surface of a binary mask runs half-way between the voxel centres inside and outside.
_SURFACE_LEVEL = 0.5


def mask_metrics(
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing: Sequence[float],
    *,
    valid: np.ndarray | None = None,
    tolerance: float = 1.0,
    metrics: Sequence[str] = METRICS,
) -> dict[str, float]:
    """All chosen metrics of one class in one case.

    Args:
        reference: (spatial) bool, 2D or 3D.
        prediction: (spatial) bool.
        spacing: size of a voxel per axis, in mm.
        valid: (spatial) bool, False where nobody knows the truth (ignore label). Overlap leaves these voxels out, and
            surface and topology the objects in them; if an object touches one of them, nobody knows where it ends, and
            surface and topology are nan.
        tolerance: of the NSD, in mm.
        metrics: names out of ``METRICS``, and ``VOXEL_HD95``; what is not asked for is not computed.

    Returns:
        {name: value} in the order of ``METRICS``, ``VOXEL_HD95`` last.
    """
    of_objects = (*SURFACE, *TOPOLOGY, VOXEL_HD95)
    values = dict.fromkeys(of_objects, np.nan)
    if set(metrics) & set(OVERLAP):
        values |= overlap(reference, prediction, valid)
    if valid is not None:
        reference, prediction = reference & valid, prediction & valid
    if set(metrics) & set(of_objects) and not _is_cut(reference | prediction, valid):
        reference, prediction = _crop(reference, prediction)
        if set(metrics) & set(SURFACE):
            values |= surface_metrics(reference, prediction, spacing, tolerance)
        if "clDice" in metrics:
            values["clDice"] = cldice(reference, prediction)
        if "b0_error" in metrics:
            values["b0_error"] = b0_error(reference, prediction)
        if VOXEL_HD95 in metrics:
            values[VOXEL_HD95] = voxel_hd95(reference, prediction, spacing)
    return {name: float(values[name]) for name in (*METRICS, VOXEL_HD95) if name in metrics}


def _is_cut(objects: np.ndarray, valid: np.ndarray | None) -> bool:
    """Whether an object touches a voxel of which nobody knows the truth."""
    return valid is not None and bool((ndimage.binary_dilation(~valid) & objects).any())


def overlap(reference: np.ndarray, prediction: np.ndarray, valid: np.ndarray | None = None) -> dict[str, float]:
    """Dice, IoU, sensitivity, specificity, precision and accuracy from the numbers of true and false voxels.

    ``Dice = 2 TP / (2 TP + FP + FN)``, ``IoU = TP / (TP + FP + FN)``, ``sensitivity = TP / (TP + FN)``, ``specificity =
    TN / (TN + FP)``, ``precision = TP / (TP + FP)``, ``accuracy = (TP + TN) / all``; 0 / 0 is nan.
    """
    total = reference.size
    if valid is not None:
        reference, prediction, total = reference & valid, prediction & valid, np.count_nonzero(valid)
    tp = np.count_nonzero(reference & prediction)
    fp = np.count_nonzero(prediction) - tp
    fn = np.count_nonzero(reference) - tp
    tn = total - tp - fp - fn
    return {
        "Dice": _ratio(2 * tp, 2 * tp + fp + fn),
        "IoU": _ratio(tp, tp + fp + fn),
        "Sensitivity": _ratio(tp, tp + fn),
        "Specificity": _ratio(tn, tn + fp),
        "Precision": _ratio(tp, tp + fp),
        "Accuracy": _ratio(tp + tn, total),
    }


def surface_metrics(
    reference: np.ndarray, prediction: np.ndarray, spacing: Sequence[float], tolerance: float = 1.0
) -> dict[str, float]:
    """HD95, ASD and NSD from the distances of each surface's elements to the other surface.

    Each element counts by its size (area in 3D, length in 2D), so thick slices do not distort the numbers.

    * HD95: the larger of the two directed 95th percentiles, in mm.
    * ASD: average symmetric surface distance, the mean over the elements of both surfaces, in mm.
    * NSD: the share of both surfaces within ``tolerance`` mm of the other one; 1 is best (Nikolov et al., J Med
      Internet Res 23(7), 2021).

    The surface is a mesh: marching cubes, in 2D marching squares; distances run from the centres of its elements to the
    nearest centre or corner of the other mesh. On the voxel grid, distances below a voxel do not exist (Podobnik and
    Vrtovec, arXiv 2410.02630): a ball moved by one voxel of 1 mm has an ASD of 0.5 mm, which the mesh gives within 2 %,
    where the package surface-distance 0.1 gives 0.27 and counting border voxels 0.59.

    Args:
        reference: (spatial) bool, 2D or 3D. Where an object meets the image border, the border is its surface.
        prediction: (spatial) bool.
        spacing: size of a voxel per axis, in mm.
        tolerance: in mm.
    """
    if not reference.any() or not prediction.any():
        one_is_empty = reference.any() or prediction.any()
        return {"HD95": np.nan, "ASD": np.nan, "NSD": 0.0 if one_is_empty else np.nan}
    centres_r, sizes_r, points_r = _surface(reference, spacing)
    centres_p, sizes_p, points_p = _surface(prediction, spacing)
    from_reference = KDTree(points_p).query(centres_r)[0]
    from_prediction = KDTree(points_r).query(centres_p)[0]
    distances = np.concatenate([from_reference, from_prediction])
    sizes = np.concatenate([sizes_r, sizes_p])
    within = distances <= tolerance * (1 + 1e-6)  # three voxels of 0.7 mm are within 2.1 mm
    return {
        "HD95": max(_percentile_95(from_reference, sizes_r), _percentile_95(from_prediction, sizes_p)),
        "ASD": np.average(distances, weights=sizes),
        "NSD": sizes[within].sum() / sizes.sum(),
    }


def voxel_hd95(reference: np.ndarray, prediction: np.ndarray, spacing: Sequence[float]) -> float:
    """HD95 from border voxels, as MedPy's ``hd95`` defines it: for comparison with what other tools report.

    A border voxel belongs to the mask and has a neighbour across one of its faces that does not; beyond the image
    everything is outside. The distances, in mm, run from the centre of each border voxel to the nearest centre of the
    other mask's; the result is the 95th percentile (linear between two values) of both directions pooled. MONAI and
    MetricsReloaded take the larger of the two directions' percentiles instead.

    Each border voxel counts the same whatever surface it stands for, and no distance is below a voxel: with thick
    slices :func:`surface_metrics` is the better measure.

    Args:
        reference: (spatial) bool, 2D or 3D.
        prediction: (spatial) bool.
        spacing: size of a voxel per axis, in mm.

    Returns:
        nan where one of the masks is empty.
    """
    if not reference.any() or not prediction.any():
        return np.nan
    border_r, border_p = (
        np.argwhere(mask & ~ndimage.binary_erosion(mask)) * np.asarray(spacing) for mask in (reference, prediction)
    )
    distances = [KDTree(border_p).query(border_r)[0], KDTree(border_r).query(border_p)[0]]
    return float(np.percentile(np.concatenate(distances), 95))


def cldice(reference: np.ndarray, prediction: np.ndarray) -> float:
    """Centreline Dice of tubular structures: the harmonic mean of topology precision and topology sensitivity.

    Precision is the share of the prediction's skeleton inside the reference, sensitivity the share of the reference's
    skeleton inside the prediction (Shit et al., "clDice", CVPR 2021). Skeletons are counted in voxels, whatever the
    spacing.

    Args:
        reference: (spatial) bool, 2D or 3D.
        prediction: (spatial) bool.
    """
    if not reference.any() or not prediction.any():
        return 0.0 if reference.any() or prediction.any() else np.nan
    precision = reference[_skeleton(prediction)].mean()
    sensitivity = prediction[_skeleton(reference)].mean()
    return 0.0 if precision + sensitivity == 0 else 2 * precision * sensitivity / (precision + sensitivity)


def b0_error(reference: np.ndarray, prediction: np.ndarray) -> float:
    """Error of the 0th Betti number: ``|components of the prediction - components of the reference|``, whole image.

    Components touch at faces, edges or corners (8 neighbours in 2D, 26 in 3D). nan when both masks are empty.

    Args:
        reference: (spatial) bool, 2D or 3D.
        prediction: (spatial) bool.
    """
    if not reference.any() and not prediction.any():
        return np.nan
    return float(abs(_components(prediction)[1] - _components(reference)[1]))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else np.nan


def _crop(*masks: np.ndarray) -> tuple[np.ndarray, ...]:
    """The masks in the smallest box that holds all of them."""
    box = ndimage.find_objects(np.logical_or.reduce(masks).astype(np.uint8))
    return tuple(mask[box[0]] for mask in masks) if box else masks


def _components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """A number for each voxel, 0 outside the mask, and how many components there are."""
    return cc3d.connected_components(mask, connectivity=_FULL_CONNECTIVITY[mask.ndim], return_N=True)


def _skeleton(mask: np.ndarray) -> np.ndarray:
    """One voxel wide centreline; at least one voxel of every component.

    Thinning in 3D deletes some small symmetric blobs whole (a cube of 2 x 2 x 2): such a blob keeps its deepest voxel.
    """
    skeleton = skeletonize(mask).astype(bool)  # older scikit-image returns 0 and 255 in 3D
    components, count = _components(mask)
    lost = np.setdiff1d(np.arange(1, count + 1), components[skeleton])
    if lost.size:
        deepest = ndimage.maximum_position(ndimage.distance_transform_edt(mask), components, lost)
        skeleton[tuple(np.transpose(deepest))] = True
    return skeleton


def _surface(mask: np.ndarray, spacing: Sequence[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Surface elements of a mask: their centres, their sizes (mm, mm^2), and all points that a distance may end at."""
    padded = np.pad(mask, 1).astype(np.float32)
    if mask.ndim == 3:
        vertices, faces, _, _ = marching_cubes(padded, _SURFACE_LEVEL)
        # The spacing is applied here and not by marching_cubes, which computes in float32.
        vertices = vertices.astype(float) * spacing
        corners = vertices[faces]
        sides = corners[:, 1:] - corners[:, :1]
        sizes = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1) / 2
        centres = corners.mean(axis=1)
    else:
        lines = [line * spacing for line in find_contours(padded, _SURFACE_LEVEL)]
        vertices = np.concatenate(lines)
        sizes = np.concatenate([np.linalg.norm(np.diff(line, axis=0), axis=1) for line in lines])
        centres = np.concatenate([(line[1:] + line[:-1]) / 2 for line in lines])
    return centres, sizes, np.concatenate([centres, vertices])


def _percentile_95(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    cumulated = np.cumsum(weights[order])
    return values[order][np.searchsorted(cumulated, 0.95 * cumulated[-1])]
