"""Evaluate two folders: which files belong together, which classes they hold, and the table of all cases."""

import io
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from nnunetv2.configuration import default_num_processes
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from tqdm import tqdm

from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.evaluate.case import Case, evaluate_case
from nnunet_skd.tools.evaluate.metrics import METRICS
from nnunet_skd.tools.files import listed

TOLERANCE = 1.0


def evaluate_folders(
    reference_dir,
    prediction_dir,
    dataset_json,
    *,
    num_processes: int = default_num_processes,
    metrics=None,
    tolerance: float = TOLERANCE,
    chill: bool = False,
) -> pd.DataFrame:
    """Evaluate every case of two folders. Definitions and conventions: this module's docstring and ``metrics.py``.

    Args:
        reference_dir: folder with the reference segmentations.
        prediction_dir: folder with the predictions, same file names.
        dataset_json: content or path of dataset.json.
        num_processes: cases at the same time; 1 works in this process. More than one needs, as every use of
            multiprocessing with "spawn" does, a script that guards its start with ``if __name__ == "__main__"``.
        metrics: names out of ``metrics.METRICS``; all by default. Overlap alone takes little more than reading.
        tolerance: of the NSD, in mm (pixels for images without spacing).
        chill: leave out reference cases without prediction instead of refusing them.

    Returns:
        One row per case and class: ``case``, ``label`` (the name in dataset.json), then one column per metric.
        ``attrs`` holds ``distance_unit`` ("mm" or "pixel") and ``nsd_tolerance``.

    Raises:
        BadInput: unpaired or unreadable files, other shape or spacing, a label that dataset.json does not know.
    """
    chosen = _chosen(metrics)
    if num_processes < 1:
        raise BadInput(f"the number of processes (-np) must be at least 1, not {num_processes}")
    if not tolerance >= 0:
        raise BadInput(f"the tolerance of the NSD is a distance, not {tolerance}")
    dataset_json = _dataset_json(dataset_json)
    pairs = _pairs(Path(reference_dir), Path(prediction_dir), dataset_json["file_ending"], chill)
    reader = _reader(dataset_json, pairs[0][0])
    classes, ignore = _classes(dataset_json)
    tasks = [
        Case(reference.name.removesuffix(dataset_json["file_ending"]), reference, prediction, reader, classes, ignore)
        for reference, prediction in pairs
    ]
    evaluate = partial(evaluate_case, tolerance=tolerance, metrics=chosen)
    rows = []
    for case_rows in tqdm(_map(evaluate, tasks, num_processes), total=len(tasks), desc="evaluate", unit="case"):
        rows += case_rows
    frame = pd.DataFrame(rows, columns=["case", "label", *chosen])
    frame.attrs = {"distance_unit": "pixel" if reader is NaturalImage2DIO else "mm", "nsd_tolerance": tolerance}
    return frame


def check_folder(folder):
    if not Path(folder).is_dir():
        raise BadInput(f"{folder} is not a folder")


def _chosen(metrics):
    unknown = [name for name in metrics or () if name not in METRICS]
    if unknown:
        raise BadInput(f"there is no metric {', '.join(unknown)}; choose from {', '.join(METRICS)}")
    return tuple(name for name in METRICS if not metrics or name in metrics)


def _dataset_json(content):
    """The content of dataset.json, checked for what is needed here."""
    path = "dataset.json"
    if not isinstance(content, dict):
        path = content
        try:
            content = json.loads(Path(path).read_text())
        except (OSError, ValueError) as error:
            raise BadInput(f"cannot read {path}: {error}; -djfile needs a dataset.json") from error
    missing = {"labels", "file_ending"} - set(content)
    if missing:
        raise BadInput(f"{path} lacks {' and '.join(sorted(missing))}; is it a dataset.json of nnU-Net v2?")
    return content


def _classes(dataset_json):
    """({name: label values that count as this class}, ignore label or None), checked by nnU-Net's own label manager."""
    # Not at the top: it imports torch, which every worker process would then load without need.
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    labels = dataset_json["labels"]
    try:
        manager = LabelManager(labels, dataset_json.get("regions_class_order"))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise BadInput(f"nnU-Net refuses the labels of dataset.json: {error}") from error
    classes = {name: tuple(int(value) for value in np.atleast_1d(values)) for name, values in labels.items()}
    foreground = {name: values for name, values in classes.items() if name != "ignore" and set(values) != {0}}
    if not foreground:
        raise BadInput("dataset.json has no label besides the background; there is nothing to evaluate")
    return foreground, manager.ignore_label


def _pairs(reference_dir, prediction_dir, file_ending, chill):
    for folder in (reference_dir, prediction_dir):
        check_folder(folder)
    references, predictions = (
        {path.name for path in folder.iterdir() if path.name.endswith(file_ending) and path.is_file()}
        for folder in (reference_dir, prediction_dir)
    )
    for names, folder in ((references, reference_dir), (predictions, prediction_dir)):
        if not names:
            raise BadInput(f"no file in {folder} ends with {file_ending}, the file ending in dataset.json")
    extra = sorted(predictions - references)
    if extra:
        raise BadInput(
            f"{prediction_dir} holds {listed(extra)} without a reference in {reference_dir}; "
            "move files that are no predictions of this data elsewhere"
        )
    missing = sorted(references - predictions)
    if missing and not chill:
        raise BadInput(
            f"{prediction_dir} lacks {listed(missing)} of {reference_dir}; "
            "predict them, or evaluate the others alone with --chill"
        )
    return [(reference_dir / name, prediction_dir / name) for name in sorted(predictions)]


def _reader(dataset_json, example):
    try:
        with redirect_stderr(io.StringIO()):  # nnU-Net prints a traceback for every reader that it tries in vain
            return determine_reader_writer_from_dataset_json(dataset_json, str(example), verbose=False)
    except RuntimeError as error:
        raise BadInput(f"none of nnU-Net's readers can read {example}: {error}") from error


def _map(function, tasks, num_processes):
    """``map`` over processes, in order; holds no more than the results."""
    if num_processes == 1:
        yield from map(function, tasks)
        return
    context = multiprocessing.get_context("spawn")
    # Not multiprocessing.Pool: that waits forever for a worker which the system killed.
    with ProcessPoolExecutor(min(num_processes, len(tasks)), mp_context=context) as pool:
        try:
            yield from pool.map(function, tasks)
        except BrokenProcessPool as error:
            raise BadInput("a worker process was killed, most likely for want of memory; use a smaller -np") from error
