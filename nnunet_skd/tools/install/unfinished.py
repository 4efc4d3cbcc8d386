"""Trainings of this package's trainers that were begun and not finished, and whether they can go on."""

from __future__ import annotations

from pathlib import Path

from nnunet_skd.catalogue import trainer_classes
from nnunet_skd.checkpoint import KEY, way_out
from nnunet_skd.model_folds import CHECKPOINT, GOES_ON_FROM
from nnunet_skd.tools.checkpoint_file import NeedsCode, read_checkpoint
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.trainers import look_up


def unfinished_trainings(results: Path) -> dict[Path, str]:
    """The fold's folder of each below nnUNet_results, in the order of their names, without those of other packages.

    Returns:
        For each one in a line why it cannot go on; empty where it can.
    """
    trainings = {}
    for fold in sorted(results.glob("*/*__*__*/fold_*")):
        checkpoint = next((fold / name for name in GOES_ON_FROM if (fold / name).is_file()), None)
        if checkpoint is None or (fold / CHECKPOINT).is_file():
            continue
        try:
            content = read_checkpoint(checkpoint, mapped=True)
        except (NeedsCode, OSError):  # not to be executed for a look at it, or not to be read by us
            continue
        except BadInput:
            if fold.parent.name.split("__")[0] in trainer_classes():  # nnU-Net's own may be in the middle of writing
                trainings[fold] = f"{checkpoint.name} is not a complete checkpoint. {way_out(str(checkpoint))}"
            continue
        if KEY in content:
            trainings[fold] = _obstacle(content["trainer_name"])
    return trainings


def _obstacle(trainer: str) -> str:
    try:
        look_up(trainer)
    except BadInput as error:
        return str(error)
    return ""
