"""Choices for learning from images without labels, on draws and cases that no reported study uses."""

from driver.definition import Arm, Model, Study

THREE = tuple(Model("labelled only", seed) for seed in (0, 1, 2))
TAUGHT = {"nnUNet_skd_teacher": "{models}"}


def taught(trainer: str) -> Arm:
    return Arm(trainer, models=THREE, environment=TAUGHT, prepare="unlabelled")


STUDY = Study(
    question="Soft or hard targets of finished teachers, with 5 labelled angiograms?",
    dataset="Dataset080_CoronaryXA",
    labelled=5,
    draws=(10, 11),
    seeds=(0,),
    test="rest",
    metrics=("Dice", "clDice"),
    steps=1000,
    iterations=50,
    arms={
        "labelled only": Arm(seeds=(0, 1, 2)),
        "labelled only, three models": Arm(models=THREE, ensemble=True),
        "pseudo-labels of three models": Arm(models=THREE, prepare="pseudo_labels"),
        "Distill: soft": taught("nnUNetTrainerDistill"),
        "Distill: hard": taught("variants:nnUNetTrainerDistill_hard"),
    },
)
