"""Five labelled angiograms, and 35 that nobody labelled."""

from arms.few_labels import arms
from driver.definition import Study

STUDY = Study(
    question="What are 35 unlabelled angiograms worth beside 5 labelled ones?",
    dataset="Dataset080_CoronaryXA",
    labelled=5,
    draws=(0, 1, 2),
    seeds=(0, 1),
    metrics=("Dice", "clDice"),
    mirroring=(False, True),
    steps=2000,
    iterations=50,
    arms=arms(),
)
