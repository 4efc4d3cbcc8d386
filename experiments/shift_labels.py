"""A copy of a raw dataset whose training labels are shifted, each case's in a direction of its own.

    python experiments/shift_labels.py $nnUNet_raw/Dataset080_CoronaryXA $nnUNet_raw/Dataset180_CoronaryXAShifted 2

The shift (in voxels, last two axes) is a case's own and stays the same in all epochs, as an annotator's would.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk


def shift_labels(source: Path, target: Path, voxels: float, seed: int = 0) -> None:
    """Everything of ``source`` to ``target``, which must not exist; ``labelsTr`` shifted."""
    shutil.copytree(source, target)
    generator = np.random.default_rng(seed)
    for file in sorted((target / "labelsTr").iterdir()):
        angle = generator.uniform(0, 2 * np.pi)
        rows, columns = np.rint(voxels * np.array([np.sin(angle), np.cos(angle)])).astype(int)
        image = sitk.ReadImage(file)
        labels = sitk.GetArrayFromImage(image)
        moved = np.zeros_like(labels)
        (to_rows, from_rows), (to_columns, from_columns) = _overlap(rows), _overlap(columns)
        moved[..., to_rows, to_columns] = labels[..., from_rows, from_columns]
        result = sitk.GetImageFromArray(moved)
        result.CopyInformation(image)
        sitk.WriteImage(result, file)


def _overlap(step: int) -> tuple[slice, slice]:
    """Where the shifted axis gets its values, and whence."""
    ahead, behind = slice(abs(step), None), slice(None, -abs(step) or None)
    return (ahead, behind) if step > 0 else (behind, ahead)


if __name__ == "__main__":
    shift_labels(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
