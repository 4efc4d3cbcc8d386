"""Preprocess a configuration's images without labels, so that a run that was killed goes on where it stopped.

Each case is written into a folder of the run's own, moved into place, and then marked as made in the record. What was
not marked is made anew.
"""

import errno
import json
import os
import shutil
import time
from datetime import datetime, timezone
from pathlib import Path

from batchgenerators.utilities.file_and_folder_operations import load_pickle, write_pickle
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_skd import __version__
from nnunet_skd.tools.files import missing_folders, remove_empty, remove_scratch, scratch_folder, write_file
from nnunet_skd.tools.parallel import for_each_case
from nnunet_skd.tools.unlabelled.dataset import Dataset
from nnunet_skd.tools.unlabelled.images import stamps
from nnunet_skd.unlabelled_data import case_files, is_complete, preprocessing, record_file, unlabelled_folder

_ROOM = 64 * 2**20  # bytes; one case takes as much


def new_record(plans: PlansManager, configuration: str) -> dict:
    """A record without cases, see `unlabelled_data.read_record`."""
    return {
        "nnunet_skd": __version__,
        "dataset": plans.dataset_name,
        "plans": plans.plans_name,
        "configuration": configuration,
        "preprocessing": preprocessing(plans, configuration),
        "cases": {},
    }


def preprocess(dataset: Dataset, configuration: str, record: dict, processes: int) -> list[str]:
    """Make every case of the record that is not complete and whose images are there, unchanged.

    Args:
        record: of `configuration`, with all cases that are wanted; it is written to the disk here.

    Returns:
        The cases that nnU-Net's preprocessor failed on, each with its reason. All others are complete.

    Raises:
        BadInput: a process was killed.
        OSError: a case failed, and hardly anything is left of the disk.
    """
    plans = dataset.plans
    folder = unlabelled_folder(plans, configuration)
    todo = [
        case
        for case, entry in sorted(record["cases"].items())
        if not is_complete(folder, case, record) and _is_as_it_was_read(entry)
    ]
    for case in todo:
        record["cases"][case]["made"] = None
    made = missing_folders(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(folder)
        write_record(folder, record)
    except OSError:
        remove_empty(made)
        raise
    if not todo:
        return []

    manager = plans.get_configuration(configuration)
    labels = plans.get_label_manager(dataset.description).all_labels
    failed, due = [], 0.0
    with scratch_folder(folder.parent, _unfinished_prefix(folder)) as unfinished:
        jobs = {
            case: (case, record["cases"][case]["images"], unfinished, plans, manager, dataset.description, labels)
            for case in todo
        }
        for case, problem in for_each_case(_preprocess_case, jobs, processes, f"preprocessing {configuration}"):
            if problem:
                _require_room(folder, f"{case} failed ({problem})")
                failed.append(f"{case} ({problem})")
                continue
            for made, final in zip(case_files(unfinished, case), case_files(folder, case), strict=True):
                os.replace(made, final)
            record["cases"][case]["made"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
            if (begin := time.monotonic()) >= due:  # a record of many thousand cases takes a while
                write_record(folder, record)
                due = time.monotonic() + 20 * (time.monotonic() - begin)
        write_record(folder, record)
    return sorted(failed)


def _require_room(folder: Path, otherwise: str) -> None:
    """The library that writes the voxels does not say that the disk is full."""
    free = shutil.disk_usage(folder).free
    if free < _ROOM:
        raise OSError(errno.ENOSPC, f"the disk has {free / 2**20:.0f} MiB left, and {otherwise}", str(folder))


def _is_as_it_was_read(entry: dict) -> bool:
    """Whether the images of an entry are still those that were checked; those of other folders may have changed."""
    images = [Path(path) for path in entry["images"]]
    return all(path.is_file() for path in images) and stamps(images) == entry["stamps"]


def _preprocess_case(
    case: str,
    images: list[str],
    folder: Path,
    plans: PlansManager,
    configuration: ConfigurationManager,
    description: dict,
    labels: list[int],
) -> str:
    """Write one case as nnU-Net writes labelled ones. Returns why that failed, empty if it did not."""
    target = str(folder / case)
    try:
        preprocessor = configuration.preprocessor_class(verbose=False)
        preprocessor.run_case_save(target, images, None, plans, configuration, description)
        properties = load_pickle(f"{target}.pkl")
        # nnU-Net's loader looks for this entry, and with an ignore label for this key: no voxel is annotated
        properties["class_locations"] = {(-1, *labels): []}
        write_pickle(properties, f"{target}.pkl")
    except Exception as error:  # one case must not end the others; the user reads the reason
        return " ".join(f"{type(error).__name__}: {error}".split())
    return ""


def remove(folder: Path, record: dict, cases: list[str] | None = None) -> None:
    """Remove cases of a record; all of them (None) with the record, and with the folders if nothing else is there."""
    for case in cases if cases is not None else record["cases"]:
        for file in case_files(folder, case):
            file.unlink(missing_ok=True)
    if cases is not None:
        record["cases"] = {case: entry for case, entry in record["cases"].items() if case not in cases}
        write_record(folder, record)
        return
    _remove_unfinished(folder)
    record_file(folder).unlink(missing_ok=True)
    remove_empty([folder, folder.parent])


def write_record(folder: Path, record: dict) -> None:
    """Replace the record of a folder at once."""
    write_file(record_file(folder), json.dumps(record))


def _unfinished_prefix(folder: Path) -> str:
    return f".unfinished_{folder.name}_"


def _remove_unfinished(folder: Path) -> None:
    """Remove what a killed run left behind."""
    remove_scratch(folder.parent, _unfinished_prefix(folder))
    for left in folder.parent.glob(f".*.{record_file(folder).name}"):  # see write_file
        left.unlink()
