"""Images without labels beside a dataset's preprocessed data: where they lie, and whether they fit today's plans.

`nnunet-skd unlabelled` writes them and the trainers read them, both by this module:

  $nnUNet_preprocessed/DatasetXXX_NAME/unlabelled/
    nnUNetPlans_2d/        CASE.b2nd, CASE_seg.b2nd and CASE.pkl of each case, as nnU-Net's preprocessor writes them
    nnUNetPlans_2d.json    the record: plans, sources and content of each case

The record lies beside the folder, not in it: nnU-Net infers the data format from the file endings of a folder.

A case's segmentation is what nnU-Net makes without labels: 0, and -1 outside of the image's nonzero region (for
normalisation and augmentation within a mask). Its `class_locations` hold no location. nnU-Net's data loader draws
patches uniformly from such cases with oversample_foreground_percent=0; where the dataset has an ignore label, set the
loader's `has_ignore` to False as well, or it warns of images without annotated voxels.
"""

import json
import shlex
from pathlib import Path

from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.dataset_name_id_conversion import convert_dataset_name_to_id
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_skd.compat import nnunet_folder
from nnunet_skd.messages import differences, listed
from nnunet_skd.plans_file import plans_file_name

# What nnU-Net's preprocessor reads from a configuration. Patch size, network and batch size leave the voxels as they
# are, so that configurations that share preprocessed data (2d and 2d_w050) share the unlabelled images too.
_PREPROCESSING_KEYS = (
    "preprocessor_name",
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg",
    "resampling_fn_seg_kwargs",
)


def labelled_folder(plans: PlansManager, configuration: str) -> Path:
    """Where nnU-Net preprocesses the labelled cases of a configuration to.

    Raises:
        ValueError: nnUNet_preprocessed is not set.
    """
    preprocessed = nnunet_folder("nnUNet_preprocessed")
    if preprocessed is None:
        raise ValueError("nnUNet_preprocessed is not set, or set to nothing. Export it as for nnU-Net's own commands.")
    return preprocessed / plans.dataset_name / plans.get_configuration(configuration).data_identifier


def unlabelled_folder(plans: PlansManager, configuration: str) -> Path:
    """The folder of a configuration's preprocessed images without labels, for nnU-Net's dataset class."""
    folder = labelled_folder(plans, configuration)
    return folder.parent / "unlabelled" / folder.name


def record_file(folder: Path) -> Path:
    """The record of an `unlabelled_folder`."""
    return folder.with_name(f"{folder.name}.json")


def read_record(folder: Path) -> dict | None:
    """The record of an `unlabelled_folder`, None where there is none.

    Keys: `nnunet_skd` (version), `dataset`, `plans` and `configuration` (names), `preprocessing` (see there), and
    `cases`: for each `images` (absolute paths, by channel), `stamps` (size in bytes and modification time in ns of
    each), `content` (hash of the voxels), `spacing` (z, y, x) and `made` (time, None before the case is complete).

    Raises:
        ValueError: the record is damaged.
    """
    file = record_file(folder)
    if not file.is_file():
        return None
    way_out = f"Remove it and {folder}, then preprocess again"
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged ({error}). {way_out}") from error
    if not _is_record(record):
        raise ValueError(f"{file} is damaged (it has not the form of a record). {way_out}")
    return record


def _is_record(content: object) -> bool:
    """Whether it holds what a training reads."""
    return (
        isinstance(content, dict)
        and isinstance(content.get("preprocessing"), dict)
        and isinstance(content.get("cases"), dict)
        and all(
            isinstance(case, dict)
            and "made" in case
            and isinstance(images := case.get("images"), list)
            and images
            and all(isinstance(image, str) for image in images)
            for case in content["cases"].values()
        )
    )


def preprocessing(plans: PlansManager, configuration: str) -> dict:
    """Everything in the plans that decides about preprocessed voxels, inheritance resolved, as JSON would hold it."""
    entry = plans.get_configuration(configuration).configuration
    settings = {key: entry.get(key) for key in _PREPROCESSING_KEYS} | {
        "image_reader_writer": plans.plans["image_reader_writer"],
        "transpose_forward": plans.transpose_forward,
        "foreground_intensity_properties_per_channel": plans.foreground_intensity_properties_per_channel,
    }
    return json.loads(json.dumps(settings))


