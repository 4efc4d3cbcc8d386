"""The same on head-and-neck CT, slice by slice, without mirroring, as left and right are different classes.

8000 steps, as after 2000 no network of this dataset had found an organ (../notebook.md).
"""

from dataclasses import replace

from arms.one_network import arms
from studies import one_network_080

STUDY = replace(
    one_network_080.STUDY,
    question="How much of five folds fits into one network, and into a small one, slice by slice?",
    dataset="Dataset081_HeadNeckCT",
    steps=8000,
    metrics=("Dice", "HD95", "ECE"),
    mirroring=(False,),
    noise=None,
    arms=arms("nnUNetTrainerNoMirroring", "no_mirroring:nnUNetTrainerDistill_NoMirroring"),
)
