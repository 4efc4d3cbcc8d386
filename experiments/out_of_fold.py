"""Out-of-fold targets: each labelled patch is taught by the fold of a cross-validation that has not seen its image."""

import torch
from batchgenerators.utilities.file_and_folder_operations import join, load_json
from torch import Tensor

from nnunet_skd.finished_models import FinishedModels
from nnunet_skd.losses.deep_distribution import DeepDistribution
from nnunet_skd.losses.pixelwise import Pixelwise
from nnunet_skd.teachers import Teacher
from nnunet_skd.trainers.nnUNetTrainerDistill import nnUNetTrainerDistill


class OutOfFold(FinishedModels):
    """Each fold speaks for its own validation cases alone. ``cases``: of the coming batch, one per patch."""

    cases: list[str]

    def attach(self, trainer: nnUNetTrainerDistill) -> None:
        super().attach(trainer)
        splits = load_json(join(trainer.preprocessed_dataset_folder_base, "splits_final.json"))
        folds = [int(member.name.split()[-1]) for member in self._members]
        self._held_out = [set(splits[fold]["val"]) for fold in folds]

    def __call__(self, data: Tensor) -> list[Tensor | None]:
        outputs = []
        for member, held_out in zip(self._members, self._held_out, strict=True):
            patches = [i for i, case in enumerate(self.cases) if case in held_out]
            if not patches:
                continue
            self._member, self.mirror_axes = member, member.mirror_axes
            said = Teacher.__call__(self, data[patches])
            outputs = outputs or [z if z is None else z.new_full((len(data), *z.shape[1:]), torch.nan) for z in said]
            for output, z in zip(outputs, said, strict=True):
                if z is not None:
                    output[patches] = z
        return outputs


class nnUNetTrainerDistill_out_of_fold(nnUNetTrainerDistill):
    teacher = OutOfFold()
    terms = (DeepDistribution(), Pixelwise(rising=False))
    unlabelled_per_labelled = 0.0

    def train_step(self, batch: dict) -> dict:
        self.teacher.cases = batch["keys"]
        return super().train_step(batch)
