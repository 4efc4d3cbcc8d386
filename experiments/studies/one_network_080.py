"""The teacher is an ensemble of five folds: into one network of its size, and of half and a quarter of its width."""

from arms.one_network import arms
from driver.definition import Study

STUDY = Study(
    question="How much of five folds fits into one network, and into a small one?",
    dataset="Dataset080_CoronaryXA",
    seeds=(0, 1),
    metrics=("Dice", "clDice", "ECE"),
    mirroring=(False, True),
    noise="noise_floor",
    arms=arms(),
)
