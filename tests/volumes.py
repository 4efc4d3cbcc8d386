"""Writes small NIfTI volumes."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk


def write_volume(path: Path, array: np.ndarray, spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Path:
    """``array``: z, y, x, whose type is kept. ``spacing``: x, y, z."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))
    return path


def write_segmentation(path: Path, labels: np.ndarray, spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Path:
    """Labels of any type, written as bytes."""
    return write_volume(path, np.asarray(labels, np.uint8), spacing)
