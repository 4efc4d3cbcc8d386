"""``distillation.csv`` and ``distillation.png``: one row per epoch of what the self-distillation did."""

import itertools
import os
import time
from pathlib import Path

import matplotlib.style
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

SCHEDULES = ("alpha", "ramp", "lambda")  # between 0 and 1: one panel
STYLES = ("-", "--", ":", "-.")  # terms that lie on each other stay visible


class DistillationLog:
    """The epochs' terms, in a CSV file that is always complete and a plot of it.

    A new training moves an older CSV aside (``distillation_<date>.csv``); a continued one drops the epochs that it is
    going to repeat.
    """

    def __init__(self, folder: str | os.PathLike, first_epoch: int):
        self.csv = Path(folder) / "distillation.csv"
        self.png = Path(folder) / "distillation.png"
        self.rows: list[dict] = []
        if not self.csv.is_file():
            return
        if first_epoch == 0:
            stamp = time.strftime("%Y_%m_%d_%H_%M_%S", time.localtime(self.csv.stat().st_mtime))
            self.csv.replace(self.csv.with_name(f"distillation_{stamp}.csv"))
        else:
            table = pd.read_csv(self.csv)
            self.rows = table[table["epoch"] < first_epoch].to_dict("records")

    def append(self, row: dict) -> None:
        """Add one epoch: ``epoch`` and any numbers."""
        self.rows.append(row)
        temporary = self.csv.with_suffix(".csv.tmp")
        self.table().to_csv(temporary, index=False)
        temporary.replace(self.csv)

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows)

    def plot(self) -> None:
        """The terms' values, their shares of the loss, and everything else that was logged, over the epochs."""
        table = self.table().set_index("epoch")
        shares = table.filter(regex="^share_").rename(columns=lambda name: name.removeprefix("share_"))
        schedules = table.filter(items=SCHEDULES)
        others = table.drop(columns=[*table.filter(regex="^share_"), *shares, *schedules])
        panels = [("terms of the loss", table[shares.columns]), ("share of the loss", shares), ("schedules", schedules)]
        panels += [(name.replace("_", " "), others[[name]]) for name in others]
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
                    axis.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")
            axes[1].set_yscale("symlog", linthresh=1e-3)
            axes[1].set_ylim(0, 1)
            axes[-1].set_xlabel("epoch")
            axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
            temporary = self.png.with_suffix(".tmp.png")
            figure.savefig(temporary, dpi=120)
        temporary.replace(self.png)
