"""The published methods, every voxel labelled, on angiograms."""

from driver.definition import Arm, Study

STUDY = Study(
    question="Does self-distillation help where every voxel is labelled?",
    dataset="Dataset080_CoronaryXA",
    metrics=("Dice", "clDice"),
    mirroring=(False, True),
    noise="noise_floor",
    arms={
        "nnUNetTrainer": Arm(),
        "nnUNetTrainerDSKD": Arm("nnUNetTrainerDSKD"),
        "nnUNetTrainerACWSKD": Arm("nnUNetTrainerACWSKD"),
        "nnUNetTrainerDSKD_ACW": Arm("nnUNetTrainerDSKD_ACW"),
    },
)
