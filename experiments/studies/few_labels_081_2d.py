"""Four labelled head-and-neck CTs, and 36 that nobody labelled, slice by slice."""

from arms.few_labels import arms
from driver.definition import Study

STUDY = Study(
    question="What are 36 unlabelled CTs worth beside 4 labelled ones, slice by slice?",
    dataset="Dataset081_HeadNeckCT",
    labelled=4,
    draws=(0, 1, 2),
    seeds=(0, 1),
    metrics=("Dice", "HD95"),
    mirroring=(False, True),
    steps=2000,
    arms=arms(),
)
