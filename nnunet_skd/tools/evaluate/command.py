"""Compare predictions with the reference: overlap, surface distance and topology, per case and per class.

  nnunet-skd evaluate labelsTs predictions -djfile dataset.json
  nnunet-skd evaluate labelsTr fold_0/validation -djfile dataset.json --chill -o evaluation_fold_0 -np 4
  nnunet-skd evaluate labelsTs predictions -djfile dataset.json --metrics Dice HD95 NSD --tolerance 2

Both folders hold one segmentation per case under the same name. Classes, regions, ignore label, file ending and reader
come from dataset.json, as in nnU-Net. Metrics of a class (or region):

  Dice, IoU, Sensitivity, Specificity, Precision, Accuracy
              from counts of voxels; Dice and IoU are nnU-Net's. Specificity and accuracy count the background too and
              are close to 1 for every small structure.
  HD95        95th percentile of the surface distance, the larger of the two directions, in mm
  ASD         average symmetric surface distance, in mm
  NSD         normalised surface Dice: the share of both surfaces that lies within --tolerance of the other
  clDice      Dice of the centrelines; made for vessels and other tubes
  b0_error    |components of the prediction - components of the reference|, 8 neighbours in 2D, 26 in 3D

Distances use the spacing in the files. Images without one (png, bmp, 2D tif) count 1 pixel as 1 mm: read pixels. They
are measured between meshes, where most tools count voxels: HD95 hardly differs, but ASD and NSD do if errors are as
small as a voxel. Evaluate both sides of a comparison with the same tool.

Conventions. A class that neither file holds is left out (nan) of all but specificity and accuracy. If only one file
holds it, Dice, IoU, NSD and clDice are 0, and HD95 and ASD do not exist (nan): the column n tells in how many cases a
metric exists, so look at it before you praise a mean distance. Voxels with the ignore label in the reference do not
count; surface and topology take them as background in both, which is of little use if the reference is a scribble.

The summary has mean, standard deviation (n - 1) and 95 % bootstrap interval over cases per class. 'foreground mean'
is the mean of the class means, as in nnU-Net's summary.json; its standard deviation and n are those of each case's mean
over its classes.

Writes into -o:
  evaluation_cases.csv      one row per case and class
  evaluation_summary.csv    one row per class and metric
  evaluation.json           both, with the settings; null where a metric does not exist
Exit status: 0 done; 2 unusable input (unpaired files, other shape or spacing, a label that dataset.json does not know).
"""

import io
import json
import multiprocessing
import os
import tempfile
import warnings
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import partial
from itertools import chain, product
from pathlib import Path

import numpy as np
import pandas as pd
from nnunetv2.configuration import default_num_processes
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from scipy import stats
from tqdm import tqdm

from nnunet_skd import __version__
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.evaluate.metrics import METRICS, mask_metrics
from nnunet_skd.tools.evaluate.statistics import RESAMPLES, bootstrap_interval

FOREGROUND = "foreground mean"
TOLERANCE = 1.0
CASES_CSV = "evaluation_cases.csv"
SUMMARY_CSV = "evaluation_summary.csv"
JSON = "evaluation.json"

CONFIDENCE = 0.95

_NAMES_SHOWN = 5
# Numbers that one batch of resamples may hold: the memory stays flat over thousands of cases.
_BATCH_NUMBERS = 2_000_000
# Headers round the spacing to float32 and sometimes to three digits.
_SPACING_RTOL = 1e-3


