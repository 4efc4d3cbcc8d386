"""Few labels: what users of nnU-Net do today, the trainers that learn from the rest, and the ceiling."""

from typing import Any

from driver.definition import Arm, Model

ONE = (Model("labelled only"),)
THREE = tuple(Model("labelled only", seed) for seed in (0, 1, 2))
TODAY = ("labelled only", "labelled only, twice the steps")


def taught(*models: Model, trainer: str = "nnUNetTrainerDistill", **options: Any) -> Arm:
    """An arm whose teachers are finished models of other arms, and which gets the images without labels."""
    environment = {"nnUNet_skd_teacher": "{models}"}
    return Arm(trainer, models=models, environment=environment, prepare="unlabelled", **options)


def arms() -> dict[str, Arm]:
    """A draw is labelled, the other images are not."""
    one, three = "pseudo-labels (maintainers' advice)", "pseudo-labels of three models"
    again = (*TODAY, "Distill, three teachers")
    return {
        "labelled only": Arm(seeds=(0, 1, 2)),  # the three teachers
        "labelled only, twice the steps": Arm(steps=2),
        one: Arm(models=ONE, prepare="pseudo_labels"),
        three: Arm(models=THREE, prepare="pseudo_labels"),
        "DSKD_unlabelled": Arm("nnUNetTrainerDSKD_unlabelled", prepare="unlabelled", against=TODAY),
        "Distill, one teacher": taught(*ONE, against=(*TODAY, one)),
        "Distill, three teachers": taught(*THREE, against=(*TODAY, three)),
        "Distill, three teachers, from the first": taught(*THREE, start="labelled only", against=again),
        "Distill, second round": taught(Model("Distill, three teachers"), against=again),
        "all labels": Arm(labelled="all"),
        "all labels, twice the steps": Arm(labelled="all", steps=2),
    }
