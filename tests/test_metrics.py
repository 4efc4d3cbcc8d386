"""Metrics of one mask against values worked out by hand."""

import numpy as np
import pytest

from nnunet_skd.tools.evaluate import metrics


def _box(shape, *ranges):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*pair) for pair in ranges)] = True
    return mask


def _ball(shape, centre, radius):
    grid = np.indices(shape)
    return sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) <= radius**2


def test_overlap_from_counts_by_hand():
    reference = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0], bool).reshape(2, 5)
    prediction = np.array([1, 1, 0, 0, 0, 1, 0, 0, 0, 0], bool).reshape(2, 5)  # TP 2, FN 3, FP 1, TN 4
    expected = {"Dice": 4 / 8, "IoU": 2 / 6, "Sensitivity": 2 / 5, "Specificity": 4 / 5, "Precision": 2 / 3}
    assert metrics.overlap(reference, prediction) == pytest.approx({**expected, "Accuracy": 6 / 10})


def test_overlap_leaves_out_what_is_not_valid():
    reference = np.array([[1, 1, 0, 0]], bool)
    prediction = np.array([[1, 0, 1, 0]], bool)
    valid = np.array([[1, 0, 0, 1]], bool)
    assert set(metrics.overlap(reference, prediction, valid).values()) == {1.0}


@pytest.mark.parametrize("ndim", [2, 3])
def test_empty_masks(ndim):
    nothing, something = np.zeros((8,) * ndim, bool), _box((8,) * ndim, *[(2, 5)] * ndim)
    nan = np.nan
    chosen = (*metrics.METRICS, "HD95_voxel")
    both = metrics.mask_metrics(nothing, nothing, (1,) * ndim, metrics=chosen)
    assert both.pop("Specificity") == both.pop("Accuracy") == 1
    assert all(np.isnan(list(both.values())))
    zero = {"Dice": 0, "IoU": 0, "NSD": 0, "clDice": 0, "HD95": nan, "HD95_voxel": nan, "ASD": nan, "b0_error": 1}
    missed = metrics.mask_metrics(something, nothing, (1,) * ndim, metrics=chosen)
    assert missed == pytest.approx({**missed, **zero, "Sensitivity": 0, "Precision": nan}, nan_ok=True)
    invented = metrics.mask_metrics(nothing, something, (1,) * ndim, metrics=chosen)
    assert invented == pytest.approx({**invented, **zero, "Sensitivity": nan, "Precision": 0}, nan_ok=True)


@pytest.mark.parametrize("ndim", [2, 3])
def test_equal_masks_are_perfect_even_at_the_image_border(ndim):
    mask = np.ones((6,) * ndim, bool)
    found = metrics.mask_metrics(mask, mask, (2.0,) * ndim, tolerance=0)
    assert found == pytest.approx(
        {**dict.fromkeys(metrics.METRICS, 1), "Specificity": np.nan, "HD95": 0, "ASD": 0, "b0_error": 0}, nan_ok=True
    )


def test_shifted_line_in_millimetres():
    """A line three rows on: of its two edges one is 3 rows from the nearest edge of the other line, one is 2."""
    spacing = (0.7, 0.4)
    line, shifted = _box((20, 400), (5, 6), (10, 390)), _box((20, 400), (8, 9), (10, 390))
    found = metrics.surface_metrics(line, shifted, spacing, tolerance=3 * 0.7)
    assert found["HD95"] == pytest.approx(3 * 0.7)
    assert found["ASD"] == pytest.approx(2.5 * 0.7, rel=0.01)
    assert found["NSD"] == pytest.approx(
        1
    )  # 3 * 0.7 is 2.0999999999999996 in floats, and the other way round elsewhere
    half = metrics.surface_metrics(line, shifted, spacing, tolerance=2.5 * 0.7)["NSD"]
    assert half == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("axis, millimetres", [(0, 5.0), (1, 1.6), (2, 0.6)])
def test_shifted_box_has_the_shift_as_hd95(axis, millimetres):
    box = _box((16, 40, 60), (4, 10), (8, 32), (10, 40))
    spacing = (5.0, 0.8, 0.3)
    voxels = round(millimetres / spacing[axis])
    found = metrics.surface_metrics(box, np.roll(box, voxels, axis), spacing, tolerance=millimetres)
    assert found["HD95"] == pytest.approx(millimetres)
    assert found["NSD"] == pytest.approx(1)
    assert metrics.surface_metrics(box, np.roll(box, voxels, axis), spacing, tolerance=0.1)["NSD"] < 0.9


