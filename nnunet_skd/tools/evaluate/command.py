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

import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

from nnunetv2.configuration import default_num_processes

from nnunet_skd import __version__
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.evaluate.folders import TOLERANCE, check_folder, evaluate_folders
from nnunet_skd.tools.evaluate.statistics import RESAMPLES
from nnunet_skd.tools.evaluate.summary import CONFIDENCE, format_summary, summarize

CASES_CSV = "evaluation_cases.csv"

SUMMARY_CSV = "evaluation_summary.csv"

JSON = "evaluation.json"


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
    check_folder(args.reference)
    check_folder(args.prediction)
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
