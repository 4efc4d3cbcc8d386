"""Which pseudo-labels to look at first: those where the model agrees least with itself, mirrored and not.

A case's agreement is the Dice between its prediction with mirroring, which is the label, and the one without, in the
mean over the classes that either holds (ours; docs/results.md says how well it finds the worst labels).
"""

from pathlib import Path

import numpy as np
import pandas as pd

from nnunet_skd.messages import in_one_line, listed
from nnunet_skd.tools.case_pictures import CaseFiles, draw_differences
from nnunet_skd.tools.cases import Cases, bring_label
from nnunet_skd.tools.evaluate.folders import evaluate_folders
from nnunet_skd.tools.files import scratch_folder, write_file

TABLE, PICTURE = "pseudo_labels.csv", "look_first.png"
NAMED = 6


def look_again(
    cases: Cases, labels: Path, unmirrored: Path | None, dataset_json: dict, folder: Path, processes: int
) -> None:
    """Write pseudo_labels.csv and look_first.png into ``folder``, or say why not: hours of prediction are done.

    The table has a row for each case and class: ``case``, ``label``, ``found`` (whether the label holds the class) and
    ``agreement``, which is empty where neither prediction holds it, or where the model does not mirror (``unmirrored``
    is None). The picture shows the cases that agree least.
    """
    ending = dataset_json["file_ending"]
    try:
        with scratch_folder(folder) as scratch:
            # Without the labelled cases, which may hold ignored voxels, and without images that were taken out since.
            # A label agrees with itself, but even then its sensitivity is nan where it does not hold the class.
            pair = scratch / "first", scratch / "second"
            for case in cases:
                for source, target in zip((labels, unmirrored or labels), pair, strict=True):
                    bring_label(case, source / f"{case}{ending}", target, ending)
            options = {"num_processes": processes, "metrics": ["Dice", "Sensitivity"]}
            scores = evaluate_folders(*pair, dataset_json, **options)
        table = scores[["case", "label"]].assign(
            found=scores["Sensitivity"].notna(), agreement=scores["Dice"] if unmirrored else np.nan
        )
        write_file(folder / TABLE, lambda file: table.to_csv(file, index=False))
        files = []
        for case, dice in least(table).items():
            both = (directory / f"{case}{ending}" for directory in (labels, unmirrored))
            files.append(CaseFiles(f"{case} ({dice:.2f})", cases[case], None, *both))
        names = {"first_name": "label, predicted with mirroring", "second_name": "prediction without mirroring"}
        for problem in draw_differences(files, folder / PICTURE, dataset_json=dataset_json, **names):
            print(problem)
    except Exception as error:  # readers and matplotlib have their own
        print(f"The labels could not be looked at a second time: {in_one_line(error)}")


def read_table(folder: Path) -> pd.DataFrame:
    """pseudo_labels.csv. A case or a class may be named NA."""
    types = {"case": str, "label": str, "found": bool, "agreement": float}
    return pd.read_csv(folder / TABLE, dtype=types, keep_default_na=False, na_values={"agreement": [""]})


def agreement_of_cases(table: pd.DataFrame) -> pd.Series:
    """By case, the mean over its classes; nan where nothing was found or the model does not mirror."""
    return table.groupby("case")["agreement"].mean()


def what_to_look_at(folder: Path) -> list[str]:
    """What pseudo_labels.csv says to whoever is about to train; nothing where there is none."""
    if not (folder / TABLE).is_file():
        return []
    table = read_table(folder)
    number, said = table["case"].nunique(), []
    if missing := _without(table, "label"):
        said.append(
            f"The model found no {listed(missing, between=', no ')} in any of the {number} images. A training on these "
            "labels would unlearn it."
        )
    if not missing and (empty := _without(table, "case")):
        said.append(f"The model found nothing in {len(empty)} of the {number} images: {listed(empty)}.")
    if doubtful := [f"{case} ({dice:.2f})" for case, dice in least(table).items()]:
        pictures = f", drawn in {folder / PICTURE}" if (folder / PICTURE).is_file() else ""
        said.append(
            f"Look at the labels of {', '.join(doubtful)}{pictures}. There the model agrees least with itself, "
            "mirrored and not. (The numbers are the Dice between both predictions; of all cases they are in "
            f"{folder / TABLE}.) If you correct a label, repeat this command before you train: it preprocesses again."
        )
    return said


def _without(table: pd.DataFrame, column: str) -> list[str]:
    """The classes that no label holds, or the cases whose label holds no class."""
    found = table.groupby(column, sort=False)["found"].any()
    return list(found.index[~found])


def least(table: pd.DataFrame) -> pd.Series:
    """The cases that agree least and their agreement, the least first; none that agrees everywhere."""
    agreement = agreement_of_cases(table)
    return agreement[agreement < 1].sort_values(kind="stable").head(NAMED)
