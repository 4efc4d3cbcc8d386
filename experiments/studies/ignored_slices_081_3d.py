"""Head-and-neck CT of which three axial slices per volume are annotated; nnU-Net ignores the others.

The arms begin with the weights of one model, last layer included: which organs a training finds from scratch is luck.
"""

from typing import Any

from driver.definition import TAUGHT_BY_MODELS, Arm, Model, Study

START = Model("three slices", seed=0)
PLAIN, AGAIN = "nnUNetTrainerNoMirroring", "the same slices again"


def second(trainer: str = PLAIN, **options: Any) -> Arm:
    return Arm(trainer, start=START, keeps_last_layer=True, steps=0.25, **options)


STUDY = Study(
    question="Three slices per volume are annotated: what are the others worth in a second training?",
    dataset="Dataset081_HeadNeckCT",
    configuration="3d_fullres",
    annotated_slices=3,
    metrics=("Dice", "HD95"),
    steps=8000,
    arms={
        AGAIN: second(),
        "its predictions as labels of the other slices": second(prepare="pseudo_labels", models=(START,)),
        "DSKD_unlabelled": second("no_mirroring_unlabelled:nnUNetTrainerDSKD_unlabelled_NoMirroring"),
        "Distill": second(
            "no_mirroring:nnUNetTrainerDistill_NoMirroring",
            models=(START,),
            environment=TAUGHT_BY_MODELS,
        ),
        START.arm: Arm(PLAIN, seeds=(0,), against=()),
        "all slices": Arm(PLAIN, labelled="all", seeds=(0,)),
    },
)
