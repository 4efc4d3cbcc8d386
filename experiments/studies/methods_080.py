"""The published methods, every voxel labelled, on angiograms; and DSKD, which was made for these, for longer."""

from arms.methods import arms
from driver.definition import Arm, Study

LONG = "nnUNetTrainer, four times the steps"

STUDY = Study(
    question="Does self-distillation help where every voxel is labelled?",
    dataset="Dataset080_CoronaryXA",
    metrics=("Dice", "clDice"),
    mirroring=(False, True),
    noise="noise_floor",
    arms=arms()
    | {
        LONG: Arm(steps=4, seeds=(0,)),
        "nnUNetTrainerDSKD, four times the steps": Arm("nnUNetTrainerDSKD", steps=4, seeds=(0,), against=(LONG,)),
    },
)
