"""Which folds of a finished model may teach: trained with the plans beside them, and blind to the validation cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_skd.checkpoint import load_mapped
from nnunet_skd.model_checks import sees

if TYPE_CHECKING:
    from nnunet_skd.trainer import SelfDistillationTrainer

CHECKPOINT = "checkpoint_final.pth"
GOES_ON_FROM = ("checkpoint_latest.pth", "checkpoint_best.pth")  # of an unfinished training, in the order of --c


def folds_with(folder: Path, file: str = "") -> list[str]:
    """The folds of a model that hold a file. A copy such as fold_0_old is none of nnU-Net's folds."""
    names = (path.name.removeprefix("fold_") for path in folder.glob("fold_*") if (path / file).exists())
    return sorted(name for name in names if name == "all" or name.isdigit())


def teaching_folds(folder: Path, trainer: SelfDistillationTrainer) -> list[str]:
    """The folds of a model that may teach the trainer's fold.

    Raises:
        ValueError: there is none that is finished and has not seen the trainer's validation cases, or one was trained
            with other plans than those in the folder.
    """
    finished = folds_with(folder, CHECKPOINT)
    if trainer.fold == "all":
        if not finished:
            raise ValueError(f"{folder} holds no finished fold ({CHECKPOINT}). Finish its training first.")
        for fold in finished:
            compare_plans(folder / f"fold_{fold}")
        return finished
    wanted = str(trainer.fold)
    if wanted in finished:
        _compare_validation_cases(folder / f"fold_{wanted}", trainer)
        compare_plans(folder / f"fold_{wanted}")
        return [wanted]
    seen = f"its finished folds are {', '.join(finished)}" if finished else "it holds no finished fold"
    raise ValueError(
        f"A student of fold {wanted} may only be taught by fold {wanted} of {folder}: every other has seen its "
        f"validation cases, and {seen}. Train fold {wanted} of the teacher to its end, or train the student with "
        f"fold all."
    )


def _compare_validation_cases(fold_folder: Path, trainer: SelfDistillationTrainer) -> None:
    """The split may have changed since the teacher was trained: what it was validated on is in its folder.

    More cases than ours prove nothing: ``nnUNetv2_train --val`` after a change adds today's to those of then. Without
    a split file there is nothing to compare yet: nnU-Net makes the same one for everybody, and the training asks again.
    """
    ending = trainer.dataset_json["file_ending"]
    files = [file.name for file in (fold_folder / "validation").glob(f"*{ending}")]
    validated = {name.removesuffix(ending) for name in files if not name.startswith(".")}  # macOS leaves ._CASE
    ours = set(trainer.do_split()[1])
    if not ours or validated == ours:
        return
    if validated < ours:
        raise ValueError(
            f"{fold_folder}/validation holds {len(validated)} of the {len(ours)} validation cases of fold "
            f"{trainer.fold}, so nothing says that the model has not seen the others. If splits_final.json is still "
            f"the one that it was trained with, run nnUNetv2_train with --val for it; otherwise train it again, or "
            f"train the student with fold all."
        )
    raise ValueError(
        f"{fold_folder} was validated on other cases than fold {trainer.fold} has today (splits_final.json changed): "
        f"it may have seen today's validation cases. Remove its folder validation and train the teacher again, or "
        f"train the student with fold all."
    )


def compare_plans(fold_folder: Path, name: str = CHECKPOINT) -> None:
    """:func:`refuse_other_plans` for a fold whose checkpoint has this name."""
    try:
        checkpoint = load_mapped(str(fold_folder / name))
    except Exception:  # damaged: refused where it is loaded
        return
    refuse_other_plans(fold_folder, checkpoint)


def refuse_other_plans(fold_folder: Path, checkpoint: dict) -> None:
    """nnU-Net writes a model's plans.json anew with each fold, and preprocesses for all of them by the last one.

    Raises:
        ValueError: the fold, whose checkpoint this is, was trained with others.
    """
    file = fold_folder.parent / "plans.json"
    try:
        arguments = checkpoint["init_args"]
        then = _sees(arguments["plans"], arguments["configuration"])
        now = _sees(json.loads(file.read_bytes()), arguments["configuration"])
    except Exception:  # not in nnU-Net's form: refused where it is used
        return
    for what, value in now.items():
        if then[what] != value:
            raise ValueError(
                f"{fold_folder} was trained with other plans than those in {file}, which a later training wrote. They "
                f"differ in {what}: {then[what]} then, {value} now. Train this fold again, or move it away."
            )


def _sees(plans: dict, configuration: str) -> dict:
    """Whatever the dataset is called."""
    manager = PlansManager(plans | {"dataset_name": ""})
    return sees(manager, manager.get_configuration(configuration))


def trained_with_deep_supervision(fold_folder: Path) -> bool:
    """Whether a model's side outputs were trained, as nnU-Net's debug.json says. Networks have them in any case."""
    try:
        return json.loads((fold_folder / "debug.json").read_text())["enable_deep_supervision"] == "True"
    except (OSError, ValueError, KeyError, TypeError):
        return False
