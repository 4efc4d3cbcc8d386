"""Read, check and write the image and the labels of one case."""

import shutil
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from PIL import Image

from nnunet_skd.messages import listed
from nnunet_skd.tools.convert.common import BadCase, Written
from nnunet_skd.tools.images import (
    UnreadableImage,
    read_images,
    require_finite,
    require_whole,
    same_direction,
    written_whole,
)


def read_image(path: Path) -> np.ndarray:
    """A PNG, JPEG or PGM as (H, W) or (H, W, 3), unsigned integers.

    Raises:
        BadCase: the file is damaged, half transparent, or of a kind that nnU-Net's reader does not support.
    """
    try:
        with Image.open(path) as image:
            if image.mode in ("P", "1"):
                image = image.convert("RGB" if image.mode == "P" else "L")
            pixels = np.asarray(image)
    except Exception as error:  # a damaged file fails in as many ways as it can be damaged
        raise BadCase(f"{path.name} is damaged or not an image ({error})") from error
    if image.mode in ("LA", "RGBA"):
        if (pixels[..., -1] != 255).any():
            raise BadCase(f"{path.name} is partly transparent")
        pixels = pixels[..., 0] if image.mode == "LA" else pixels[..., :3]
    elif image.mode.startswith("I") and pixels.min() >= 0 and pixels.max() <= 65535:
        pixels = pixels.astype(np.uint16)
    if pixels.dtype not in (np.uint8, np.uint16) or image.mode == "CMYK":
        raise BadCase(f"{path.name} has pixels of mode {image.mode}, but grey or RGB with 8 or 16 bits was expected")
    return pixels


def read_grey(path: Path) -> np.ndarray:
    """As ``read_image``, (H, W). A grey image that was saved as RGB is accepted, a coloured one is not."""
    pixels = read_image(path)
    if pixels.ndim == 2:
        return pixels
    if (pixels != pixels[..., :1]).any():
        raise BadCase(f"{path.name} is a colour image, but a grey one was expected")
    return pixels[..., 0]


def check_labels(labels: np.ndarray, known: dict[str, int]) -> set[int]:
    """The label values that are present. A fraction, or a value that ``known`` does not name, is a bad case."""
    if not np.isfinite(labels).all():
        raise BadCase("the labels hold values that are NaN or infinite")
    values = np.unique(labels)
    unknown = sorted(set(values.tolist()) - set(known.values()))
    if unknown:
        shown = listed(f"{value:g}" for value in unknown)
        raise BadCase(f"unknown label {shown} (known are {min(known.values())} to {max(known.values())})")
    return {int(value) for value in values}


def write_png(image: np.ndarray, labels: np.ndarray, resolved: int, image_path: Path, label_path: Path) -> Written:
    """Image (H, W) or (H, W, 3) and labels (H, W) as nnU-Net's 2D reader takes them; their sizes must agree."""
    if image.shape[:2] != labels.shape[:2]:
        raise BadCase(f"the image is {image.shape[:2]}, its reference {labels.shape[:2]} pixels (height, width)")
    Image.fromarray(image).save(image_path)
    Image.fromarray(labels.astype(np.uint8)).save(label_path)
    return Written({int(value) for value in np.unique(labels)}, resolved)


def write_volume(
    image: np.ndarray, labels: np.ndarray, known: dict[str, int], image_path: Path, label_path: Path
) -> Written:
    """Image and labels (Z, Y, X) without geometry, as NIfTI with a spacing of 1, 1, 1."""
    if image.shape != labels.shape or image.ndim != 3:
        raise BadCase(f"image {image.shape} and label {labels.shape} are not two volumes of one shape")
    if image.dtype.kind not in "biuf" or labels.dtype.kind not in "biuf":
        raise BadCase(f"image ({image.dtype}) and label ({labels.dtype}) are not numbers")
    if not np.isfinite(image).all():
        raise BadCase("the image holds values that are not finite")
    present = check_labels(labels, known)
    _write_nifti(sitk.GetImageFromArray(image.astype(np.float32)), image_path)
    _write_nifti(sitk.GetImageFromArray(labels.astype(np.uint8)), label_path)
    return Written(present)


def write_nifti(image: Path, label: Path, known: dict[str, int], image_path: Path, label_path: Path) -> Written:
    """A volume and its labels that are NIfTI already: read with nnU-Net's own reader to check them, then copied."""
    pixels, geometry = _read_nifti(image)
    labels, label_geometry = _read_nifti(label)
    if pixels.shape != labels.shape:
        raise BadCase(f"{image.name} is {pixels.shape[1:]}, {label.name} {labels.shape[1:]} voxels (z, y, x)")
    if not np.allclose(geometry["spacing"], label_geometry["spacing"], rtol=1e-3):
        mm = [" x ".join(f"{value:.4g}" for value in about["spacing"]) for about in (geometry, label_geometry)]
        raise BadCase(f"{image.name} has a spacing of {mm[0]} mm, {label.name} of {mm[1]} (z, y, x)")
    if not same_direction(geometry, label_geometry):
        raise BadCase(
            f"{image.name} and {label.name} are stored in different orientations: their voxels do not belong together"
        )
    present = check_labels(labels, known)
    for source, target in ((image, image_path), (label, label_path)):
        if source.name.endswith(".nii.gz"):
            shutil.copyfile(source, target)
        else:
            _write_nifti(sitk.ReadImage(str(source)), target)
    return Written(present)


def _write_nifti(image: sitk.Image, path: Path) -> None:
    with written_whole(path):
        sitk.WriteImage(image, str(path))


def _read_nifti(path: Path) -> tuple[np.ndarray, dict]:
    try:
        require_whole(path)
        require_finite(path)  # of an image as of its labels
        return read_images(SimpleITKIO, [path])
    except UnreadableImage as error:
        raise BadCase(f"{path.name} is damaged or cannot be read ({error.reason})") from error
