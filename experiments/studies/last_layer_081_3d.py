"""The same in 3D."""

from dataclasses import replace

from arms.methods import from_one_start_without_mirroring
from studies import methods_081_3d
from studies.last_layer_081_2d import KEPT

STUDY = replace(
    methods_081_3d.STUDY,
    question="What does a new last layer cost a second training on the same CTs in 3D?",
    arms={
        **from_one_start_without_mirroring(keeps_last_layer=False),
        KEPT: methods_081_3d.STUDY.arms["nnUNetTrainer"],
    },
)
