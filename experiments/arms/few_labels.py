"""Few labels: what users of nnU-Net do today, the trainers that learn from the rest, and the ceiling."""

from driver.definition import Arm, Model

ONE = (Model("labelled only"),)
THREE = tuple(Model("labelled only", seed) for seed in (0, 1, 2))
TAUGHT = {"nnUNet_skd_teacher": "{models}"}
TODAY = ("labelled only", "labelled only, twice the steps")


def arms() -> dict[str, Arm]:
    """A draw is labelled, the other images are not."""
    return {
        "labelled only": Arm(seeds=(0, 1, 2)),  # the three teachers
        "labelled only, twice the steps": Arm(steps=2),
        "pseudo-labels (maintainers' advice)": Arm(models=ONE, prepare="pseudo_labels"),
        "pseudo-labels of three models": Arm(models=THREE, prepare="pseudo_labels"),
        "DSKD_unlabelled": Arm("nnUNetTrainerDSKD_unlabelled", prepare="unlabelled", against=TODAY),
        "Distill, one teacher": Arm(
            "nnUNetTrainerDistill",
            models=ONE,
            environment=TAUGHT,
            prepare="unlabelled",
            against=(*TODAY, "pseudo-labels (maintainers' advice)"),
        ),
        "Distill, three teachers": Arm(
            "nnUNetTrainerDistill",
            models=THREE,
            environment=TAUGHT,
            prepare="unlabelled",
            against=(*TODAY, "pseudo-labels of three models"),
        ),
        "Distill, three teachers, from the first": Arm(
            "nnUNetTrainerDistill",
            models=THREE,
            environment=TAUGHT,
            prepare="unlabelled",
            start="labelled only",
            against=(*TODAY, "Distill, three teachers"),
        ),
        "Distill, second round": Arm(
            "nnUNetTrainerDistill",
            models=(Model("Distill, three teachers"),),
            environment=TAUGHT,
            prepare="unlabelled",
            against=(*TODAY, "Distill, three teachers"),
        ),
        "all labels": Arm(labelled="all"),
        "all labels, twice the steps": Arm(labelled="all", steps=2),
    }
