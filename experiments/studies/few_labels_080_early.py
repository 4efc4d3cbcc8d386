"""The same in early training, one draw: too short a schedule, as twice the steps shows."""

from arms.few_labels import arms
from driver.definition import Study

STUDY = Study(
    question="What are 35 unlabelled angiograms worth beside 5 labelled ones, in early training?",
    dataset="Dataset080_CoronaryXA",
    labelled=5,
    draws=(0,),
    seeds=(0,),
    metrics=("Dice", "clDice"),
    mirroring=(False, True),
    steps=1000,
    iterations=50,
    arms=arms(),
)
