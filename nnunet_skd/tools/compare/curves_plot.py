"""Curves of pseudo Dice against steps and against minutes, one line per arm."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nnunet_skd.tools.figures import BLUE, GREEN, GREY, ORANGE, PAPER_WIDTH, PURPLE, SKY, STYLE, VERMILION

COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)
DASHES = ("-", "--", ":")


def draw_curves(curves: Sequence[pd.DataFrame], names: Sequence[str], path: Path) -> None:
    """Draw the mean of each arm as a line and the range of its trainings as a band.

    Args:
        curves: of ``curve_table``; the dotted line shows where the first one ends.
        names: of the arms, for the legend.
        path: the picture file to write.
    """
    steps = all(curve["steps"].notna().all() for curve in curves)
    axes_of = (("steps", "training steps") if steps else ("epoch", "epoch"), ("minutes", "minutes of training"))
    styles = [(colour, dash) for dash, colour in itertools.product(DASHES, COLOURS)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(PAPER_WIDTH, 3.1 + 0.16 * -(-len(curves) // 2)), layout="constrained")
        for axes, (x, label) in zip(figure.subplots(1, 2, sharey=True), axes_of, strict=True):
            axes.axhline(curves[0]["mean"].iloc[-1], color=GREY, linestyle=":", linewidth=1)
            for curve, name, (colour, dash) in zip(curves, names, itertools.cycle(styles), strict=False):
                axes.fill_between(curve[x], curve["low"], curve["high"], color=colour, alpha=0.18, linewidth=0)
                marker = "." if len(curve) < 30 else None
                axes.plot(curve[x], curve["mean"], dash, color=colour, label=name, linewidth=1.3, marker=marker)
            axes.set_xlabel(label)
            axes.set_xlim(left=0)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=x != "minutes"))
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
        figure.axes[0].set_ylabel("pseudo Dice (nnU-Net's moving average)")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        figure.savefig(path, dpi=200)
