"""Quality against seconds per case: five folds or one network, mirrored or not, large or compact.

Predicts the same images with each arm, by nnU-Net's own predictor, and counts the forward passes of its networks:
folds x mirrored copies x windows. An arm is one or more folders that nnUNetv2_train wrote:

  nnunet-skd speed --images imagesTs --ref labelsTs -o speed --arms \\
      "five folds=nnUNetTrainer__nnUNetPlans__2d@0,1,2,3,4" \\
      "five folds, not mirrored=nnUNetTrainer__nnUNetPlans__2d@0,1,2,3,4@nomirror" \\
      "one network=nnUNetTrainerDistill__nnUNetPlans__2d_w050@all@nomirror"

Without @FOLD,... it takes all finished folds (fold all only where there is no other), without @nomirror it mirrors
along the axes that the training allows, as nnUNetv2_predict does. Several folders (FOLDER:FOLDER) are one ensemble: the
mean of their probabilities, as nnUNetv2_ensemble takes it. Cascades are left out, because they need the segmentation of
another model first.

Seconds are those from an image in memory to its segmentation in memory: preprocessing, networks, resampling. The arms
take turns with each image, so that what slows the machine for a while slows all of them. Run nothing else beside it,
and compare only what was measured together. With ECE or Brier they include the probabilities at the image's size.

Writes into the new folder -o, all at once or not at all (without quality, if a reference is at fault; a run that is
killed with SIGKILL leaves a hidden folder beside it):
  speed.csv          one row per arm: networks, forward passes, seconds (median and quartiles), and with --ref the mean
                     of each metric with its 95 % bootstrap interval over cases
  cases.csv          forward passes and seconds of each arm and case
  speed.png          with --ref: one point per arm, quality against seconds per case
  predicted/ARM      the segmentations, for 'nnunet-skd compare --pred' and the like
Exit status: 0 done; 2 unusable input.
"""

import argparse

from nnunetv2.configuration import default_num_processes

from nnunet_skd.model_folds import CHECKPOINT
from nnunet_skd.tools.devices import device_name, find_device
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.evaluate.calibration import CALIBRATION
from nnunet_skd.tools.evaluate.folders import ALL_METRICS, known_metrics
from nnunet_skd.tools.files import new_folder, require_folder, require_new
from nnunet_skd.tools.model_arms import SYNTAX, parse_model_arms, require_same_channels, same_dataset
from nnunet_skd.tools.parallel import require_processes
from nnunet_skd.tools.speed.cases import case_images
from nnunet_skd.tools.speed.measure import load_arm, measure
from nnunet_skd.tools.speed.report import quality_table, speed_table, speed_text, without_value, write_picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--arms", nargs="+", required=True, metavar="ARM", help=f"{SYNTAX}[@nomirror]")
    parser.add_argument("--images", required=True, metavar="DIR", help="images of the cases, such as imagesTs")
    parser.add_argument("--ref", metavar="DIR", help="their reference segmentations, such as labelsTs")
    parser.add_argument("-o", required=True, metavar="DIR", help="folder for the results; it must be new or empty")
    parser.add_argument(
        "--metrics",
        nargs="+",
        metavar="NAME",
        help=f"one or more of {', '.join(ALL_METRICS)}, a panel each (default: Dice)",
    )
    parser.add_argument("-chk", default=CHECKPOINT, metavar="NAME", help="default: %(default)s")
    parser.add_argument("-device", choices=("cuda", "cpu", "mps"), default="cuda", help="default: %(default)s")
    parser.add_argument(
        "-np",
        type=int,
        default=default_num_processes,
        metavar="N",
        help="processes that evaluate (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    device = find_device(args.device)
    require_processes(args.np)
    output = require_new(args.o)
    if args.metrics and not args.ref:
        raise BadInput("--metrics needs --ref, the folder of the reference segmentations")
    metrics = known_metrics(args.metrics or ["Dice"])
    reference = args.ref and require_folder(args.ref)
    named = parse_model_arms(args.arms)
    models = [folder for arm in named for folder in arm.folders]
    dataset_json = same_dataset(models)
    require_same_channels(models)
    cases = case_images(require_folder(args.images), dataset_json, reference)
    probabilities = bool(reference) and bool(set(metrics) & set(CALIBRATION))
    predictors = {}
    arms = [load_arm(arm, args.chk, device, predictors) for arm in named]
    if len({arm.file_name for arm in arms}) < len(arms):
        raise BadInput("the names of two arms differ only in signs that a folder's name cannot have. Change one")
    where = device_name(device, default_num_processes)  # nnU-Net's prediction takes no more threads than processes
    with new_folder(output) as folder:
        times = measure(arms, cases, folder / "predicted", dataset_json, probabilities=probabilities)
        quality, at_fault = {}, None
        if reference:
            try:
                quality = quality_table(arms, folder / "predicted", reference, dataset_json, metrics, args.np)
            except BadInput as error:  # what was measured is not thrown away for a reference
                at_fault = error
        table = speed_table(arms, times, quality).assign(device=where)
        times.to_csv(folder / "cases.csv", index=False)
        table.to_csv(folder / "speed.csv", index=False)
        if quality:
            write_picture(table, metrics, f"{len(cases)} cases, {where}", folder / "speed.png")
    print(speed_text(table, metrics if quality else []))
    for line in without_value(table, metrics if quality else []):
        print(f"\n{line}")
    print(f"\n{len(cases)} cases on {where}. Written to {output}")
    if at_fault:
        predicted = output / "predicted" / arms[0].file_name
        raise BadInput(
            f"{at_fault}. What was predicted is kept. Once this is mended: nnunet-skd evaluate {reference} {predicted} "
            f"-djfile {named[0].folders[0] / 'dataset.json'} --chill --metrics {' '.join(metrics)}, and so for each arm"
        )
