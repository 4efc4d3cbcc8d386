"""Pictures of single cases: two segmentations as contours on image and truth, and where they differ most."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from scipy.ndimage import uniform_filter
from skimage.measure import find_contours
from tqdm import tqdm

from nnunet_skd.tools.cases import reader_class
from nnunet_skd.tools.figures import PAPER_WIDTH, SKY, STYLE, VERMILION, YELLOW
from nnunet_skd.tools.images import read_images, read_segmentation
from nnunet_skd.tools.slices import fullest_slice, grey, in_colour, slice_axis, take_image, take_slice

TRUTH, FIRST, SECOND = YELLOW, SKY, VERMILION
ZOOM = 0.36  # edges of the enlarged part, as a share of the slice's


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case; ``images`` has one file per channel, ``truth`` is None where nobody knows it."""

    title: str
    images: list[Path]
    truth: Path | None
    first: Path
    second: Path


@dataclass(frozen=True)
class CaseSlice:
    """One slice of a case: ``image`` (H, W) or (H, W, 3), label maps (H, W), ``spacing`` of rows and columns in mm."""

    image: np.ndarray
    truth: np.ndarray
    first: np.ndarray
    second: np.ndarray
    differ: np.ndarray
    spacing: tuple[float, float]


def read_slice(files: CaseFiles, dataset_json: dict) -> CaseSlice:
    """Read a case with nnU-Net's reader and take the slice where the two segmentations differ in most voxels.

    Where they are the same it is the one with most foreground. Voxels with the ignore label do not count as different,
    and are shown as background in all three.

    Raises:
        ValueError: the files' shapes do not agree.
    """
    reader = reader_class(dataset_json, files.first)
    image, properties = read_images(reader, files.images)
    named = {"reference": files.truth, "first": files.first, "second": files.second}
    read = {name: read_segmentation(reader, file)[0][0] for name, file in named.items() if file}
    shapes = {"image": image.shape[1:]} | {name: segmentation.shape for name, segmentation in read.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"the shapes differ: {', '.join(f'{name} {shape}' for name, shape in shapes.items())}")

    first, second = read["first"], read["second"]
    truth = read.get("reference", np.zeros_like(first))
    differ = first != second
    ignore = dataset_json["labels"].get("ignore")
    if ignore is not None:
        differ &= truth != ignore
        truth, first, second = (np.where(truth == ignore, 0, one) for one in (truth, first, second))
    spacing = [float(s) for s in properties["spacing"]]
    axis = slice_axis(spacing)
    index = fullest_slice(differ if differ.any() else (truth > 0) | (first > 0) | (second > 0), axis)
    take = partial(take_slice, axis=axis, index=index)
    return CaseSlice(
        take_image(image, axis, index, colour=in_colour(len(image), len(files.images), dataset_json)),
        take(truth),
        take(first),
        take(second),
        take(differ),
        tuple(s for a, s in enumerate(spacing) if a != axis),
    )


def draw_differences(
    cases: list[CaseFiles], path: Path, *, dataset_json: dict, first_name: str, second_name: str
) -> list[str]:
    """Draw one row per case: the image, the same with both contours on the truth, and the place where they differ most.

    Args:
        cases: the cases, drawn from top to bottom.
        path: the picture file to write.
        dataset_json: nnU-Net's dataset.json, for the reader and the ignore label.
        first_name, second_name: what the legend calls the two segmentations.

    Returns:
        One sentence for each case that could not be drawn; no file is written if none could.
    """
    slices, problems = [], []
    for files in tqdm(cases, desc=f"pictures of {second_name}", disable=len(cases) < 2):
        try:
            slices.append((files.title, read_slice(files, dataset_json)))
        except Exception as error:  # every reader has its own, and one unreadable image must not cost the report
            problems.append(f"{files.title}: not drawn, {error}")
    if slices:
        with matplotlib.rc_context(STYLE):
            _draw(slices, path, first_name, second_name, truth=any(files.truth for files in cases))
    return problems