def test_average_distance_of_a_shifted_box_by_integration():
    """A box of 35 x 24 x 24 mm moved 5 mm along its thick slices of 5 mm.

    Per surface of 2 * 24^2 + 4 * 24 * 35 mm^2: one cap is 5 mm outside; the other is inside, at min(5, distance to the
    side), on average 12 / 3 * (1 - (7 / 12)^3); the sides that stick out are 4 * 24 * 5 mm^2 at 2.5 mm on average.
    """
    box = _box((20, 60, 60), (5, 12), (10, 40), (10, 40))
    cap, inside = 24**2, 4 * (1 - (7 / 12) ** 3)
    expected = (cap * 5 + cap * inside + 4 * 24 * 5 * 2.5) / (2 * cap + 4 * 24 * 35)
    found = metrics.surface_metrics(box, np.roll(box, 1, axis=0), (5, 0.8, 0.8))["ASD"]
    assert found == pytest.approx(expected, rel=0.03)  # counting voxels instead of areas gives more than twice as much


@pytest.mark.parametrize("ndim", [2, 3])
def test_concentric_balls_are_as_far_apart_as_their_radii(ndim):
    shape, centre = (50,) * ndim, (24.6,) * ndim
    found = metrics.surface_metrics(_ball(shape, centre, 16), _ball(shape, centre, 20), (0.5,) * ndim)
    assert found["ASD"] == pytest.approx(2, rel=0.05)
    assert found["HD95"] == pytest.approx(2, rel=0.1)
    assert found["NSD"] == 0


@pytest.mark.parametrize("ndim, mean, within_half", [(2, 2 / np.pi, 1 / 3), (3, 1 / 2, 1 / 2)])
def test_errors_below_a_voxel_are_measured(ndim, mean, within_half):
    """A ball moved by one voxel is off by |cos| of the angle between normal and movement.

    |cos| is 2 / pi on average on a circle and 1 / 2 on a sphere, where it is evenly distributed; it is below 1 / 2 on a
    third of a circle.
    """
    ball = _ball((32,) * ndim, (15.3,) * ndim, 10)
    found = metrics.surface_metrics(ball, np.roll(ball, 1, axis=0), (1,) * ndim, tolerance=0.5)
    assert found["ASD"] == pytest.approx(mean, rel=0.05)
    assert found["NSD"] == pytest.approx(within_half, abs=0.06)
    assert found["HD95"] == pytest.approx(1, rel=0.01)


def test_hd95_takes_the_worse_direction():
    """A speck far away is less than 5 % of the prediction's surface; a second line is half of it."""
    line = _box((60, 200), (5, 6), (0, 200))
    speck, second = line | _box((60, 200), (50, 51), (0, 2)), line | _box((60, 200), (50, 51), (0, 200))
    assert metrics.surface_metrics(line, speck, (1, 1))["HD95"] == 0
    assert metrics.surface_metrics(line, second, (1, 1))["HD95"] == pytest.approx(45)
    assert metrics.surface_metrics(second, line, (1, 1))["HD95"] == pytest.approx(45)


def test_voxel_hd95_pools_both_directions():
    """From one voxel to two and back: 0, and 0 and 10 mm. The 95th percentile of the three is 0.9 of the way to 10.

    Their larger directed percentile, which other tools take, would be 9.5.
    """
    one, two = _box((3, 8), (1, 2), (1, 2)), _box((3, 8), (1, 2), (1, 2)) | _box((3, 8), (1, 2), (6, 7))
    for masks in ((one, two), (two, one)):
        assert metrics.voxel_hd95(*masks, (1, 2)) == pytest.approx(9)


def test_voxel_hd95_of_a_moved_slab_and_of_a_hole():
    """Of a slab of one slice every voxel lies on the border; of a cube of 3 x 3 x 3 only the middle does not."""
    slab = _box((9, 20, 20), (2, 3), (0, 20), (0, 20))
    assert metrics.voxel_hd95(slab, np.roll(slab, 3, 0), (5, 0.5, 0.8)) == pytest.approx(15)
    cube = _box((9, 9, 9), (0, 3), (3, 6), (3, 6))
    shell = cube ^ _box((9, 9, 9), (1, 2), (4, 5), (4, 5))
    assert metrics.voxel_hd95(cube, shell, (5, 0.5, 0.8)) == 0


@pytest.mark.parametrize("spacing", [(1.3, 0.7), (5.0, 0.5, 0.8), (0.5, 5.0, 0.8)])
def test_voxel_hd95_equals_a_comparison_of_all_pairs(spacing):
    """Random masks that touch the image's border too, through everything that evaluate does before."""
    chance = np.random.default_rng(0)
    for share in (0.02, 0.3, 0.6, 0.9):
        masks = [chance.random((6, 7, 5)[: len(spacing)]) < share for _ in range(2)]
        for mask in masks:
            mask.flat[chance.integers(mask.size)] = True
        found = metrics.mask_metrics(*masks, spacing, metrics=["HD95_voxel"])
        assert found == {"HD95_voxel": pytest.approx(_hd95_of_all_pairs(*masks, spacing), rel=1e-9)}


