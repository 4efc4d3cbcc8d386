"""Extract the fingerprint of a dataset with an ignore label: CT intensities from annotated voxels alone.

  nnunet-skd fingerprint -d 80
  nnUNetv2_plan_and_preprocess -d 80

It takes the place of nnUNetv2_extract_fingerprint, which measures intensities in all voxels whose label is above 0, and
so in the ignored ones (MIC-DKFZ/nnUNet #3055): where a few slices are annotated, mostly in air and table. nnU-Net
normalises CT with these values. Images of other kinds it normalises one by one, and for them this command changes
nothing.

nnU-Net's own extractor runs on copies of the labels in which ignored voxels are background; the copies are gone
afterwards. A fingerprint that is there is replaced. Plans and preprocessed data stay as they are until you plan and
preprocess again; plans that were made with other intensities are named, as they may share their preprocessed data with
new ones. nnUNetv2_plan_and_preprocess takes the fingerprint that it finds; with --clean it would make its own.
"""

import argparse
import json
from collections.abc import Iterable

from nnunet_skd.plans_file import plans_files
from nnunet_skd.tools.cases import training_cases
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.fingerprint.annotated import extract
from nnunet_skd.tools.lock import one_run_at_a_time
from nnunet_skd.tools.nnunet_folders import FINGERPRINT, dataset_name, require_variable
from nnunet_skd.tools.nnunet_json import channel_names, read_dataset_json
from nnunet_skd.tools.parallel import require_processes

PROPERTIES = "foreground_intensity_properties_per_channel"
SHOWN = ("mean", "std", "percentile_00_5", "percentile_99_5")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", required=True, metavar="DATASET", help="dataset id or name")
    parser.add_argument("-np", type=int, default=8, metavar="N", help="processes (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    require_processes(args.np)
    raw, preprocessed = map(require_variable, ("nnUNet_raw", "nnUNet_preprocessed"))
    name = dataset_name(args.d)
    description = read_dataset_json(raw / name / "dataset.json", channels=True)
    ignore = description["labels"].get("ignore")
    if ignore is None:
        raise BadInput(f"{name} has no ignore label, so nnUNetv2_extract_fingerprint is what you need")
    cases = training_cases(raw / name, description)
    if not cases:
        raise BadInput(f"{raw / name} holds no training cases. Fill imagesTr and labelsTr")
    with one_run_at_a_time(preprocessed / name):
        extract(name, description, cases, ignore, preprocessed / name, args.np)
    channels, file = channel_names(description).values(), preprocessed / name / FINGERPRINT
    statistics = json.loads(file.read_bytes())[PROPERTIES]
    print(f"\n{file} holds the intensities of annotated voxels:")
    _show(channels, statistics)
    of_plans = {plan: _intensities(plans) for plan, plans in plans_files(preprocessed / name) if _normalises_ct(plans)}
    others = {plan: values for plan, values in of_plans.items() if values and values != statistics}
    for plan, values in others.items():
        print(f"\n{plan} was planned with other intensities:")
        _show(channels, values)
    if others:
        print(
            "\nPlans may share their preprocessed data, so leave all of them as they are, or plan each again and "
            "preprocess:\na model predicts well only what was normalised as its training data."
        )


def _normalises_ct(plans: dict) -> bool:
    schemes = [configuration.get("normalization_schemes", []) for configuration in plans["configurations"].values()]
    return any("CT" in scheme for of_channels in schemes for scheme in of_channels)


def _intensities(plans: dict) -> dict | None:
    """By which plans normalise; those of early releases of nnU-Net v2 call them otherwise."""
    return plans.get(PROPERTIES, plans.get("foreground_intensity_properties_by_modality"))


def _show(channels: Iterable[str], statistics: dict[str, dict[str, float]]) -> None:
    for channel, values in zip(channels, statistics.values(), strict=True):
        print(f"  {channel}: " + ", ".join(f"{what} {values[what]:.5g}" for what in SHOWN))
