"""Evaluate two folders: which files belong together, which classes they hold, and the table of all cases."""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from nnunetv2.configuration import default_num_processes
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from nnunet_skd.messages import listed
from nnunet_skd.tools.cases import reader_class, require_segmented_cases, spacing_file
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.evaluate.calibration import CALIBRATION, probabilities_file
from nnunet_skd.tools.evaluate.case import Case, evaluate_case
from nnunet_skd.tools.evaluate.metrics import METRICS, VOXEL_HD95
from nnunet_skd.tools.parallel import in_order, require_processes

TOLERANCE = 1.0
ALL_METRICS = (*METRICS, VOXEL_HD95, *CALIBRATION)


def evaluate_folders(
    reference_dir: str | Path,
    prediction_dir: str | Path,
    dataset_json: dict,
    *,
    num_processes: int = default_num_processes,
    metrics: Sequence[str] | None = None,
    tolerance: float = TOLERANCE,
    chill: bool = False,
) -> pd.DataFrame:
    """Evaluate every case of two folders, as ``nnunet-skd evaluate --help`` and ``metrics.py`` define it.

    Args:
        reference_dir: folder with the reference segmentations.
        prediction_dir: folder with the predictions, same file names.
        dataset_json: what ``read_dataset_json`` returns.
        num_processes: cases at the same time; 1 works in this process. More than one needs, as every use of
            multiprocessing with "spawn" does, a script that guards its start with ``if __name__ == "__main__"``.
        metrics: names out of ``ALL_METRICS``; by default ``METRICS``. Overlap alone takes little more time than
            reading.
        tolerance: of the NSD, in ``distance_unit``.
        chill: leave out reference cases without prediction instead of refusing them.

    Returns:
        One row per case and class: ``case``, ``label`` (the name in dataset.json), then one column per metric. Without
        regions, ECE and Brier score stand in a row of their own, ``all classes``.
        ``attrs`` holds ``distance_unit`` ("mm", or "pixel" or "voxel" for images without spacing), ``nsd_tolerance``
        and ``ignore_label`` (None: there is none).

    Raises:
        BadInput: unpaired or unreadable files, shapes or spacings that differ, a label that is not in dataset.json.
    """
    wanted = known_metrics(metrics or METRICS)
    chosen = [name for name in ALL_METRICS if name in wanted]
    require_processes(num_processes)
    if not tolerance >= 0:
        raise BadInput(f"the tolerance of the NSD (--tolerance) must be 0 or more, not {tolerance}")
    probabilities = bool(set(chosen) & set(CALIBRATION))
    cases = paired_cases(reference_dir, prediction_dir, dataset_json, chill, probabilities=probabilities)
    unit = _distance_unit(cases, dataset_json["file_ending"])
    evaluate = partial(evaluate_case, tolerance=tolerance, metrics=chosen)
    rows = chain.from_iterable(in_order(evaluate, [(case,) for case in cases], num_processes, "evaluate"))
    frame = pd.DataFrame(rows, columns=["case", "label", *chosen])
    frame.attrs = {"distance_unit": unit, "nsd_tolerance": tolerance, "ignore_label": cases[0].ignore}
    return frame


def _distance_unit(cases: Sequence[Case], file_ending: str) -> str:
    if cases[0].reader is NaturalImage2DIO:
        return "pixel"
    if cases[0].reader is not Tiff3DIO:
        return "mm"
    without = [case.reference.name for case in cases if not spacing_file(case.reference, file_ending).is_file()]
    if 0 < len(without) < len(cases):
        raise BadInput(
            f"of the references in {cases[0].reference.parent}, {listed(without)} lack the JSON file with the spacing, "
            "and others have it. Put it beside each: labelsTr in nnUNet_raw has it"
        )
    return "voxel" if without else "mm"


