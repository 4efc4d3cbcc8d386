"""What the converters of ``nnunet-skd convert`` share: finding, pairing and checking files, and writing one case.

A data set is one module ``convert_<name>.py``. Its ``find(files, **options)`` looks at file names only and returns
a ``Found``; the pixels are read later, one case at a time, by each case's ``write``.
"""

import re
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
import SimpleITK as sitk
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from PIL import Image

from nnunet_skd.tools.errors import BadInput

Files = dict[str, Path]  # source and path inside it, "0:Database_134_Angiograms/1.pgm" -> where it is on this disk


class BadCase(Exception):
    """This case cannot be converted; the message says why, the caller adds the case's name."""


class Written(NamedTuple):
    """What ``Case.write`` did: the labels that are present, and how many pixels had to be resolved by a rule."""

    labels: set[int]
    resolved: int = 0


@dataclass
class Case:
    """One image with its reference. ``part`` is the publisher's: "train", "val" or "test"."""

    name: str
    part: str
    write: Callable[[Path, Path], Written]


@dataclass
class Found:
    """Everything about a data set but its pixels. ``problems`` name each missing, unpaired or doubled file."""

    cases: list[Case]
    labels: dict[str, int]
    channel_names: dict[str, str]
    file_ending: str
    configuration: str
    reference: str
    licence: str
    description: str
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    resolved: str = ""  # what the pixels counted in Written.resolved are


# --- finding ---------------------------------------------------------------------------------------------------------


def index(files: Files, pattern: str, problems: list[str]) -> dict:
    """Files whose path ends as ``pattern`` says, by the pattern's groups (a tuple, or a string if there is one group).

    Digits in a group are compared as numbers, so that 2 comes before 10. Two files with one key are a problem.
    """
    found = {}
    for path in sorted(files):
        match = re.search(f"(?:^|[:/]){pattern}$", path)
        if not match:
            continue
        key = match.groups() if len(match.groups()) > 1 else match.group(1)
        if key in found:
            problems.append(f"{path}: ignored, {found[key]} has the same name or number")
        else:
            found[key] = path
    return {key: files[found[key]] for key in sorted(found, key=natural)}


def natural(key) -> list:
    """Sorting key: "case10" after "case2"."""
    parts = [key] if isinstance(key, str) else list(key)
    return [[int(piece) if piece.isdigit() else piece for piece in re.split(r"(\d+)", str(part))] for part in parts]


def paired(images: dict, references: dict, problems: list[str]) -> list:
    """Keys that have both an image and a reference; every other file is a problem, by name."""
    for key, path in (images | references).items():
        if key not in references:
            problems.append(f"{short(path)}: no reference for this image")
        elif key not in images:
            problems.append(f"{short(path)}: no image for this reference")
    return [key for key in images if key in references]


def short(path: Path) -> str:
    """The end of a path, with the folders that tell files of one name apart."""
    return "/".join(path.parts[-3:])


def require_any(cases: list, files: Files, layout: str) -> None:
    """Refuse a source in which nothing of the data set was recognised."""
    if not cases:
        some = ", ".join(sorted(files)[:5]) or "no files at all"
        raise BadInput(f"nothing of this data set was recognised. Expected {layout}; the source holds {some} ...")


# --- reading and checking --------------------------------------------------------------------------------------------


def read_image(path: Path) -> np.ndarray:
    """A PNG, JPEG or PGM as (H, W) or (H, W, 3), unsigned integers.

    Raises:
        BadCase: the file is damaged, half transparent, or of a kind that nnU-Net's reader does not take.
    """
    try:
        with Image.open(path) as image:
            if image.mode in ("P", "1"):
                image = image.convert("RGB" if image.mode == "P" else "L")
            pixels = np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadCase(f"{path.name} is damaged or no image ({error})") from error
    if image.mode in ("LA", "RGBA"):
        if (pixels[..., -1] != 255).any():
            raise BadCase(f"{path.name} is partly transparent")
        pixels = pixels[..., 0] if image.mode == "LA" else pixels[..., :3]
    elif image.mode.startswith("I") and pixels.min() >= 0 and pixels.max() <= 65535:
        pixels = pixels.astype(np.uint16)
    if pixels.dtype not in (np.uint8, np.uint16) or image.mode == "CMYK":
        raise BadCase(f"{path.name} has pixels of mode {image.mode}, expected grey or RGB with 8 or 16 bit")
    return pixels


