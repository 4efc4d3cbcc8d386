"""A dataset's plans file in nnUNet_preprocessed."""

from pathlib import Path

from nnunetv2.utilities.dataset_name_id_conversion import convert_dataset_name_to_id, find_candidate_datasets
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_skd.plans_file import plans_files
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.nnunet_folders import dataset_name, require_variable
from nnunet_skd.tools.nnunet_json import read_plans


def read_dataset_plans(dataset: int | str, plans_name: str) -> tuple[Path, dict]:
    """A dataset's plans file in nnUNet_preprocessed, beside its dataset.json, and what is in it, checked.

    Raises:
        BadInput: nnUNet_preprocessed is not set, no such dataset, or one of the two files is missing; as `read_plans`;
            or the plans are another dataset's, whose folders nnU-Net would use.
    """
    folder = require_variable("nnUNet_preprocessed") / dataset_name(dataset)
    number = _number(folder.name)
    if not folder.is_dir() and (others := set(find_candidate_datasets(number)) - {folder.name}):
        raise BadInput(f"there is no {folder.name}. Did you mean {' or '.join(sorted(others))}?")
    path = folder / f"{plans_name}.json"
    for file in (path, folder / "dataset.json"):
        if not file.is_file():
            others = [name for name, _ in plans_files(folder)]
            way_out = f"Run nnUNetv2_plan_and_preprocess -d {number} first"
            if others and file == path:  # planning would remove their data, which several plans may share
                way_out = f"Name one that is there: -p {' or '.join(others)}"
            raise BadInput(f"{file} does not exist. {way_out}")
    plans = read_plans(path)
    if plans["dataset_name"] != path.parent.name:
        name = plans["dataset_name"]
        raise BadInput(f"{path} has the dataset_name {name}, but lies in {path.parent.name}. Correct it")
    return path, plans


def _number(name: str) -> int:
    try:
        return convert_dataset_name_to_id(name)
    except ValueError as error:
        raise BadInput(f"{name} is not a dataset's name, which is Dataset, three digits, _ and a name") from error


def configuration_of(file: Path, plans: PlansManager, name: str) -> ConfigurationManager:
    """A configuration of a dataset's plans file, which says where its preprocessed data lie.

    Raises:
        BadInput: there is none of this name, or it does not say so.
    """
    if name not in plans.available_configurations:
        raise BadInput(
            f"{file} has no configuration {name!r}. It has: {', '.join(plans.available_configurations)}. "
            f"'nnunet-skd compact' adds smaller ones."
        )
    configuration = plans.get_configuration(name)
    if "data_identifier" not in configuration.configuration:
        raise BadInput(f"{file}: configurations.{name} lacks data_identifier. Plan it again")
    return configuration