def _hd95_of_all_pairs(one, other, spacing):
    def border(mask):
        inside = {tuple(int(i) for i in index) for index in np.argwhere(mask)}
        steps = [tuple(int(i) for i in sign * row) for row in np.eye(mask.ndim, dtype=int) for sign in (-1, 1)]
        return [v for v in inside if any(tuple(map(sum, zip(v, step, strict=True))) not in inside for step in steps)]

    def nearest(voxel, voxels):
        return min(sum(((a - b) * s) ** 2 for a, b, s in zip(voxel, v, spacing, strict=True)) for v in voxels) ** 0.5

    one, other = border(one), border(other)
    distances = sorted([nearest(v, other) for v in one] + [nearest(v, one) for v in other])
    place = 0.95 * (len(distances) - 1)
    below, rest = int(place), place - int(place)
    return distances[below] + (rest * (distances[below + 1] - distances[below]) if rest else 0)


@pytest.mark.parametrize("prefix", [(), ((4, 5),)])
def test_broken_line(prefix):
    """2 of 10 voxels are missing: precision 1, sensitivity 8 / 10; two pieces instead of one."""
    shape = (9,) * len(prefix) + (9, 20)
    line, broken = _box(shape, *prefix, (4, 5), (3, 13)), _box(shape, *prefix, (4, 5), (3, 13))
    broken[..., 7:9] = False
    assert metrics.cldice(line, broken) == pytest.approx(2 * 0.8 / 1.8)
    assert metrics.b0_error(line, broken) == metrics.b0_error(broken, line) == 1


def test_cldice_forgives_the_width_of_a_vessel_but_not_a_miss():
    wide, thin = _box((20, 40), (8, 11), (4, 36)), _box((20, 40), (9, 10), (4, 36))
    assert metrics.cldice(wide, thin) > 0.95
    assert metrics.overlap(wide, thin)["Dice"] == 0.5
    assert metrics.cldice(wide, np.roll(thin, 8, axis=0)) == 0


def test_a_blob_that_thinning_deletes_still_costs_precision():
    line = _box((12, 12, 16), (2, 3), (2, 3), (3, 13))
    with_blob = line | _box((12, 12, 16), (7, 9), (7, 9), (7, 9))
    assert metrics.cldice(line, with_blob) == pytest.approx(2 * (10 / 11) / (1 + 10 / 11))


@pytest.mark.parametrize("ndim", [2, 3])
def test_oblique_vessel_is_one_component(ndim):
    diagonal = np.zeros((6,) * ndim, bool)
    diagonal[(np.arange(6),) * ndim] = True
    assert metrics.b0_error(diagonal, _box((6,) * ndim, *[(2, 4)] * ndim)) == 0


def test_only_what_is_asked_for_and_in_order():
    mask = _box((8, 8), (2, 5), (2, 5))
    assert list(metrics.mask_metrics(mask, mask, (1, 1), metrics=("clDice", "Dice"))) == ["Dice", "clDice"]


def test_empty_space_around_changes_nothing_but_the_background():
    reference, prediction = _box((16, 12, 14), (3, 9), (2, 8), (4, 10)), _box((16, 12, 14), (4, 9), (2, 9), (3, 10))
    before = metrics.mask_metrics(reference, prediction, (2, 1, 1))
    after = metrics.mask_metrics(np.pad(reference, 5), np.pad(prediction, 5), (2, 1, 1))
    for name in ("Specificity", "Accuracy"):
        assert after.pop(name) > before.pop(name)
    assert after == pytest.approx(before)


def test_objects_in_ignored_voxels_are_left_out_of_surface_and_topology():
    reference = _box((20, 20), (5, 10), (5, 10))
    prediction = reference | _box((20, 20), (15, 18), (2, 18))
    valid = ~_box((20, 20), (14, 20), (0, 20))
    found = metrics.mask_metrics(reference, prediction, (1, 1), valid=valid)
    assert (found["Dice"], found["HD95"], found["NSD"], found["clDice"], found["b0_error"]) == (1, 0, 1, 1, 0)


@pytest.mark.parametrize("cut", ["reference", "prediction"])
def test_an_object_that_touches_ignored_voxels_has_no_surface_and_no_topology(cut):
    # of a few annotated slices the flat faces would count as surface, which is equal in both masks
    inner, outer = _box((12, 12, 12), (3, 7), (3, 9), (3, 9)), _box((12, 12, 12), (3, 8), (3, 9), (3, 9))
    masks = (outer, inner) if cut == "reference" else (inner, outer)
    valid = ~_box((12, 12, 12), (8, 12), (0, 12), (0, 12))
    asked = ("Dice", "HD95", "ASD", "NSD", "clDice", "b0_error", "HD95_voxel")
    found = metrics.mask_metrics(*masks, (1, 1, 1), valid=valid, metrics=asked)
    assert found.pop("Dice") == pytest.approx(2 * 144 / (144 + 180))
    assert list(found) == list(asked[1:]) and np.isnan(list(found.values())).all()
