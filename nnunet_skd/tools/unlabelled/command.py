"""Preprocess images that nobody labelled, for a dataset that is planned and preprocessed already.

  nnunet-skd unlabelled -d 80 -i FOLDER

FOLDER holds images in nnU-Net's naming, one file for each channel: CASE_0000.png, CASE_0001.png. They are preprocessed
with the dataset's plans as its labelled images were, for each configuration that is preprocessed, and written to
$nnUNet_preprocessed/DatasetXXX_NAME/unlabelled. Plans, fingerprint, splits, dataset.json and labelled data stay as they
are. nnUNetTrainerDSKD_unlabelled and nnUNetTrainerDistill then learn from these images too.

A run that was stopped goes on when it is started again. Another run adds new images, renews changed ones and removes
those that were deleted from FOLDER; images of another folder come on top, and stay. After plans were made anew, run it
again.

Refused by name, before anything is written: missing channels, other file endings or numbers of channels, files that
cannot be read or were cut short, NaN and infinite values, names of labelled cases, images that equal a labelled one or
one another. An image that equals one of imagesTs is named, and taken.

  nnunet-skd unlabelled -d 80 --list      what there is, and whether it fits the plans
  nnunet-skd unlabelled -d 80 --remove    remove what this command made, nothing else
"""

import argparse
import os
from pathlib import Path

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_skd.messages import differences, first_line, listed
from nnunet_skd.tools.cases import Cases
from nnunet_skd.tools.errors import BadInput, as_bad_input
from nnunet_skd.tools.json_file import ANYTHING, FOLDER_NAME, INTEGER, NUMBER, TEXT, check_shape, or_null
from nnunet_skd.tools.lock import one_run_at_a_time
from nnunet_skd.tools.parallel import require_processes
from nnunet_skd.tools.unlabelled.checks import cases_of_folder, check_contents, is_of_folder
from nnunet_skd.tools.unlabelled.dataset import Dataset, choose_configurations, labelled_names, open_dataset, with_data
from nnunet_skd.tools.unlabelled.images import stamps
from nnunet_skd.tools.unlabelled.preprocess import new_record, preprocess, remove
from nnunet_skd.unlabelled_data import (
    checked_cases,
    command,
    preprocessing,
    read_record,
    record_file,
    unlabelled_folder,
    why_not_unlabelled,
)

# as nnUNetv2_preprocess: the processes of one configuration share the memory
DEFAULT_PROCESSES = {"2d": 8, "3d_fullres": 4, "3d_lowres": 8}

_CASE = {
    "images": [TEXT],
    "stamps": [[INTEGER]],
    "content": TEXT,
    "spacing": [NUMBER],
    "made": or_null(TEXT),
}
SEEN = ("content", "spacing")  # what decides about the voxels that a case is preprocessed to, beside the plans
RECORD = {"preprocessing": {str: ANYTHING}, "cases": {str: _CASE}}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", required=True, metavar="DATASET", help="dataset id or name")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("-i", type=Path, metavar="FOLDER", help="folder with images in nnU-Net's naming")
    what.add_argument("--list", action="store_true", help="say what is preprocessed, and whether it fits the plans")
    what.add_argument("--remove", action="store_true", help="remove what this command made")
    parser.add_argument("-c", nargs="+", metavar="CONFIGURATION", help="default: each one that is preprocessed")
    parser.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="plans identifier (default: %(default)s)")
    parser.add_argument(
        "-np", type=int, metavar="N", help="processes (default: 8 for 2d and 3d_lowres, 4 for others, as nnU-Net)"
    )


def run(args: argparse.Namespace) -> None:
    dataset = open_dataset(args.d, args.p)
    if args.list:
        _list(dataset.plans, args.c)
    elif args.remove:
        _remove(dataset.plans, args.c)
    else:
        try:
            preprocess_unlabelled(dataset, args.i, args.c, args.np)
        except OSError as error:
            said = f"{error.strerror or first_line(error)}; what is complete is kept"
            raise OSError(error.errno, said, error.filename) from error


def preprocess_unlabelled(
    dataset: Dataset, folder: Path, configurations: list[str] | None = None, processes: int | None = None
) -> None:
    """Preprocess a folder of images for configurations of a dataset (None: all that are preprocessed).

    Raises:
        BadInput: see this module's text; or another run works on this dataset; or nnU-Net's preprocessor failed on some
            cases, then all others are complete.
    """
    require_processes(processes)
    configurations = choose_configurations(dataset.plans, configurations)
    with one_run_at_a_time(unlabelled_folder(dataset.plans, configurations[0]).parent):
        _preprocess_all(dataset, folder, configurations, processes)


def _preprocess_all(dataset: Dataset, folder: Path, configurations: list[str], processes: int | None) -> None:
    plans = dataset.plans
    records = {name: _read_record(plans, name) for name in configurations}
    processes = {name: processes or DEFAULT_PROCESSES.get(name, 4) for name in configurations}

    cases = cases_of_folder(folder, dataset, configurations)
    entries = _entries(cases, _known_cases(plans, records, folder), folder, dataset, min(processes.values()))
    failed = {}
    for name in configurations:
        record = _renewed(plans, name, records[name], dataset, folder)
        for case, entry in entries.items():
            before = record["cases"].get(case, {})
            same = all(before.get(key) == entry[key] for key in SEEN)
            record["cases"][case] = entry | {"made": before["made"] if same else None}
        failed[name] = preprocess(dataset, name, record, processes[name])
        made = sum(entry["made"] is not None for entry in record["cases"].values())
        print(f"{name}: {made} cases without labels in {unlabelled_folder(plans, name)}")
    if any(failed.values()):
        names = "\n  ".join(f"{name}: {listed(cases)}" for name, cases in failed.items() if cases)
        raise BadInput(f"nnU-Net's preprocessor failed on some cases; all others are complete.\n  {names}")


