"""Which cases the second stream draws from: images without labels, and training cases that are labelled in part."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset

from nnunet_skd.messages import listed
from nnunet_skd.unlabelled_data import checked_cases, read_record, unlabelled_folder

if TYPE_CHECKING:
    from nnunet_skd.trainer import SelfDistillationTrainer


def stream_cases(trainer: SelfDistillationTrainer) -> list[str] | None:
    """The images without labels for the second stream; None: the trainer has no second stream.

    The second stage of a cascade has none: nnU-Net predicts the first stage of labelled cases only.
    The list may be empty where the dataset has an ignore label: the training cases hold voxels without a label then.

    Raises:
        ValueError: the trainer needs such images, or was begun with them, and there are none, or they do not fit the
            plans. The message names the command that fixes it.
    """
    if not trainer.unlabelled_per_labelled or not any(term.on_unlabelled for term in trainer.terms):
        return None
    plans, configuration = trainer.plans_manager, trainer.configuration_name
    partly = trainer.label_manager.has_ignore_label and (trainer.is_cascaded or any(_hold_ignored_voxels(trainer)))
    needed = bool(trainer.unlabelled) or (trainer.needs_unlabelled and not partly)
    if trainer.is_cascaded and not needed:
        return None
    cases = [] if partly else None
    if needed or read_record(unlabelled_folder(plans, configuration)) is not None:
        cases = checked_cases(plans, configuration)
    _tell_what_changed(trainer, cases or [])
    return cases


def partly_labelled_dataset(trainer: SelfDistillationTrainer) -> nnUNetBaseDataset:
    """The training cases that hold ignored voxels; that dataset.json has the label does not say so."""
    training = trainer.get_tr_and_val_datasets()[0]
    training.identifiers = [*compress(training.identifiers, _hold_ignored_voxels(trainer))]
    return training


def _hold_ignored_voxels(trainer: SelfDistillationTrainer) -> Iterator[bool]:
    """Of each training case."""
    training = trainer.get_tr_and_val_datasets()[0]
    for case in training.identifiers:
        segmentation = np.asarray(training.load_case(case)[1][:])
        yield bool((segmentation == trainer.label_manager.ignore_label).any())


def _tell_what_changed(trainer: SelfDistillationTrainer, cases: list[str]) -> None:
    if trainer.unlabelled is None or set(trainer.unlabelled) == set(cases):
        return
    added, gone = (sorted(set(a) - set(b)) for a, b in ((cases, trainer.unlabelled), (trainer.unlabelled, cases)))
    trainer.print_to_log_file(
        f"WARNING: this training was begun with other images without labels.\nAdded since: {listed(added) or 'none'}\n"
        f"Gone since: {listed(gone) or 'none'}\nIt continues with today's."
    )
