"""What this package adds to nnU-Net's checkpoints, and how they are written.

Under one key lie tensors and plain numbers and text only, so that the file can be read where this package is absent:
``settings`` (a line of text for each term and for the teacher), ``terms`` (their parameters), ``optimizer`` (its state,
for these), ``teacher`` and ``unlabelled`` (the names of the cases without labels).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import torch

from nnunet_skd.messages import differences, in_one_line, listed

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


def read_extra(filename: str) -> tuple[dict, str, int]:
    """What lies under :data:`KEY` of a checkpoint, if anything does, the trainer that wrote it, and the epochs it had.

    Raises:
        ValueError: where the file is not a complete checkpoint.
    """
    if not isinstance(filename, str):
        raise ValueError(f"a checkpoint is continued from its path, not from a {type(filename).__name__}")
    try:
        checkpoint = load_mapped(filename)
        return checkpoint.get(KEY, {}), checkpoint["trainer_name"], checkpoint["current_epoch"]
    except Exception as error:
        if of_the_machine(error) or isinstance(error, ImportError):
            raise
        reason = in_one_line(error)
        raise ValueError(f"{filename} is not a complete checkpoint ({reason}). {way_out(filename)}.") from error


def of_the_machine(error: Exception) -> bool:
    """Whether the file may be good: no rights, no memory, a file system that does not answer."""
    # of a file that was cut short, torch asks for a place before its beginning
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno != errno.EINVAL)


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


def check_extra(trainer: SelfDistillationTrainer, extra: dict, filename: str, writer: str, epoch: int) -> bool:
    """Refuse the state of other terms, before anything of the trainer changes.

    Args:
        trainer: initialised.
        extra, writer, epoch: from :func:`read_extra`.
        filename: for the message.

    Returns:
        Whether it can be restored; False for other terms of a finished training, whose validation needs none.

    Raises:
        ValueError: the checkpoint's terms have other parameters than the trainer's.
    """
    theirs = {name: tuple(value.shape) for name, value in extra.get("terms", {}).items()}
    ours = {name: tuple(value.shape) for name, value in _term_state(trainer).items()}
    if not theirs or theirs == ours:
        return True
    if epoch >= trainer.num_epochs:
        return False
    way_out = f"Continue it with {writer}, or start"
    if writer == type(trainer).__name__:
        way_out = f"{writer} or the dataset's labels changed since: undo that, or start"
    raise ValueError(
        f"{filename} was written by {writer} and holds parameters of terms that {type(trainer).__name__} does not have "
        f"in this form ({listed(differences(theirs, ours), 2, '; ')}). {way_out} anew from its network with "
        f"-pretrained_weights."
    )


def restore_extra(trainer: SelfDistillationTrainer, extra: dict, filename: str, writer: str) -> None:
    """Load what :func:`extra_state` gave; what the checkpoint does not hold starts anew, and the log says so."""
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
    trainer.unlabelled = extra.get("unlabelled")
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
