"""What data sets of the user's own files share: held-out cases and the refusal of too few cases."""

from pathlib import Path

import numpy as np

from nnunet_skd.tools.errors import BadInput

FEWEST_TRAINING_CASES = 5  # nnU-Net splits them into five folds
MOST_HELD_OUT = 8


def hold_out(cases: dict) -> tuple[dict, dict]:
    """Set every fifth case aside for testing, at most 8, evenly spread over the sorted names: (train, test)."""
    names = sorted(cases)
    number = max(1, min(MOST_HELD_OUT, len(names) // 5))
    held_out = {names[i] for i in np.linspace(0, len(names) - 1, number + 2).astype(int)[1:-1]}
    print(f"There are no labelled test cases: {len(held_out)} of {len(names)} training cases are held out instead.")
    print(f"Held out: {', '.join(sorted(held_out))}")
    return {n: cases[n] for n in names if n not in held_out}, {n: cases[n] for n in names if n in held_out}


def refuse_few(train: dict, source: str | Path) -> None:
    """Refuse training cases that nnU-Net cannot split into folds.

    Raises:
        BadInput: there are fewer than five.
    """
    if len(train) < FEWEST_TRAINING_CASES:
        raise BadInput(
            f"{source} leaves {len(train)} training cases, but nnU-Net splits them into five folds and needs at least"
            f" {FEWEST_TRAINING_CASES}. Add cases (where no test case has labels, one more is held out for testing)."
        )
