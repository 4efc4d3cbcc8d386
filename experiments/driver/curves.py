"""How a study's trainings went: nnU-Net's pseudo Dice against steps and minutes, as a CSV and as a table."""

from pathlib import Path

import numpy as np
import pandas as pd

from driver.definition import Study
from driver.markdown import markdown
from driver.place import Place, write_whole
from driver.rows import read_rows
from driver.trainings import plan
from nnunet_skd.model_folds import folds_with
from nnunet_skd.tools.compare.curves import CurveArm, curve_table, reached_table
from nnunet_skd.tools.compare.training_logs import Training, read_training
from nnunet_skd.tools.errors import BadInput

MOMENTS = 8  # of the reference's schedule


def file_of(name: str, results: Path) -> Path:
    return results / "curves" / f"{name}.csv"


def save_curves(name: str, study: Study, work: Path, results: Path) -> Path:
    """Write one row per epoch of each finished training, from nnU-Net's logs in the work folder.

    Raises:
        BadInput: no training of the study is finished there, or its logs are damaged.
    """
    curves = []
    for cell, training in plan(study).items():
        model = Place(work, training.key).read_model()
        if model is None:
            continue
        folder = work / model["folder"]
        (fold,) = folds_with(folder)
        found = read_training(folder / f"fold_{fold}")
        columns = {"arm": cell.arm, "draw": cell.draw, "seed": cell.seed, "recipe": training.key}
        curves.append(found.epochs.assign(**columns, iterations=found.iterations))
    if not curves:
        raise BadInput(f"no training of {name} is finished in {work}. Run the study there first, or name --work")
    file = file_of(name, results)
    write_whole(file, pd.concat(curves).round(4).to_csv(index=False))
    return file


def curves_table(name: str, study: Study, results: Path) -> str:
    """The mean of each arm's trainings in the course of the reference's schedule, and when it reached its last value.

    Raises:
        BadInput: there is no CSV, it lacks the reference, or it is of other trainings than the study has now.
    """
    command = f"python experiments/study.py curves {name}"
    file = file_of(name, results)
    rows = read_rows(file)
    if rows.empty:
        raise BadInput(f"the study {name} has no curves yet. Run: {command}")
    known = {training.key for training in plan(study).values()}
    if strangers := set(rows["recipe"]) - known:
        raise BadInput(f"{file} has trainings that the study does not have: {', '.join(strangers)}. Run: {command}")
    arms = [CurveArm(arm, _trainings(rows[rows["arm"] == arm])) for arm in study.arms if arm in set(rows["arm"])]
    if not arms or arms[0].name != study.reference:
        raise BadInput(f"{file} has no training of the reference, {study.reference}. Run: {command}")
    curves = [curve_table(arm) for arm in arms]
    reached = reached_table(arms, curves)
    epochs = np.linspace(0, len(curves[0]), MOMENTS + 1).round().astype(int)[1:] - 1
    header = ["pseudo Dice after steps", *(f"{curves[0]['steps'][epoch]:.0f}" for epoch in epochs)]
    target = f"{reached['final'].iloc[0]:.3f}"
    header += ["at its end (trainings)", f"{target} after steps", "minutes"]
    lines = []
    for curve, row in zip(curves, reached.itertuples(), strict=True):
        when = ["never", ""] if np.isnan(row.steps) else [f"{row.steps:.0f}", f"{row.minutes:.0f}"]
        end = f"{row.final:.3f} ({row.low:.3f} to {row.high:.3f})" if row.trainings > 1 else f"{row.final:.3f} (one)"
        lines.append([row.arm, *(f"{curve['mean'][epoch]:.3f}" for epoch in epochs), end, *when])
    note = (
        f"nnU-Net's moving average, mean of the trainings. {target} is the last value of {study.reference}. `{command}`"
    )
    return f"{markdown(header, lines)}\n\n{note}"


def _trainings(rows: pd.DataFrame) -> dict[str, Training]:
    return {
        f"draw {draw}, seed {seed}": Training(epochs.reset_index(drop=True), int(epochs["iterations"].iloc[0]), True)
        for (draw, seed), epochs in rows.groupby(["draw", "seed"])
    }
