"""Table and picture of ``nnunet-skd speed``."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from nnunet_skd.tools.evaluate.folders import evaluate_folders
from nnunet_skd.tools.evaluate.statistics import quartiles
from nnunet_skd.tools.evaluate.summary import FOREGROUND, summarize
from nnunet_skd.tools.figures import BLUE, PAPER_WIDTH, STYLE
from nnunet_skd.tools.speed.measure import LoadedArm
from nnunet_skd.tools.text_table import aligned

LINE = 10  # points from one name to the next


def quality_table(
    arms: Sequence[LoadedArm],
    predicted: Path,
    reference: Path,
    dataset_json: dict,
    metrics: Sequence[str],
    num_processes: int,
) -> dict[str, dict[str, float]]:
    """Evaluate what :func:`measure` wrote.

    Returns:
        For each arm's name and metric ``Dice``, ``Dice_low`` and ``Dice_high``: the mean over the classes (or all
        classes at once) with its interval; ``Dice_n``: the cases and classes that have a value.

    Raises:
        BadInput: a reference that cannot be read, or that does not fit its prediction.
    """
    rows = {}
    for arm in arms:
        rows[arm.name] = {}
        frame = evaluate_folders(
            reference, predicted / arm.file_name, dataset_json, num_processes=num_processes, metrics=metrics, chill=True
        )
        table = summarize(frame)
        for metric in metrics:
            of_metric = table[table["metric"] == metric]
            overall = of_metric[of_metric["label"] == FOREGROUND]
            row = (overall if len(overall) else of_metric).iloc[0]
            values = of_metric[of_metric["label"] != FOREGROUND]["n"].sum()
            numbers = {"": row["mean"], "_low": row["low"], "_high": row["high"], "_n": values}
            rows[arm.name] |= {f"{metric}{name}": number for name, number in numbers.items()}
    return rows


def speed_table(arms: Sequence[LoadedArm], times: pd.DataFrame, quality: dict[str, dict[str, float]]) -> pd.DataFrame:
    """One row per arm: what it is, forward passes (median) and seconds (median, quartiles) per case, its quality."""
    rows = []
    for arm in arms:
        of_arm = times[times["arm"] == arm.name]
        seconds = quartiles(of_arm["seconds"].tolist())
        rows.append(
            {
                "arm": arm.name,
                "folds": " ".join(arm.folds),
                "mirrored": arm.mirror,
                "networks": arm.networks,
                "cases": len(of_arm),
                "forward_passes": float(of_arm["forward_passes"].median()),
                "seconds": seconds["median"],
                "seconds_q1": seconds["q1"],
                "seconds_q3": seconds["q3"],
                **quality.get(arm.name, {}),
            }
        )
    return pd.DataFrame(rows)


def speed_text(table: pd.DataFrame, metrics: Sequence[str]) -> str:
    """:func:`speed_table` for people."""
    rows = [["arm", "networks", "passes/case", "s/case", "quartiles", *metrics]]
    for _, row in table.iterrows():
        cells = [row["arm"], str(row["networks"]), f"{row['forward_passes']:g}", f"{row['seconds']:.3g}"]
        cells.append(f"{row['seconds_q1']:.3g} - {row['seconds_q3']:.3g}")
        for m in metrics:
            cells.append(f"{row[m]:.4f} ({row[f'{m}_low']:.4f} - {row[f'{m}_high']:.4f})")
        rows.append(cells)
    return "\n".join(aligned(rows, left=[0]))


def without_value(table: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    """A line for each metric that some arms have in fewer cases and classes than others: their means are of others."""
    counts = {metric: table.set_index("arm")[f"{metric}_n"] for metric in metrics}
    return [
        f"{metric} has no value where an arm misses a class, so these means are not of the same cases: "
        + ", ".join(f"{count:.0f} values of {arm}" for arm, count in of_arms.items())
        for metric, of_arms in counts.items()
        if of_arms.nunique() > 1
    ]


def write_picture(table: pd.DataFrame, metrics: Sequence[str], title: str, path: Path) -> None:
    """Quality against seconds per case, a panel per metric and a named point per arm.

    The whiskers are quartiles of the seconds and 95 % intervals of the metric. Filled points are mirrored.
    """
    with matplotlib.rc_context(STYLE):
        height = max(3.2, 1 + 0.3 * len(table))
        figure = Figure(figsize=(PAPER_WIDTH, height * len(metrics)), layout="constrained")
        for axes, metric in zip(figure.subplots(len(metrics), 1, squeeze=False)[:, 0], metrics, strict=True):
            _draw_panel(axes, table, metric)
        figure.suptitle(title, fontsize=8)
        figure.draw_without_rendering()  # fixes where the points are
        for axes, metric in zip(figure.axes, metrics, strict=True):
            _name_points(axes, table, metric)
        figure.savefig(path, dpi=200)


def _draw_panel(axes: Axes, table: pd.DataFrame, metric: str) -> None:
    for _, row in table.iterrows():
        x, y = row["seconds"], row[metric]
        whiskers = [
            [[x - row["seconds_q1"]], [row["seconds_q3"] - x]],
            [[y - row[f"{metric}_low"]], [row[f"{metric}_high"] - y]],
        ]
        axes.errorbar(
            x,
            y,
            xerr=whiskers[0],
            yerr=None if np.isnan(whiskers[1]).any() else np.maximum(whiskers[1], 0),
            fmt="o",
            color=BLUE,
            markerfacecolor=BLUE if row["mirrored"] else "white",
            ecolor="0.7",
            elinewidth=1,
            capsize=2,
        )
    axes.set_xscale("log")
    low, high = table["seconds_q1"].min(), table["seconds_q3"].max()
    axes.set_xlim(low / 1.3, high * 1.3 * (high / low) ** 0.4)  # room for the names, right of the points
    ticks = [t for t in np.outer(10.0 ** np.arange(-4, 6), [1, 2, 5]).ravel() if low / 1.3 <= t <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="seconds per case (filled: mirrored)", ylabel=metric)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _name_points(axes: Axes, table: pd.DataFrame, metric: str) -> None:
    """Names to the right of their points, moved up where they would lie on each other."""
    table = table.dropna(subset=metric).sort_values(metric)
    previous = -np.inf
    for row in table.itertuples():
        y = axes.transData.transform((row.seconds, getattr(row, metric)))[1] * 72 / axes.figure.dpi  # points
        height = previous = max(y, previous + LINE)
        axes.annotate(
            f"{row.arm} ({row.forward_passes:g} passes)",
            (row.seconds, getattr(row, metric)),
            xytext=(6, height - y + 7),  # above the whisker
            textcoords="offset points",
            va="center",
            fontsize=7,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.5, "relpos": (0, 0.5)}
            if height > y
            else None,
        )
