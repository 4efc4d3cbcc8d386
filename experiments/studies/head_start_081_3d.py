"""Early training in 3D: ACW-SKD finds classes earlier than nnU-Net. Which part of it does?"""

from driver.definition import Arm, Study

CONTROLS = {
    "larger weight of the full resolution alone": Arm("variants:nnUNetTrainer_full_resolution"),
    "second head alone": Arm("variants:nnUNetTrainerACWSKD_head"),
    "second head and adversarial temperature": Arm("nnUNetTrainerACWSKD_noFRM"),
    "without the class-wise part": Arm("nnUNetTrainerACWSKD_noCW"),
}

STUDY = Study(
    question="What is ACW-SKD's head start in 3D?",
    dataset="Dataset081_HeadNeckCT",
    configuration="3d_fullres",
    metrics=("Dice", "HD95"),
    steps=3000,
    arms={
        "nnUNetTrainer": Arm(),
        **CONTROLS,
        "nnUNetTrainerACWSKD": Arm("nnUNetTrainerACWSKD", against=("nnUNetTrainer", *CONTROLS)),
    },
)
