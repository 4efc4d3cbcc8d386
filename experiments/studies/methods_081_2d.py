"""The published methods, every voxel labelled, on head-and-neck CT slice by slice."""

from arms.methods import arms
from driver.definition import Study

STUDY = Study(
    question="Does self-distillation help where every voxel of a CT is labelled, slice by slice?",
    dataset="Dataset081_HeadNeckCT",
    metrics=("Dice", "HD95"),
    mirroring=(False, True),
    arms=arms(),
)
