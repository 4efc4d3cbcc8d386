"""Convert a data set: from the publishers' files to a folder in nnU-Net's raw format."""

import importlib
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

from nnunetv2.utilities.dataset_name_id_conversion import convert_dataset_name_to_id, find_candidate_datasets

from nnunet_skd import __version__
from nnunet_skd.compat import nnunet_folder
from nnunet_skd.tools.convert.archives import unpack
from nnunet_skd.tools.convert.common import Files, Found
from nnunet_skd.tools.convert.dataset import name_cases, refusal, write_dataset
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.files import left_behind, missing_folders, new_folder, remove_empty, scratch_folder, write_file
from nnunet_skd.tools.nnunet_folders import SPLITS

DATASETS = {
    "dca1": "coronary angiograms, vessel masks",
    "xcad": "coronary angiograms, vessel masks",
    "arcade": "coronary angiograms, vessels, segments or stenoses",
    "synapse": "abdominal CT, 8 organs, TransUNet's preprocessing",
    "btcv": "abdominal CT, 13 organs, the original NIfTI files of Synapse",
    "flare22": "abdominal CT, 13 organs",
    "m2caiseg": "laparoscopic images, 19 classes",
}


def convert(
    dataset: str,
    sources: list[str | Path],
    dataset_id: int,
    name: str | None = None,
    partial: bool = False,
    **options: Any,
) -> Path:
    """Convert one of ``DATASETS``; ``options`` are those of its module's ``find``.

    Args:
        sources: archives or unpacked folders, read as one.
        dataset_id: 1 to 999, not in use in any of nnU-Net's folders.
        name: DatasetXXX_<name>; each data set has its own default.
        partial: leave out what is missing or damaged instead of refusing.

    Returns:
        The new folder inside nnUNet_raw.

    Raises:
        BadInput: with the names of all files concerned; then nothing was written.
    """
    if dataset not in DATASETS:
        raise BadInput(f"there is no data set {dataset!r}. Choose from {', '.join(DATASETS)}")
    module = dataset_module(dataset)
    sources = [Path(source) for source in sources]
    target = _target(dataset_id, module.NAME if name is None else name)
    for source in sources:
        if not source.exists():
            raise BadInput(f"{source} does not exist. Give the downloaded archive or its unpacked folder")
    with scratch_folder(target.parent) as scratch, new_folder(target) as folder:
        files: Files = {}
        for number, source in enumerate(sources):
            root, top = source, source.resolve().name
            if source.is_file():
                root, top = scratch / f"unpacked{number}", source.name.split(".")[0]
                unpack(source, root)
            # the number keeps two sources of one name apart
            files |= {f"{number}:{top}/{path.relative_to(root).as_posix()}": path for path in _files_below(root)}
        found = module.find(files, **options)
        name_cases(found)
        if found.problems and not partial:
            raise refusal(found.problems)
        splits = write_dataset(found, folder, partial, f"nnunet-skd convert {dataset}, nnunet_skd {__version__}")
    _give_split_to_nnunet(target)
    _tell(found, target, splits)
    return target


def dataset_module(dataset: str) -> ModuleType:
    """The converter of a data set."""
    return importlib.import_module(f"nnunet_skd.tools.convert.datasets.{dataset}")


def _target(dataset_id: int, name: str) -> Path:
    """The folder to make; refuses before anything is read."""
    raw = nnunet_folder("nnUNet_raw")
    if raw is None or not raw.is_dir():
        raise BadInput("nnUNet_raw is not set to a folder that exists: export nnUNet_raw=/path/to/nnUNet_raw")
    if not 1 <= dataset_id <= 999:
        raise BadInput(f"-d {dataset_id}: nnU-Net's dataset ids are 1 to 999")
    if not re.fullmatch(r"[A-Za-z0-9]+([_-][A-Za-z0-9]+)*", name):
        raise BadInput(f"--name {name!r}: use letters and digits, with single _ or - between them")
    used = find_candidate_datasets(dataset_id)
    if len(used):
        free = next((i for i in range(dataset_id + 1, 1000) if not len(find_candidate_datasets(i))), None)
        raise BadInput(
            f"-d {dataset_id} is in use by {', '.join(used)} (looked in nnUNet_raw, nnUNet_preprocessed and "
            f"nnUNet_results). Take another id" + (f", {free} is free" if free else "")
        )
    return raw / f"Dataset{dataset_id:03d}_{name}"


def _files_below(root: Path) -> list[Path]:
    """All files but what operating systems leave behind."""
    return [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file() and not any(map(left_behind, path.relative_to(root).parts))
    ]


def _give_split_to_nnunet(target: Path) -> None:
    """Copy the split to where nnU-Net reads it.

    A failure is no reason to take the data set away: ``_tell`` prints the copy command if the file is not there.
    """
    split, for_nnunet = target / SPLITS, _split_for_nnunet(target)
    if split.exists() and for_nnunet is not None:
        made = missing_folders(for_nnunet.parent)
        try:
            for_nnunet.parent.mkdir(parents=True)
            write_file(for_nnunet, split.read_bytes())  # half a split would stop nnU-Net
        except OSError:
            remove_empty(made)


def _split_for_nnunet(target: Path) -> Path | None:
    preprocessed = nnunet_folder("nnUNet_preprocessed")
    return preprocessed and preprocessed / target.name / SPLITS


def _tell(found: Found, target: Path, splits: list[dict]) -> None:
    """Say what was written and what comes next."""
    number = convert_dataset_name_to_id(target.name)
    num_cases = {sub: len(list((target / sub).glob("*"))) for sub in ("labelsTr", "labelsTs")}
    print(f"\n{target}: {num_cases['labelsTr']} cases in imagesTr, {num_cases['labelsTs']} in imagesTs")
    print(f"{found.description}\nreference: {found.reference}\nlicence: {found.licence}")
    for note in found.notes:
        print(f"note: {note}")
    if found.problems:
        print("left out (recorded in dataset.json):\n  " + "\n  ".join(found.problems))
    if splits:
        print(f"split: fold 0 has {len(splits[0]['train'])} cases to train on, {len(splits[0]['val'])} to validate on")
        for_nnunet = _split_for_nnunet(target)
        if for_nnunet is None or not for_nnunet.exists():
            print(
                "nnUNet_preprocessed is not set or not writable. Fix that, then give nnU-Net the split:\n"
                f'  mkdir -p "$nnUNet_preprocessed/{target.name}"\n'
                f'  cp {shlex.quote(str(target / SPLITS))} "$nnUNet_preprocessed/{target.name}/"'
            )
    else:
        print("split: none is published, or its validation part is missing; nnU-Net makes five folds")
    print(
        f"next:\n  nnUNetv2_plan_and_preprocess -d {number} -c {found.configuration} --verify_dataset_integrity\n"
        f"  nnUNetv2_train {number} {found.configuration} 0 -tr nnUNetTrainerDSKD"
    )