def _read_record(plans: PlansManager, configuration: str) -> dict | None:
    folder = unlabelled_folder(plans, configuration)
    with as_bad_input():
        record = read_record(folder)
    if record is not None:
        remedy = f"It is damaged: remove it and {folder}, then preprocess again"
        check_shape(record, RECORD, record_file(folder), remedy)
        # the names become files that --remove removes
        check_shape(list(record["cases"]), [FOLDER_NAME], record_file(folder), remedy, "cases")
    return record


def _is_current(plans: PlansManager, configuration: str, record: dict) -> bool:
    return not differences(record["preprocessing"], preprocessing(plans, configuration))


def _deleted(record: dict, folder: Path) -> list[str]:
    """The cases that were taken from this folder, and are there no more. A link to a disk that is away still is."""
    ours = {case: entry["images"] for case, entry in record["cases"].items() if is_of_folder(entry, folder)}
    return sorted(case for case, images in ours.items() if not any(map(os.path.lexists, images)))


def _known_cases(plans: PlansManager, records: dict[str, dict | None], folder: Path) -> dict[str, dict]:
    """The cases that were read and checked before, with today's plans, but for those deleted from the folder."""
    known = {}
    for name, record in records.items():
        if record is not None and _is_current(plans, name, record):
            deleted = _deleted(record, folder)
            known |= {case: entry for case, entry in record["cases"].items() if case not in deleted}
    return known


def _entries(cases: Cases, known: dict[str, dict], folder: Path, dataset: Dataset, processes: int) -> dict[str, dict]:
    """The record's entry for each case, without `made`. Images that did not change are not read again."""
    entries = {
        case: {"images": [str(path.parent.resolve() / path.name) for path in images], "stamps": stamps(images)}
        for case, images in cases.items()
    }
    changed = {
        case: images
        for case, images in cases.items()
        if case not in known or any(known[case][key] != entries[case][key] for key in ("images", "stamps"))
    }
    seen = {case: {key: known[case][key] for key in SEEN} for case in cases if case not in changed}
    for case, content in check_contents(changed, known, folder, dataset, processes).items():
        seen[case] = {"content": content.hash, "spacing": list(content.spacing)}
    return {case: entry | seen[case] for case, entry in entries.items()}


def _renewed(plans: PlansManager, configuration: str, record: dict | None, dataset: Dataset, source: Path) -> dict:
    """The record to go on with: a new one after the plans changed, and never with cases that are labelled by now, or
    were deleted from the folder that they were taken from.
    """
    if record is None:
        return new_record(plans, configuration)
    folder = unlabelled_folder(plans, configuration)
    if not _is_current(plans, configuration, record):
        print(f"{configuration}: the plans changed, all is made anew. For images of other folders than this one:")
        print(f"  {command(plans, configuration, record)}")
        remove(folder, record)
        return new_record(plans, configuration)
    if labelled := sorted(record["cases"].keys() & labelled_names(dataset, [configuration]).keys()):
        print(f"{configuration}: removed, because they are labelled by now: {listed(labelled)}")
        remove(folder, record, labelled)
    if deleted := _deleted(record, source):
        print(f"{configuration}: removed, because their images are no longer in {source}: {', '.join(deleted)}")
        remove(folder, record, deleted)
    return record


def _folders(plans: PlansManager, configurations: list[str] | None) -> list[tuple[Path, str, dict]]:
    """Each folder that this command made with these plans, a configuration that it belongs to, and its record."""
    names: dict[Path, str] = {}
    for name in with_data(plans, configurations):
        if not why_not_unlabelled(plans, name):
            names.setdefault(unlabelled_folder(plans, name), name)
    found = [(folder, name, _read_record(plans, name)) for folder, name in names.items()]
    return [(folder, name, record) for folder, name, record in found if record is not None]


def _list(plans: PlansManager, configurations: list[str] | None) -> None:
    folders = _folders(plans, configurations)
    if not folders:
        print(f"{plans.dataset_name} has no preprocessed images without labels for {plans.plans_name}")
    for folder, name, record in folders:
        cases = record["cases"]
        made = sum(entry["made"] is not None for entry in cases.values())
        sources = sorted({str(Path(path).parent) for entry in cases.values() for path in entry["images"]})
        print(f"{name}: {made} of {len(cases)} cases are complete, in {folder}\n  from {listed(sources)}")
        print(f"  cases: {listed(sorted(cases))}")
        try:
            checked_cases(plans, name)
            print("  they fit the plans")
        except ValueError as error:
            print(f"  not usable: {error}")


def _remove(plans: PlansManager, configurations: list[str] | None) -> None:
    folders = _folders(plans, configurations)
    if not folders:
        print(f"Nothing to remove: {plans.dataset_name} has no images without labels for {plans.plans_name}")
        return
    with one_run_at_a_time(folders[0][0].parent):
        for folder, _, record in _folders(plans, configurations):
            remove(folder, record)
            print(f"Removed {folder}")
