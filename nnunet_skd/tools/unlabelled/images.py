"""Images in nnU-Net's naming: found by their names, then read, checked and hashed."""

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunet_skd.tools.images import UnreadableImage, is_finite, read_images

Problems = dict[str, list[str]]  # what is wrong and the way out -> the files or cases concerned


def find_cases(folder: Path, file_ending: str) -> tuple[dict[str, list[Path]], Problems]:
    """Group a folder's files into cases by their names: CASE_0000.png, CASE_0001.png, ... Folders in it are not read.

    Returns:
        The images of each case in the order of its channels, and what is wrong with other files. Hidden files and
        what operating systems leave behind are neither.
    """
    channels: dict[str, dict[int, Path]] = {}
    problems: Problems = {}
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith(".") or path.name.lower() in ("thumbs.db", "desktop.ini"):
            continue
        if not path.name.endswith(file_ending):
            what = f"files that do not end in {file_ending}, the dataset's file ending (convert them or take them out)"
            problems.setdefault(what, []).append(path.name)
        elif match := re.fullmatch(r"(.+)_(\d{4})", path.name.removesuffix(file_ending)):
            channels.setdefault(match[1], {})[int(match[2])] = path
        else:
            what = f"no channel number in the name (rename CASE{file_ending} to CASE_0000{file_ending})"
            problems.setdefault(what, []).append(path.name)
    for case, files in channels.items():
        missing = [f"{case}_{n:04d}{file_ending}" for n in range(max(files)) if n not in files]
        if missing:
            problems.setdefault("missing channels (add them, or take the case out)", []).extend(missing)
        if case.endswith("_seg"):
            what = "case names that end in _seg, as the files of nnU-Net's segmentations do (rename them)"
            problems.setdefault(what, []).append(case)
    return {case: [files[n] for n in sorted(files)] for case, files in channels.items()}, problems


def stamps(images: list[Path]) -> list[list[int]]:
    """Size in bytes and modification time in ns of each file: the same ones mean that it was not changed."""
    return [[status.st_size, status.st_mtime_ns] for status in (path.stat() for path in images)]


class Content(NamedTuple):
    """What is in a case's images. `problem` is empty if they can be used; the rest then holds."""

    hash: str = ""
    channels: int = 0
    finite: bool = True
    problem: str = ""


def read_content(images: list[Path], reader: type[BaseReaderWriter]) -> Content:
    """Read a case as nnU-Net's preprocessing does.

    The hash is that of the voxels as nnU-Net sees them, float32 (channel, z, y, x): bit depth, compression, header and
    file name do not matter.
    """
    try:
        voxels, _ = read_images(reader, images)
    except UnreadableImage as error:
        return Content(problem=error.reason)
    finite = all(is_finite(path) for path in images)
    voxels = np.ascontiguousarray(voxels, dtype=np.float32)
    content = hashlib.blake2b(repr(voxels.shape).encode(), digest_size=16)
    content.update(voxels)
    return Content(content.hexdigest(), len(voxels), finite and bool(np.isfinite(voxels).all()))
