"""Bar pictures of the bench's results."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nnunet_skd.tools.figures import BLUE, GREEN, GREY, ORANGE

COLOURS = {"rest": BLUE, "losses": ORANGE, "teacher": GREEN}
LABELS = {"rest": "network and optimizer", "losses": "losses, forward and backward", "teacher": "teacher's forward"}


def draw_trainers(results: list[dict], title: str, path: Path) -> None:
    """Step time by parts, peak memory and inference time, one bar per trainer; ratios to the first beside the bars."""
    panels = ["step", "memory"] + ["inference"] * ("inference_s" in results[0])
    figure = Figure(figsize=(4 + 3.2 * len(panels), 1.9 + 0.42 * len(results)), layout="constrained")
    axes = figure.subplots(1, len(panels), width_ratios=[2] + [1] * (len(panels) - 1), sharey=True)
    rows = np.arange(len(results))
    left = np.zeros(len(results))
    for part in ("rest", "losses", "teacher"):
        widths = np.array([max(0.0, r[f"{part}_ms"]["median"]) for r in results])
        axes[0].barh(rows, widths, left=left, color=COLOURS[part], label=LABELS[part], height=0.62)
        left += widths
    _whiskers(axes[0], rows, [r["step_ms"] for r in results])
    _ratios(axes[0], rows, [r["step_ms"]["q3"] for r in results], [r["ratio"]["median"] for r in results])
    axes[0].set(title="training step", xlabel="milliseconds, median and quartiles")
    memory = [r["peak_memory"] / 2**20 for r in results]
    axes[1].barh(rows, memory, color=GREY, height=0.62)
    _ratios(axes[1], rows, memory, [r["peak_memory_ratio"] for r in results])
    axes[1].set(title="peak memory of a step", xlabel="MiB of tensors")
    if "inference" in panels:
        seconds = [r["inference_s"] for r in results]
        axes[2].barh(rows, [s["median"] for s in seconds], color=GREY, height=0.62)
        _whiskers(axes[2], rows, seconds)
        _ratios(axes[2], rows, [s["q3"] for s in seconds], [r["inference_ratio"]["median"] for r in results])
        axes[2].set(title="inference", xlabel="seconds per case")
    for narrow in axes[1:]:
        narrow.locator_params(axis="x", nbins=4)
    axes[0].set_yticks(rows, [r["name"] for r in results])
    axes[0].invert_yaxis()
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title)
    _save(figure, axes, path)


def draw_losses(results: list[dict], title: str, path: Path) -> None:
    """Time of each term as a multiple of the reference, one panel per number of classes."""
    classes = list(dict.fromkeys(r["classes"] for r in results))
    figure = Figure(figsize=(2.2 + 3 * len(classes), 3.2), layout="constrained")
    axes = figure.subplots(1, len(classes), sharey=True, squeeze=False)[0]
    for axis, count in zip(axes, classes, strict=True):
        terms = [r for r in results if r["classes"] == count]
        rows = np.arange(len(terms))
        axis.barh(rows, [r["ratio"]["median"] for r in terms], color=[COLOURS["rest"]] + [COLOURS["losses"]] * 9)
        _whiskers(axis, rows, [r["ratio"] for r in terms])
        _ratios(axis, rows, [r["ratio"]["q3"] for r in terms], [r["ratio"]["median"] for r in terms])
        axis.set(title=f"{count} classes, {terms[0]['edge']}³ voxels", xlabel="time, multiples of the first")
        axis.set_yticks(rows, [r["term"] for r in terms])
    axes[0].invert_yaxis()
    figure.suptitle(title)
    _save(figure, axes, path)


def _whiskers(axis: Axes, rows: np.ndarray, values: list[dict]) -> None:
    medians = np.array([v["median"] for v in values])
    reach = [medians - [v["q1"] for v in values], np.array([v["q3"] for v in values]) - medians]
    axis.errorbar(medians, rows, xerr=reach, fmt="none", ecolor="black", capsize=3, linewidth=1)


def _ratios(axis: Axes, rows: np.ndarray, ends: list[float], ratios: list[float]) -> None:
    for row, end, ratio in zip(rows, ends, ratios, strict=True):
        axis.annotate(f"{ratio:.2f}", (end, row), xytext=(6, 0), textcoords="offset points", va="center")
    axis.set_xlim(0, 1.18 * max(ends))


def _save(figure: Figure, axes: np.ndarray, path: Path) -> None:
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
