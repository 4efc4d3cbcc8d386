"""A random coronary tree: centre-lines and radii, in the plane of an angiogram."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nnunet_skd.tools.demo.curves import smooth_noise, spline, taper, wander


def _main_vessels(rng: np.random.Generator, unit: float) -> tuple[list[np.ndarray], list[tuple[float, float]]]:
    """Centre-lines of the main vessels in units of the image width, (row, column); the first starts at the catheter.

    Right coronary artery: one vessel around the heart in a C. Left: a stem that divides into two long vessels.
    """

    def jitter(points: ArrayLike, amount: float = 0.032) -> np.ndarray:
        return np.asarray(points) + np.concatenate([np.zeros((1, 2)), rng.normal(0, amount, (len(points) - 1, 2))])

    if rng.random() < 0.45:
        rows = [0.16, 0.11, 0.20, 0.42, 0.66, 0.77, 0.76, 0.83]
        columns = [0.60, 0.46, 0.29, 0.23, 0.26, 0.42, 0.62, 0.78]
        c = jitter(np.transpose([rows, columns]))
        lines, radii = [c], [(5.0, 1.5)]
    else:
        stem = jitter([(0.17, 0.14), (0.19, 0.22), (0.20, 0.31)], 0.01)
        lad = jitter([(0.20, 0.31), (0.22, 0.47), (0.30, 0.64), (0.46, 0.76), (0.64, 0.83), (0.80, 0.88)])
        lcx = jitter([(0.20, 0.31), (0.31, 0.36), (0.46, 0.34), (0.60, 0.41), (0.75, 0.40), (0.88, 0.47)])
        lad[0] = lcx[0] = stem[-1]
        lines, radii = [stem, lad, lcx], [(4.8, 4.3), (3.9, 1.2), (3.6, 1.2)]
    angle, scale = rng.uniform(-0.35, 0.35), rng.uniform(0.85, 1.08, (2, 1))  # another projection of the same anatomy
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = rng.normal(0, 0.03, 2) + 0.5
    return [(line - 0.5) @ turn.T + shift for line in lines], [(a * unit, b * unit) for a, b in radii]


class Vessel(NamedTuple):
    """Centre-line (n, 2) and radii (n,) in pixels; level 0 is a main vessel, 1 and 2 are side branches."""

    points: np.ndarray
    radii: np.ndarray
    level: int


def coronary_tree(rng: np.random.Generator, size: tuple[int, int]) -> list[Vessel]:
    """The vessels of one angiogram; the first one starts at the catheter."""
    unit = min(size) / 256  # all lengths below are pixels of a 256 x 256 image
    step = 0.5 * unit
    smallest = max(0.95 * unit, 0.8)
    vessels = []
    lines, radii = _main_vessels(rng, unit)
    for line, (first, last) in zip(lines, radii, strict=True):
        points = spline(line * np.array(size), step)
        if len(points) > 160:  # all but the left stem run over a beating heart and are wavy
            ramp = np.sin(np.pi * np.linspace(0, 1, len(points))) ** 0.5
            waves = [smooth_noise(rng, len(points), rng.uniform(14, 28)) for _ in range(2)]
            points = points + (2.2 * unit) * ramp[:, None] * np.stack(waves, axis=1)
        vessels.append(Vessel(points, taper(rng, len(points), first, max(last, smallest)), 0))

    queue = vessels[-2:] if len(vessels) == 3 else vessels[:]  # nothing leaves the left stem
    while queue:
        points, widths, level = queue.pop(0)
        if level >= 2:
            continue
        number = rng.integers(3, 6) if level == 0 else rng.integers(0, 3)
        places = np.sort(rng.uniform(0.12, 0.92, number))
        side = rng.choice([-1, 1])
        for place in places:
            at = int(place * (len(points) - 1))
            first = widths[at] * rng.uniform(0.45, 0.75)
            if first < smallest and level > 0:
                continue
            ahead = points[min(at + 12, len(points) - 1)] - points[max(at - 12, 0)]
            side = -side if rng.random() < 0.7 else side
            heading = np.arctan2(ahead[0], ahead[1]) + side * rng.uniform(0.5, 1.1)
            length = unit * rng.uniform(45, 120) * (0.6**level) * (1.15 - 0.5 * place)
            tortuosity = rng.choice([0.3, 0.55, 0.9], p=[0.4, 0.35, 0.25])
            line = wander(rng, points[at], heading, length, tortuosity, -side * rng.uniform(0.1, 0.9), step)
            vessels.append(Vessel(line, taper(rng, len(line), max(first, smallest), smallest), level + 1))
            queue.append(vessels[-1])
    return vessels
