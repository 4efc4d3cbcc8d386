"""A phantom coronary angiogram."""

import numpy as np
from scipy.ndimage import gaussian_filter

from nnunet_skd.tools.demo.coronary_tree import coronary_tree
from nnunet_skd.tools.demo.curves import field, soft_step, spline


def path_length(points: np.ndarray, radii: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Length of each pixel's beam inside a tube of round cross-section, in pixels, (rows, columns); 0 outside."""
    squared = np.zeros(size)  # of half the length
    for point, radius in zip(points, radii, strict=True):
        reach = int(radius) + 2
        corner = np.floor(point).astype(int) - reach
        low, high = np.maximum(corner, 0), np.minimum(corner + 2 * reach + 2, size)
        if np.any(low >= high):
            continue
        rows, columns = np.ogrid[low[0] : high[0], low[1] : high[1]]
        window = squared[low[0] : high[0], low[1] : high[1]]
        np.maximum(window, radius**2 - (rows - point[0]) ** 2 - (columns - point[1]) ** 2, out=window)
    return 2 * np.sqrt(squared)


def draw_angiogram(
    rng: np.random.Generator, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """One coronary angiogram.

    Returns:
        image: (rows, columns), uint8.
        label: (rows, columns), uint8: 0 background, 1 side branches, 2 main vessels.
        spacing: (1.0, 1.0); PNG has none.
    """
    unit = min(size) / 256
    vessels = coronary_tree(rng, size)
    contrast = np.zeros(size)
    label = np.zeros(size, np.uint8)
    rows, columns = np.indices(size)
    for points, radii, level in vessels:
        length = path_length(points, radii, size)
        np.maximum(label, (length > 0) * np.uint8(2 if level == 0 else 1), out=label)
        # Vessels that cross lie behind each other (sum); where a branch leaves its parent both are one lumen (maximum).
        from_root = np.hypot(rows - points[0, 0], columns - points[0, 1])
        crossing = np.clip(from_root / (10 * unit) - 1, 0, 1)
        contrast = np.maximum(contrast, length) + crossing * np.minimum(contrast, length)
    medium = rng.uniform(0.035, 0.06) / unit * (1 + 0.12 * field(rng, size, 40 * unit))

    iodine = np.maximum(medium * contrast, _catheter(rng, size, unit, vessels[0][0]))  # the tip lies inside the vessel
    attenuation = _body(rng, size, unit) + iodine
    attenuation = gaussian_filter(attenuation, rng.uniform(0.6, 0.9) * max(unit, 0.6))  # focal spot and motion
    photons = rng.uniform(800, 2500) * np.exp(-attenuation)
    detected = gaussian_filter(rng.poisson(photons).astype(float), 0.55)  # the detector's own blur
    shown = -np.log(np.maximum(detected, 1.0) / photons.max())
    low, high = np.quantile(shown, [0.01, 0.995])
    dark, bright = rng.uniform(20, 50), rng.uniform(175, 235)
    image = bright - (shown - low) / (high - low) * (bright - dark)
    seen = _field_of_view(rng, size)
    image = np.where(seen, image, rng.uniform(8, 18))
    return np.clip(np.round(image), 0, 255).astype(np.uint8), np.where(seen, label, 0).astype(np.uint8), (1.0, 1.0)


def _body(rng: np.random.Generator, size: tuple[int, int], unit: float) -> np.ndarray:
    """Attenuation of everything but contrast medium and catheter."""
    rows, columns = np.indices(size, dtype=float)
    y, x = rows / size[0], columns / size[1]
    total = 0.09 * field(rng, size, 50 * unit) + 0.03 * field(rng, size, 14 * unit)
    total += 0.015 * field(rng, size, [2 * unit, 5 * unit]) + 0.012 * field(rng, size, [6 * unit, 1.5 * unit])

    # Lung is clear: beyond the heart's border the beam meets little.
    centre, side = rng.uniform(-0.1, 0.35), rng.choice([-1, 1])
    edge = (
        (x - 0.5) * side
        - centre
        + 0.45 * (y - 0.45) ** 2 * rng.uniform(0.3, 1.2)
        - rng.uniform(-0.25, 0.25) * (y - 0.5)
    )
    total -= rng.uniform(0.2, 0.5) * soft_step(edge - 0.12, 0.02) * (0.7 + 0.3 * y)

    # Diaphragm: a dome with a sharp upper edge, darker below it.
    if rng.random() < 0.7:
        top = rng.uniform(0.62, 0.9) + rng.uniform(0.3, 0.9) * (x - rng.uniform(0.0, 1.0)) ** 2
        total += rng.uniform(0.2, 0.45) * soft_step(y - top, 0.008) * (0.75 + 0.5 * np.clip(y - top, 0, 1))

    # Spine: a broad shadow with vertebrae.
    if rng.random() < 0.6:
        middle = rng.uniform(0.55, 1.0) if rng.random() < 0.5 else rng.uniform(0.0, 0.2)
        across = np.abs(x - middle - 0.06 * np.sin(2 * y + rng.uniform(0, 6)))
        vertebrae = 1 + 0.18 * np.tanh(3 * np.sin(2 * np.pi * y / rng.uniform(0.17, 0.22) + rng.uniform(0, 6)))
        total += rng.uniform(0.1, 0.22) * soft_step(0.11 - across, 0.03) * vertebrae

    # Ribs: arcs with a dense rim.
    slope, bend, gap = rng.uniform(-0.5, 0.5), rng.uniform(-0.6, 0.6), rng.uniform(0.2, 0.28)
    for k in range(-1, 6):
        line = y - (k + rng.uniform(-0.1, 0.1)) * gap - slope * (x - 0.5) - bend * (x - 0.5) ** 2
        half = rng.uniform(0.03, 0.045)
        rib = soft_step(half - np.abs(line), 0.006) + 0.5 * np.exp(-(((np.abs(line) - half + 0.006) / 0.007) ** 2))
        total += rng.uniform(0.02, 0.06) * rib
    return total - total.min() + 0.2


def _catheter(rng: np.random.Generator, size: tuple[int, int], unit: float, vessel: np.ndarray) -> np.ndarray:
    """A thin tube from the border to the vessel's origin; it carries contrast medium but is not a vessel."""
    tip = vessel[0]
    backwards = tip - vessel[min(20, len(vessel) - 1)]
    backwards /= np.linalg.norm(backwards)
    outside = np.array([-0.12 * size[0], tip[1] + rng.uniform(-0.15, 0.15) * size[1]])
    between = tip + backwards * 14 * unit + np.array([-12 * unit, 0])
    line = spline([tip, between, 0.5 * (between + outside) + rng.normal(0, 6 * unit, 2), outside], 0.5 * unit)
    radius = np.full(len(line), 2.2 * unit)
    outer, inner = path_length(line, radius, size), path_length(line, 0.65 * radius, size)
    return (0.09 * outer - rng.uniform(0.02, 0.06) * inner) / unit


def _field_of_view(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """True inside the image intensifier's circle; half of the images show its edge in a corner."""
    if rng.random() < 0.5:
        return np.ones(size, bool)
    rows, columns = np.indices(size, dtype=float)
    centre = rng.uniform(0.48, 0.66, 2) * size
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < (rng.uniform(0.62, 0.7) * max(size)) ** 2
