"""Four labelled head-and-neck CTs, and 36 that nobody labelled, slice by slice.

Without mirroring, in training too: it costs the two parotids 0.2 Dice (notebook.md, "Left and right").
"""

from dataclasses import replace

from arms.few_labels import second_training
from driver.definition import Study

ARMS = second_training("nnUNetTrainerNoMirroring", "no_mirroring:nnUNetTrainerDistill_NoMirroring", (0, 1, 2))
AGAIN, PSEUDO = "the same images again", "its pseudo-labels"
KEPT = {f"{arm}, last layer kept": replace(ARMS[arm], keeps_last_layer=True) for arm in (AGAIN, PSEUDO)}

STUDY = Study(
    question="A model of 4 labelled CTs is finished: what are 36 unlabelled ones worth, slice by slice?",
    dataset="Dataset081_HeadNeckCT",
    labelled=4,
    draws=(0, 1, 2),
    seeds=(0,),
    metrics=("Dice", "HD95"),
    steps=8000,
    arms=ARMS | KEPT,
)