def add_arguments(parser):
    parser.add_argument("reference", metavar="REFERENCE_DIR", help="folder with the reference segmentations")
    parser.add_argument("prediction", metavar="PREDICTION_DIR", help="folder with the predicted segmentations")
    parser.add_argument("-djfile", required=True, metavar="FILE", help="dataset.json of the raw dataset or the model")
    parser.add_argument("-o", metavar="OUT_DIR", help="folder for the three files (default: PREDICTION_DIR)")
    parser.add_argument(
        "-np",
        type=int,
        default=default_num_processes,
        help="cases at the same time; each holds one case in memory (default: %(default)s, from nnUNet_def_n_proc)",
    )
    parser.add_argument(
        "--metrics", nargs="+", metavar="NAME", help="only these, in less time: distances and clDice cost the most"
    )
    parser.add_argument(
        "--tolerance", type=float, default=TOLERANCE, help="of the NSD, in mm (in pixels for png; default: %(default)s)"
    )
    parser.add_argument(
        "--chill", action="store_true", help="leave out reference cases without prediction, as nnU-Net's flag does"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier evaluation")


def run(args):
    out = Path(args.o or args.prediction)
    existing = [str(out / name) for name in (CASES_CSV, SUMMARY_CSV, JSON) if (out / name).exists()]
    if existing and not args.overwrite:
        raise BadInput(f"{existing[0]} exists already; name another folder with -o, or replace it with --overwrite")
    _check_folder(args.reference)
    _check_folder(args.prediction)
    with _staging(out) as staging:
        cases = evaluate_folders(
            args.reference,
            args.prediction,
            args.djfile,
            num_processes=args.np,
            metrics=args.metrics,
            tolerance=args.tolerance,
            chill=args.chill,
        )
        summary = summarize(cases)
        settings = {
            "reference": str(Path(args.reference).resolve()),
            "prediction": str(Path(args.prediction).resolve()),
            **cases.attrs,
            "confidence": CONFIDENCE,
            "bootstrap_resamples": RESAMPLES,
            "nnunet_skd": __version__,
        }
        _write(cases, summary, settings, Path(staging))
        for name in (CASES_CSV, SUMMARY_CSV, JSON):
            os.replace(Path(staging, name), out / name)
    print(format_summary(summary))
    unit = cases.attrs["distance_unit"]
    print(f"\n{cases['case'].nunique()} cases; distances in {unit}; NSD within {args.tolerance:g} {unit}")
    print(f"Written to {out}: {CASES_CSV}, {SUMMARY_CSV}, {JSON}")


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
        _Case(reference.name.removesuffix(dataset_json["file_ending"]), reference, prediction, reader, classes, ignore)
        for reference, prediction in pairs
    ]
    evaluate = partial(_evaluate_case, tolerance=tolerance, metrics=chosen)
    rows = []
    for case_rows in tqdm(_map(evaluate, tasks, num_processes), total=len(tasks), desc="evaluate", unit="case"):
        rows += case_rows
    frame = pd.DataFrame(rows, columns=["case", "label", *chosen])
    frame.attrs = {"distance_unit": "pixel" if reader is NaturalImage2DIO else "mm", "nsd_tolerance": tolerance}
    return frame


