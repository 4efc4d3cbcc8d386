"""What ``nnunet-skd compare`` reads, as one object: the arms, their values, and where the images lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from nnunetv2.configuration import default_num_processes

from nnunet_skd.compat import nnunet_folder
from nnunet_skd.tools.cases import channel_files, training_cases
from nnunet_skd.tools.compare.arms import NO_FOLD, Arm, predicted_arms, trained_arms
from nnunet_skd.tools.compare.values import SUMMARY_METRICS, evaluated_values, summary_values
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.evaluate.calibration import CALIBRATION
from nnunet_skd.tools.evaluate.folders import TOLERANCE, known_metrics
from nnunet_skd.tools.evaluate.metrics import VOXEL_HD95
from nnunet_skd.tools.files import require_folder
from nnunet_skd.tools.nnunet_json import read_dataset_json

DISTANCES = ("HD95", VOXEL_HD95, "ASD")
LOWER_IS_BETTER = (*DISTANCES, "b0_error", *CALIBRATION)
TWO_DECIMALS = (*DISTANCES, "b0_error")


class Metric(NamedTuple):
    """How to read and print a metric; ``unit`` is empty or starts with a space."""

    higher_is_better: bool
    unit: str
    decimals: int


@dataclass(frozen=True)
class Comparison:
    """Everything that a report needs.

    ``cases`` has one row per ``arm``, ``fold``, ``case`` and ``label`` and a column per metric in ``metrics``.
    ``reference_dir`` and ``images_dir`` serve the pictures and may be None; ``no_images`` says what to do then.
    """

    title: str
    arms: list[Arm]
    cases: pd.DataFrame
    metrics: dict[str, Metric]
    dataset_json: dict
    reference_dir: Path | None
    images_dir: Path | None
    no_images: str

    @property
    def folds(self) -> list[str]:
        """The folds, none for a test set."""
        return [fold for fold in self.arms[0].folders if fold != NO_FOLD]


def trained_comparison(
    dataset_name_or_id: str | int,
    trainers: Sequence[str],
    *,
    configurations: Sequence[str],
    plans: Sequence[str] = ("nnUNetPlans",),
    folds: Sequence[str | int] = (0, 1, 2, 3, 4),
    metrics: Sequence[str] = ("Dice",),
    tolerance: float = TOLERANCE,
    images_dir: str | Path | None = None,
    num_processes: int = default_num_processes,
) -> Comparison:
    """Read what trained models reached on the validation cases of their folds.

    Args:
        dataset_name_or_id: as nnU-Net takes it.
        trainers, configurations, plans: one for all arms or one per arm; the first arm is the reference.
        folds: fold numbers or ``all``.
        metrics: of ``nnunet-skd evaluate``. Dice and IoU are read from summary.json; if any other is wanted, all
            are computed from the predictions.
        tolerance: of the NSD, as ``nnunet-skd evaluate`` takes it.
        images_dir: folder with the images; by default the raw dataset's.
        num_processes: cases evaluated at once.

    Raises:
        BadInput: nothing to compare, missing results, different cases, labels or reference segmentations.
    """
    metrics, images_dir = known_metrics(metrics), images_dir and require_folder(images_dir)
    dataset, arms, dataset_json = trained_arms(
        dataset_name_or_id, trainers, configurations, plans, list(dict.fromkeys(map(str, folds)))
    )
    raw, preprocessed = (
        folder and folder / dataset for folder in map(nnunet_folder, ("nnUNet_raw", "nnUNet_preprocessed"))
    )
    references = [preprocessed and preprocessed / "gt_segmentations", raw and raw / "labelsTr"]
    if dataset_json["file_ending"] in (".tif", ".tiff"):
        references.reverse()  # nnU-Net copies no JSON file with the spacing
    reference_dir = next((folder for folder in references if folder and folder.is_dir()), None)
    if set(metrics) <= set(SUMMARY_METRICS):
        cases = summary_values(arms, metrics, dataset_json)
    elif reference_dir is None:
        raise BadInput(
            f"summary.json does not hold all of {', '.join(metrics)}, and to compute them there is neither "
            f"nnUNet_preprocessed/{dataset}/gt_segmentations nor nnUNet_raw/{dataset}/labelsTr. Set these "
            "variables, or compare Dice"
        )
    else:
        cases = evaluated_values(arms, reference_dir, dataset_json, metrics, num_processes, tolerance=tolerance)
    return Comparison(
        title=", ".join([dataset, *(names[0] for names in (trainers, plans, configurations) if len(set(names)) == 1)]),
        arms=arms,
        cases=cases,
        metrics=_read_as(metrics, cases),
        dataset_json=dataset_json,
        reference_dir=reference_dir,
        images_dir=images_dir or (raw if raw and raw.is_dir() else None),
        no_images="set nnUNet_raw to the folder that holds this dataset, or give --images",
    )


def predicted_comparison(
    prediction_dirs: Sequence[str | Path],
    reference_dir: str | Path,
    dataset_json: str | Path,
    *,
    metrics: Sequence[str] = ("Dice",),
    tolerance: float = TOLERANCE,
    images_dir: str | Path | None = None,
    num_processes: int = default_num_processes,
) -> Comparison:
    """Evaluate folders with predictions of the same cases.

    Args:
        prediction_dirs: one per arm; the first is the reference arm.
        reference_dir: reference segmentations of exactly these cases.
        dataset_json: path of nnU-Net's dataset.json.
        metrics: of ``nnunet-skd evaluate``.
        tolerance: of the NSD, as ``nnunet-skd evaluate`` takes it.
        images_dir: folder with the images, for the pictures.
        num_processes: cases evaluated at once.

    Raises:
        BadInput: missing folders or files, different cases.
    """
    metrics, images_dir = known_metrics(metrics), images_dir and require_folder(images_dir)
    arms = predicted_arms(prediction_dirs)
    reference_dir = Path(reference_dir)
    dataset_json = read_dataset_json(dataset_json)
    cases = evaluated_values(
        arms, reference_dir, dataset_json, metrics, num_processes, tolerance=tolerance, all_references=True
    )
    return Comparison(
        title=f"{reference_dir.resolve().parent.name}/{reference_dir.resolve().name}",
        arms=arms,
        cases=cases,
        metrics=_read_as(metrics, cases),
        dataset_json=dataset_json,
        reference_dir=reference_dir,
        images_dir=images_dir,
        no_images="give --images",
    )


def image_files(images_dir: Path, case: str, dataset_json: dict) -> list[Path]:
    """The image files of one case, one per channel; none if there are none.

    Args:
        images_dir: a folder with CASE_0000, CASE_0001, ... or a raw dataset.
        case: its name.
        dataset_json: for the file ending, and for data sets whose dataset.json lists the files.
    """
    # A raw dataset whose dataset.json says where its files are, rather than a folder of images.
    if case in dataset_json.get("dataset", {}) and not list(images_dir.glob(f"*{dataset_json['file_ending']}")):
        return [file for file in training_cases(images_dir, dataset_json)[case][0] if file.is_file()]
    if (images_dir / "imagesTr").is_dir():
        images_dir = images_dir / "imagesTr"
    return channel_files(images_dir, case, dataset_json["file_ending"])


def _read_as(metrics: list[str], cases: pd.DataFrame) -> dict[str, Metric]:
    distance_unit = cases.attrs.get("distance_unit", "mm")
    return {
        m: Metric(
            m not in LOWER_IS_BETTER, f" {distance_unit}" if m in DISTANCES else "", 2 if m in TWO_DECIMALS else 4
        )
        for m in metrics
    }
