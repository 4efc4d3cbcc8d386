"""Whether a finished model may teach a student: alike in what it sees and says."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_skd.messages import counted, in_one_line

if TYPE_CHECKING:
    from nnunet_skd.trainer import SelfDistillationTrainer

VARIABLE = "nnUNet_skd_teacher"
FEWEST_DEEPEST = 4  # voxels: over one or two, instance normalisation gives the same whatever the image
_WAY_OUT = f"{VARIABLE} must name a folder that nnUNetv2_train wrote, as nnUNetv2_predict_from_modelfolder -m takes it."


def _read_json(file: Path) -> dict:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} cannot be read ({in_one_line(error)}). {_WAY_OUT}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no object with keys. {_WAY_OUT}")
    return content


@contextmanager
def _at_fault(file: Path) -> Iterator[None]:
    """Around what reads a file's content: errors mean that it is not in the form that nnU-Net writes."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{file} lacks {error}. {_WAY_OUT}") from error
    except Exception as error:  # a list in place of an object, null, text in place of a number, a circle
        raise ValueError(f"{file} is not in nnU-Net's form ({in_one_line(error)}). {_WAY_OUT}") from error


def absolute(path: str | Path) -> Path:
    """The whole path: ~ and .. are resolved, but a link keeps its name, as a model's folder is known by its name."""
    return Path(os.path.abspath(Path(path).expanduser()))


def check_model(folder: Path, trainer: SelfDistillationTrainer) -> None:
    """Refuse a model that sees other images, or says other things, than the student."""
    if folder.resolve() == Path(trainer.output_folder_base).resolve():
        raise ValueError(
            f"{folder} would be overwritten by this training, which it is to teach. Copy it under another name that "
            f"ends alike (round1__{'__'.join(folder.name.split('__')[1:])}) and name the copy."
        )
    dataset_file, plans_file = folder / "dataset.json", folder / "plans.json"
    dataset_json, plans_json = _read_json(dataset_file), _read_json(plans_file)
    name = folder.name.split("__")[-1]
    with _at_fault(plans_file):
        teacher = PlansManager(plans_json)
        known = name in teacher.available_configurations
    if not known:
        raise ValueError(
            f"{folder} is not named TRAINER__PLANS__CONFIGURATION as nnUNetv2_train names it: {name!r} "
            f"is not a configuration of its plans.json."
        )
    with _at_fault(plans_file):
        configuration = teacher.get_configuration(name)
        theirs = sees(teacher, configuration)
    with _at_fault(dataset_file):
        theirs |= meaning(dataset_json)
    ours = sees(trainer.plans_manager, trainer.configuration_manager) | meaning(trainer.dataset_json)
    for what, value in ours.items():
        if theirs.get(what) != value:
            raise ValueError(
                f"{folder} cannot teach the student. They differ in {what}: {theirs.get(what)} there, {value} here. "
                f"Use a model that was trained on this dataset with plans that preprocess it alike."
            )
    patch = list(trainer.configuration_manager.patch_size)
    with _at_fault(plans_file):
        strides = np.prod(configuration.pool_op_kernel_sizes, axis=0).tolist()
        divisible = all(s >= 1 and n % s == 0 for n, s in zip(patch, strides, strict=True))
    if not divisible:
        raise ValueError(
            f"{folder} cannot teach: the student's patch {patch} is not divisible by the teacher's strides {strides}. "
            f"Use a model of fewer stages, or another patch."
        )
    if (deepest := math.prod(patch) // math.prod(strides)) < FEWEST_DEEPEST:
        raise ValueError(
            f"{folder} cannot teach: of the student's patch {patch} its deepest layer sees "
            f"{counted(deepest, 'voxel')}, too few for its normalisation, as its strides are {strides}. Use a model of "
            f"fewer stages, or a larger patch."
        )


def sees(plans: PlansManager, configuration: ConfigurationManager) -> dict:
    """What decides about the images that a model sees."""
    sees = {
        "dataset": plans.dataset_name,
        "dimensions": len(configuration.patch_size),
        "spacing": [round(float(s), 4) for s in configuration.spacing],
        "transpose_forward": list(plans.transpose_forward),
        "normalisation": configuration.normalization_schemes,
        "use_mask_for_norm": configuration.use_mask_for_norm,
        "previous stage": configuration.previous_stage_name,
    }
    if any("CT" in scheme for scheme in configuration.normalization_schemes):
        sees["intensity statistics"] = plans.foreground_intensity_properties_per_channel
    return sees


def meaning(dataset_json: dict) -> dict:
    """What a model's channels mean. Those of regions lie in their order in dataset.json; nothing predicts ignore."""
    order, labels = dataset_json.get("regions_class_order"), dataset_json.get("labels", {})
    labels = {name: value for name, value in labels.items() if name != "ignore"}
    return {
        "regions_class_order": order,
        "labels": list(labels.items()) if order else labels,
        "channels": dataset_json.get("channel_names", dataset_json.get("modality")),
    }
