"""Angiograms with black and white masks of vessels: what their data sets share."""

from argparse import ArgumentParser
from pathlib import Path

import numpy as np

from nnunet_skd.messages import listed
from nnunet_skd.tools.convert.common import BadCase, Written
from nnunet_skd.tools.convert.pixels import read_grey, write_png


def add_threshold(parser: ArgumentParser) -> None:
    """``--threshold``, for masks that are not purely black and white."""
    parser.add_argument(
        "--threshold",
        type=int,
        choices=range(1, 256),
        metavar="1..255",
        help="mask values of at least this are vessel; needed only for masks that are not purely black and white "
        "(default: list these masks and stop)",
    )


def binary(mask: np.ndarray, threshold: int | None) -> tuple[np.ndarray, int]:
    """A mask of two values, 0 and 1 or 0 and 255, as labels 0 and 1; in others, values from ``threshold`` on are 1.

    Returns:
        The labels (H, W), and the number of pixels between black and white that the threshold decided.
    """
    values = np.unique(mask)
    if set(values.tolist()) <= {0, 1} or set(values.tolist()) <= {0, 255}:
        return (mask > 0).astype(np.uint8), 0
    if threshold is None:
        raise BadCase(f"the mask holds the values {listed(values)}, but only 0 and 255 were expected: see --threshold")
    return (mask >= threshold).astype(np.uint8), int(((mask > 0) & (mask < 255)).sum())


def write_vessels(image: Path, mask: Path, threshold: int | None, image_path: Path, label_path: Path) -> Written:
    """A grey angiogram and its black and white vessel mask."""
    labels, resolved = binary(read_grey(mask), threshold)
    return write_png(read_grey(image), labels, resolved, image_path, label_path)
