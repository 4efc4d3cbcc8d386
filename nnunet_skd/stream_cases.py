"""Which cases the second stream draws from: images without labels, and training cases that are labelled in part."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nnunet_skd.messages import listed
from nnunet_skd.unlabelled_data import checked_cases, read_record, unlabelled_folder

if TYPE_CHECKING:
    from nnunet_skd.trainer import SelfDistillationTrainer


class StreamCases(NamedTuple):
    """``unlabelled``: images without labels; ``partly``: training cases with ignored voxels."""

    unlabelled: list[str]
    partly: list[str]


def stream_cases(trainer: SelfDistillationTrainer) -> StreamCases | None:
    """What the second stream draws from; None: the trainer has no second stream.

    The second stage of a cascade has none: nnU-Net predicts the first stage of labelled cases only.

    Raises:
        ValueError: the trainer needs such images, or was begun with them, and there are none, or they do not fit the
            plans. The message names the command that fixes it.
    """
    if not trainer.unlabelled_per_labelled or not any(term.on_unlabelled for term in trainer.terms):
        return None
    plans, configuration = trainer.plans_manager, trainer.configuration_name
    partly = _partly_labelled(trainer)
    needed = bool(trainer.unlabelled) or (trainer.needs_unlabelled and not partly)
    if trainer.is_cascaded and not needed:
        return None
    unlabelled = []
    if needed or read_record(unlabelled_folder(plans, configuration)) is not None:
        unlabelled = checked_cases(plans, configuration)
    _tell_what_changed(trainer, unlabelled)
    return StreamCases(unlabelled, partly) if unlabelled or partly else None


def _partly_labelled(trainer: SelfDistillationTrainer) -> list[str]:
    """The training cases that hold ignored voxels; that dataset.json has the label does not say so."""
    ignore = trainer.label_manager.ignore_label
    if ignore is None:
        return []
    cases = trainer.get_tr_and_val_datasets()[0].identifiers
    trainer.print_to_log_file(f"Looking for ignored voxels in {len(cases)} training cases")
    training = trainer.dataset_class(trainer.preprocessed_dataset_folder, cases)  # a cascade's without its first stage
    segmentations = ((case, training.load_case(case)[1]) for case in cases)
    # sparse annotations show in the first slice, which spares reading the others
    parts = (slice(1), slice(1, None))
    return [case for case, s in segmentations if any((np.asarray(s[:, part]) == ignore).any() for part in parts)]


def _tell_what_changed(trainer: SelfDistillationTrainer, cases: list[str]) -> None:
    begins = trainer.current_epoch == 0
    if begins or trainer.unlabelled is None or set(trainer.unlabelled) == set(cases):
        return
    added, gone = (sorted(set(a) - set(b)) for a, b in ((cases, trainer.unlabelled), (trainer.unlabelled, cases)))
    trainer.print_to_log_file(
        f"WARNING: this training was begun with other images without labels.\nAdded since: {listed(added) or 'none'}\n"
        f"Gone since: {listed(gone) or 'none'}\nIt continues with today's."
    )
