"""Five labelled angiograms, and 35 that nobody labelled."""

from driver.definition import Arm, Model, Study

ONE = (Model("labelled only"),)
THREE = tuple(Model("labelled only", seed) for seed in (0, 1, 2))
TAUGHT = {"nnUNet_skd_teacher": "{models}"}

STUDY = Study(
    question="What are 35 unlabelled angiograms worth beside 5 labelled ones?",
    dataset="Dataset080_CoronaryXA",
    labelled=5,
    draws=(0, 1, 2),
    seeds=(0, 1),
    metrics=("Dice", "clDice"),
    mirroring=(False, True),
    arms={
        "labelled only": Arm(),
        "labelled only, twice the steps": Arm(steps=2),
        "pseudo-labels (maintainers' advice)": Arm(models=ONE, prepare="pseudo_labels"),
        "DSKD_unlabelled": Arm("nnUNetTrainerDSKD_unlabelled", prepare="unlabelled"),
        "Distill, one teacher": Arm("nnUNetTrainerDistill", models=ONE, environment=TAUGHT, prepare="unlabelled"),
        "Distill, three teachers": Arm("nnUNetTrainerDistill", models=THREE, environment=TAUGHT, prepare="unlabelled"),
        "all labels": Arm(labelled="all"),
    },
)
