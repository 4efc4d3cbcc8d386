"""The published methods, every voxel labelled, on head-and-neck CT slice by slice."""

from dataclasses import replace

from arms.methods import ACW, TWICE, from_one_start_without_mirroring
from driver.definition import Study

ARMS = from_one_start_without_mirroring()

STUDY = Study(
    question="Does self-distillation help a network that knows the organs, slice by slice?",
    dataset="Dataset081_HeadNeckCT",
    metrics=("Dice", "HD95"),
    steps=2000,
    arms={**ARMS, f"{ACW}, twice the steps": replace(ARMS[ACW], steps=2, against=(TWICE,))},
)
