"""ACW-SKD's head start in 3D, in a schedule after which nnU-Net has stopped improving."""

from arms.methods import ACW, TWICE
from driver.definition import Arm, Study

PLAIN = "nnUNetTrainerNoMirroring"

STUDY = Study(
    question="From scratch in 3D: what is left of ACW-SKD's head start after a longer schedule?",
    dataset="Dataset081_HeadNeckCT",
    configuration="3d_fullres",
    metrics=("Dice", "HD95"),
    steps=8000,
    arms={
        "nnUNetTrainer": Arm(PLAIN),
        ACW: Arm(f"no_mirroring:{ACW}_NoMirroring"),
        TWICE: Arm(PLAIN, steps=2, seeds=(0,)),
        "without the class-wise part": Arm(f"no_mirroring:{ACW}_noCW_NoMirroring", against=("nnUNetTrainer", ACW)),
    },
)
