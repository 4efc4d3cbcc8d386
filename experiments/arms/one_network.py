"""One network instead of five: folds, their ensemble, and what was taught by it.

There is one set of five folds; each seed's students are taught by it.
"""

from driver.definition import TAUGHT_BY_MODELS, Arm, Model

FOLDS = tuple(f"fold {i}" for i in range(5))
FIVE = tuple(Model(fold, seed=0) for fold in FOLDS)
HALF, QUARTER = (f"experiments/presets/cpu_small_w{width}.json" for width in ("050", "025"))


def taught_by_five(trainer: str, *against: str, preset: str | None = None) -> Arm:
    return Arm(trainer, preset=preset, models=FIVE, environment=TAUGHT_BY_MODELS, against=against)


def arms(plain: str = "nnUNetTrainer", distill: str = "nnUNetTrainerDistill") -> dict[str, Arm]:
    return {
        "all cases": Arm(plain),
        **{fold: Arm(plain, labelled=fold, seeds=(0,), against=()) for fold in FOLDS},
        "five folds": Arm(plain, models=FIVE, ensemble=True, seeds=(0,)),
        "distilled": taught_by_five(distill, "all cases", "five folds"),
        "half width": Arm(plain, preset=HALF),
        "half width, distilled": taught_by_five(distill, "half width", "five folds", preset=HALF),
        "quarter width": Arm(plain, preset=QUARTER),
        "quarter width, distilled": taught_by_five(distill, "quarter width", "five folds", preset=QUARTER),
    }
