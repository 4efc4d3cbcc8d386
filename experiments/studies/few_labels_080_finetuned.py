"""Finished models get a second, short training: on the same five labels again, or with what nobody labelled."""

from dataclasses import replace

from arms.few_labels import THREE, TODAY, taught
from driver.definition import Arm, Model
from studies import few_labels_080

LONG, LONGER = TODAY
AGAIN, LONGER_AGAIN = "the same images again", "twice the steps, the same images again"
PSEUDO, LONGER_PSEUDO = "pseudo-labels of three models", "twice the steps, its pseudo-labels"
LONGER_PSEUDO_OF_THREE = "twice the steps, pseudo-labels of three models"
SECOND_ROUND = "twice the steps, second round of pseudo-labels"
ONE = (Model(LONGER),)
THREE_LONGER = tuple(Model(LONGER, seed) for seed in (0, 1, 2))

STUDY = replace(
    few_labels_080.STUDY,
    question="A model is finished: what are 35 unlabelled angiograms worth in 2000 steps more?",
    steps=4000,
    seeds=(0,),
    arms={
        LONG: Arm(seeds=(0, 1, 2)),
        AGAIN: Arm(start=Model(LONG), steps=0.5),
        PSEUDO: Arm(models=THREE, prepare="pseudo_labels", start=Model(LONG), steps=0.5, against=(LONG, AGAIN)),
        "Distill, three teachers": taught(*THREE, start=Model(LONG), steps=0.5, against=(LONG, AGAIN, PSEUDO)),
        LONGER: Arm(steps=2, seeds=(0, 1, 2)),
        "twice the steps, three models together": Arm(
            models=THREE_LONGER, ensemble=True, seeds=(0,), against=(LONGER, LONGER_PSEUDO)
        ),
        LONGER_AGAIN: Arm(start=Model(LONGER), steps=0.5, against=(LONGER,)),
        LONGER_PSEUDO: Arm(
            models=ONE, prepare="pseudo_labels", start=Model(LONGER), steps=0.5, against=(LONGER, LONGER_AGAIN)
        ),
        "twice the steps, Distill": taught(
            *ONE, start=Model(LONGER), steps=0.5, against=(LONGER, LONGER_AGAIN, LONGER_PSEUDO)
        ),
        LONGER_PSEUDO_OF_THREE: Arm(
            models=THREE_LONGER,
            prepare="pseudo_labels",
            start=Model(LONGER),
            steps=0.5,
            against=(LONGER, LONGER_AGAIN, LONGER_PSEUDO),
        ),
        "twice the steps, Distill, three teachers": taught(
            *THREE_LONGER, start=Model(LONGER), steps=0.5, against=(LONGER, LONGER_PSEUDO_OF_THREE)
        ),
        SECOND_ROUND: Arm(
            models=(Model(LONGER_PSEUDO),),
            prepare="pseudo_labels",
            start=Model(LONGER_PSEUDO),
            steps=0.5,
            against=(LONGER, LONGER_PSEUDO),
        ),
        "all labels": Arm(labelled="all"),
        "all labels, twice the steps": Arm(labelled="all", steps=2),
    },
)
