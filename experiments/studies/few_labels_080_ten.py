"""Ten labelled angiograms, and 30 that nobody labelled."""

from arms.few_labels import arms
from driver.definition import Study

STUDY = Study(
    question="What are 30 unlabelled angiograms worth beside 10 labelled ones?",
    dataset="Dataset080_CoronaryXA",
    labelled=10,
    draws=(0, 1, 2),
    seeds=(0, 1),
    metrics=("Dice", "clDice"),
    mirroring=(False, True),
    steps=2000,
    iterations=50,
    arms=arms(),
)
