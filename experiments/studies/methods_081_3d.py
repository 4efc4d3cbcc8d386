"""The published methods in 3D, every voxel labelled, and controls for the head start of ACW-SKD."""

from arms.methods import arms
from driver.definition import Arm, Study

CONTROLS = {
    "larger weight of the full resolution alone": Arm("variants:nnUNetTrainer_full_resolution"),
    "second head alone": Arm("variants:nnUNetTrainerACWSKD_head"),
    "second head and adversarial temperature": Arm("nnUNetTrainerACWSKD_noFRM"),
    "without the class-wise part": Arm("nnUNetTrainerACWSKD_noCW"),
}

STUDY = Study(
    question="Does self-distillation help in 3D, and what is ACW-SKD's head start?",
    dataset="Dataset081_HeadNeckCT",
    configuration="3d_fullres",
    metrics=("Dice", "HD95"),
    steps=3000,
    arms=arms() | CONTROLS | {"nnUNetTrainerACWSKD": Arm("nnUNetTrainerACWSKD", against=("nnUNetTrainer", *CONTROLS))},
)
