"""Compare predictions with the reference: overlap, surface distance and topology, per case and per class.

  nnunet-skd evaluate labelsTs predictions -djfile dataset.json
  nnunet-skd evaluate labelsTr fold_0/validation -djfile dataset.json --chill -o evaluation_fold_0 -np 4
  nnunet-skd evaluate labelsTs predictions -djfile dataset.json --metrics Dice HD95 NSD --tolerance 2

Both folders hold one segmentation per case under the same name. Classes, regions, ignore label, file ending and reader
come from dataset.json, as in nnU-Net. Metrics of a class (or region):

  Dice, IoU, Sensitivity, Specificity, Precision, Accuracy
              from the numbers of true and false voxels; Dice and IoU equal nnU-Net's. Specificity and accuracy include
              the background, so they are close to 1 for every small structure.
  HD95        95th percentile of the surface distance, the larger of the two directions, in mm
  ASD         average symmetric surface distance, in mm
  NSD         normalised surface Dice: the share of both surfaces that lies within --tolerance of the other
  clDice      Dice of the centrelines; made for vessels and other tubes
  b0_error    |components of the prediction - components of the reference|, 8 neighbours in 2D, 26 in 3D

Only if asked for with --metrics, for comparison with numbers of other tools:

  HD95_voxel  95th percentile of the distances between border voxels, both directions pooled, in mm, as MedPy's hd95
              defines it (MONAI and MetricsReloaded take the larger of the two directions instead)

From nnU-Net's probabilities (CASE.npz beside the prediction: nnUNetv2_predict --save_probabilities, nnUNetv2_train
--npz), and only if asked for with --metrics; lower is better:

  ECE         expected calibration error: how far the confidence of what is predicted lies from the share of voxels in
              which it is right, over 15 bins of equal width (Guo et al., ICML 2017)
  Brier       mean squared error of the probabilities, summed over the classes

Both count all voxels of a case, the background too, so compare them only on the same images. Without regions there is
one value for all classes, which has a row of its own ('all classes'; Brier from 0 to 2), with regions one per region
(Brier from 0 to 1). They judge the probabilities alone: what was done to the segmentation afterwards does not count.

Distances use the spacing in the files. Images without spacing (png, bmp, 2D tif) give distances in pixels, 3D tif
without their JSON files in voxels. Distances are measured between surface meshes, whereas most tools count voxels: with
thick slices HD95 differs (3.18 against 4.05 mm at a spacing of 5, 0.5 and 0.8 mm), and ASD and NSD differ where errors
are as small as a voxel. HD95_voxel counts voxels. Evaluate both sides of a comparison with the same tool.

Conventions. A class that neither file holds has no value (nan), except for specificity and accuracy. If only one file
holds it, Dice, IoU, NSD and clDice are 0, and HD95, HD95_voxel and ASD have no value (nan); nor has precision where the
prediction lacks it, or sensitivity where the reference does. The column n says in how many cases a metric has a value,
so check it before you compare mean distances. Voxels with the ignore label in the reference are left out, so no metric
sees what is wrong there. Where an object touches one of them, nobody knows where it ends, and surface and topology
metrics have no value (nan): of scribbles and single slices only overlap is left.

The summary holds mean, standard deviation (n - 1) and 95 % bootstrap interval over cases, per class. 'foreground mean'
is the mean of the class means, as in nnU-Net's summary.json; its standard deviation is that of each case's mean over
its classes, its n the smallest of theirs. At n 0 a class has no value in any case, and the mean is that of the others
(nnU-Net gives nan).

Writes into -o:
  evaluation_cases.csv      one row per case and class
  evaluation_summary.csv    one row per class and metric
  evaluation.json           both, with the settings; null where a metric has no value
Exit status: 0 done; 2 unusable input (unpaired files, shapes or spacings that differ, a label that is
not in dataset.json).
"""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pandas as pd

