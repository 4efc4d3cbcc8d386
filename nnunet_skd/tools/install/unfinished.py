"""Trainings of this package's trainers that were begun and not finished, and whether they can go on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nnunet_skd.checkpoint import KEY, PARTS
from nnunet_skd.model_checks import CHECKPOINT
from nnunet_skd.tools.checkpoint_file import NeedsCode, read_checkpoint
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.trainers import look_up


@dataclass(frozen=True)
class Training:
    """``obstacle`` says in one line why it cannot go on; empty where it can."""

    fold: Path
    obstacle: str


def unfinished_trainings(results: Path) -> list[Training]:
    """All below nnUNet_results, in the order of their names. Trainings of other packages are left out."""
    trainings = []
    for fold in sorted(results.glob("*/*__*__*/fold_*")):
        # what nnUNetv2_train --c takes, in its order
        names = ("checkpoint_latest.pth", "checkpoint_best.pth")
        checkpoint = next((fold / name for name in names if (fold / name).is_file()), None)
        if checkpoint is None or (fold / CHECKPOINT).is_file():
            continue
        try:
            content = read_checkpoint(checkpoint, mapped=True)
        except NeedsCode:  # not of this package, and not to be executed for a look at it
            continue
        except BadInput:
            best = fold / "checkpoint_best.pth"
            can_go_back = best.is_file() and best != checkpoint
            way_out = f"move it away, and --c continues from {best.name}" if can_go_back else "start it anew"
            trainings.append(Training(fold, f"{checkpoint.name} is not a complete checkpoint: {way_out}"))
            continue
        if isinstance(extra := content.get(KEY), dict):
            trainings.append(Training(fold, _obstacle(extra, content["trainer_name"])))
    return trainings


def _obstacle(extra: dict, trainer: str) -> str:
    if not set(extra) <= PARTS:
        return "it was begun with an earlier version of nnunet_skd, continue it with that one"
    try:
        look_up(trainer)
    except BadInput as error:
        return str(error)
    return ""