def read_grey(path: Path) -> np.ndarray:
    """As ``read_image``, (H, W). A grey picture that was saved as RGB is taken, a coloured one is not."""
    pixels = read_image(path)
    if pixels.ndim == 2:
        return pixels
    if (pixels != pixels[..., :1]).any():
        raise BadCase(f"{path.name} is a colour image, expected a grey one")
    return pixels[..., 0]


def binary(mask: np.ndarray, threshold: int | None) -> tuple[np.ndarray, int]:
    """A mask of two values, 0 and 1 or 0 and 255, as labels 0 and 1; in others, values from ``threshold`` on are 1.

    Returns:
        The labels (H, W), and the number of pixels between black and white that the threshold decided.
    """
    values = np.unique(mask)
    if set(values.tolist()) <= {0, 1} or set(values.tolist()) <= {0, 255}:
        return (mask > 0).astype(np.uint8), 0
    if threshold is None:
        some = ", ".join(str(value) for value in values[:8]) + (" ..." if len(values) > 8 else "")
        raise BadCase(f"the mask holds the values {some} where 0 and 255 were expected; --threshold decides about them")
    return (mask >= threshold).astype(np.uint8), int(((mask > 0) & (mask < 255)).sum())


def check_labels(labels: np.ndarray, known: dict[str, int]) -> set[int]:
    """The label values that are present. A fraction, or a value that ``known`` does not name, is a bad case."""
    values = np.unique(labels)
    unknown = sorted(set(values.tolist()) - set(known.values()))
    if unknown:
        shown = ", ".join(f"{value:g}" for value in unknown[:10])
        raise BadCase(f"unknown label {shown} (known are {min(known.values())} to {max(known.values())})")
    return {int(value) for value in values}


# --- writing one case ------------------------------------------------------------------------------------------------


def write_png(image_path: Path, label_path: Path, image: np.ndarray, labels: np.ndarray) -> None:
    """Image (H, W) or (H, W, 3) and labels (H, W) as nnU-Net's 2D reader takes them; their sizes must agree."""
    if image.shape[:2] != labels.shape[:2]:
        raise BadCase(f"the image is {image.shape[:2]}, its reference {labels.shape[:2]} pixels (height, width)")
    Image.fromarray(image).save(image_path)
    Image.fromarray(labels.astype(np.uint8)).save(label_path)


def write_vessels(image: Path, mask: Path, threshold: int | None, image_path: Path, label_path: Path) -> Written:
    """A grey angiogram and its black and white vessel mask."""
    labels, resolved = binary(read_grey(mask), threshold)
    write_png(image_path, label_path, read_grey(image), labels)
    return Written({int(value) for value in np.unique(labels)}, resolved)


def write_volume(image: np.ndarray, labels: np.ndarray, known: dict[str, int], image_path: Path, label_path: Path):
    """Image and labels (Z, Y, X) without geometry, as NIfTI with a spacing of 1, 1, 1."""
    if image.shape != labels.shape or image.ndim != 3:
        raise BadCase(f"image {image.shape} and label {labels.shape} are not two volumes of one shape")
    if not np.isfinite(image).all():
        raise BadCase("the image holds values that are not finite")
    present = check_labels(labels, known)
    sitk.WriteImage(sitk.GetImageFromArray(image.astype(np.float32)), str(image_path))
    sitk.WriteImage(sitk.GetImageFromArray(labels.astype(np.uint8)), str(label_path))
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
    present = check_labels(labels, known)
    for source, target in ((image, image_path), (label, label_path)):
        if source.name.endswith(".nii.gz"):
            shutil.copyfile(source, target)
        else:
            sitk.WriteImage(sitk.ReadImage(str(source)), str(target))
    return Written(present)


def _read_nifti(path: Path) -> tuple[np.ndarray, dict]:
    try:
        # ITK reads a file that was cut short without a word, as zeros; nibabel says so
        np.asanyarray(nibabel.load(path).dataobj)
        return SimpleITKIO().read_images((str(path),))
    except (OSError, EOFError, ValueError, RuntimeError, zlib.error, nibabel.filebasedimages.ImageFileError) as error:
        raise BadCase(f"{path.name} is damaged or no NIfTI file that nnU-Net can read ({error})") from error
