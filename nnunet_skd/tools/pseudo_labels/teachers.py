"""Whether a finished model may label a dataset's images: it says the same labels, and sees the same channels."""

from pathlib import Path
from typing import NamedTuple

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_skd.tools.errors import BadInput, naming
from nnunet_skd.tools.nnunet_json import read_dataset_json, read_plans
from nnunet_skd.tools.unlabelled.dataset import Dataset


class Teacher(NamedTuple):
    """A model folder, and those of its folds that may teach."""

    folder: Path
    folds: list[str]


def check_teacher(teacher: Teacher, dataset: Dataset) -> None:
    """
    Raises:
        BadInput: its dataset.json or plans.json is damaged; it was trained with other labels, channels or file
            endings; or it is the second stage of a cascade.
    """
    theirs, ours = (_says(d) for d in (read_dataset_json(teacher.folder / "dataset.json", channels=True), dataset[1]))
    for what, value in ours.items():
        if theirs[what] != value:
            raise BadInput(
                f"{teacher.folder} cannot label these images. They differ in {what}: {theirs[what]} there, {value} in "
                f"{dataset.plans.dataset_name}. Use a model that was trained on this dataset"
            )
    plans = PlansManager(read_plans(teacher.folder / "plans.json"))
    configuration = teacher.folder.name.split("__")[-1]
    with naming(teacher.folder / "plans.json"):
        if configuration not in plans.available_configurations:
            raise BadInput(
                f"it has no configuration {configuration!r}, after which {teacher.folder.name} is named. Name the "
                "folder as nnUNetv2_train did, TRAINER__PLANS__CONFIGURATION"
            )
        if plans.get_configuration(configuration).previous_stage_name:
            raise BadInput(
                f"{configuration} is the second stage of a cascade, which needs predictions of its first. Use a model "
                "that needs none, such as 3d_fullres"
            )


def _says(dataset_json: dict) -> dict:
    """What a segmentation of this dataset means, and what it is made from."""
    return {
        "labels": dataset_json["labels"],
        "regions_class_order": dataset_json.get("regions_class_order"),
        "channels": dataset_json.get("channel_names", dataset_json.get("modality")),
        "file ending": dataset_json["file_ending"],
    }
