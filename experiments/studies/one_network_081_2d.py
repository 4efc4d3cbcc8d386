"""The same on head-and-neck CT, slice by slice."""

from dataclasses import replace

from studies import one_network_080

STUDY = replace(
    one_network_080.STUDY,
    question="How much of five folds fits into one network, and into a small one, slice by slice?",
    dataset="Dataset081_HeadNeckCT",
    metrics=("Dice", "HD95", "ECE"),
    noise=None,
)
