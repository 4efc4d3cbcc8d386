"""What the second stream draws from: images without labels, and training cases that are labelled in part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class, nnUNetBaseDataset

from nnunet_skd.unlabelled_data import unlabelled_folder

if TYPE_CHECKING:
    from nnunet_skd.stream_cases import StreamCases
    from nnunet_skd.trainer import SelfDistillationTrainer


def stream_dataset(trainer: SelfDistillationTrainer, cases: StreamCases) -> PartlyLabelled:
    """The second stream's dataset."""
    folders = unlabelled_folder(trainer.plans_manager, trainer.configuration_name), trainer.preprocessed_dataset_folder
    unlabelled, labelled = (
        infer_dataset_class(str(folder))(str(folder), of_folder) if of_folder else None
        for folder, of_folder in zip(folders, cases, strict=True)
    )
    return PartlyLabelled(unlabelled, labelled, trainer.label_manager.ignore_label if cases.partly else None)


class PartlyLabelled:
    """The images without labels and the training cases with ignored voxels, as one dataset.

    nnU-Net's data loader draws from it as from its own datasets.
    """

    def __init__(self, unlabelled: nnUNetBaseDataset | None, labelled: nnUNetBaseDataset | None, ignore: int | None):
        self._unlabelled, self._labelled, self._ignore = unlabelled, labelled, ignore
        self._labelled_cases = set() if labelled is None else set(labelled.identifiers)
        self.identifiers = ([] if unlabelled is None else list(unlabelled.identifiers)) + sorted(self._labelled_cases)

    def load_case(self, identifier: str) -> tuple:
        if identifier in self._labelled_cases:
            return self._labelled.load_case(identifier)
        data, segmentation, previous, properties = self._unlabelled.load_case(identifier)
        if self._ignore is not None:  # here only ignored voxels are taught
            segmentation = IgnoredEverywhere(segmentation, self._ignore)
        return data, segmentation, previous, properties


class IgnoredEverywhere:
    """A segmentation with the ignore label for all of the image: -1 stays, which nnU-Net masks with. Read in parts."""

    def __init__(self, segmentation: np.ndarray, ignore: int):
        self._segmentation, self._ignore = segmentation, ignore
        self.shape = segmentation.shape

    def __getitem__(self, box: tuple[slice, ...]) -> np.ndarray:
        part = np.asarray(self._segmentation[box])
        return np.where(part < 0, part, np.int16(self._ignore))
