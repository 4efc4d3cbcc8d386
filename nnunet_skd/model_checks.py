"""Whether a finished model may teach a student: alike in what it sees and says, and blind to the validation cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

if TYPE_CHECKING:
    from nnunet_skd.trainer import SelfDistillationTrainer

VARIABLE = "nnUNet_skd_teacher"
CHECKPOINT = "checkpoint_final.pth"


def teaching_folds(folder: Path, trainer: SelfDistillationTrainer) -> list[str]:
    """The folds of a model that may teach the trainer's fold.

    Raises:
        ValueError: there is none that is finished and has not seen the trainer's validation cases.
    """
    names = (file.parent.name.removeprefix("fold_") for file in folder.glob(f"fold_*/{CHECKPOINT}"))
    finished = sorted(name for name in names if name == "all" or name.isdigit())
    if trainer.fold == "all":
        if not finished:
            raise ValueError(f"{folder} holds no finished fold ({CHECKPOINT}). Finish its training first.")
        return finished
    wanted = str(trainer.fold)
    if wanted in finished:
        _compare_validation_cases(folder / f"fold_{wanted}", trainer)
        return [wanted]
    seen = f"its finished folds are {', '.join(finished)}" if finished else "it holds no finished fold"
    raise ValueError(
        f"A student of fold {wanted} may only be taught by fold {wanted} of {folder}: every other has seen its "
        f"validation cases, and {seen}. Train fold {wanted} of the teacher to its end, or train the student with "
        f"fold all."
    )


def _compare_validation_cases(fold_folder: Path, trainer: SelfDistillationTrainer) -> None:
    """The split may have changed since the teacher was trained: what it was validated on is in its folder."""
    ending = trainer.dataset_json["file_ending"]
    validated = {p.name.removesuffix(ending) for p in (fold_folder / "validation").glob(f"*{ending}")}
    ours = set(trainer.do_split()[1])
    if ours <= validated:
        return
    if validated <= ours:
        raise ValueError(
            f"{fold_folder}/validation holds {len(validated)} of the {len(ours)} validation cases of fold "
            f"{trainer.fold}, so nothing says that the model has not seen the others. Run nnUNetv2_train with --val "
            f"for the teacher where it was trained, or train the student with fold all."
        )
    raise ValueError(
        f"{fold_folder} was validated on other cases than fold {trainer.fold} has today (splits_final.json changed): "
        f"it may have seen today's validation cases. Train the teacher again, or train the student with fold all."
    )


def trained_with_deep_supervision(fold_folder: Path) -> bool:
    """Whether a model's side outputs were trained, as nnU-Net's debug.json says. Networks have them in any case."""
    try:
        return json.loads((fold_folder / "debug.json").read_text())["enable_deep_supervision"] == "True"
    except (OSError, ValueError, KeyError):
        return False


def _read_json(file: Path) -> dict:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{file} cannot be read ({error}). {VARIABLE} must name a folder that nnUNetv2_train wrote, as "
            f"nnUNetv2_predict_from_modelfolder -m takes it."
        ) from error


def check_model(folder: Path, trainer: SelfDistillationTrainer) -> None:
    """Refuse a model that sees other images, or says other things, than the student."""
    if folder == Path(trainer.output_folder_base).resolve():
        raise ValueError(
            f"{folder} would be overwritten by this training, which it is to teach. Copy it under another name that "
            f"ends alike (round1__{'__'.join(folder.name.split('__')[1:])}) and name the copy."
        )
    dataset_json, plans_json = _read_json(folder / "dataset.json"), _read_json(folder / "plans.json")
    teacher = PlansManager(plans_json)
    name = folder.name.split("__")[-1]
    if name not in plans_json.get("configurations", ()):
        raise ValueError(
            f"{folder} is not named TRAINER__PLANS__CONFIGURATION as nnUNetv2_train names it: {name!r} "
            f"is not a configuration of its plans.json."
        )
    theirs, ours = teacher.get_configuration(name), trainer.configuration_manager
    plans = trainer.plans_manager
    compared = {
        "dataset": (teacher.dataset_name, plans.dataset_name),
        "labels": (_labels(dataset_json), _labels(trainer.dataset_json)),
        "regions_class_order": (
            dataset_json.get("regions_class_order"),
            trainer.dataset_json.get("regions_class_order"),
        ),
        "channels": (_channels(dataset_json), _channels(trainer.dataset_json)),
        "dimensions": (len(theirs.patch_size), len(ours.patch_size)),
        "spacing": (_rounded(theirs.spacing), _rounded(ours.spacing)),
        "transpose_forward": (list(teacher.transpose_forward), list(plans.transpose_forward)),
        "normalisation": (theirs.normalization_schemes, ours.normalization_schemes),
        "use_mask_for_norm": (theirs.use_mask_for_norm, ours.use_mask_for_norm),
        "previous stage": (theirs.previous_stage_name, ours.previous_stage_name),
    }
    if any("CT" in scheme for scheme in ours.normalization_schemes):
        compared["intensity statistics"] = (
            teacher.foreground_intensity_properties_per_channel,
            plans.foreground_intensity_properties_per_channel,
        )
    for what, (theirs_value, ours_value) in compared.items():
        if theirs_value != ours_value:
            raise ValueError(
                f"{folder} cannot teach the student. They differ in {what}: {theirs_value} there, "
                f"{ours_value} here. Use a model that was trained on this dataset with plans that preprocess it alike."
            )
    strides = np.prod(theirs.pool_op_kernel_sizes, axis=0)
    if any(n % s for n, s in zip(ours.patch_size, strides, strict=True)):
        raise ValueError(
            f"{folder} cannot teach: the student's patch {list(ours.patch_size)} is not "
            f"divisible by the teacher's strides {strides.tolist()}. Use a model of fewer stages, or another patch."
        )


def _labels(dataset_json: dict) -> dict | list:
    """The channels of regions lie in their order in dataset.json."""
    labels = dataset_json.get("labels", {})
    return list(labels.items()) if dataset_json.get("regions_class_order") else labels


def _channels(dataset_json: dict) -> dict:
    return dataset_json.get("channel_names", dataset_json.get("modality"))


def _rounded(spacing: list[float]) -> list[float]:
    return [round(float(s), 4) for s in spacing]
