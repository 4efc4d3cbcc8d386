"""What a dataset has already: configurations that are preprocessed, labelled cases, test images."""

import inspect
from pathlib import Path
from typing import NamedTuple

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.dataset_name_id_conversion import convert_dataset_name_to_id
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_skd.compat import nnunet_folder
from nnunet_skd.messages import listed
from nnunet_skd.plans_file import plans_file_name
from nnunet_skd.tools.cases import ImagesAndLabels, find_cases, segmented_cases, training_cases
from nnunet_skd.tools.dataset_plans import read_dataset_plans
from nnunet_skd.tools.errors import BadInput, as_bad_input, naming
from nnunet_skd.tools.nnunet_json import channel_names, label_manager, read_dataset_json
from nnunet_skd.unlabelled_data import labelled_cases, labelled_folder, why_not_unlabelled


class Dataset(NamedTuple):
    """A dataset's plans and description, both as nnU-Net copied them to nnUNet_preprocessed."""

    plans: PlansManager
    description: dict  # dataset.json

    @property
    def file_ending(self) -> str:
        return self.description["file_ending"]

    @property
    def channel_names(self) -> list[str]:
        return list(channel_names(self.description).values())


def open_dataset(dataset: int | str, plans_name: str) -> Dataset:
    """A dataset by its number or name.

    Raises:
        BadInput: nnUNet_preprocessed is not set, or there is no such dataset or plans file.
    """
    file, plans = read_dataset_plans(dataset, plans_name)
    description = read_dataset_json(file.parent / "dataset.json", channels=True)
    opened = Dataset(PlansManager(plans), description)
    with naming(file):
        label_manager(opened.plans, description)
        require_intensities(plans)
    return opened


def require_intensities(plans: dict) -> None:
    """nnU-Net's preprocessing looks for them, whatever the normalisation.

    Raises:
        BadInput: they are missing.
    """
    if not any(key.startswith("foreground_intensity_properties_") for key in plans):
        raise BadInput("it lacks foreground_intensity_properties_per_channel. Plan it again")


def choose_configurations(plans: PlansManager, wanted: list[str] | None) -> list[str]:
    """The configurations to preprocess for: those wanted, by default all whose labelled cases are preprocessed.

    Of configurations that share their data, the first one stands for all. A cascade's second stage is left out, and
    it is said why.

    Raises:
        BadInput: unknown or not preprocessed, or nothing but the second stage of a cascade is left.
    """
    chosen: dict[Path, str] = {}
    refused = []
    having = with_data(plans, wanted)
    for name in wanted or having:
        require_preprocessing(plans, name)
        folder = labelled_folder(plans, name)
        if why_not := why_not_unlabelled(plans, name):
            refused.append(why_not)
            continue
        with as_bad_input():
            cases = labelled_cases(folder)
        if cases:
            chosen.setdefault(folder, name)
        elif wanted:
            raise BadInput(
                f"{name} is not preprocessed: {folder} holds no cases. Run {preprocess_command(plans, name)} first"
            )
    if not chosen:
        fix = f"no configuration is preprocessed. Run {preprocess_command(plans, 'CONFIGURATION')} first"
        raise BadInput(" ".join(refused) if wanted else fix)
    for why_not in refused:
        print(f"left out: {why_not}.")
    return list(chosen.values())


def with_data(plans: PlansManager, wanted: list[str] | None = None) -> list[str]:
    """Of the wanted configurations (None: of all), those that say where their preprocessed data lie.

    Raises:
        BadInput: the plans lack one of them.
    """
    known = plans.available_configurations
    if unknown := [name for name in wanted or [] if name not in known]:
        raise BadInput(f"the plans have no configuration {listed(unknown)}. They have: {', '.join(known)}")
    return [name for name in wanted or known if "data_identifier" in plans.get_configuration(name).configuration]


def require_preprocessing(plans: PlansManager, configuration: str) -> None:
    """Refuse plans that name what nnU-Net's preprocessing does not have.

    nnU-Net takes whatever lies under such a name in its own modules, a function that they imported for example.

    Raises:
        BadInput: so it is.
    """
    manager = plans.get_configuration(configuration)
    entry = manager.configuration
    if "data_identifier" not in entry:
        raise BadInput(f"{plans.plans_name}.json: {configuration} has no data_identifier. Plan it again")
    expected = {
        "image_reader_writer": lambda: issubclass(plans.image_reader_writer_class, BaseReaderWriter),
        "preprocessor_name": lambda: issubclass(manager.preprocessor_class, DefaultPreprocessor),
        "resampling_fn_data": lambda: inspect.isfunction(manager.resampling_fn_data.func),
        "resampling_fn_seg": lambda: inspect.isfunction(manager.resampling_fn_seg.func),
    }
    for key, is_there in expected.items():
        try:
            found = is_there()
        except Exception:  # not found, no class, or arguments that are no keywords
            found = False
        if not found:
            named = entry.get(key, plans.plans.get(key))
            raise BadInput(
                f"{plans.plans_name}.json: nnU-Net has no {key} {named!r}, of {configuration}. Plan it again"
            )


def preprocess_command(plans: PlansManager, configuration: str) -> str:
    """What preprocesses the labelled cases of a configuration anew."""
    number = convert_dataset_name_to_id(plans.dataset_name)
    folder = nnunet_folder("nnUNet_preprocessed") / plans.dataset_name
    name = plans_file_name(folder, plans.plans, configuration)
    return f"nnUNetv2_preprocess -d {number} -c {configuration} -plans_name {name}"


def labelled_names(dataset: Dataset, configurations: list[str]) -> dict[str, Path]:
    """The cases with labels, each with the folder that says so.

    These are the raw dataset's, and what is preprocessed for these configurations, which a training takes. Only where
    the raw dataset is not on this machine do other configurations and gt_segmentations count: nnU-Net removes nothing
    from there when a case is taken out of the dataset.
    """
    plans, ending = dataset.plans, dataset.file_ending
    found: list[tuple[Path, set[str]]] = []
    if files := labelled_files(dataset):
        raw = _raw_folder(dataset)
        found.append((raw, set(files)))
        if "dataset" not in dataset.description and (raw / "labelsTr").is_dir():
            found.append((raw / "labelsTr", segmented_cases(raw / "labelsTr", ending)))
    else:
        configurations = with_data(plans)
        copied = nnunet_folder("nnUNet_preprocessed") / plans.dataset_name / "gt_segmentations"
        found.append((copied, segmented_cases(copied, ending) if copied.is_dir() else set()))
    for folder in dict.fromkeys(labelled_folder(plans, name) for name in configurations):
        with as_bad_input():
            found.append((folder, labelled_cases(folder)))
    return {case: folder for folder, cases in reversed(found) for case in cases}


def labelled_files(dataset: Dataset) -> ImagesAndLabels:
    """Images and label of each labelled case in nnUNet_raw, empty where they are not on this machine."""
    raw = _raw_folder(dataset)
    return training_cases(raw, dataset.description) if raw and raw.is_dir() else {}


def test_images(dataset: Dataset) -> dict[str, list[Path]]:
    """The images of each case in imagesTs, empty where there are none."""
    raw = _raw_folder(dataset)
    return find_cases(raw / "imagesTs", dataset.file_ending)[0] if raw and (raw / "imagesTs").is_dir() else {}


def _raw_folder(dataset: Dataset) -> Path | None:
    raw = nnunet_folder("nnUNet_raw")
    return raw and raw / dataset.plans.dataset_name
