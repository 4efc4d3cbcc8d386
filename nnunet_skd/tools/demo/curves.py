"""Random curves and fields that phantoms are drawn with."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import PchipInterpolator, make_interp_spline
from scipy.ndimage import gaussian_filter, gaussian_filter1d


def smooth_noise(rng: np.random.Generator, n: int, width: float) -> np.ndarray:
    """n samples of noise with unit variance and a correlation length of about ``width`` samples."""
    pad = int(4 * width) + 1
    noise = gaussian_filter1d(rng.standard_normal(n + 2 * pad), width)[pad : pad + n]
    return noise * np.sqrt(2 * np.sqrt(np.pi) * max(width, 0.3))


def spline(points: ArrayLike, step: float) -> np.ndarray:
    """Points every ``step`` along a smooth curve through control points, shape (n, axes)."""
    points = np.asarray(points, float)
    chord = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    curve = make_interp_spline(chord, points, k=min(3, len(points) - 1))
    return curve(np.linspace(0, chord[-1], max(int(chord[-1] / step), 2)))


def wander(
    rng: np.random.Generator,
    start: np.ndarray,
    heading: float,
    length: float,
    tortuosity: float,
    turn: float,
    step: float,
) -> np.ndarray:
    """A curve in the plane whose heading turns steadily by ``turn`` (rad) and wriggles by ``tortuosity`` (rad)."""
    n = max(int(length / step), 2)
    t = np.linspace(0, 1, n)
    wavelength = rng.uniform(0.05, 0.11) * length / step
    wriggle = tortuosity * smooth_noise(rng, n, max(wavelength, 3.0)) * np.minimum(1, 3 * t)
    angle = heading + turn * t + wriggle
    return start + step * np.cumsum(np.stack([np.sin(angle), np.cos(angle)], axis=1), axis=0)


def taper(rng: np.random.Generator, n: int, first: float, last: float) -> np.ndarray:
    """Radii along a vessel: falling, slightly uneven, sometimes with one narrowing (a stenosis)."""
    t = np.linspace(0, 1, n)
    radii = PchipInterpolator([0, 0.5, 1], [first, (0.6 * first + 0.4 * last), last])(t)
    radii = radii * (1 + 0.06 * smooth_noise(rng, n, n / 25))
    if rng.random() < 0.25:
        radii = radii * (1 - rng.uniform(0.2, 0.5) * np.exp(-(((t - rng.uniform(0.2, 0.6)) / 0.03) ** 2)))
    return np.maximum(radii, 0.8 * last)


def field(rng: np.random.Generator, size: tuple[int, ...], width: float | Sequence[float]) -> np.ndarray:
    """A smooth random field of mean 0 and standard deviation 1."""
    noise = gaussian_filter(rng.standard_normal(size), width, mode="reflect")
    return (noise - noise.mean()) / noise.std()


def soft_step(distance: np.ndarray, width: float) -> np.ndarray:
    """From 0 to 1 over about ``width`` where a signed distance crosses 0: the edge of something with rounded sides."""
    return 0.5 * (1 + np.tanh(distance / width))
