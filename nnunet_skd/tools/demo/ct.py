"""A phantom abdominal CT."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter

from nnunet_skd.tools.demo.curves import field, spline


def draw_ct(rng: np.random.Generator, size: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """One abdominal CT; the anatomy has the same proportions whatever the size in voxels.

    Returns:
        image: (slices, rows, columns), int16, HU; slice 0 is the lowest, row 0 the front, column 0 the patient's right.
        label: same shape, uint8: 0 background, 1 liver, 2 spleen, 3 vessel.
        spacing: (slice, row, column) in mm; slices are thicker than pixels are wide.
    """
    extent = np.array([200.0, 250.0, 300.0]) * rng.uniform(0.95, 1.05)  # mm
    spacing = extent / size
    z, y, x = np.meshgrid(*[(np.arange(n) + 0.5) * s for n, s in zip(size, spacing, strict=True)], indexing="ij")
    z, y, x = z - extent[0] / 2, y - extent[1] / 2, x - extent[2] / 2  # mm from the middle: to head, to back, to left

    def bump(width: float) -> np.ndarray:  # a smooth displacement in mm that gives every patient another shape
        return 6 * field(rng, size, [width / s for s in spacing])

    def inside(
        centre: Sequence[float], axes: Sequence[float], shape: ArrayLike
    ) -> np.ndarray:  # roughly the signed depth in mm in an ellipsoid with a bumpy surface
        squares = sum(((c - m) / a) ** 2 for c, m, a in zip((z, y, x), centre, axes, strict=True))
        return (1 - np.sqrt(squares)) * min(axes) + shape

    def around(value: Sequence[float], amount: float) -> np.ndarray:
        return np.asarray(value) + rng.normal(0, amount, len(value))

    body = inside((0, 0, 0), (1e4, 105, 135), 0)
    body_shape, texture = bump(40), bump(15) / 6
    hu = np.full(size, -1000.0)
    hu[body > 0] = -100  # fat
    hu[body + 0.3 * body_shape > 14 + 4 * np.abs(x) / 135] = 50  # muscle and bowel
    bowel = (body + 0.3 * body_shape > 32) & (texture > 0.4)
    hu[bowel] = -70  # fat between the organs
    hu[(body > 40) & (texture < -1.9) & (y < 20)] = -700  # gas

    liver_mm = inside(around((12, -8, -58), 5), around((72, 68, 62), 4), bump(35))
    liver_mm = np.maximum(liver_mm, inside(around((28, -38, -5), 5), (38, 36, 62), bump(30)))
    spleen_mm = inside(around((30, 38, 88), 5), around((44, 36, 22), 3), 0.6 * bump(25))
    room = (body > 22) & (np.hypot((y - 62) / 26, x / 28) > 1)  # neither ribs nor spine
    liver, spleen = (liver_mm > 0) & room, (spleen_mm > 0) & (liver_mm < -4) & room
    kidneys = [inside(around((-38, 42, side * 62), 4), (46, 24, 22), 0.4 * bump(20)) > 0 for side in (-1, 1)]
    for kidney in kidneys:
        hu[kidney & ~liver & ~spleen] = 165
    liver_hu = rng.uniform(95, 120)
    hu[liver] = liver_hu
    hu[spleen] = liver_hu + rng.uniform(8, 18)  # less than the noise

    vertebra = np.hypot((y - 62) / 22, x / 24) < 1
    disc = np.sin(2 * np.pi * z / 34 + rng.uniform(0, 6)) > 0.8
    hu[vertebra] = 230
    hu[vertebra & disc] = 90
    hu[vertebra & (np.hypot((y - 62) / 19, x / 21) > 1)] = 420
    hu[np.hypot((y - 88) / 9, x / 10) < 1] = 30  # spinal canal
    ring = np.abs(body - 17) < 4
    hu[ring & (np.sin(2 * np.pi * (z + 0.5 * y + 0.15 * np.abs(x)) / 32) > 0.55) & (y > -75)] = 330  # ribs

    vessel = np.zeros(size, bool)
    for line, radii in _abdominal_vessels(rng, extent, liver_mm, spleen_mm, spacing):
        fill_tube(vessel, line, radii, spacing)
    hu[vessel] = rng.uniform(190, 240)

    blur = [0.4, 0.6, 0.6]  # voxels: slice profile and reconstruction kernel
    noise = gaussian_filter(rng.standard_normal(size), [0, 0.6, 0.6])
    image = gaussian_filter(hu + 4 * texture, blur) + rng.uniform(14, 22) * noise / noise.std()
    label = np.zeros(size, np.uint8)
    label[liver], label[spleen], label[vessel] = 1, 2, 3
    return np.clip(np.round(image), -1024, 3071).astype(np.int16), label, tuple(float(s) for s in spacing)


def _abdominal_vessels(
    rng: np.random.Generator, extent: np.ndarray, liver_mm: np.ndarray, spleen_mm: np.ndarray, spacing: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Aorta, vena cava and branches: (centre-line (n, 3) in mm from the volume's corner, radii (n,) in mm)."""
    middle = extent / 2
    top, bottom = extent[0] * 0.52, -extent[0] * 0.52

    def tube(points: ArrayLike, first: float, last: float) -> tuple[np.ndarray, np.ndarray]:
        line = spline(np.asarray(points, float) + middle, 1.0)
        return line, np.linspace(first, last, len(line))

    def wobble() -> float:
        return rng.normal(0, 4)

    vessels = [
        tube([(bottom, 28, 12 + wobble()), (0, 26, 10 + wobble()), (top, 30, 14 + wobble())], 9, 11),
        tube([(bottom, 24, -22 + wobble()), (0, 20, -24 + wobble()), (top, 12, -20 + wobble())], 10, 11),
    ]

    def deep(depth: np.ndarray) -> np.ndarray:  # a random place well inside an organ
        places = np.argwhere(depth > 0.45 * depth.max())
        return (places[rng.integers(len(places))] + 0.5) * spacing - middle

    celiac, hilum = np.array([8.0, 10, 8]), np.array([12.0, -2, -28])
    splenic = np.array([26.0, 34, 62])
    vessels.append(tube([(2, 24, 10), celiac, (14, 16, 36 + wobble()), splenic], 5, 4))
    vessels.append(tube([(-25, 4, 4), (-5, 0, -6), hilum], 6.5, 6))
    for root, depth, number, first in ((hilum, liver_mm, 5, 5.0), (splenic, spleen_mm, 2, 3.5)):
        for _ in range(number):
            goal = deep(depth)
            bend = 0.5 * (root + goal) + rng.normal(0, 7, 3)
            vessels.append(tube([root, bend, goal], first, 2.2))
            if first > 4:
                vessels.append(tube([bend, 0.5 * (bend + goal) + rng.normal(0, 9, 3), deep(depth)], 3.2, 2.0))
    return vessels


def fill_tube(mask: np.ndarray, line: np.ndarray, radii: Sequence[float], spacing: np.ndarray) -> None:
    """Set the voxels of ``mask`` whose centre lies within ``radii`` of ``line``; all in mm."""
    for point, radius in zip(line, radii, strict=True):
        low = np.maximum(np.floor((point - radius) / spacing).astype(int), 0)
        high = np.minimum(np.ceil((point + radius) / spacing).astype(int) + 1, mask.shape)
        if np.any(low >= high):
            continue
        window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        axes = np.ogrid[window]
        squared = sum(((i + 0.5) * s - p) ** 2 for i, s, p in zip(axes, spacing, point, strict=True))
        mask[window] |= squared <= radius**2
