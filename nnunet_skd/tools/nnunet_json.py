"""nnU-Net's own JSON files, dataset.json and plans.json, read and checked in one place."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_skd.messages import first_line
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.json_file import (
    ANYTHING,
    FLAG,
    FOLDER_NAME,
    INTEGER,
    NUMBER,
    POSITIVE_INTEGER,
    POSITIVE_NUMBER,
    TEXT,
    Kind,
    check_shape,
    list_of,
    or_null,
    read_json,
)

if TYPE_CHECKING:  # they import torch, which takes seconds and which neither --help nor a worker process needs
    from nnunetv2.utilities.label_handling.label_handling import LabelManager
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

_INTEGERS = list_of(INTEGER, "a list of whole numbers")
_LABEL = Kind(
    "a whole number, or a list of whole numbers for a region",
    lambda value: INTEGER.holds(value) or (_INTEGERS.holds(value) and len(value) > 0),
)
_FILE_ENDING = Kind("a file ending such as .nii.gz", lambda v: FOLDER_NAME.holds(v) and v[0] == ".")
DATASET_JSON = {
    "labels": {str: _LABEL},
    "file_ending": _FILE_ENDING,
    "channel_names?": {str: TEXT},
    "modality?": {str: TEXT},
    "regions_class_order?": or_null(_INTEGERS),
    "dataset?": {str: {"images": [TEXT], "label": TEXT}},
}
_STAGES = Kind(
    "the name of a configuration, or a list of names",
    lambda value: TEXT.holds(value) or list_of(TEXT, "").holds(value),
)
_NUMBERS = Kind(
    "a whole number above 0, or a list of such, one for each stage",
    lambda value: POSITIVE_INTEGER.holds(value) or (list_of(POSITIVE_INTEGER, "").holds(value) and len(value) > 0),
)
_SIZES = Kind(
    "a whole number above 0, or one for each stage, or one for each stage and axis",
    lambda value: POSITIVE_INTEGER.holds(value) or list_of(_NUMBERS, "").holds(value),
)
# Argument of the network -> what it may be, and how many entries fewer than stages it has
_PER_STAGE = {
    "features_per_stage": (_NUMBERS, 0),
    "kernel_sizes": (_SIZES, 0),
    "strides": (_SIZES, 0),
    "n_conv_per_stage": (_NUMBERS, 0),
    "n_blocks_per_stage": (_NUMBERS, 0),
    "n_conv_per_stage_decoder": (_NUMBERS, 1),
}
_AXES = Kind("the numbers 0, 1 and 2 in some order", lambda v: _INTEGERS.holds(v) and sorted(v) == [0, 1, 2])
PLANS = {
    "dataset_name": FOLDER_NAME,
    "plans_name": FOLDER_NAME,
    "configurations": {str: {str: ANYTHING}},
    "image_reader_writer": TEXT,
    "label_manager?": TEXT,
    "transpose_forward": _AXES,
    "transpose_backward": _AXES,
    "foreground_intensity_properties_per_channel?": {str: {str: NUMBER}},
}
# A configuration with everything that it inherits. What a command needs besides is asked for where it is needed.
CONFIGURATION = {
    "patch_size": [POSITIVE_INTEGER],
    "batch_size": POSITIVE_INTEGER,
    "spacing": [POSITIVE_NUMBER],
    "median_image_size_in_voxels?": [POSITIVE_NUMBER],
    "data_identifier?": FOLDER_NAME,
    "preprocessor_name?": TEXT,
    "normalization_schemes": [TEXT],
    "use_mask_for_norm": [FLAG],
    "resampling_fn_data?": TEXT,
    "resampling_fn_data_kwargs?": {str: ANYTHING},
    "resampling_fn_seg?": TEXT,
    "resampling_fn_seg_kwargs?": {str: ANYTHING},
    "resampling_fn_probabilities?": TEXT,
    "resampling_fn_probabilities_kwargs?": {str: ANYTHING},
    "previous_stage?": or_null(TEXT),
    "next_stage?": or_null(_STAGES),
    "architecture": {
        "network_class_name": TEXT,
        "arch_kwargs": {
            "n_stages?": POSITIVE_INTEGER,
            **{f"{key}?": kind for key, (kind, _) in _PER_STAGE.items()},
        },
        "_kw_requires_import": [TEXT],
    },
}

_DATASET_REMEDY = "It must be a dataset.json of nnU-Net v2 (see nnU-Net's dataset_format.md)"


def read_dataset_json(file: str | Path, *, channels: bool = False) -> dict:
    """nnU-Net's dataset.json, whose labels nnU-Net's own label manager accepts.

    ``channels``: it has to name the image's channels, which an evaluation can do without.

    Raises:
        BadInput: it cannot be read, is not one of nnU-Net v2, or nnU-Net refuses its labels.
    """
    content = read_json(file, DATASET_JSON, _DATASET_REMEDY)
    for key in ("channel_names", "modality"):
        if content.get(key) == {}:
            raise BadInput(f"{file}: {key} names no channel. {_DATASET_REMEDY}")
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    try:
        LabelManager(content["labels"], content.get("regions_class_order"))
    except Exception as error:  # assertions and whatever else unusual labels end in
        raise BadInput(f"nnU-Net refuses the labels in {file}: {first_line(error)}. Correct them there") from error
    if channels and "channel_names" not in content and "modality" not in content:
        raise BadInput(f"{file} lacks channel_names. {_DATASET_REMEDY}")
    return content


def channel_names(dataset_json: dict) -> dict[str, str]:
    """The names of an image's channels by their numbers, which older datasets call modality."""
    return dataset_json.get("channel_names", dataset_json.get("modality"))


