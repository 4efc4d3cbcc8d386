"""Finished models and the student that they may teach, as the commands name them."""

import os
from pathlib import Path
from types import SimpleNamespace

from nnunetv2.utilities.file_path_utilities import get_output_folder
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_skd.compat import nnunet_folder
from nnunet_skd.model_checks import absolute
from nnunet_skd.tools.dataset_plans import configuration_of, read_dataset_plans
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.json_file import TEXT, read_json
from nnunet_skd.tools.nnunet_folders import SPLITS, require_variable
from nnunet_skd.tools.nnunet_json import read_dataset_json

NUM_FOLDS = 5  # nnU-Net's, where it makes the split


def read_splits(file: Path, remedy: str) -> list[dict[str, list[str]]]:
    """nnU-Net's split: training and validation cases of each fold.

    Raises:
        BadInput: it is missing or damaged.
    """
    return read_json(file, [{"train": [TEXT], "val": [TEXT]}], remedy)


def model_folder(model: str, dataset: str) -> Path:
    """The name of a folder in nnUNet_results, or a path. A name alone is looked for there first.

    Raises:
        BadInput: there is neither.
    """
    path, results = Path(model).expanduser(), nnunet_folder("nnUNet_results")
    places = [path] if results is None else [path, results / dataset / model]
    is_a_name = path.name == model and model != ".."
    for place in reversed(places) if is_a_name else places:
        if place.is_dir():
            return absolute(place)
    known = sorted(path.name for path in places[-1].parent.glob("*__*__*"))
    raise BadInput(
        f"{' and '.join(map(str, places))} are not folders. "
        f"Trained models of {dataset}: {', '.join(known) or 'none in nnUNet_results'}"
    )


def teacher_folders(models: list[str], dataset: str) -> list[Path]:
    """The folders of several models, whose paths one variable can hold.

    Raises:
        BadInput: as `model_folder`; or the path of one would be split.
    """
    folders = [model_folder(model, dataset) for model in models]
    if split := [folder for folder in folders if os.pathsep in str(folder)]:
        raise BadInput(
            f"{split[0]} has a {os.pathsep!r} in its path, which separates teachers. Rename it, or copy the model"
        )
    return folders


def describe_student(dataset: str, configuration: str, fold: str, trainer: str, plans_name: str) -> SimpleNamespace:
    """What :mod:`nnunet_skd.model_checks` asks of a trainer, without building one.

    Raises:
        BadInput: nnUNet_results is not set; or the dataset is not preprocessed, has no such configuration or fold.
    """
    require_variable("nnUNet_results")
    file, content = read_dataset_plans(dataset, plans_name)
    plans = PlansManager(content)
    manager = configuration_of(file, plans, configuration)
    if fold != "all" and not fold.isdigit():
        raise BadInput(f"-f is {fold!r}, but has to be 'all' or a number")
    splits = file.parent / SPLITS
    if splits.is_file():
        folds = read_splits(splits, "Restore it, or remove it, and nnU-Net makes a new one")
        there_are = f"{splits} holds {len(folds)}"
    else:  # which cases they will validate on is not known yet
        folds = [{"train": [], "val": []}] * NUM_FOLDS
        there_are = f"nnU-Net will make {NUM_FOLDS} in the first training"
    if fold != "all" and int(fold) >= len(folds):
        raise BadInput(
            f"there is no fold {fold}: {there_are}, counted from 0. For any other number nnU-Net draws other "
            "validation cases, which the teacher may have seen. Choose one of them, or all"
        )
    validation = [] if fold == "all" else folds[int(fold)]["val"]
    return SimpleNamespace(
        plans_manager=plans,
        configuration_manager=manager,
        configuration_name=configuration,
        dataset_json=read_dataset_json(file.parent / "dataset.json", channels=True),
        fold=fold if fold == "all" else int(fold),
        output_folder_base=get_output_folder(plans.dataset_name, trainer, plans.plans_name, configuration),
        do_split=lambda: ([], validation),
    )
