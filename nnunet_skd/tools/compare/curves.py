"""``nnunet-skd compare --curves``: pseudo Dice of any number of arms, from nnU-Net's own logs."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from nnunet_skd.model_folds import folds_with
from nnunet_skd.tools.compare.arms import model_folders, short_names
from nnunet_skd.tools.compare.curves_plot import draw_curves
from nnunet_skd.tools.compare.training_logs import Training, read_training
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.files import new_folder
from nnunet_skd.tools.model_arms import ModelArm, same_dataset
from nnunet_skd.tools.text_table import aligned


class CurveArm(NamedTuple):
    """The trainings of one arm, by the name of each."""

    name: str
    trainings: dict[str, Training]


def trained_curves(
    dataset_name_or_id: str | int,
    trainers: Sequence[str],
    configurations: Sequence[str],
    plans: Sequence[str],
    folds: Sequence[str],
) -> list[CurveArm]:
    """Arms as ``compare`` names them, of one arm or more.

    Raises:
        BadInput: no such dataset or model, models of different labels, nothing logged.
    """
    _, parts, models = model_folders(dataset_name_or_id, trainers, configurations, plans, fewest=1)
    for model in models:
        if not model.is_dir():
            raise BadInput(f"there is no {model}. Check -tr, -p and -c, or train it first")
    arms = zip(short_names(parts), models, strict=True)
    return model_curves([ModelArm(name, (model,), tuple(folds)) for name, model in arms])


def model_curves(arms: Sequence[ModelArm]) -> list[CurveArm]:
    """Arms of model folders; each folder's folds are trainings of the arm, for example one folder per seed.

    Raises:
        BadInput: models of different datasets, different folds, nothing logged.
    """
    if not all(arm.mirror for arm in arms):
        raise BadInput("the curves are those of the training, which does not depend on @nomirror. Leave it out")
    same_dataset([folder for arm in arms for folder in arm.folders])
    folds = {(arm.name, folder): arm.folds or _folds(folder) for arm in arms for folder in arm.folders}
    (first, _), expected = next(iter(folds.items()))
    for (name, folder), found in folds.items():
        if set(found) != set(expected):
            raise BadInput(
                f"{folder} of {name} has fold {', '.join(found)}, but {first} has {', '.join(expected)}. Compare the "
                "same folds: name them with @FOLD,FOLD"
            )
    return [
        CurveArm(
            arm.name,
            {
                f"{_short(folder, arm.folders)} fold {fold}": read_training(folder / f"fold_{fold}")
                for folder in arm.folders
                for fold in folds[arm.name, folder]
            },
        )
        for arm in arms
    ]


def curve_table(arm: CurveArm) -> pd.DataFrame:
    """Mean and range over an arm's trainings, of the epochs that all of them have ended.

    Returns:
        One row per epoch: ``arm``, ``epoch``, ``steps`` (nan if unknown), ``minutes`` (mean), ``mean``, ``low`` and
        ``high`` of nnU-Net's moving average of the pseudo Dice, ``pseudo_dice`` (mean of the plain one), ``trainings``.

    Raises:
        BadInput: the trainings have different numbers of iterations per epoch.
    """
    iterations = {training.iterations for training in arm.trainings.values()}
    known = sorted(iterations - {None})
    if len(known) > 1:
        raise BadInput(
            f"the trainings of {arm.name} have different numbers of iterations per epoch "
            f"({', '.join(map(str, known))}). Make them different arms"
        )
    per_epoch = np.nan if None in iterations else known[0]
    count = min(len(training.epochs) for training in arm.trainings.values())
    columns = {
        name: np.stack([training.epochs[name].to_numpy()[:count] for training in arm.trainings.values()])
        for name in ("ema", "pseudo_dice", "minutes")
    }
    return pd.DataFrame(
        {
            "arm": arm.name,
            "epoch": np.arange(count),
            "steps": np.arange(1, count + 1) * per_epoch,
            "minutes": columns["minutes"].mean(0),
            "mean": columns["ema"].mean(0),
            "low": columns["ema"].min(0),
            "high": columns["ema"].max(0),
            "pseudo_dice": columns["pseudo_dice"].mean(0),
            "trainings": len(arm.trainings),
        }
    )


def reached_table(arms: Sequence[CurveArm], curves: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """When each arm's mean reached the last value of the first arm's mean.

    Returns:
        One row per arm: ``arm``, ``trainings``, ``running`` (how many of them have not ended), ``epochs`` (ended by
        all), ``final`` with ``low`` and ``high``, and ``epoch``, ``steps`` and ``minutes`` of reaching the value, nan
        where the arm did not.
    """
    target = curves[0]["mean"].iloc[-1]
    rows = []
    for arm, curve in zip(arms, curves, strict=True):
        last, reached = curve.iloc[-1], curve[curve["mean"] >= target]
        rows.append(
            {
                "arm": arm.name,
                "trainings": len(arm.trainings),
                "running": sum(not training.finished for training in arm.trainings.values()),
                "epochs": len(curve),
                "final": last["mean"],
                "low": last["low"],
                "high": last["high"],
                **{key: reached[key].iloc[0] if len(reached) else np.nan for key in ("epoch", "steps", "minutes")},
            }
        )
    return pd.DataFrame(rows)


def write_curves(arms: Sequence[CurveArm], output: Path) -> str:
    """Write curves.png, curves.csv, trainings.csv and reached.csv into a new folder.

    Returns:
        The table of when the reference's final value was reached, as text.

    Raises:
        BadInput: the folder exists and is not empty.
    """
    curves = [curve_table(arm) for arm in arms]
    reached = reached_table(arms, curves)
    trainings = [
        training.epochs.assign(
            arm=arm.name, training=name, steps=(training.epochs["epoch"] + 1) * (training.iterations or np.nan)
        )
        for arm in arms
        for name, training in arm.trainings.items()
    ]
    with new_folder(output) as folder:
        pd.concat(curves).to_csv(folder / "curves.csv", index=False)
        columns = ["arm", "training", "epoch", "steps", "minutes", "pseudo_dice", "ema"]
        pd.concat(trainings)[columns].to_csv(folder / "trainings.csv", index=False)
        reached.to_csv(folder / "reached.csv", index=False)
        draw_curves(
            curves, [f"{r.arm} (running)" if r.running else r.arm for r in reached.itertuples()], folder / "curves.png"
        )
    return reached_text(reached)


def reached_text(reached: pd.DataFrame) -> str:
    """:func:`reached_table` for people."""
    first = reached.iloc[0]
    rows = [["arm", "trainings", "epochs", "pseudo Dice", "range", "reached in epoch", "steps", "minutes"]]
    for r in reached.itertuples():
        when = ["not yet" if r.running else "never", "-", "-"]
        if not np.isnan(r.epoch):
            when = [f"{r.epoch:.0f}", "-" if np.isnan(r.steps) else f"{r.steps:.0f}", f"{r.minutes:.1f}"]
        count = f"{r.trainings} ({r.running} running)" if r.running else str(r.trainings)
        rows.append([r.arm, count, str(r.epochs), f"{r.final:.4f}", f"{r.low:.4f} - {r.high:.4f}", *when])
    so_far = " so far" if first.running else ""
    return (
        "\n".join(aligned(rows, left=[0]))
        + f"\n\n'reached': where the mean of the arm first was {first.final:.4f} or more, the last value of {first.arm}"
        f"{so_far}. Pseudo Dice is nnU-Net's, on patches, as a moving average (the one that chooses "
        "checkpoint_best.pth). Epochs count from 0. Minutes are those of training, without pauses."
    )


def _short(folder: Path, folders: Sequence[Path]) -> str:
    """Its name, or its path where the folders of several seeds have one name."""
    return folder.name if [f.name for f in folders].count(folder.name) == 1 else folder.as_posix()


def _folds(folder: Path) -> tuple[str, ...]:
    folds = folds_with(folder)
    if not folds:
        raise BadInput(f"{folder} holds no fold_... folder. Train it first")
    return tuple(folds)
