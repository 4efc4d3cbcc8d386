"""The question of one_network_080 after four times the steps: is the gap of small networks one of training time?

The teacher of one more arm is the network that saw all cases, which costs one training instead of five.
"""

from dataclasses import replace

from arms.one_network import QUARTER
from driver.definition import TAUGHT_BY_MODELS, Arm, Model
from studies import one_network_080

STUDY = replace(
    one_network_080.STUDY,
    question="And after four times the steps?",
    steps=8000,
    arms=one_network_080.STUDY.arms
    | {
        "quarter width, taught by all cases": Arm(
            "nnUNetTrainerDistill",
            preset=QUARTER,
            models=(Model("all cases"),),
            environment=TAUGHT_BY_MODELS,
            against=("quarter width", "all cases"),
        ),
        "quarter width, twice the steps": Arm(preset=QUARTER, steps=2, against=("quarter width", "all cases")),
    },
)
