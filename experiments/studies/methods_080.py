"""The published methods, every voxel labelled, on angiograms."""

from arms.methods import arms
from driver.definition import Study

STUDY = Study(
    question="Does self-distillation help where every voxel is labelled?",
    dataset="Dataset080_CoronaryXA",
    metrics=("Dice", "clDice"),
    mirroring=(False, True),
    noise="noise_floor",
    arms=arms(),
)
