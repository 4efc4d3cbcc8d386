"""What is it worth to correct the pseudo-labels that ``nnunet-skd pseudo-labels`` names, or to leave them out?

Six of 35. The control corrects six at random: each true label more is worth something, whichever it is.
"""

from dataclasses import replace

from driver.definition import Arm
from studies import few_labels_080_finetuned
from studies.few_labels_080_finetuned import LONGER, LONGER_PSEUDO

PSEUDO = few_labels_080_finetuned.STUDY.arms[LONGER_PSEUDO]
DOUBTFUL, RANDOM = "its pseudo-labels, six doubtful ones corrected", "its pseudo-labels, six random ones corrected"

STUDY = replace(
    few_labels_080_finetuned.STUDY,
    question="A model of 5 labelled angiograms labels 35 others: is it worth correcting the most doubtful labels?",
    noise="few_labels_080_finetuned",
    arms={
        LONGER: Arm(steps=2),
        LONGER_PSEUDO: replace(PSEUDO, against=(LONGER,)),
        DOUBTFUL: replace(PSEUDO, review="doubtful corrected", against=(LONGER, LONGER_PSEUDO, RANDOM)),
        RANDOM: replace(PSEUDO, review="random corrected", against=(LONGER, LONGER_PSEUDO)),
        "its pseudo-labels, six doubtful ones left out": replace(
            PSEUDO, review="doubtful left out", against=(LONGER, LONGER_PSEUDO)
        ),
    },
)
