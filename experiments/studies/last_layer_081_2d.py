"""As methods_081_2d, but with a new last layer, as nnU-Net's -pretrained_weights makes it.

So were the trainings made until it was seen that this layer costs organs. The start and seed 0 begin with the same
random weights: the new layer of seed 0 is the one that the start had begun with, those of the others are not.
"""

from dataclasses import replace

from arms.methods import from_one_start_without_mirroring
from studies import methods_081_2d

KEPT = "nnUNetTrainer, last layer kept"

STUDY = replace(
    methods_081_2d.STUDY,
    question="What does a new last layer cost a second training on the same slices?",
    arms={
        **from_one_start_without_mirroring(keeps_last_layer=False),
        KEPT: methods_081_2d.STUDY.arms["nnUNetTrainer"],
    },
)
