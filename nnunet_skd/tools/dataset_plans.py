"""A dataset's plans file in nnUNet_preprocessed."""

from pathlib import Path

from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.nnunet_folders import require_variable
from nnunet_skd.tools.nnunet_json import read_plans


def plans_file(dataset: int | str, plans_name: str) -> Path:
    """A dataset's plans file in nnUNet_preprocessed, beside its dataset.json.

    Raises:
        BadInput: nnUNet_preprocessed is not set, no such dataset, or one of the two files is missing.
    """
    preprocessed = require_variable("nnUNet_preprocessed")
    try:
        folder = preprocessed / maybe_convert_to_dataset_name(dataset)
    except (RuntimeError, ValueError) as error:
        raise BadInput(str(error)) from error
    path = folder / f"{plans_name}.json"
    for file in (path, folder / "dataset.json"):
        if not file.is_file():
            raise BadInput(
                f"{file} does not exist. Run nnUNetv2_plan_and_preprocess -d {dataset} first, or name the plans with -p"
            )
    return path


def read_dataset_plans(dataset: int | str, plans_name: str) -> tuple[Path, dict]:
    """A dataset's `plans_file`, and what is in it, checked.

    Raises:
        BadInput: as `plans_file` and `read_plans`; or the plans are another dataset's, whose folders nnU-Net would use.
    """
    path = plans_file(dataset, plans_name)
    plans = read_plans(path)
    if plans["dataset_name"] != path.parent.name:
        name = plans["dataset_name"]
        raise BadInput(f"{path} has the dataset_name {name}, but lies in {path.parent.name}. Correct it")
    return path, plans
