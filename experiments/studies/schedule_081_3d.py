"""ACW-SKD's head start in 3D, in a schedule after which nnU-Net has stopped improving."""

from dataclasses import replace

from arms.methods import ACW, TWICE
from studies import head_start_081_3d

ARMS = head_start_081_3d.STUDY.arms
PLAIN, WITHOUT = "nnUNetTrainer", "without the class-wise part"

STUDY = replace(
    head_start_081_3d.STUDY,
    question="From scratch in 3D: what is left of ACW-SKD's head start after a longer schedule?",
    steps=8000,
    arms={
        PLAIN: ARMS[PLAIN],
        ACW: replace(ARMS[ACW], against=None),
        TWICE: replace(ARMS[PLAIN], steps=2, seeds=(0,)),
        WITHOUT: replace(ARMS[WITHOUT], against=(PLAIN, ACW)),
    },
)
