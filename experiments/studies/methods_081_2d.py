"""The published methods, every voxel labelled, on head-and-neck CT slice by slice."""

from arms.methods import from_one_start_without_mirroring
from driver.definition import Study

STUDY = Study(
    question="Does self-distillation help a network that knows the organs, slice by slice?",
    dataset="Dataset081_HeadNeckCT",
    metrics=("Dice", "HD95"),
    steps=2000,
    arms=from_one_start_without_mirroring(keeps_last_layer=True),
)
