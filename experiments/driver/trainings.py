"""From a study's cells to trainings: the recipe of each, and the key that equal recipes share."""

import hashlib
import json
import re
from dataclasses import dataclass

from driver.definition import Arm, Cell, Model, Study, cells, load_preset


@dataclass(frozen=True)
class Training:
    """A model to be made; studies and draws whose recipes are equal share it.

    Args:
        recipe: everything that the model and its test depend on, but versions of code.
        needs: the trainings whose models come first: teachers and members, and last the start if there is one.
        cell: a place in the study that it belongs to.
    """

    recipe: dict
    needs: tuple["Training", ...]
    cell: Cell

    def __str__(self) -> str:
        return f"{self.cell} ({self.key})"

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(self.recipe, sort_keys=True).encode()).hexdigest()[:10]

    @property
    def steps(self) -> int:
        return 0 if self.recipe["ensemble"] else self.recipe["epochs"] * self.recipe["iterations"]

    @property
    def class_name(self) -> str:
        """Of the generated trainer."""
        base = re.sub(r"\W", "_", self.recipe["trainer"].rpartition(":")[2])
        return f"{base}_{self.steps}steps_seed{self.recipe['seed']}"


def training_of(study: Study, cell: Cell) -> Training:
    """The training behind one arm, draw and seed."""
    arm = study.arms[cell.arm]

    def behind(model: Model) -> Training:
        return training_of(study, Cell(model.arm, cell.draw, cell.seed if model.seed is None else model.seed))

    needs = [behind(model) for model in arm.models]
    start = behind(arm.start) if arm.start else None
    recipe = {
        "dataset": study.dataset,
        "cases": _labelled(study, arm, cell.draw),
        "annotated_slices": None if arm.labelled == "all" else study.annotated_slices,
        "test": _test(study, cell.draw),
        "configuration": study.configuration,
        "preset": load_preset(arm.preset or study.preset),
        "trainer": arm.trainer,
        "epochs": round(study.steps * arm.steps) // study.iterations,
        "iterations": study.iterations,
        "seed": cell.seed,
        "environment": dict(sorted(arm.environment.items())),
        "models": [training.key for training in needs],
        "start": start.key if start else None,
        "prepare": arm.prepare,
        "outside": _labelled(study, Arm(), cell.draw) if arm.prepare else None,
        "ensemble": arm.ensemble,
    }
    # what follows is not there where it is False, so that earlier trainings keep their keys
    if arm.keeps_last_layer:
        recipe["keeps_last_layer"] = True
    if arm.review:
        recipe["review"] = arm.review
    if arm.annotated_intensities and recipe["annotated_slices"]:
        recipe["annotated_intensities"] = True
    return Training(recipe, tuple(needs + ([start] if start else [])), cell)


def _labelled(study: Study, arm: Arm, draw: int) -> str:
    """Which training cases are labelled: ``all``, ``fold 0``, or ``5 of draw 0``."""
    if arm.labelled.startswith("fold "):
        return arm.labelled
    if arm.labelled == "all" or (study.labelled is None and not study.folds):
        return "all"
    return f"fold {draw}" if study.folds else f"{study.labelled} of draw {draw}"


def _test(study: Study, draw: int) -> str:
    return "imagesTs" if study.test == "imagesTs" else f"outside {_labelled(study, Arm(), draw)}"


def plan(study: Study) -> dict[Cell, Training]:
    """The training behind each cell of a study."""
    return {cell: training_of(study, cell) for cell in cells(study)}


def with_needs(trainings: list[Training]) -> list[Training]:
    """These trainings and all that must come before them, each once, in an order in which they can be made."""
    ordered: dict[str, Training] = {}

    def add(training: Training) -> None:
        for other in training.needs:
            add(other)
        ordered.setdefault(training.key, training)

    for training in trainings:
        add(training)
    return list(ordered.values())
