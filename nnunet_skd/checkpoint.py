"""What this package adds to nnU-Net's checkpoints, and how they are written.

Under one key lie tensors and plain numbers and text only, so that the file can be read where this package is absent:
``settings`` (a line of text for each term and for the teacher), ``terms`` (their parameters), ``optimizer`` (its state,
for these), ``teacher`` and ``unlabelled`` (the names of the cases without labels).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import torch

from nnunet_skd.messages import in_one_line

if TYPE_CHECKING:
    from nnunet_skd.trainer import SelfDistillationTrainer

KEY = "distillation"


@contextmanager
def written_aside(extra: dict) -> Iterator[None]:
    """While nnU-Net saves a checkpoint: write it aside with ``extra`` under :data:`KEY`, then move it into place.

    A kill at any moment leaves a loadable checkpoint, a full disk leaves nothing behind, and the tensors are written
    once. nnU-Net composes the checkpoint and saves it in one method: the only way in is the function that it calls.
    """
    save = torch.save

    def save_aside(checkpoint: dict, filename: str) -> None:
        temporary = f"{filename}.tmp"
        try:
            save(checkpoint | {KEY: extra}, temporary)
            os.replace(temporary, filename)
        except BaseException:
            with suppress(OSError):
                os.remove(temporary)
            raise

    torch.save = save_aside
    try:
        yield
    finally:
        torch.save = save


def read_extra(filename: str) -> tuple[dict | None, str]:
    """What lies under :data:`KEY` of a checkpoint, if anything does, and the name of the trainer that wrote it.

    Raises:
        ValueError: where the file is not a complete checkpoint.
    """
    if not isinstance(filename, str):
        raise ValueError(f"a checkpoint is continued from its path, not from a {type(filename).__name__}")
    try:
        checkpoint = load_mapped(filename)
        return checkpoint.get(KEY), checkpoint["trainer_name"]
    except (FileNotFoundError, PermissionError, IsADirectoryError, ImportError, MemoryError):  # the file may be good
        raise
    except Exception as error:
        reason = in_one_line(error)
        raise ValueError(f"{filename} is not a complete checkpoint ({reason}). {way_out(filename)}.") from error


def way_out(filename: str) -> str:
    """What to do with a checkpoint that is not complete."""
    best = os.path.join(os.path.dirname(filename), "checkpoint_best.pth")
    if os.path.isfile(best) and os.path.abspath(best) != os.path.abspath(filename):
        return f"Move it away, and --c continues from {best}"
    return "Start the training anew"


def load_mapped(filename: str) -> dict:
    """A checkpoint; mapped where that works, not read: nnU-Net reads it a moment later."""
    with suppress(Exception):  # torch's older format cannot be mapped, and some file systems map nothing
        return torch.load(filename, map_location="cpu", weights_only=False, mmap=True)
    return torch.load(filename, map_location="cpu", weights_only=False)


def extra_state(trainer: SelfDistillationTrainer) -> dict:
    """What the trainer's checkpoints hold beside nnU-Net's own."""
    own, teacher = trainer.own_parameters, trainer.teacher
    return {
        "settings": _settings(trainer),
        "terms": _term_state(trainer),
        "optimizer": {} if own is None else own.optimizer.state_dict(),
        "teacher": {} if teacher is None else teacher.state_dict(),
        "unlabelled": trainer.unlabelled or [],
    }


def check_extra(trainer: SelfDistillationTrainer, extra: dict | None, filename: str, writer: str) -> None:
    """Refuse the state of other terms, before anything of the trainer changes.

    Raises:
        ValueError: the checkpoint's terms have other parameters than the trainer's.
    """
    if extra is None:
        return
    theirs = {name: value.shape for name, value in extra.get("terms", {}).items()}
    if theirs and theirs != {name: value.shape for name, value in _term_state(trainer).items()}:
        raise ValueError(
            f"{filename} was written by {writer} and holds parameters of terms that {type(trainer).__name__} does not "
            f"have in this form. Continue it with {writer}, or start anew from its network with -pretrained_weights."
        )


def restore_extra(trainer: SelfDistillationTrainer, extra: dict | None, filename: str, writer: str) -> None:
    """Load what :func:`extra_state` gave; what the checkpoint does not hold starts anew, and the log says so."""
    extra = extra or {}
    theirs = extra.get("terms", {})
    for term in trainer.loss.terms:
        prefix = f"{term.name}."
        state = {key.removeprefix(prefix): value for key, value in theirs.items() if key.startswith(prefix)}
        if state:
            term.load_state_dict(state)
        else:
            term.start_anew(trainer.loss.task)
    if trainer.own_parameters is not None and theirs:
        trainer.own_parameters.optimizer.load_state_dict(extra["optimizer"])
    elif trainer.own_parameters is not None:
        trainer.print_to_log_file(
            f"{filename} was written by {writer} and holds no parameters of {type(trainer).__name__}'s terms: these "
            f"start anew. Network, optimizer and epoch continue."
        )
    if trainer.teacher is not None:
        trainer.teacher.load_state_dict(extra.get("teacher", {}))
    trainer.unlabelled = extra.get("unlabelled", [])
    before, now = extra.get("settings", []), _settings(trainer)
    if before and before != now:
        trainer.print_to_log_file(
            f"WARNING: this training was begun with other settings.\nIt was: {'; '.join(before)}\nIt is now: "
            f"{'; '.join(now)}\nIt continues with the new ones."
        )


def _term_state(trainer: SelfDistillationTrainer) -> dict[str, torch.Tensor]:
    return {f"{term.name}.{key}": value for term in trainer.loss.terms for key, value in term.state_dict().items()}


def _settings(trainer: SelfDistillationTrainer) -> list[str]:
    terms = [f"{type(term).__name__}({term.extra_repr()})" for term in trainer.loss.terms]
    return terms if trainer.teacher is None else [*terms, repr(trainer.teacher)]