def case_files(folder: Path, case: str) -> list[Path]:
    """The files of a preprocessed case; nnU-Net knows a case by the last one."""
    return [folder / f"{case}.pkl", folder / f"{case}_seg.b2nd", folder / f"{case}.b2nd"]


def is_complete(folder: Path, case: str, record: dict) -> bool:
    """Whether a case of the record was finished and still has its files."""
    return record["cases"][case]["made"] is not None and all(file.is_file() for file in case_files(folder, case))


def checked_cases(plans: PlansManager, configuration: str) -> list[str]:
    """The complete cases without labels, for a training with these plans.

    Raises:
        ValueError: there are none; they were made with other plans, files vanished, or a case is labelled by now; or
            the configuration is the second stage of a cascade. The message names the command that fixes it.
    """
    if why_not := why_not_unlabelled(plans, configuration):
        raise ValueError(why_not)
    folder = unlabelled_folder(plans, configuration)
    record = read_record(folder)
    if record is None:
        raise ValueError(
            f"there are no images without labels for {configuration}: {folder} is not there, and the training needs it"
            f" or was begun with it. Run: {command(plans, configuration)}"
        )
    again = command(plans, configuration, record)
    if differ := differences(record["preprocessing"], preprocessing(plans, configuration)):
        raise ValueError(
            f"{folder} was made with other plans ({listed(differ, 2, '; ')}). Run it again with today's: {again}"
        )
    made = sorted(case for case, entry in record["cases"].items() if entry["made"])
    if vanished := [case for case in made if not is_complete(folder, case, record)]:
        raise ValueError(
            f"preprocessed files of {listed(vanished, 5)} vanished from {folder}. Make them again: {again}"
        )
    if labelled := sorted(set(made) & labelled_cases(labelled_folder(plans, configuration))):
        raise ValueError(
            f"{listed(labelled, 5)} in {folder} are labelled cases by now."
            f" Take their images out of the folder without labels, then run: {again}"
        )
    if not made:
        raise ValueError(f"no case in {folder} is complete. Run: {again}")
    return made


def why_not_unlabelled(plans: PlansManager, configuration: str) -> str:
    """Why this configuration cannot have images without labels, empty if it can."""
    previous = plans.get_configuration(configuration).previous_stage_name
    if previous is None:
        return ""
    return (
        f"{configuration} is the second stage of a cascade: it also reads what {previous} predicts for each training"
        f" case, and nnU-Net makes no such predictions for images without labels. Use {previous} or 3d_fullres"
    )


def labelled_cases(folder: Path) -> set[str]:
    """The cases in a folder of nnU-Net's preprocessed data; empty where there is no data.

    Raises:
        ValueError: the folder holds other files too.
    """
    if not folder.is_dir() or not any(path.suffix in (".b2nd", ".npz") for path in folder.iterdir()):
        return set()
    try:
        return set(infer_dataset_class(str(folder)).get_identifiers(str(folder)))
    except AssertionError as error:  # nnU-Net asks for files of one kind
        raise ValueError(f"{folder} holds files that nnU-Net did not write. Take them out") from error


def command(plans: PlansManager, configuration: str, record: dict | None = None) -> str:
    """The command line that preprocesses images without labels, with the folders of the record's images."""
    cases = record["cases"].values() if record else ()
    folders = {str(Path(path).parent) for entry in cases for path in entry["images"]}
    start = f"nnunet-skd unlabelled -d {convert_dataset_name_to_id(plans.dataset_name)} -c {configuration}"
    name = plans_file_name(labelled_folder(plans, configuration).parent, plans.plans, configuration)
    if name != "nnUNetPlans":
        start += f" -p {name}"
    return " && ".join(f"{start} -i {shlex.quote(folder)}" for folder in sorted(folders)) or f"{start} -i FOLDER"