from nnunet_skd import __version__
from nnunet_skd.messages import counted, listed
from nnunet_skd.tools.cases import require_segmented_cases
from nnunet_skd.tools.evaluate.folders import ALL_METRICS, TOLERANCE, evaluate_folders
from nnunet_skd.tools.evaluate.options import add_options
from nnunet_skd.tools.evaluate.statistics import CONFIDENCE, RESAMPLES
from nnunet_skd.tools.evaluate.summary import format_summary, summarize
from nnunet_skd.tools.files import new_files, require_absent, require_folder
from nnunet_skd.tools.nnunet_json import read_dataset_json

CASES_CSV = "evaluation_cases.csv"
SUMMARY_CSV = "evaluation_summary.csv"
JSON = "evaluation.json"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("reference", metavar="REFERENCE_DIR", help="folder with the reference segmentations")
    parser.add_argument("prediction", metavar="PREDICTION_DIR", help="folder with the predicted segmentations")
    add_options(parser)
    parser.add_argument("-o", metavar="DIR", help="folder for the three files (default: PREDICTION_DIR)")
    parser.add_argument(
        "--metrics",
        nargs="+",
        metavar="NAME",
        help=f"one or more of {', '.join(ALL_METRICS)} (default: all but HD95_voxel, ECE and Brier; distances "
        "and clDice take the most time)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        metavar="MM",
        help="tolerance of the NSD in mm, in pixels or voxels for images without spacing (default: %(default)s)",
    )
    parser.add_argument(
        "--chill",
        action="store_true",
        help="leave out cases without prediction, as nnU-Net's own --chill does",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier evaluation")


def run(args: Namespace) -> None:
    out = Path(args.o or args.prediction)
    if not args.overwrite:
        require_absent(out, (CASES_CSV, SUMMARY_CSV, JSON), ", or replace it with --overwrite")
    require_folder(args.reference)
    require_folder(args.prediction)  # before new_files, which makes -o, by default this folder
    dataset_json = read_dataset_json(args.djfile)
    with new_files(out) as folder:  # made before the work, so that an unwritable folder is known at once
        cases = evaluate_folders(
            args.reference,
            args.prediction,
            dataset_json,
            num_processes=args.np,
            metrics=args.metrics,
            tolerance=args.tolerance,
            chill=args.chill,
        )
        summary = summarize(cases)
        references = require_segmented_cases(Path(args.reference), dataset_json["file_ending"])
        left_out = sorted(references - set(cases["case"]))
        settings = {
            "reference": str(Path(args.reference).resolve()),
            "prediction": str(Path(args.prediction).resolve()),
            "left_out": left_out,
            **cases.attrs,
            "confidence": CONFIDENCE,
            "bootstrap_resamples": RESAMPLES,
            "nnunet_skd": __version__,
        }
        _write(cases, summary, settings, folder)
    print(format_summary(summary))
    unit = cases.attrs["distance_unit"]
    print(f"\n{cases['case'].nunique()} cases; distances in {unit}; NSD within {args.tolerance:g} {unit}")
    if left_out:
        print(f"Left out: {counted(len(left_out), 'reference')} without a prediction: {listed(left_out)}")
    if cases.attrs["ignore_label"] is not None:
        print("Voxels with the ignore label do not count, and errors there are not seen: see --help")
    print(f"Written to {out}: {CASES_CSV}, {SUMMARY_CSV}, {JSON}")


def _write(cases: pd.DataFrame, summary: pd.DataFrame, settings: dict, folder: Path) -> None:
    cases.to_csv(folder / CASES_CSV, index=False)
    summary.to_csv(folder / SUMMARY_CSV, index=False)
    # pandas writes nan as null; Python's own json would write NaN, which is not JSON.
    tables = {"summary": summary, "cases": cases}
    content = {name: json.loads(frame.to_json(orient="records", double_precision=15)) for name, frame in tables.items()}
    (folder / JSON).write_text(json.dumps({"settings": settings, **content}, indent=2))
