"""One network instead of five: folds, their ensemble, and what was taught by it."""

from driver.definition import Arm, Model

FOLDS = tuple(f"fold {i}" for i in range(5))
FIVE = tuple(Model(fold) for fold in FOLDS)
HALF, QUARTER = (f"experiments/presets/cpu_small_w{width}.json" for width in ("050", "025"))


def arms() -> dict[str, Arm]:
    def taught(preset: str | None = None) -> Arm:
        return Arm("nnUNetTrainerDistill", preset=preset, models=FIVE, environment={"nnUNet_skd_teacher": "{models}"})

    return {
        "all cases": Arm(),
        **{fold: Arm(labelled=fold) for fold in FOLDS},
        "five folds": Arm(models=FIVE, ensemble=True),
        "distilled": taught(),
        "half width": Arm(preset=HALF),
        "half width, distilled": taught(HALF),
        "quarter width": Arm(preset=QUARTER),
        "quarter width, distilled": taught(QUARTER),
    }
