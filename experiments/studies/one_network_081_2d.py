"""The same on head-and-neck CT, slice by slice, without mirroring, as left and right are different classes.

8000 steps, as after 2000 no network of this dataset had found an organ (../notebook.md). The arms of one term were
added when the one with both, PSDL and DDL, had found none after 8000.
"""

from dataclasses import replace

from arms.one_network import arms, taught_by_five
from driver.definition import Arm
from studies import one_network_080


def one_term(term: str, *against: str) -> Arm:
    return taught_by_five(f"distill_parts_no_mirroring:nnUNetTrainerDistill_{term}_NoMirroring", *against)


STUDY = replace(
    one_network_080.STUDY,
    question="How much of five folds fits into one network, and into a small one, slice by slice?",
    dataset="Dataset081_HeadNeckCT",
    steps=8000,
    metrics=("Dice", "HD95", "ECE"),
    mirroring=(False,),
    noise=None,
    arms=arms("nnUNetTrainerNoMirroring", "no_mirroring:nnUNetTrainerDistill_NoMirroring")
    | {
        "distilled, PSDL alone": one_term("psdl", "all cases", "five folds", "distilled"),
        "distilled, DDL alone": one_term("ddl", "all cases", "distilled"),
    },
)
