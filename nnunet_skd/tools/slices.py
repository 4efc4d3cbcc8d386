"""Slices of volumes for pictures. A 2D image is a volume with a single slice."""

from collections.abc import Sequence

import numpy as np

from nnunet_skd.tools.nnunet_json import channel_names

COARSE = 2  # an axis whose spacing is so many times the first axis's was the scanner's slice axis


def slice_axis(spacing: Sequence[float]) -> int:
    """The axis to look along: the first one, axial in most files, unless another is at least twice as coarse.

    An image is fine only within the slices of its coarsest axis.
    """
    return int(np.argmax(spacing)) if max(spacing) >= COARSE * spacing[0] else 0


def fullest_slice(mask: np.ndarray, axis: int) -> int:
    """The index of the slice with most voxels of a mask (z, y, x)."""
    return int(np.argmax(mask.sum(axis=tuple(a for a in range(3) if a != axis))))


def take_slice(volume: np.ndarray, axis: int, index: int) -> np.ndarray:
    """One slice (H, W) of a volume (z, y, x), with the head on top where z points down the page."""
    rows = np.take(volume, index, axis=axis)
    return rows if axis == 0 else rows[::-1]  # z is stored from the feet upwards


def in_colour(channels: int, files: int, dataset_json: dict) -> bool:
    """Whether the first three channels of an image are red, green and blue: of one file, or by their names."""
    names = list((channel_names(dataset_json) or {}).values())
    return channels in (3, 4) and (files == 1 or names[:3] == ["R", "G", "B"])


def take_image(image: np.ndarray, axis: int, index: int, *, colour: bool) -> np.ndarray:
    """One slice of an image (channels, z, y, x): (H, W, 3) in colour, else (H, W) of the first channel."""
    channels = [take_slice(channel, axis, index) for channel in (image[:3] if colour else image[:1])]
    return np.stack(channels, axis=-1) if colour else channels[0]


def grey(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """Intensities from ``low`` to ``high`` as numbers from 0 to 1."""
    return np.clip((image - low) / max(high - low, 1e-6), 0, 1)
