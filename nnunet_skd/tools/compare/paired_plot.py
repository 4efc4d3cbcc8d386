"""Box plots of two paired samples, with a line per case: one panel per comparison."""

import re
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from nnunet_skd.tools.figures import BLUE, GREY, PAPER_WIDTH, STYLE, VERMILION

BETTER, WORSE, SAME = BLUE, VERMILION, GREY


@dataclass(frozen=True)
class Panel:
    """Two paired samples (cases,) and the words around them."""

    title: str
    unit: str
    names: tuple[str, str]
    first: np.ndarray
    second: np.ndarray
    higher_is_better: bool


def draw_paired_boxes(panels: list[Panel], path: Path, *, columns: int) -> None:
    """Draw a grid of panels: a box and the cases' points on either side, a line for each case between them.

    Args:
        panels: row by row.
        path: the picture file to write.
        columns: panels beside each other, at most four at paper width.
    """
    columns = min(columns, 4, len(panels))
    rows = -(-len(panels) // columns)
    # One or two panels over the whole paper width would be mostly white.
    width = PAPER_WIDTH if columns > 2 else 3.2 * columns
    with matplotlib.rc_context(STYLE | {"axes.titlesize": 8}):
        figure = Figure(figsize=(width, 2.7 * rows + 0.6), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(panels) :]:
            axes.remove()
        for axes, panel in zip(grid, panels, strict=False):
            _draw_panel(axes, panel, wrap_at=12 if columns == 4 else 16)
        figure.legend(
            handles=[
                Line2D([], [], color=BETTER, marker="o", markersize=3, label="case got better"),
                Line2D([], [], color=WORSE, marker="o", markersize=3, label="case got worse"),
                Line2D([], [], color=SAME, marker="o", markersize=3, label="unchanged"),
                Patch(facecolor="0.9", edgecolor="0.3", label="quartiles, median"),
                Line2D([], [], color="black", marker="D", markersize=4, linestyle="none", label="mean"),
            ],
            loc="outside lower center",
            ncols=5 if columns > 2 else 3 if columns == 2 else 2,
            frameon=False,
            handlelength=1.5,
            columnspacing=1.2,
        )
        figure.savefig(path, dpi=300)


def _draw_panel(axes: Axes, panel: Panel, wrap_at: int) -> None:
    gain = np.round(panel.second - panel.first, 12) * (1 if panel.higher_is_better else -1)
    colours = np.where(gain > 0, BETTER, np.where(gain < 0, WORSE, SAME))
    alpha = float(np.clip(20 / len(gain), 0.2, 0.8))
    segments = [[(0, a), (1, b)] for a, b in zip(panel.first, panel.second, strict=True)]
    axes.add_collection(LineCollection(segments, colors=colours, linewidths=0.6, alpha=alpha))
    for x, values, box in ((0, panel.first, -0.35), (1, panel.second, 1.35)):
        axes.scatter(np.full(len(values), x), values, s=5, c=colours, alpha=alpha, linewidths=0, zorder=3)
        axes.boxplot(
            [values],
            positions=[box],
            widths=0.32,
            showfliers=False,  # every case is a point already
            patch_artist=True,
            boxprops={"facecolor": "0.9", "edgecolor": "0.3"},
            medianprops={"color": "0.1", "linewidth": 1.3},
            whiskerprops={"color": "0.3"},
            capprops={"color": "0.3"},
        )
        axes.plot(box, np.mean(values), "D", color="black", markersize=3.5, zorder=4)
    axes.set_xlim(-0.7, 1.7)
    axes.set_xticks([-0.15, 1.15], [_wrap(name, wrap_at) for name in panel.names])
    axes.tick_params(axis="x", length=0, labelsize=7)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_ylabel(panel.unit)
    axes.set_title(panel.title)
    axes.spines[["top", "right"]].set_visible(False)


def _wrap(name: str, width: int) -> str:
    """Break a trainer's name at capitals and underscores, so that two fit beside each other."""
    lines = [""]
    for part in re.findall(r"[A-Z]+(?![a-z])\d*|[A-Z]?[^A-Z_\W]+|[\W_]+|.", name):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)
