"""One network instead of five: folds, their ensemble, and what was taught by it."""

from driver.definition import TAUGHT_BY_MODELS, Arm, Model

FOLDS = tuple(f"fold {i}" for i in range(5))
FIVE = tuple(Model(fold) for fold in FOLDS)
HALF, QUARTER = (f"experiments/presets/cpu_small_w{width}.json" for width in ("050", "025"))


def arms() -> dict[str, Arm]:
    def taught(*against: str, preset: str | None = None) -> Arm:
        return Arm("nnUNetTrainerDistill", preset=preset, models=FIVE, environment=TAUGHT_BY_MODELS, against=against)

    return {
        "all cases": Arm(),
        **{fold: Arm(labelled=fold, against=()) for fold in FOLDS},
        "five folds": Arm(models=FIVE, ensemble=True),
        "distilled": taught("all cases", "five folds"),
        "half width": Arm(preset=HALF),
        "half width, distilled": taught("half width", "five folds", preset=HALF),
        "quarter width": Arm(preset=QUARTER),
        "quarter width, distilled": taught("quarter width", "five folds", preset=QUARTER),
    }
