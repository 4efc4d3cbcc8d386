"""The images of a case: read, checked and hashed."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunet_skd.tools.cases import spacing_file
from nnunet_skd.tools.images import UnreadableImage, is_finite, read_images


def stamps(images: list[Path]) -> list[list[int]]:
    """Size in bytes and modification time in ns of each file: the same ones mean that it was not changed."""
    first = images[0].name
    spacing = spacing_file(images[0], first[first.rindex("_0000") :])
    files = [*images, spacing] if spacing.is_file() else images
    return [[status.st_size, status.st_mtime_ns] for status in (path.stat() for path in files)]


class Content(NamedTuple):
    """What is in a case's images. `problem` is empty if they can be used; the rest then holds."""

    hash: str = ""
    spacing: tuple[float, ...] = ()
    channels: int = 0
    finite: bool = True
    problem: str = ""


def read_content(images: list[Path], reader: type[BaseReaderWriter]) -> Content:
    """Read a case as nnU-Net's preprocessing does.

    The hash is that of the voxels as nnU-Net sees them, float32 (channel, z, y, x): bit depth, compression, header and
    file name do not matter. nnU-Net resamples by the spacing (z, y, x).
    """
    try:
        voxels, properties = read_images(reader, images)
    except UnreadableImage as error:
        return Content(problem=error.reason)
    finite = all(is_finite(path) for path in images)
    voxels = np.ascontiguousarray(voxels, dtype=np.float32)
    content = hashlib.blake2b(repr(voxels.shape).encode(), digest_size=16)
    content.update(voxels)
    spacing = tuple(map(float, properties["spacing"]))
    return Content(content.hexdigest(), spacing, len(voxels), finite and bool(np.isfinite(voxels).all()))