def summarize(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation and 95 % bootstrap interval over cases, per class and for the foreground.

    Args:
        frame: of ``evaluate_folders``.

    Returns:
        One row per class and metric, the classes in their order and ``foreground mean`` last (left out if there is
        only one class): ``label, metric, mean, std, low, high, n``. n counts the cases in which the metric exists.
    """
    metrics = [name for name in frame.columns if name not in ("case", "label")]
    labels = list(frame["label"].unique())
    groups = {label: [label] for label in labels}
    if len(labels) > 1:
        groups[FOREGROUND] = labels
    rows = []
    # delay: a bar for thousands of cases, none for a few.
    for group, metric in tqdm(list(product(groups, metrics)), desc="bootstrap", delay=2, leave=False):
        table = frame.pivot(index="case", columns="label", values=metric)[groups[group]]
        of_case = table.mean(axis=1)
        low, high = _interval(table)
        rows.append(
            {
                "label": group,
                "metric": metric,
                "mean": table.mean().mean(),
                "std": of_case.std(),
                "low": low,
                "high": high,
                "n": of_case.count(),
            }
        )
    return pd.DataFrame(rows)


def format_summary(summary: pd.DataFrame) -> str:
    """The summary as a table to read: one block per class."""
    width = max(len(name) for name in ("class", *summary["label"]))
    lines = [f"{'class':{width}}  {'metric':11} {'mean':>9} {'std':>9}  {'95 % interval':>22}  {'n':>5}"]
    previous = None
    for row in summary.itertuples():
        name = row.label if row.label != previous else ""
        if name and previous is not None:
            lines.append("")
        previous = row.label
        interval = f"{_number(row.low)} .. {_number(row.high)}"
        lines.append(
            f"{name:{width}}  {row.metric:11} {_number(row.mean):>9} {_number(row.std):>9}  {interval:>22}  {row.n:>5}"
        )
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------ input


def _check_folder(folder):
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
        _check_folder(folder)
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
            f"{prediction_dir} holds {_listed(extra)} without a reference in {reference_dir}; "
            "move files that are no predictions of this data elsewhere"
        )
    missing = sorted(references - predictions)
    if missing and not chill:
        raise BadInput(
            f"{prediction_dir} lacks {_listed(missing)} of {reference_dir}; "
            "predict them, or evaluate the others alone with --chill"
        )
    return [(reference_dir / name, prediction_dir / name) for name in sorted(predictions)]


def _reader(dataset_json, example):
    try:
        with redirect_stderr(io.StringIO()):  # nnU-Net prints a traceback for every reader that it tries in vain
            return determine_reader_writer_from_dataset_json(dataset_json, str(example), verbose=False)
    except RuntimeError as error:
        raise BadInput(f"none of nnU-Net's readers can read {example}: {error}") from error


def _listed(names):
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more


# ------------------------------------------------------------------------------------------------ one case


@dataclass(frozen=True)
class _Case:
    name: str
    reference: Path
    prediction: Path
    reader: type
    classes: dict
    ignore: int | None


def _evaluate_case(case, tolerance, metrics):
    reference, spacing = _read(case.reference, case.reader)
    prediction, prediction_spacing = _read(case.prediction, case.reader)
    if reference.shape != prediction.shape:
        raise BadInput(
            f"{case.prediction} has the shape {prediction.shape}, but its reference {case.reference} has "
            f"{reference.shape}; predictions must be in the geometry of the original images"
        )
    if not np.allclose(spacing, prediction_spacing, rtol=_SPACING_RTOL):
        raise BadInput(
            f"{case.prediction} has the spacing {prediction_spacing} mm, but its reference {case.reference} has "
            f"{spacing} mm (axes in array order); predictions must be in the geometry of the original images"
        )
    known = {0, *chain.from_iterable(case.classes.values())} | ({case.ignore} - {None})
    for path, segmentation in ((case.reference, reference), (case.prediction, prediction)):
        _check_labels(path, segmentation, known)
    valid = None if case.ignore is None else reference != case.ignore
    rows = []
    for name, values in case.classes.items():
        masks = np.isin(reference, values), np.isin(prediction, values)
        scores = mask_metrics(*masks, spacing, valid=valid, tolerance=tolerance, metrics=metrics)
        rows.append({"case": case.name, "label": name, **scores})
    return rows


def _read(path, reader):
    """Segmentation (spatial) and spacing; nnU-Net reads a 2D file as a single slice, which becomes 2D again."""
    try:
        segmentation, properties = reader().read_seg(str(path))
    except Exception as error:  # every reader has its own
        raise BadInput(f"cannot read {path}: {error}") from error
    if segmentation.shape[0] != 1:
        raise BadInput(f"{path} has {segmentation.shape[0]} channels; a segmentation has one")
    segmentation, spacing = segmentation[0], [float(size) for size in properties["spacing"]]
    if 1 in segmentation.shape:
        axis = segmentation.shape.index(1)
        segmentation = segmentation.squeeze(axis)
        del spacing[axis]
    return segmentation, spacing


def _check_labels(path, segmentation, known):
    unknown = np.unique(segmentation[~np.isin(segmentation, list(known))])
    if unknown.size:
        values = _listed([f"{value:g}" for value in unknown])
        raise BadInput(f"{path} holds the label {values}, which dataset.json does not know (it has {sorted(known)})")


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


# ------------------------------------------------------------------------------------------------ output


def _interval(table):
    """Bootstrap interval of the mean of the class means; ``table`` has a row per case and a column per class."""
    values = table.to_numpy()
    if values.shape[1] == 1 or not np.isnan(values).any():
        return bootstrap_interval(values.mean(axis=1), confidence=CONFIDENCE)
    # A class is missing from some cases: the cases' means would weigh the classes otherwise than nnU-Net does.
    values = values[~np.isnan(values).all(axis=1)]
    if len(values) < 2:
        return np.nan, np.nan

    def mean_of_class_means(rows, axis=-1):
        return np.nanmean(np.nanmean(values[rows], axis=-2), axis=-1)

    with warnings.catch_warnings():  # a class that no case of a resample holds is left out of its mean
        warnings.filterwarnings("ignore", message="Mean of empty slice", category=RuntimeWarning)
        interval = stats.bootstrap(
            (np.arange(len(values)),),
            mean_of_class_means,
            confidence_level=CONFIDENCE,
            n_resamples=RESAMPLES,
            batch=max(1, _BATCH_NUMBERS // values.size),
            method="percentile",  # BCa is 0 / 0 where a class hardly varies
            rng=np.random.default_rng(0),
        ).confidence_interval
    return float(interval.low), float(interval.high)


def _number(value):
    return f"{value:.4f}" if np.isfinite(value) else "-"


@contextmanager
def _staging(out):
    """A folder inside ``out``, made before the work so that an unwritable ``out`` is known at once."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        staging = tempfile.TemporaryDirectory(dir=out, prefix=".evaluate_")
    except OSError as error:
        raise BadInput(f"cannot write into {out}: {error}; name a folder with -o") from error
    with staging as folder:
        yield folder


def _write(cases, summary, settings, folder):
    cases.to_csv(folder / CASES_CSV, index=False)
    summary.to_csv(folder / SUMMARY_CSV, index=False)
    # pandas writes nan as null; Python's own json would write NaN, which is no JSON.
    tables = {"summary": summary, "cases": cases}
    content = {name: json.loads(frame.to_json(orient="records", double_precision=15)) for name, frame in tables.items()}
    (folder / JSON).write_text(json.dumps({"settings": settings, **content}, indent=2))
