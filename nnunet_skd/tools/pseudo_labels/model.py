"""The finished model that labels images: which of its folds may, and whether it fits the dataset."""

import re
from pathlib import Path

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_skd.catalogue import trainer_classes
from nnunet_skd.model_checks import meaning, sees
from nnunet_skd.model_folds import CHECKPOINT
from nnunet_skd.tools.checkpoint_file import read_checkpoint, weights_sha256
from nnunet_skd.tools.errors import BadInput, naming
from nnunet_skd.tools.files import file_hash
from nnunet_skd.tools.nnunet_json import read_dataset_json, read_plans
from nnunet_skd.tools.trainers import is_known
from nnunet_skd.tools.unlabelled.dataset import Dataset, require_intensities

SHORT_SUFFIX = "_250epochs"
SHORT = f"nnUNetTrainer{SHORT_SUFFIX}"
SHORT_WITHOUT_MIRRORING = "nnUNetTrainer_250epochs_NoMirroring"


def name_parts(folder: Path) -> tuple[str, str, str]:
    """Trainer, plans and configuration, after which nnUNetv2_train names a model's folder.

    Raises:
        BadInput: it is not named so.
    """
    parts = folder.name.split("__")
    if len(parts) != 3:
        raise BadInput(f"{folder} is not named TRAINER__PLANS__CONFIGURATION, as nnUNetv2_train names a model's folder")
    return tuple(parts)


class LabellingModel:
    """A folder that nnUNetv2_train wrote, those of its folds that label, and the plans that it was trained with."""

    def __init__(self, folder: Path, folds: list[str], dataset: Dataset):
        """
        Raises:
            BadInput: its dataset.json or plans.json is damaged; it was trained with other labels, channels or file
                endings; or it is the second stage of a cascade.
        """
        self.folder, self.folds = folder, folds
        _, _, self.configuration = name_parts(folder)
        theirs = _says(read_dataset_json(self.folder / "dataset.json", channels=True))
        for what, ours in _says(dataset.description).items():
            if theirs[what] != ours:
                raise BadInput(
                    f"{self.folder} cannot label these images. They differ in {what}: {theirs[what]} there, {ours} in "
                    f"{dataset.plans.dataset_name}. Use a model that was trained on this dataset"
                )
        file = self.folder / "plans.json"
        self.plans = PlansManager(read_plans(file))
        with naming(file):
            require_intensities(self.plans.plans)
            if self.configuration not in self.plans.available_configurations:
                raise BadInput(f"it has no configuration {self.configuration!r}, after which its folder is named")
            if self.plans.get_configuration(self.configuration).previous_stage_name:
                raise BadInput(
                    f"{self.configuration} is the second stage of a cascade, which needs predictions of its first. Use "
                    "a model that needs none, such as 3d_fullres"
                )

    def hashes(self) -> dict[str, str]:
        """Of each fold's weights, or of the checkpoint where it cannot be read without running code."""
        contents = {fold: self._content(self._checkpoint(fold)) for fold in self.folds}
        return {
            fold: weights_sha256(content["network_weights"]) if content else file_hash(self._checkpoint(fold))
            for fold, content in contents.items()
        }

    def differences(self, plans: PlansManager, configuration: str) -> list[str]:
        """Why a training with these plans cannot go on from the model's weights: another network, or other images."""
        theirs, ours = self.plans.get_configuration(self.configuration), plans.get_configuration(configuration)
        seen, see = sees(self.plans, theirs), sees(plans, ours)
        differ = [what for what in see if what != "dataset" and seen.get(what) != see[what]]
        return ["network"] * (theirs.configuration["architecture"] != ours.configuration["architecture"]) + differ

    def second_training(self, from_scratch: bool) -> tuple[str, Path | None]:
        """Its trainer: a short one from these weights, or a whole one from scratch (None).

        A trainer that is neither ours nor nnU-Net's plain one, with or without mirroring, may make another network, and
        trains again itself: its variant of 250 epochs, where there is one.
        """
        weights = self._checkpoint("all" if "all" in self.folds else self.folds[0])
        # as the checkpoint names it: the folder may have been renamed
        whole = short = trainer = self._content(weights).get("trainer_name", name_parts(self.folder)[0])
        if trainer in trainer_classes() or re.fullmatch(r"nnUNetTrainer(_\d+epochs?)?", trainer):
            whole, short = "nnUNetTrainer", SHORT
        elif re.fullmatch(r"nnUNetTrainer(_\d+epochs_)?NoMirroring", trainer):
            whole, short = "nnUNetTrainerNoMirroring", SHORT_WITHOUT_MIRRORING
        elif is_known(f"{trainer}{SHORT_SUFFIX}"):
            short = f"{trainer}{SHORT_SUFFIX}"
        return (whole, None) if from_scratch else (short, weights)

    @property
    def mirrors(self) -> bool:
        """Whether nnU-Net mirrors what this model predicts: it asks the first fold."""
        return bool(self._content(self._checkpoint(self.folds[0])).get("inference_allowed_mirroring_axes"))

    @staticmethod
    def _content(checkpoint: Path) -> dict:
        try:
            return read_checkpoint(checkpoint, mapped=True)
        except BadInput:  # it needs code, which nnU-Net has run by now, but we do not
            return {}

    def _checkpoint(self, fold: str) -> Path:
        return self.folder / f"fold_{fold}" / CHECKPOINT


def _says(dataset_json: dict) -> dict:
    """What a segmentation of this dataset means, and what it is made from."""
    return meaning(dataset_json) | {"file ending": dataset_json["file_ending"]}
