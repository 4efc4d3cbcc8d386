"""Few labels: what users of nnU-Net do today, the trainers that learn from the rest, and the ceiling."""

from typing import Any

from driver.definition import TAUGHT_BY_MODELS, Arm, Model

ONE = (Model("labelled only"),)
THREE = tuple(Model("labelled only", seed) for seed in (0, 1, 2))
TODAY = ("labelled only", "labelled only, twice the steps")


def taught(*models: Model, trainer: str = "nnUNetTrainerDistill", **options: Any) -> Arm:
    """An arm whose teachers are finished models of other arms, and which gets the images without labels."""
    return Arm(trainer, models=models, environment=TAUGHT_BY_MODELS, prepare="unlabelled", **options)


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
        "Distill, three teachers, from the first": taught(*THREE, start=ONE[0], against=again),
        "Distill, second round": taught(Model("Distill, three teachers"), against=again),
        "all labels": Arm(labelled="all"),
        "all labels, twice the steps": Arm(labelled="all", steps=2),
    }


def second_training(
    plain: str = "nnUNetTrainer", distill: str = "nnUNetTrainerDistill", seeds: tuple[int, ...] | None = None
) -> dict[str, Arm]:
    """A finished model gets a second, shorter training: on the same images again, or with what nobody labelled.

    ``seeds`` are those of the first model, if they are to be the study's noise floor.
    """
    first, pseudo = Model("labelled only"), Model("its pseudo-labels")
    again, longer = "the same images again", "its pseudo-labels, for longer"

    def labelled_by(model: Model, start: Model, *against: str) -> Arm:
        return Arm(plain, models=(model,), prepare="pseudo_labels", start=start, steps=0.25, against=against)

    return {
        first.arm: Arm(plain, seeds=seeds),
        again: Arm(plain, start=first, steps=0.25),
        pseudo.arm: labelled_by(first, first, first.arm, again),
        longer: labelled_by(first, pseudo, first.arm, pseudo.arm),
        "second round": labelled_by(pseudo, pseudo, first.arm, pseudo.arm, longer),
        "Distill": taught(first, trainer=distill, start=first, steps=0.25, against=(first.arm, again, pseudo.arm)),
        "all labels": Arm(plain, labelled="all"),
    }
