"""A reliability diagram: how often a network is right, against how sure it is."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from nnunet_skd.tools.figures import BLUE, STYLE, VERMILION

FEWEST = 100  # voxels; the share of fewer is mostly chance


def draw_reliability(before: np.ndarray, after: np.ndarray, path: Path) -> None:
    """Draw the accuracy of each bin of confidence against its mean confidence, as it is and scaled.

    Args:
        before: (3, bins), see ``reliability_bins``; bins with fewer than ``FEWEST`` voxels are left out.
        after: the same of the scaled probabilities.
        path: the picture file to write.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.4, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="as often right as it is sure")
        for bins, colour, label in ((before, VERMILION, "as it is"), (after, BLUE, "scaled")):
            voxels, right, sure = bins[:, bins[0] >= FEWEST]
            axes.plot(sure / voxels, right / voxels, "o-", color=colour, markersize=3, linewidth=1, label=label)
        axes.set(xlabel="confidence", ylabel="share of voxels that are right", xlim=(0, 1), ylim=(0, 1))
        axes.set_aspect("equal")
        axes.legend(loc="upper left", frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, dpi=300)
