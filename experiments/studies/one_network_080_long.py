"""The question of one_network_080 after four times the steps: is the gap of small networks one of training time?

The teacher of three more arms is the network that saw all cases, which costs one training instead of five: with the
trainer's own terms, with PSDL alone, and with channel-wise distillation (CWD) alone. In the arms "out of fold", each of
the five folds teaches only the cases that it has not seen.
"""

from dataclasses import replace

from arms.one_network import QUARTER, taught_by_five
from driver.definition import TAUGHT_BY_MODELS, Arm, Model
from studies import one_network_080

TAUGHT = "quarter width, taught by all cases"


def taught_by_all_cases(trainer: str = "nnUNetTrainerDistill", *also_against: str) -> Arm:
    against = ("quarter width", *also_against, "all cases")
    return Arm(trainer, preset=QUARTER, models=(Model("all cases"),), environment=TAUGHT_BY_MODELS, against=against)


def out_of_fold(preset: str | None, *against: str) -> Arm:
    return taught_by_five("out_of_fold:nnUNetTrainerDistill_out_of_fold", *against, "five folds", preset=preset)


STUDY = replace(
    one_network_080.STUDY,
    question="And after four times the steps?",
    steps=8000,
    arms=one_network_080.STUDY.arms
    | {
        TAUGHT: taught_by_all_cases(),
        "quarter width, PSDL alone": taught_by_all_cases("distill_parts:nnUNetTrainerDistill_psdl", TAUGHT),
        "quarter width, CWD alone": taught_by_all_cases("distill_parts:nnUNetTrainerDistill_cw", TAUGHT),
        "distilled, out of fold": out_of_fold(None, "all cases", "distilled"),
        "quarter width, out of fold": out_of_fold(QUARTER, "quarter width", "quarter width, distilled"),
        "quarter width, twice the steps": Arm(preset=QUARTER, steps=2, against=("quarter width", "all cases")),
    },
)
