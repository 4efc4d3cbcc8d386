"""The same on head-and-neck CT, slice by slice."""

from arms.one_network import arms
from driver.definition import Study

STUDY = Study(
    question="How much of five folds fits into one network, and into a small one, slice by slice?",
    dataset="Dataset081_HeadNeckCT",
    seeds=(0, 1),
    metrics=("Dice", "HD95", "ECE"),
    mirroring=(False, True),
    arms=arms(),
)
