"""Finished models get a second, short training: on the same five labels again, or with what nobody labelled."""

from dataclasses import replace

from arms.few_labels import THREE, TODAY, taught
from driver.definition import Arm, Model
from studies import few_labels_080

LONG, LONGER = TODAY
AGAIN, LONGER_AGAIN = "the same images again", "twice the steps, the same images again"
PSEUDO, LONGER_PSEUDO = "pseudo-labels of three models", "twice the steps, its pseudo-labels"
ONE = (Model(LONGER),)

STUDY = replace(
    few_labels_080.STUDY,
    question="A model is finished: what are 35 unlabelled angiograms worth in 2000 steps more?",
    steps=4000,
    seeds=(0,),
    arms={
        LONG: Arm(seeds=(0, 1, 2)),
        AGAIN: Arm(start=LONG, steps=0.5),
        PSEUDO: Arm(models=THREE, prepare="pseudo_labels", start=LONG, steps=0.5, against=(LONG, AGAIN)),
        "Distill, three teachers": taught(*THREE, start=LONG, steps=0.5, against=(LONG, AGAIN, PSEUDO)),
        LONGER: Arm(steps=2),
        LONGER_AGAIN: Arm(start=LONGER, steps=0.5, against=(LONGER,)),
        LONGER_PSEUDO: Arm(
            models=ONE, prepare="pseudo_labels", start=LONGER, steps=0.5, against=(LONGER, LONGER_AGAIN)
        ),
        "twice the steps, Distill": taught(
            *ONE, start=LONGER, steps=0.5, against=(LONGER, LONGER_AGAIN, LONGER_PSEUDO)
        ),
        "all labels": Arm(labelled="all"),
    },
)
