"""As in few_labels_080_finetuned: the second training takes pseudo-labels, and has another seed than the model."""

from dataclasses import replace

from driver.definition import Arm, Model
from studies import few_labels_080_finetuned
from studies.few_labels_080_finetuned import LONGER

MODEL = Model(LONGER, seed=0)
NEW = Arm(models=(MODEL,), prepare="pseudo_labels", start=MODEL, steps=0.5)

STUDY = replace(
    few_labels_080_finetuned.STUDY,
    question="Pseudo-labels of angiograms: does it matter whether the second training keeps the model's last layer?",
    draws=(0, 1),
    noise="few_labels_080_finetuned",
    arms={
        LONGER: Arm(steps=2, seeds=(0,)),
        "its pseudo-labels, last layer new": replace(NEW, seeds=(0, 1)),
        "its pseudo-labels, last layer kept": replace(
            NEW, keeps_last_layer=True, seeds=(1,), against=(LONGER, "its pseudo-labels, last layer new")
        ),
    },
)
