"""Did it help? Compare two or more trainers on the same cases: paired statistics, a table and pictures.

The first arm is the reference; every other arm is compared with it, case by case. For each metric, each class and the
mean over the classes, the table holds the difference of the means with its 95 % bootstrap interval, the number of cases
that got better or worse, and a paired test with Holm's correction for all rows.

There are two ways to name the arms:

  Trained folds (-d -c -tr -f). The values come from fold_K/validation/summary.json, which nnUNetv2_train writes when it
  ends, the training time per epoch from the logs. -tr, -p and -c take one name for all arms or one per arm:
    nnunet-skd compare -d 80 -c 2d -tr nnUNetTrainer nnUNetTrainerDSKD nnUNetTrainerACWSKD -o did_it_help
    nnunet-skd compare -d 80 -c 2d 2d_w050 -tr nnUNetTrainerDSKD -f 0 -o smaller_network

  Predictions of a test set (--pred --ref -djfile), one folder per arm, evaluated here against the reference:
    nnunet-skd compare --pred baseline dskd --ref labelsTs -djfile dataset.json --images imagesTs -o did_it_help

--metrics takes one or more metrics of 'nnunet-skd evaluate' (Dice, IoU, HD95, clDice, ...). Choose them before you look
at the results. Metrics that are not in summary.json are computed from the predictions, which takes longer.

Writes into the new folder -o, all at once or not at all:
  report.md                  the table, what it means, and what it cannot say
  comparison.csv             the same table, unrounded
  cases.csv                  all values behind it: one row per arm, fold, case and class
  paired_METRIC.png          a box per arm and a line per case
  changed_ARM.png            the cases that changed most by the first metric: image, both contours, reference

--curves shows how the trainings went instead, also while they run: nnU-Net's pseudo Dice against steps and minutes,
mean and range over the folds. It takes -d -c -tr -p -f, or model folders, of which one arm may have several (seeds):
    nnunet-skd compare --curves -d 80 -c 2d -tr nnUNetTrainer nnUNetTrainerDSKD -f 0 1 -o curves
    nnunet-skd compare --curves --models nnU-Net=seed_0/MODEL:seed_1/MODEL DSKD=DSKD_seed_0/MODEL@all -o curves
  It writes curves.png, curves.csv (mean and range), trainings.csv (each training), and reached.csv: the epoch and the
  minute in which each arm reached the last value of the first one.

Arms whose cases differ are refused, with the names of these cases. Where there are too few cases for a conclusion, the
report says so.
Exit status: 0 done, whatever the answer is; 2 unusable input.
"""

import argparse

from nnunetv2.configuration import default_num_processes

