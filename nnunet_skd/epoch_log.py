"""What the self-distillation did in each epoch: means of the steps, ``distillation.csv`` and ``distillation.png``."""

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib.style
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, distributed

from nnunet_skd.messages import first_line

MOST_IN_A_LEGEND = 20
STYLES = ("-", "--", ":", "-.")  # terms that lie on each other stay visible


class EpochMeans:
    """Running means of what the steps report. The sums stay on the device: no step waits for them."""

    def __init__(self) -> None:
        self._sums: dict[str | tuple[str, ...], Tensor] = {}
        self._steps: dict[str | tuple[str, ...], Tensor] = {}

    def add(self, values: dict[str | tuple[str, ...], Tensor | float], *, skip_undefined: bool = False) -> None:
        """One step's numbers and scalars, and vectors, which are named by a tuple: a name for each of their values.

        ``skip_undefined``: a nan does not count; otherwise it must be seen.
        """
        for name, value in values.items():
            value = torch.as_tensor(value).detach().float()
            if value.numel() != (1 if isinstance(name, str) else len(name)):
                raise ValueError(f"{name!r} names {value.numel()} values in the log: name a vector by a tuple of names")
            counts = ~value.isnan() if skip_undefined else torch.ones_like(value)
            self._sums[name] = self._sums.get(name, 0) + torch.where(counts > 0, value, 0)
            self._steps[name] = self._steps.get(name, 0) + counts

    def pop(self) -> dict[str, float]:
        """The mean of each since the last call; nan: never defined. Waits for the device."""
        means = {}
        for name, value in self._sums.items():
            names = (name,) if isinstance(name, str) else name
            means |= dict(zip(names, (value / self._steps[name]).view(-1).tolist(), strict=True))
        self._sums, self._steps = {}, {}
        return means


def mean_over_ranks(means: dict[str, float]) -> dict[str, float]:
    """Mean over the processes of a distributed training where a value is defined; of one process, its own."""
    if not distributed.is_initialized():
        return means
    ranks = [None] * distributed.get_world_size()
    distributed.all_gather_object(ranks, means)
    return pd.DataFrame(ranks).mean().to_dict()


def shares(terms: dict[str, float], lowest: dict[str, float]) -> dict[str, float]:
    """``share_<name>`` of each term: its size over the sum of all sizes.

    nnU-Net's Dice loss is minus the Dice, so a term that holds it is counted from its ``lowest`` value.
    """
    sizes = {name: abs(value - lowest.get(name, 0.0)) for name, value in terms.items()}
    total = sum(sizes.values()) or 1.0
    return {f"share_{name}": size / total for name, size in sizes.items()}


def _legend(axis: Axes) -> tuple[list, list[str]]:
    """Lines and names: of many classes none is named, or the axes would have no room."""
    lines, names = axis.get_legend_handles_labels()
    if len(names) <= MOST_IN_A_LEGEND:
        return lines, names
    chosen = [i for i, name in enumerate(names) if not name[-1].isdigit()]
    return [lines[i] for i in chosen], [names[i] for i in chosen]


def plot_is_due(done: int, num_epochs: int) -> bool:
    """After each of the first ten epochs, each tenth, and the last: a plot takes half a second, and the GPU waits."""
    return done <= 10 or done % 10 == 0 or done == num_epochs


class DistillationLog:
    """The epochs' rows in a CSV file that is always complete, and a plot of it.

    A new training moves an older CSV aside (``distillation_<date>.csv``); a continued one drops the epochs that it is
    going to repeat. A file that cannot be read is moved aside too. Nothing here ever ends a training: what cannot be
    written is reported once through ``warn``.
    """

    def __init__(self, folder: str | os.PathLike, first_epoch: int, warn: Callable[[str], None]):
        self.csv = Path(folder) / "distillation.csv"
        self.png = Path(folder) / "distillation.png"
        self.rows: list[dict] = []
        self._warn: Callable[[str], None] | None = warn
        self._protected(self._take_over, first_epoch)

    def _take_over(self, first_epoch: int) -> None:
        if not self.csv.is_file():
            return
        if first_epoch > 0:
            try:
                table = pd.read_csv(self.csv).apply(pd.to_numeric)
                self.rows = table[table["epoch"] < first_epoch].to_dict("records")
                return
            except (ValueError, KeyError, TypeError) as error:  # pandas' own errors are ValueErrors
                self._warn(f"{self.csv} cannot be read ({first_line(error)}) and is moved aside; a new one begins")
        stamp = time.strftime("%Y_%m_%d_%H_%M_%S", time.localtime(self.csv.stat().st_mtime))
        self.csv.replace(self.csv.with_name(f"distillation_{stamp}.csv"))

    def append(self, row: dict[str, float]) -> None:
        """Add one epoch: ``epoch`` and any numbers."""
        self.rows.append(row)
        self._protected(self._write)

    def plot(self) -> None:
        """Draw the terms' values, their shares of the loss, and everything else that was logged, over the epochs."""
        self._protected(self._draw)

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows)

    def _protected(self, action: Callable, *arguments: object) -> None:
        try:
            action(*arguments)
        except Exception as error:  # a log is not worth a training
            if self._warn is not None:
                self._warn(
                    f"{self.csv.name} and {self.png.name} may be incomplete: {first_line(error)}. "
                    f"The training goes on; it does not need them."
                )
                self._warn = None

    def _write(self) -> None:
        temporary = self.csv.with_suffix(".csv.tmp")
        self.table().to_csv(temporary, index=False)
        temporary.replace(self.csv)

    def _draw(self) -> None:
        table = self.table().set_index("epoch")
        share = table.filter(regex="^share_").rename(columns=lambda name: name.removeprefix("share_"))
        others = table.drop(columns=[*table.filter(regex="^share_"), *share])
        fractions = [name for name in others if others[name].dropna().between(0, 1).all()]
        panels = [("terms of the loss", table[share.columns]), ("share of the loss", share)]
        title = fractions[0] if len(fractions) == 1 else "schedules and other values between 0 and 1"
        panels += [(title.replace("_", " "), others[fractions])]
        panels += [(name.replace("_", " "), others[[name]]) for name in others if name not in fractions]
        panels = [(title, values) for title, values in panels if len(values.columns)]
        # nnU-Net's own plot changes matplotlib's settings for the whole process
        with matplotlib.style.context("default", after_reset=True):
            figure = Figure(figsize=(9, 2.4 * len(panels)), layout="constrained")
            axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
            for axis, (title, values) in zip(axes, panels, strict=True):
                for name, style in zip(values, itertools.cycle(STYLES)):  # noqa: B905 - the styles never end
                    marker = "." if len(values) < 40 else None
                    axis.plot(values.index, values[name], style, marker=marker, label=name.replace("_", " "))
                axis.set_title(title, fontsize="medium", loc="left")
                axis.grid(alpha=0.3)
                if len(values.columns) > 1:
                    axis.legend(*_legend(axis), loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")
            axes[1].set_yscale("symlog", linthresh=1e-3)
            axes[1].set_ylim(0, 1)
            axes[-1].set_xlabel("epoch")
            axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
            temporary = self.png.with_suffix(".tmp.png")
            figure.savefig(temporary, dpi=120)
        temporary.replace(self.png)