def read_plans(file: str | Path) -> dict:
    """nnU-Net's plans, with all configurations that can be used checked.

    Raises:
        BadInput: they cannot be read, or are not plans of nnU-Net v2.
    """
    remedy = "Restore the file from where it was made, or plan again with nnUNetv2_plan_experiment"
    plans = read_json(file, PLANS, remedy)
    for name, entry in plans["configurations"].items():
        if not name.startswith("_"):
            _check_configuration(plans, name, entry, file, remedy)
    return plans


def _check_configuration(plans: dict, name: str, entry: dict, file: str | Path, remedy: str) -> None:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    check_shape(entry, {"inherits_from?": TEXT}, file, remedy, f"configurations.{name}")
    try:
        # a copy, because nnU-Net rewrites plans of an old format where it finds them
        resolved = PlansManager(copy.deepcopy(plans)).get_configuration(name).configuration
    except Exception as error:  # an unknown parent, a circle, or plans of an old format with something missing
        raise BadInput(f"{file}: configurations.{name} cannot be read ({first_line(error)}). {remedy}") from error
    check_shape(resolved, CONFIGURATION, file, remedy, f"configurations.{name}")
    dimension = len(resolved["patch_size"])
    for key in ("spacing", "median_image_size_in_voxels"):
        if resolved.get(key) is not None and len(resolved[key]) != dimension:
            raise BadInput(
                f"{file}: configurations.{name}.{key} has {len(resolved[key])} entries, but patch_size "
                f"has {dimension}. {remedy}"
            )
    arguments = resolved["architecture"]["arch_kwargs"]
    for key, (_, fewer) in _PER_STAGE.items():
        value, stages = arguments.get(key), arguments.get("n_stages")
        if isinstance(value, list) and any(isinstance(each, list) and len(each) != dimension for each in value):
            raise BadInput(f"{file}: configurations.{name} is {dimension}D, but an entry of its {key} is not. {remedy}")
        if stages is not None and isinstance(value, list) and len(value) != stages - fewer:
            raise BadInput(
                f"{file}: configurations.{name} has {stages} stages, but {len(value)} entries in {key}. {remedy}"
            )
    if dimension not in (2, 3):
        raise BadInput(f"{file}: configurations.{name}.patch_size has {dimension} entries, not 2 or 3. {remedy}")


def label_manager(plans: PlansManager, dataset_json: dict) -> LabelManager:
    """The label manager that the plans name, which has to be one of nnU-Net's.

    Raises:
        BadInput: it is none, or refuses the labels.
    """
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    try:
        named = plans.label_manager_class
        if not (isinstance(named, type) and issubclass(named, LabelManager)):
            raise TypeError(f"{plans.plans.get('label_manager')} is no label manager of nnU-Net")
        return plans.get_label_manager(dataset_json)
    except Exception as error:  # assertions and whatever else unusual labels end in
        raise BadInput(f"the plans do not fit the labels of dataset.json: {first_line(error)}") from error
