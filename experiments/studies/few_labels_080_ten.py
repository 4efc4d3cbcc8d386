"""Ten labelled angiograms, and 30 that nobody labelled."""

from arms.few_labels import second_training
from driver.definition import Study

STUDY = Study(
    question="A model of 10 labelled angiograms is finished: what are 30 unlabelled ones worth?",
    dataset="Dataset080_CoronaryXA",
    labelled=10,
    draws=(0, 1, 2),
    seeds=(0,),
    metrics=("Dice", "clDice"),
    mirroring=(False, True),
    steps=8000,
    noise="noise_floor",
    arms=second_training(),
)
