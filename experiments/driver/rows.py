"""The committed CSV of a study: one row per arm, draw, seed, way of predicting, case and class."""

from pathlib import Path

import pandas as pd

from driver.definition import Cell, Study
from driver.place import write_whole
from driver.trainings import Training
from nnunet_skd.messages import listed
from nnunet_skd.tools.errors import BadInput

CELL = ["arm", "draw", "seed"]
KEYS = [*CELL, "mirroring", "case", "label"]
SHARED = ("nnunetv2", "torch", "protocol", "datasets")  # parts of a fingerprint that all arms have in common
TEXTS = ("arm", "case", "label", "recipe", "fingerprint")


def read_rows(file: Path) -> pd.DataFrame:
    """The rows of a study, or of one training; none where there is no such file."""
    if not file.is_file():
        return pd.DataFrame(columns=[*KEYS, "case_seconds", "step_seconds", "recipe", "fingerprint"])
    return pd.read_csv(file, dtype=dict.fromkeys(TEXTS, str))


def write_rows(rows: pd.DataFrame, study: Study, file: Path) -> None:
    """Write all rows in the study's order, whole or not at all."""
    order = {name: i for i, name in enumerate(study.arms)}
    keys = [key for key in KEYS if key != "label"]  # the classes are in the dataset's order
    rows = rows.sort_values(keys, key=lambda column: column.map(order) if column.name == "arm" else column)
    write_whole(file, rows.to_csv(index=False))


def rows_of(rows: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    return rows[(rows["arm"] == cell.arm) & (rows["draw"] == cell.draw) & (rows["seed"] == cell.seed)]


def add_cell(rows: pd.DataFrame, cell: Cell, tested: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The rows with those of one more cell.

    Args:
        rows: of the study.
        cell: whose rows these are.
        tested: rows.csv of a training, or the same training's rows in another study.
        study: its metrics and ways of predicting are kept, but no row without any of them.
    """
    tested = tested[tested["mirroring"].isin(study.mirroring)].assign(arm=cell.arm, draw=cell.draw, seed=cell.seed)
    columns = [*KEYS, *study.metrics, "case_seconds", "step_seconds", "recipe", "fingerprint"]
    tested = tested[columns].dropna(subset=list(study.metrics), how="all")  # calibration has a row of its own
    return tested if rows.empty else pd.concat([rows, tested], ignore_index=True)


def complete(rows: pd.DataFrame, study: Study) -> bool:
    """Whether the rows of one training hold everything that the study asks for."""
    ways = set(rows["mirroring"].unique())
    return len(rows) > 0 and set(study.metrics) <= set(rows.columns) and set(study.mirroring) <= ways


def refuse_mixtures(rows: pd.DataFrame, plan: dict[Cell, Training], codes: dict[str, str | None] | None = None) -> None:
    """Rows of other code, or of another recipe, than the study has now are no part of it.

    Args:
        rows: of the study.
        plan: its cells.
        codes: the fingerprint of each training's key now; None where its trainer does not exist. Without them, only
            that the rows go together is asked for: old rows stay a table when the code goes on.

    Raises:
        BadInput: names the arm, the two versions, and how to fix it.
    """
    for cell, training in plan.items():
        mine = rows_of(rows, cell)
        fix = (
            f'Train the arm anew with --restart "{cell.arm}", or check out the code that made these rows '
            "(results/commits.json)"
        )
        for code in mine["fingerprint"].unique():
            if codes is not None and codes[training.key] not in (None, code):
                raise BadInput(f"rows of {cell} were made by other code: {code}; now {codes[training.key]}. {fix}")
        if set(mine["recipe"]) - {training.key}:
            raise BadInput(f"rows of {cell} were made with other settings than the study has now. {fix}")
    refuse_mixed_code(rows)
    found = rows[CELL].drop_duplicates().itertuples(index=False)
    if strangers := [str(cell) for cell in (Cell(*row) for row in found) if cell not in plan]:
        raise BadInput(
            f"there are rows that the study does not have: {listed(strangers, between='; ')}. "
            "Put these arms, draws and seeds back into the study, or take their rows out of its CSV"
        )


def refuse_mixed_code(rows: pd.DataFrame) -> None:
    """One arm was made by one version of the code, and all arms by one version of nnU-Net, torch and the protocol.

    Raises:
        BadInput: names the arm and the versions.
    """
    versions: dict[str, set[str]] = {}
    for arm, codes in rows.groupby("arm")["fingerprint"].unique().items():
        if len(codes) > 1:
            raise BadInput(
                f"rows of arm '{arm}' were made by different code: {'; '.join(sorted(codes))}. "
                f'Train the arm anew with --restart "{arm}"'
            )
        for part, _, value in (item.partition("=") for item in codes[0].split() if item != "+"):
            if part in SHARED:
                versions.setdefault(part, set()).add(value)
    for part, found in versions.items():
        if len(found) > 1:
            raise BadInput(
                f"the arms were made with different versions of {part}: {', '.join(sorted(found))}. "
                "Train the older ones anew with --restart"
            )