from nnunet_skd.tools.compare.comparison import predicted_comparison, trained_comparison
from nnunet_skd.tools.compare.curves import model_curves, trained_curves, write_curves
from nnunet_skd.tools.compare.paired_table import TESTS
from nnunet_skd.tools.compare.report import write_comparison
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.evaluate.folders import ALL_METRICS, TOLERANCE
from nnunet_skd.tools.files import require_new
from nnunet_skd.tools.model_arms import SYNTAX, parse_model_arms


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``nnunet-skd compare``."""
    trained = parser.add_argument_group("trained folds")
    trained.add_argument("-d", metavar="DATASET", help="dataset id or name")
    trained.add_argument("-tr", nargs="+", metavar="TRAINER", help="trainers; the first one is the reference")
    trained.add_argument("-c", nargs="+", metavar="CONFIGURATION", help="configuration: one, or one per arm")
    trained.add_argument(
        "-p",
        nargs="+",
        metavar="PLANS",
        help="plans: one, or one per arm (default: nnUNetPlans)",
    )
    trained.add_argument("-f", nargs="+", metavar="FOLD", help="folds (default: 0 1 2 3 4)")
    predicted = parser.add_argument_group("predictions of a test set")
    predicted.add_argument(
        "--pred", nargs="+", metavar="DIR", help="prediction folders; the first one is the reference arm"
    )
    predicted.add_argument(
        "--ref", metavar="DIR", help="folder with the reference segmentations of the predicted cases"
    )
    predicted.add_argument("-djfile", metavar="FILE", help="dataset.json of the raw dataset or the model")
    curves = parser.add_argument_group("how the trainings went")
    curves.add_argument("--curves", action="store_true", help="curves of pseudo Dice instead of a comparison of cases")
    curves.add_argument(
        "--models", nargs="+", metavar="ARM", help=f"model folders instead of -d -c -tr: {SYNTAX}; default: all folds"
    )
    parser.add_argument("-o", required=True, metavar="DIR", help="folder for the results; it must be new or empty")
    cases = parser.add_argument_group("every comparison of cases")
    cases.add_argument(
        "--metrics",
        nargs="+",
        metavar="NAME",
        help=f"one or more of {', '.join(ALL_METRICS)} (default: Dice)",
    )
    cases.add_argument(
        "--tolerance",
        type=float,
        metavar="MM",
        help=f"tolerance of the NSD in mm, in pixels or voxels for images without spacing (default: {TOLERANCE})",
    )
    cases.add_argument(
        "--test",
        choices=list(TESTS),
        help="wilcoxon: signed ranks, usual in the field (default); permutation: sign flips of the mean difference",
    )
    cases.add_argument(
        "--pictures", type=int, metavar="N", help="draw the N cases that changed most (default: 4; 0: none)"
    )
    cases.add_argument(
        "--images",
        metavar="DIR",
        help="images of the cases, for the pictures (default with -d: the raw dataset's)",
    )
    cases.add_argument(
        "-np", type=int, default=default_num_processes, metavar="N", help="processes (default: %(default)s, nnU-Net's)"
    )


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    trained = {"-d": args.d, "-tr": args.tr, "-c": args.c}
    plans, folds = args.p or ["nnUNetPlans"], args.f or ["0", "1", "2", "3", "4"]
    predicted = {"--pred": args.pred, "--ref": args.ref, "-djfile": args.djfile}
    if args.curves or args.models:
        return _curves(args, trained, predicted, plans, folds)
    if any(predicted.values()) == any(trained.values()):
        raise BadInput("name the arms either by -d -c -tr (trained folds) or by --pred --ref -djfile (a test set)")
    missing = [flag for flag, value in (predicted if any(predicted.values()) else trained).items() if not value]
    if missing:
        raise BadInput(f"{', '.join(missing)} missing. See nnunet-skd compare --help")
    output = require_new(args.o)
    common = {
        "metrics": args.metrics or ["Dice"],
        "tolerance": TOLERANCE if args.tolerance is None else args.tolerance,
        "images_dir": args.images,
        "num_processes": args.np,
    }
    if args.pred:
        _refuse({"-p": args.p, "-f": args.f}, "--pred")
        comparison = predicted_comparison(args.pred, args.ref, args.djfile, **common)
    else:
        comparison = trained_comparison(args.d, args.tr, configurations=args.c, plans=plans, folds=folds, **common)
    pictures = 4 if args.pictures is None else args.pictures
    write_comparison(comparison, output, test=args.test or "wilcoxon", changed=pictures)
    print((output / "report.md").read_text(encoding="utf-8"))
    print(f"Written to {output}")


def _refuse(given: dict[str, object], other: str) -> None:
    """Options that would have no effect beside another one."""
    if flag := next((flag for flag, value in given.items() if value is not None), None):
        raise BadInput(f"{flag} does not go with {other}. Leave it out")


def _curves(
    args: argparse.Namespace,
    trained: dict[str, object],
    predicted: dict[str, object],
    plans: list[str],
    folds: list[str],
) -> None:
    """``--curves``."""
    of_cases = {
        "--images": args.images,
        "--metrics": args.metrics,
        "--tolerance": args.tolerance,
        "--test": args.test,
        "--pictures": args.pictures,
    }
    _refuse(predicted | of_cases, "--curves")
    if args.models:
        _refuse(trained | {"-p": args.p, "-f": args.f}, "--models")
    if not args.curves:
        raise BadInput("--models names the arms of --curves. Add --curves, or name the arms by -d -c -tr or --pred")
    missing = [flag for flag, value in trained.items() if not value]
    if missing and not args.models:
        raise BadInput(f"{', '.join(missing)} missing. Name the arms by -d -c -tr, or by --models {SYNTAX}")
    output = require_new(args.o)
    if args.models:
        arms = model_curves(parse_model_arms(args.models))
    else:
        arms = trained_curves(args.d, args.tr, args.c, plans, list(dict.fromkeys(folds)))
    print(write_curves(arms, output))
    print(f"Written to {output}")
