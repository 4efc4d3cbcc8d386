"""Few labels: what users of nnU-Net do today, the trainers that learn from the rest, and the ceiling."""

from driver.definition import Arm, Model

ONE = (Model("labelled only"),)
THREE = tuple(Model("labelled only", seed) for seed in (0, 1, 2))
TAUGHT = {"nnUNet_skd_teacher": "{models}"}


def arms_with_images() -> dict[str, Arm]:
    """A draw is labelled, the other images are not."""
    return {
        "labelled only": Arm(seeds=(0, 1, 2)),  # the three teachers
        "labelled only, twice the steps": Arm(steps=2),
        "pseudo-labels (maintainers' advice)": Arm(models=ONE, prepare="pseudo_labels"),
        "pseudo-labels of three models": Arm(models=THREE, prepare="pseudo_labels"),
        "DSKD_unlabelled": Arm("nnUNetTrainerDSKD_unlabelled", prepare="unlabelled"),
        "Distill, one teacher": Arm("nnUNetTrainerDistill", models=ONE, environment=TAUGHT, prepare="unlabelled"),
        "Distill, three teachers": Arm("nnUNetTrainerDistill", models=THREE, environment=TAUGHT, prepare="unlabelled"),
        "Distill, second round": Arm(
            "nnUNetTrainerDistill",
            models=(Model("Distill, three teachers"),),
            environment=TAUGHT,
            prepare="unlabelled",
        ),
        "all labels, twice the steps": Arm(labelled="all", steps=2),
    }


def arms_with_slices() -> dict[str, Arm]:
    """A few slices of each volume are labelled, the others ignored: all start from the same weights.

    In a network that has hardly found its classes, which of them it finds first is a lottery; so each arm goes on from
    the labelled-only model of its seed.
    """
    start = "labelled only, the start"
    return {
        "labelled only": Arm(start=start),
        "labelled only, twice the steps": Arm(start=start, steps=2),
        "pseudo-labels (maintainers' advice)": Arm(start=start, models=ONE, prepare="pseudo_labels"),
        "DSKD_unlabelled": Arm("nnUNetTrainerDSKD_unlabelled", start=start),
        "Distill, one teacher": Arm("nnUNetTrainerDistill", start=start, models=ONE, environment=TAUGHT),
        "all labels": Arm(start=start, labelled="all"),
        start: Arm(),
    }
