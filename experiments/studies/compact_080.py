"""A finished model of ten labelled angiograms teaches a small network, on images that nobody labelled.

Its pseudo-labels are ordinary labels of 40 images; the small network beside it has the ten labelled ones, for as long.
"""

from arms.one_network import QUARTER
from driver.definition import Arm, Model, Study

FULL = Model("full width", seed=0)

STUDY = Study(
    question="Can a model of 10 labels teach a network of a quarter of its width, on 30 unlabelled angiograms?",
    dataset="Dataset080_CoronaryXA",
    labelled=10,
    draws=(0, 1),
    metrics=("Dice", "clDice", "ECE"),
    mirroring=(False, True),
    seeds=(0, 1),
    steps=8000,
    arms={
        "quarter width": Arm(preset=QUARTER),
        "quarter width, pseudo-labels": Arm(preset=QUARTER, models=(FULL,), prepare="pseudo_labels"),
        "quarter width, all labels": Arm(preset=QUARTER, labelled="all", seeds=(0,)),
        FULL.arm: Arm(seeds=(0,)),
    },
)