def paired_cases(
    reference_dir: str | Path, prediction_dir: str | Path, dataset_json: dict, chill: bool, *, probabilities: bool
) -> list[Case]:
    """The cases of two folders, by their names.

    Args:
        reference_dir: folder with the reference segmentations.
        prediction_dir: folder with the predictions, same file names.
        dataset_json: what ``read_dataset_json`` returns.
        chill: leave out reference cases without prediction instead of refusing them.
        probabilities: each prediction needs them.

    Raises:
        BadInput: unpaired files, no reader for them, no class, probabilities that are needed and missing.
    """
    ending = dataset_json["file_ending"]
    pairs = _pairs(Path(reference_dir), Path(prediction_dir), ending, chill)
    reader = reader_class(dataset_json, pairs[0][0])
    classes, ignore = _classes(dataset_json), dataset_json["labels"].get("ignore")
    regions = any(len(values) > 1 for values in classes.values())
    if probabilities:
        _check_probabilities([prediction for _, prediction in pairs], ending)
    return [
        Case(
            reference.name.removesuffix(ending),
            reference,
            prediction,
            reader,
            classes,
            ignore,
            regions,
            probabilities_file(prediction, ending),
        )
        for reference, prediction in pairs
    ]


def known_metrics(names: Sequence[str]) -> list[str]:
    """The metrics of these names, each once.

    Raises:
        BadInput: a name that is not one of ``ALL_METRICS``.
    """
    unknown = [name for name in names if name not in ALL_METRICS]
    if unknown:
        raise BadInput(f"--metrics: there is no metric {', '.join(unknown)}. Choose from {', '.join(ALL_METRICS)}")
    return list(dict.fromkeys(names))


def _refuse_broken_links(files: list[Path]) -> None:
    """``files`` are missed: a link may be all that is left of them."""
    if broken := [file for file in files if file.is_symlink()]:
        raise BadInput(
            f"{broken[0]} is a link to {broken[0].readlink()}, which is not there. Bring that file back, or link to "
            "where it is now"
        )


def _check_probabilities(predictions: list[Path], file_ending: str) -> None:
    missing = [p.name for p in predictions if not probabilities_file(p, file_ending).is_file()]
    if missing:
        raise BadInput(
            f"the probabilities are needed, and there is no .npz beside {listed(missing)} in "
            f"{predictions[0].parent}. Predict with nnUNetv2_predict --save_probabilities, or validate with "
            "nnUNetv2_train ... --val --npz"
        )


def _classes(dataset_json: dict) -> dict[str, tuple[int, ...]]:
    """The names of the classes, and the label values that count as each; more than one where they are regions."""
    labels = dataset_json["labels"]
    classes = {name: tuple(int(value) for value in np.atleast_1d(values)) for name, values in labels.items()}
    foreground = {name: values for name, values in classes.items() if name != "ignore" and set(values) != {0}}
    if not foreground:
        raise BadInput("dataset.json has no label besides the background; so there is nothing to evaluate")
    return foreground


def _pairs(reference_dir: Path, prediction_dir: Path, file_ending: str, chill: bool) -> list[tuple[Path, Path]]:
    """Reference and prediction of each case."""
    references, predictions = (
        {f"{case}{file_ending}" for case in require_segmented_cases(folder, file_ending)}
        for folder in (reference_dir, prediction_dir)
    )
    extra = sorted(predictions - references)
    _refuse_broken_links([reference_dir / name for name in extra])
    if extra:
        raise BadInput(
            f"{prediction_dir} holds {listed(extra)} without a reference in {reference_dir}. "
            "Move files that are not predictions of this data elsewhere"
        )
    missing = sorted(references - predictions)
    if missing and not chill:
        _refuse_broken_links([prediction_dir / name for name in missing])
        raise BadInput(
            f"{prediction_dir} lacks {listed(missing)} of {reference_dir}. "
            "Predict them, or evaluate only the others with --chill"
        )
    return [(reference_dir / name, prediction_dir / name) for name in sorted(predictions)]
