"""Why pseudo-labels gain more than Distill where the model is finished: on draws that no reported study uses.

Tested on the labelled cases outside the draw, which are the images without labels of the students as well.
"""

from arms.few_labels import taught
from driver.definition import Arm, Model, Study

FIRST, PSEUDO, DISTILL = Model("labelled only"), "its pseudo-labels", "Distill"


def second(trainer: str, *against: str) -> Arm:
    return taught(FIRST, trainer=trainer, start=FIRST, steps=0.25, against=(FIRST.arm, *against))


STUDY = Study(
    question="A model of 5 labelled angiograms is finished: do targets or terms explain what Distill gains less?",
    dataset="Dataset080_CoronaryXA",
    labelled=5,
    draws=(10, 11),
    seeds=(0,),
    test="rest",
    metrics=("Dice", "clDice"),
    mirroring=(False, True),
    steps=8000,
    noise="few_labels_080_finetuned",
    iterations=50,
    arms={
        FIRST.arm: Arm(),
        PSEUDO: Arm(models=(FIRST,), prepare="pseudo_labels", start=FIRST, steps=0.25),
        DISTILL: second("nnUNetTrainerDistill", PSEUDO),
        "L_u alone, with hard targets": second("variants:nnUNetTrainerDistill_alone_hard", PSEUDO, DISTILL),
    },
)
