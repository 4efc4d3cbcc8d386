"""Read images with nnU-Net's readers, after a look at what these say nothing about.

ITK reads what is missing at a file's end as zeros, and NaN and infinite values as zeros too, without a word.
"""

import contextlib
import errno
import gzip
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunet_skd.messages import in_one_line
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.files import written_by_a_library

_NIFTI = (".nii", ".nii.gz")
_GIPL_HEADER = 256  # bytes


class UnreadableImage(BadInput):
    """An image file that cannot be used; ``reason`` is why, in one line."""

    def __init__(self, file: Path, reason: object):
        self.file, self.reason = file, in_one_line(reason)
        super().__init__(
            f"{file} is damaged or cannot be read ({self.reason}). Copy it again from its origin, or take it out"
        )

    def __reduce__(self) -> tuple:  # a worker process hands it to its parent
        return UnreadableImage, (self.file, self.reason)


def require_whole(file: Path) -> None:
    """Refuse an image file that was cut short or damaged. Formats of which readers notice it are not looked into.

    Raises:
        UnreadableImage: the file was cut short, or cannot be opened.
    """
    file = Path(file)
    try:
        if file.name.endswith(_NIFTI):
            missing = _missing_in_nifti(file)
        elif file.name.endswith(".gipl"):
            missing = _missing_in_gipl(file)
        else:
            with file.open("rb"):
                missing = 0
    except Exception as error:  # each file format's library has errors of its own
        raise UnreadableImage(file, error) from error
    if missing > 0:
        raise UnreadableImage(file, f"{missing} bytes are missing at its end")


def require_finite(file: Path) -> None:
    """Refuse a NIfTI file with NaN or infinite values, which ITK replaces by zeros.

    Raises:
        UnreadableImage: it holds such values.
    """
    if not is_finite(file):
        raise UnreadableImage(file, "it holds values that are NaN or infinite")


def is_finite(file: Path) -> bool:
    """Whether a NIfTI file that is whole holds neither NaN nor infinite values; True for other formats."""
    if not Path(file).name.endswith(_NIFTI):
        return True
    image = nibabel.load(file)
    if image.get_data_dtype().kind in "iu" and image.header.get_slope_inter() in ((None, None), (1.0, 0.0)):
        return True
    return bool(np.isfinite(np.asanyarray(image.dataobj)).all())


def read_images(reader: type[BaseReaderWriter], files: Sequence[Path]) -> tuple[np.ndarray, dict]:
    """The channels of a case, (C, z, y, x) float32, and nnU-Net's properties.

    Raises:
        UnreadableImage: a file is damaged, or the channels do not fit each other.
    """
    for file in files:
        require_whole(file)
    printed = io.StringIO()  # nnU-Net's readers print why channels do not fit each other, and raise without a word
    try:
        with contextlib.redirect_stdout(printed):
            return reader().read_images([str(file) for file in files])
    except Exception as error:  # each file format's library has errors of its own
        raise UnreadableImage(files[0], str(error) or printed.getvalue().partition("\n")[0] or error) from error


def read_segmentation(reader: type[BaseReaderWriter], file: Path) -> tuple[np.ndarray, dict]:
    """A segmentation, (1, z, y, x), and nnU-Net's properties.

    Raises:
        UnreadableImage: the file is damaged, or holds NaN or infinite values.
    """
    require_whole(file)
    require_finite(file)
    try:
        return reader().read_seg(str(file))
    except Exception as error:  # each file format's library has errors of its own
        raise UnreadableImage(file, error) from error


def same_place(one: dict, other: dict, spacing: Sequence[float]) -> bool:
    """Whether two headers agree about origin (within half a voxel) and direction, where the format knows of them.

    Args:
        one, other: properties that nnU-Net's readers gave.
        spacing: mm, per axis.
    """
    origins, half_a_voxel = [_place(properties)[0] for properties in (one, other)], min(spacing) / 2
    if len(origins[0]) != len(origins[1]):
        return True
    return np.allclose(*origins, rtol=0, atol=half_a_voxel) and same_direction(one, other)


def same_direction(one: dict, other: dict) -> bool:
    """Whether the axes of two headers point the same way, where the format knows of them."""
    directions = [_place(properties)[1] for properties in (one, other)]
    return len(directions[0]) != len(directions[1]) or np.allclose(*directions, rtol=0, atol=0.01)


def _place(properties: dict) -> tuple[np.ndarray, np.ndarray]:
    """Origin and direction of what nnU-Net's readers of SimpleITK or nibabel have read; empty for other formats."""
    if "sitk_stuff" in properties:
        header = properties["sitk_stuff"]
        return np.array(header.get("origin", ())), np.array(header.get("direction", ()))
    header = properties.get("nibabel_stuff", {})
    affine = header.get("reoriented_affine", header.get("original_affine"))  # of the voxels as they are in the array
    if affine is None:
        return np.empty(0), np.empty(0)
    axes = affine[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    return affine[:3, 3], axes / np.where(lengths, lengths, 1)  # some programs write 0 for a single slice


@contextlib.contextmanager
def written_whole(file: Path) -> Iterator[None]:
    """Around a library that writes an image: ITK may say nothing where the disk is full, and leave half a file.

    Raises:
        OSError: the file is not whole.
    """
    with written_by_a_library(file):
        yield
    try:
        require_whole(file)
    except UnreadableImage as error:
        raise OSError(errno.EIO, f"it cannot be written: {error.reason}", str(file)) from error


def _missing_in_nifti(file: Path) -> int:
    """Bytes that the header promises and the file lacks. A compressed file is read to its end, where its checksum is.

    Raises:
        OSError, EOFError, zlib.error, ValueError, nibabel's errors: damaged, or numbers that no image of ours has.
    """
    voxels = nibabel.load(file).dataobj
    if voxels.dtype.kind not in "iuf":
        raise ValueError(f"its voxels are {voxels.dtype}, not numbers")
    if not voxels.shape or min(voxels.shape) < 1:
        raise ValueError(f"its size is {voxels.shape}")
    if file.name.endswith(".gz"):
        size = 0
        with gzip.open(file) as stream:
            while block := stream.read(2**20):
                size += len(block)
    else:
        size = file.stat().st_size
    return int(voxels.offset) + math.prod(map(int, voxels.shape)) * voxels.dtype.itemsize - size


def _missing_in_gipl(file: Path) -> int:
    information = sitk.ImageFileReader()
    information.SetFileName(str(file))
    information.ReadImageInformation()
    voxel = sitk.GetArrayViewFromImage(sitk.Image([1] * information.GetDimension(), information.GetPixelID())).nbytes
    return _GIPL_HEADER + math.prod(information.GetSize()) * voxel - file.stat().st_size
