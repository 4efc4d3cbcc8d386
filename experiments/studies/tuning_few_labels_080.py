"""Which terms, and which targets: on a draw that no reported study uses, without its test cases.

It is tested on the labelled cases outside the draw, which are the images without labels of the students as well.
"""

from arms.few_labels import THREE, taught
from driver.definition import Arm, Study

STUDY = Study(
    question="Which terms shall finished models teach with, beside 5 labelled angiograms?",
    dataset="Dataset080_CoronaryXA",
    labelled=5,
    draws=(10,),
    seeds=(0,),
    test="rest",
    metrics=("Dice", "clDice"),
    steps=1000,
    iterations=50,
    arms={
        "labelled only": Arm(seeds=(0, 1, 2)),
        "labelled only, three models": Arm(models=THREE, ensemble=True),
        "pseudo-labels of three models": Arm(models=THREE, prepare="pseudo_labels"),
        "DDL, PSDL, CWD, L_u": taught(*THREE, trainer="variants:nnUNetTrainerDistill_cwd"),
        "DDL, PSDL, L_u": taught(*THREE, trainer="nnUNetTrainerDistill"),
        "L_u": taught(*THREE, trainer="variants:nnUNetTrainerDistill_alone"),
        "L_u with hard targets": taught(*THREE, trainer="variants:nnUNetTrainerDistill_alone_hard"),
    },
)