def _draw(slices: list[tuple[str, CaseSlice]], path: Path, first_name: str, second_name: str, truth: bool) -> None:
    heights = [_physical_ratio(s) * PAPER_WIDTH / 3 + 0.3 for _, s in slices]
    legend_height = 0.35
    figure = Figure(figsize=(PAPER_WIDTH, sum(heights) + legend_height), layout="constrained")
    rows = figure.subfigures(len(slices) + 1, 1, height_ratios=[legend_height, *heights])
    rows[0].legend(
        handles=[
            *([Patch(facecolor=TRUTH, alpha=0.5, label="reference segmentation")] if truth else []),
            Line2D([], [], color=FIRST, linewidth=2.4, label=first_name),
            Line2D([], [], color=SECOND, linewidth=1, label=second_name),
        ],
        loc="center",
        ncols=3,
        frameon=False,
    )
    for row, (title, case) in zip(rows[1:], slices, strict=True):
        row.suptitle(title, x=0.01, ha="left", fontsize=8)
        plain, whole, zoom = row.subplots(1, 3)
        top, left, height, width = _most_different_part(case)
        for axes in (plain, whole, zoom):
            axes.set_axis_off()
        _show(plain, case.image, case)
        _show(whole, case.image, case)
        _overlay(whole, case, linewidth=0.5)
        for colour, linewidth in (("black", 1.6), ("white", 0.8)):  # seen on bright and on dark images
            corner = (left - 0.5, top - 0.5)
            whole.add_patch(Rectangle(corner, width, height, fill=False, color=colour, linewidth=linewidth))
        # The enlarged part gets a grey scale of its own: soft tissue beside bone would otherwise be flat.
        _show(zoom, case.image, case, window=case.image[top : top + height, left : left + width])
        _overlay(zoom, case, linewidth=1.0)
        zoom.set_xlim(left - 0.5, left + width - 0.5)
        zoom.set_ylim(top + height - 0.5, top - 0.5)
    figure.savefig(path, dpi=300)


def _physical_ratio(case: CaseSlice) -> float:
    height, width = (n * s for n, s in zip(case.truth.shape, case.spacing, strict=True))
    return float(np.clip(height / width, 0.5, 1.6))


def _show(axes: Axes, image: np.ndarray, case: CaseSlice, window: np.ndarray | None = None) -> None:
    low, high = np.percentile(image if window is None else window, (0.5, 99.5))
    axes.imshow(grey(image, low, high), cmap="gray", vmin=0, vmax=1, aspect=case.spacing[0] / case.spacing[1])


def _overlay(axes: Axes, case: CaseSlice, linewidth: float) -> None:
    tint = np.zeros((*case.truth.shape, 4))
    tint[case.truth > 0] = matplotlib.colors.to_rgba(TRUTH, 0.35)
    axes.imshow(tint, aspect=case.spacing[0] / case.spacing[1], interpolation="nearest")
    # The first contour is wider, so that it still shows on both sides where the second runs over it.
    for segmentation, colour, width in ((case.first, FIRST, 2.4 * linewidth), (case.second, SECOND, linewidth)):
        lines = []
        for label in np.unique(segmentation[segmentation > 0]):
            # The border of zeros closes outlines that leave the image.
            outlines = find_contours(np.pad(segmentation == label, 1).astype(float), 0.5)
            lines += [outline[:, ::-1] - 1 for outline in outlines]
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=width), autolim=False)


def _most_different_part(case: CaseSlice) -> tuple[int, int, int, int]:
    """Top, left, height and width in pixels of the part that holds most of the difference."""
    shape = case.differ.shape
    size = [max(1, round(ZOOM * n)) for n in shape]
    density = uniform_filter(case.differ.astype(np.float32), size, mode="constant")
    # Wide plateaus are common: the middle of the best places centres the difference.
    best = np.argwhere(density >= density.max() - 1e-6)
    centre = best[np.argmin(((best - best.mean(0)) ** 2).sum(1))]
    top, left = (int(np.clip(c - s // 2, 0, n - s)) for c, s, n in zip(centre, size, shape, strict=True))
    return top, left, size[0], size[1]
