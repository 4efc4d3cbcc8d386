"""Early training in 3D: ACW-SKD finds classes earlier than nnU-Net. Which part of it does?"""

from driver.definition import Arm, Study

ACW = "nnUNetTrainerACWSKD"
CONTROLS = {
    "larger weight of the full resolution alone": Arm("no_mirroring:nnUNetTrainer_full_resolution_NoMirroring"),
    "second head alone": Arm(f"no_mirroring:{ACW}_head_NoMirroring"),
    "second head and adversarial temperature": Arm(f"no_mirroring:{ACW}_noFRM_NoMirroring"),
    "without the class-wise part": Arm(f"no_mirroring:{ACW}_noCW_NoMirroring"),
}

STUDY = Study(
    question="What is ACW-SKD's head start in 3D?",
    dataset="Dataset081_HeadNeckCT",
    configuration="3d_fullres",
    metrics=("Dice", "HD95"),
    steps=3000,
    arms={
        "nnUNetTrainer": Arm("nnUNetTrainerNoMirroring"),
        **CONTROLS,
        ACW: Arm(f"no_mirroring:{ACW}_NoMirroring", against=("nnUNetTrainer", *CONTROLS)),
    },
)
