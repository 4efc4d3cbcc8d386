"""How a training went, from what nnU-Net wrote: finished, running, killed and continued ones alike.

The source is training_log_*.txt: nnU-Net adds a line as soon as it is known, a kill leaves a readable file, and reading
it disturbs nobody and executes nothing. Its values are rounded to four decimals. A checkpoint holds the same values
unrounded, but is behind by up to 50 epochs while a training runs; it is read where logs were not copied along.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from nnunet_skd.model_folds import CHECKPOINT, GOES_ON_FROM
from nnunet_skd.tools.checkpoint_file import NeedsCode, NotOfNnunet, read_checkpoint
from nnunet_skd.tools.errors import BadInput

CHECKPOINTS = (CHECKPOINT, *GOES_ON_FROM)
EMA_WEIGHT = 0.1  # nnU-Net's own moving average, by which it chooses checkpoint_best.pth
TRAINED, VALIDATED = "Training done.", "Validation complete"
_STATE = re.compile(rf"[\d-]{{10}} [\d:.]+: +(Epoch \d+|{re.escape(TRAINED)}|{VALIDATED}) *")
_LINE = re.compile(r"[\d-]{10} [\d:.]+: +(Epoch (?P<epoch>\d+)|Pseudo dice (?P<dice>.*)|Epoch time: (?P<time>.*) s) *")


class Training(NamedTuple):
    """One training, whose epochs are complete from 0 on.

    ``epochs`` has one row per epoch: ``epoch`` (from 0), ``pseudo_dice`` (mean over the classes that the validation
    batches hold), ``ema`` (nnU-Net's moving average of it) and ``minutes`` of training up to its end, without pauses.
    ``iterations`` per epoch is None where debug.json does not say it.
    """

    epochs: pd.DataFrame
    iterations: int | None
    finished: bool


def read_training(folder: Path) -> Training:
    """Read a fold folder.

    Raises:
        BadInput: nothing is there, no epoch has ended, a log or checkpoint is damaged, or epochs are missing.
    """
    logs = _logs(folder)
    rows = _read_logs(logs)
    if not rows or len(rows) <= max(rows):  # the logs are gone, or only some of them are here
        rows = _read_checkpoints(folder) or rows
    if not rows:
        if logs:
            raise BadInput(f"no epoch has ended yet in {folder}. Wait for the first one, or leave this fold out")
        raise BadInput(f"{folder} holds no training log and no checkpoint. Train it first, or leave this fold out")
    missing = sorted(set(range(max(rows))) - set(rows))
    if missing:
        raise BadInput(f"the training logs in {folder} lack epoch {missing[0]}. Copy all training_log_*.txt there")
    values = np.array([rows[epoch] for epoch in sorted(rows)], float)
    epochs = pd.DataFrame({"epoch": np.arange(len(values)), "pseudo_dice": values[:, 0]})
    epochs["ema"] = epochs["pseudo_dice"].ewm(alpha=EMA_WEIGHT, adjust=False, ignore_na=True).mean()
    epochs["minutes"] = values[:, 1].cumsum() / 60
    finished = (folder / CHECKPOINT).is_file() and not begun_since(folder, TRAINED)
    return Training(epochs, _iterations(folder), finished)


def begun_since(folder: Path, what: str) -> bool:
    """Whether the logs of a fold folder say that a training went on or began anew after it was TRAINED or VALIDATED.

    nnU-Net keeps the last checkpoint and the validation of a training that is begun anew in the same folder.
    """
    reached = since = False
    for log in _logs(folder):
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            match = _STATE.fullmatch(line)
            if match and match[1] == what:
                reached, since = True, False
            elif match and match[1].startswith("Epoch"):
                since = reached
    return since


def epoch_seconds(folder: Path) -> list[float]:
    """Seconds of each epoch in the logs of a fold folder; of all that are there, also if some of the logs are not.

    Raises:
        BadInput: a log is damaged.
    """
    return [seconds for _, seconds in _read_logs(_logs(folder)).values()]


def _logs(folder: Path) -> list[Path]:
    """In the order in which they were begun."""
    return sorted(folder.glob("training_log_*.txt"), key=_started)


def _started(log: Path) -> list[int]:
    """Year, month, day, ... of the file's name; months and days have no leading zero, so names do not sort."""
    return [int(number) for number in re.findall(r"\d+", log.stem)]


def _read_logs(logs: list[Path]) -> dict[int, tuple[float, float]]:
    """epoch -> (pseudo Dice, seconds). What a continued training repeats counts once, the last time."""
    rows = {}
    for log in logs:
        epoch, dice, began = None, None, False
        text = log.read_text(encoding="utf-8", errors="replace")
        complete = text[: text.rfind("\n") + 1]  # a running training may be in the middle of a line
        for number, line in enumerate(complete.splitlines(), 1):
            match = _LINE.fullmatch(line)
            if match is None:
                continue
            try:
                if match["epoch"] is not None:
                    epoch, dice = int(match["epoch"]), None
                    if not began:
                        rows, began = {e: row for e, row in rows.items() if e < epoch}, True
                elif match["dice"] is not None:
                    dice = _mean(match["dice"])
                elif epoch is not None and dice is not None:
                    rows[epoch] = dice, float(match["time"])
            except ValueError as error:
                raise BadInput(f"line {number} of {log} is damaged: {line!r}. Copy the file again") from error
    return rows


def _mean(classes: str) -> float:
    """``[np.float32(0.75), np.float32(nan)]``, or plain numbers from NumPy 1: the mean of those with a value."""
    values = np.array([float(v) for v in re.sub(r"np\.float\d+\(|[\[\])]", "", classes).split(",")])
    return float(np.nanmean(values)) if not np.isnan(values).all() else np.nan


def _read_checkpoints(folder: Path) -> dict[int, tuple[float, float]]:
    """The same from the checkpoint that went furthest."""
    furthest = {}
    for path in (folder / name for name in CHECKPOINTS):
        if path.is_file():
            try:
                log = read_checkpoint(path)["logging"]
                columns = [log[key] for key in ("mean_fg_dice", "epoch_start_timestamps", "epoch_end_timestamps")]
                rows = {i: (dice, end - start) for i, (dice, start, end) in enumerate(zip(*columns, strict=False))}
            except (NeedsCode, NotOfNnunet) as error:
                raise BadInput(f"{error}. Copy all training_log_*.txt beside it, and they are read instead") from error
            except (KeyError, TypeError) as error:
                raise BadInput(f"{path} holds no log of nnU-Net ({error!r}). Copy it again") from error
            furthest = max(furthest, rows, key=len)
    return furthest


def _iterations(folder: Path) -> int | None:
    try:
        return int(json.loads((folder / "debug.json").read_text(encoding="utf-8"))["num_iterations_per_epoch"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # steps are then counted in epochs
