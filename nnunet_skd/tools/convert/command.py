"""Bring a public data set of the self-distillation papers, and of their field, into nnU-Net's raw format.

  nnunet-skd convert dca1 DB_Angiograms_134.zip -d 82

writes $nnUNet_raw/Dataset082_DCA1: images and labels as nnU-Net wants them, dataset.json with channels, labels,
reference and licence, and splits_final.json where there is a published split. It ends by naming the next two commands.

The source is the archive (zip, tar, tar.gz ...) or the unpacked folder as the publishers distribute it; several
sources are read as one. It is never changed. Downloading it, and accepting its terms, is yours to do.
'nnunet-skd convert DATASET --help' says what is expected of each data set, its labels, split, reference and licence,
and what could not be established about it.

What is checked: each image has its reference and the other way round; published cases are all there; every file can be
read; sizes and spacings agree; labels, colours and categories are all known. Whatever fails is listed by name, and then
nothing is written. --partial converts the rest nevertheless, and records what was left out in dataset.json.

Splits: a published train/validation split becomes fold 0 of splits_final.json and the test part goes to imagesTs and
labelsTs. A published train/test split without validation part becomes fold 0 too: train on fold 0, and nnU-Net's final
validation is the test result. (Other folds than 0 would be random, nnU-Net says so.) nnU-Net reads the file from
$nnUNet_preprocessed/DatasetXXX_NAME: it is put there as well when that variable is set; otherwise the command to copy
it is printed.

Nothing is overwritten: an id that is in use in any of nnU-Net's folders is refused. Everything is made in a temporary
folder inside $nnUNet_raw, which needs room for the unpacked archive too, and moved into place at the end.
"""

import argparse
import importlib
import json
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.dataset_name_id_conversion import find_candidate_datasets
from tqdm import tqdm

from nnunet_skd import __version__
from nnunet_skd.tools.convert.common import BadCase, Files, Found
from nnunet_skd.tools.errors import BadInput

DATASETS = {
    "dca1": "coronary angiograms, vessel masks",
    "xcad": "coronary angiograms, vessel masks",
    "arcade": "coronary angiograms, vessels, segments or stenoses",
    "synapse": "abdominal CT, 8 organs, TransUNet's preprocessing",
    "btcv": "abdominal CT, 13 organs, the original NIfTI files of Synapse",
    "flare22": "abdominal CT, 13 organs",
    "m2caiseg": "laparoscopic images, 19 classes",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="dataset", required=True, metavar="DATASET", title="data sets")
    for dataset, line in DATASETS.items():
        module = _module(dataset)
        command = commands.add_parser(
            dataset, help=line, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help="archive or unpacked folder")
        command.add_argument("-d", type=int, required=True, metavar="ID", help="dataset id, 1 to 999, not yet in use")
        command.add_argument("--name", help=f"DatasetXXX_NAME (default: {module.NAME})")
        command.add_argument(
            "--partial",
            action="store_true",
            help="convert what is sound although files are missing, unpaired or damaged (default: name them, refuse)",
        )
        if hasattr(module, "add_arguments"):
            module.add_arguments(command)


def run(args: argparse.Namespace) -> None:
    options = dict(vars(args))
    convert(
        options.pop("dataset"),
        options.pop("sources"),
        options.pop("d"),
        name=options.pop("name"),
        partial=options.pop("partial"),
        **options,
    )


def convert(
    dataset: str, sources: list[str | Path], dataset_id: int, name: str | None = None, partial: bool = False, **options
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
        raise BadInput(f"no data set {dataset!r}; there are {', '.join(DATASETS)}")
    module = _module(dataset)
    sources = [Path(source) for source in sources]
    target = _target(dataset_id, module.NAME if name is None else name)
    for source in sources:
        if not source.exists():
            raise BadInput(f"{source} does not exist; give the downloaded archive or the folder it was unpacked to")
    with _work_folder(target) as work:
        files: Files = {}
        for number, source in enumerate(sources):
            root, top = source, source.resolve().name
            if source.is_file():
                root, top = work / f"unpacked{number}", source.name.split(".")[0]
                unpack(source, root)
            # the number keeps two sources of one name apart
            files |= {f"{number}:{top}/{path.relative_to(root).as_posix()}": path for path in _files_below(root)}
        found = module.find(files, **options)
        _name_cases(found)
        if found.problems and not partial:
            raise _refusal(found.problems)
        splits = _write(found, work / "dataset", partial, f"nnunet-skd convert {dataset}, nnunet_skd {__version__}")
        _move_into_place(work, target)
    _tell(found, target, splits)
    return target


def _module(dataset: str):
    return importlib.import_module(f"nnunet_skd.tools.convert.datasets.{dataset}")


def _target(dataset_id: int, name: str) -> Path:
    """The folder to make; refuses before anything is read."""
    if not nnUNet_raw.is_set() or not os.path.isdir(nnUNet_raw):
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
            f"nnUNet_results); take another id" + (f", {free} is free" if free else "")
        )
    return Path(nnUNet_raw) / f"Dataset{dataset_id:03d}_{name}"


@contextmanager
def _work_folder(target: Path):
    """A folder beside ``target`` that is gone afterwards, whatever happens."""
    try:
        work = Path(tempfile.mkdtemp(prefix=".nnunet-skd-convert-", dir=target.parent))
    except OSError as error:
        raise BadInput(f"cannot write into nnUNet_raw ({error}); point it to a folder of yours") from error
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _files_below(root: Path) -> list[Path]:
    """All files but what operating systems leave behind (._x, .DS_Store, __MACOSX, Thumbs.db, desktop.ini)."""
    return [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file()
        and not any(part.startswith((".", "__MACOSX")) for part in path.relative_to(root).parts)
        and path.name.lower() not in ("thumbs.db", "desktop.ini")
    ]


# --- archives --------------------------------------------------------------------------------------------------------


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive into a new ``folder``. All members are looked at before the first one is written.

    Raises:
        BadInput: no archive, damaged, larger than the disk has room, or with a member that is no plain file or folder
            inside the archive: an absolute path, one with '..', a link, a device.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                _extract(archive, [_zip_member(info) for info in opened.infolist()], opened.open, folder)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as opened:
                _extract(archive, [_tar_member(info) for info in opened], opened.extractfile, folder)
        else:
            raise BadInput(f"{archive} is no zip or tar archive; unpack it yourself and give the folder")
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError, OSError) as error:
        raise BadInput(f"{archive} cannot be unpacked ({error}); download it again, or give the folder") from error


class _Member(NamedTuple):
    name: str
    size: int
    kind: str  # "file", "folder" or "other"
    info: zipfile.ZipInfo | tarfile.TarInfo


def _zip_member(info: zipfile.ZipInfo) -> _Member:
    # the upper 16 bits hold the Unix file type; archives made on other systems have 0 there
    plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
    kind = "other" if not plain else "folder" if info.is_dir() else "file"
    return _Member(info.filename.replace("\\", "/"), info.file_size, kind, info)


def _tar_member(info: tarfile.TarInfo) -> _Member:
    kind = "file" if info.isfile() else "folder" if info.isdir() else "other"
    return _Member(info.name, info.size, kind, info)


def _extract(archive: Path, members: list[_Member], opener, folder: Path) -> None:
    for member in members:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", member.name):
            raise BadInput(
                f"{archive}: the member {member.name!r} points outside the target; do not trust this archive"
            )
        if member.kind == "other":
            raise BadInput(
                f"{archive}: the member {member.name!r} is a link or a device, which may point outside the target and "
                "is not unpacked here. If you trust the archive, unpack it yourself and give the folder"
            )
    size, free = sum(member.size for member in members), shutil.disk_usage(folder.parent).free
    if size > free:
        raise BadInput(f"{archive} unpacks to {size / 2**30:.1f} GiB; nnUNet_raw has room for {free / 2**30:.1f} GiB")
    folder.mkdir()
    with tqdm(total=size, unit="B", unit_scale=True, desc="unpacking") as bar:
        for member in members:
            if member.kind != "file":
                continue
            path = folder / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with opener(member.info) as source, open(path, "xb") as copy:
                shutil.copyfileobj(source, copy, 2**20)
            bar.update(member.size)


# --- the data set ----------------------------------------------------------------------------------------------------


def _name_cases(found: Found) -> None:
    """Names that nnU-Net and every file system take; a held-out part is fold 0's if there is no other one."""
    for case in found.cases:
        case.name = re.sub(r"[^\w.-]", "_", case.name)
    twice = [name for name, count in Counter(case.name for case in found.cases).items() if count > 1]
    if twice:
        raise _refusal([f"{name}: two cases of this name" for name in twice])
    if not any(case.part == "val" for case in found.cases):
        for case in found.cases:
            case.part = "val" if case.part == "test" else case.part


def _write(found: Found, folder: Path, partial: bool, converted_by: str) -> list[dict]:
    """Write all cases, dataset.json and splits_final.json. Returns the splits, [] if there are none."""
    for sub in ("imagesTr", "labelsTr"):
        (folder / sub).mkdir(parents=True)
    written: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    seen, resolved, broken, empty = set(), 0, [], []
    for case in tqdm(found.cases, desc="converting", unit="case"):
        where = "Ts" if case.part == "test" else "Tr"
        image = folder / f"images{where}" / f"{case.name}_0000{found.file_ending}"
        label = folder / f"labels{where}" / f"{case.name}{found.file_ending}"
        for path in (image, label):
            path.parent.mkdir(exist_ok=True)
        try:
            outcome = case.write(image, label)
        except BadCase as error:
            broken.append(f"{case.name}: {error}")
            image.unlink(missing_ok=True)
            label.unlink(missing_ok=True)
            continue
        except OSError as error:
            raise BadInput(f"cannot write into nnUNet_raw ({error}); nothing was kept") from error
        written[case.part].append(case.name)
        seen |= outcome.labels
        resolved += outcome.resolved
        if outcome.labels == {0}:
            empty.append(case.name)
    found.problems += broken
    if broken and not partial:
        raise _refusal(found.problems)
    if not written["train"] + written["val"]:
        raise _refusal(found.problems or ["no case is left to train on"])

    absent = [name for name, value in found.labels.items() if value not in seen]
    found.notes += [f"{resolved} {found.resolved}"] if resolved else []
    found.notes += [f"no case shows the label {', '.join(absent)}"] if absent else []
    found.notes += [f"background only: {', '.join(empty)}"] if empty else []
    splits = [{"train": written["train"], "val": written["val"]}] if written["train"] and written["val"] else []
    generate_dataset_json(
        str(folder),
        channel_names=dict(found.channel_names),
        labels=dict(found.labels),
        num_training_cases=len(written["train"] + written["val"]),
        file_ending=found.file_ending,
        reference=found.reference,
        license=found.licence,
        description=found.description,
        converted_by=converted_by,
        **({"left_out": found.problems} if found.problems else {}),
    )
    if splits:
        (folder / "splits_final.json").write_text(json.dumps(splits, indent=4))
    return splits


def _move_into_place(work: Path, target: Path) -> None:
    """The last step: nothing of the new data set is visible before it."""
    if target.exists():  # made by somebody else meanwhile
        raise BadInput(f"{target} exists; it is left as it is, take another id")
    os.rename(work / "dataset", target)
    split = target / "splits_final.json"
    if split.exists() and nnUNet_preprocessed.is_set():
        # a failure is no reason to take the data set away: _tell names the copy command if the file is not there
        with suppress(OSError):
            _split_for_nnunet(target).parent.mkdir(parents=True)
            shutil.copyfile(split, _split_for_nnunet(target))


def _split_for_nnunet(target: Path) -> Path:
    return Path(nnUNet_preprocessed) / target.name / "splits_final.json"


def _refusal(problems: list[str]) -> BadInput:
    return BadInput(
        f"nothing was written, because of {len(problems)} problem{'s' if len(problems) > 1 else ''}:\n  "
        + "\n  ".join(problems)
        + "\nMend the source (or download it again), or convert the rest with --partial."
    )


def _tell(found: Found, target: Path, splits: list[dict]) -> None:
    number = int(target.name[7:10])
    counts = {sub: len(list((target / sub).glob("*"))) for sub in ("labelsTr", "labelsTs")}
    print(f"\n{target}: {counts['labelsTr']} cases in imagesTr, {counts['labelsTs']} in imagesTs")
    print(f"{found.description}\nreference: {found.reference}\nlicence: {found.licence}")
    for note in found.notes:
        print(f"note: {note}")
    if found.problems:
        print("left out (recorded in dataset.json):\n  " + "\n  ".join(found.problems))
    if splits:
        print(f"split: fold 0 has {len(splits[0]['train'])} cases to train on, {len(splits[0]['val'])} to validate on")
        if not (nnUNet_preprocessed.is_set() and _split_for_nnunet(target).exists()):
            print(
                "nnUNet_preprocessed is not set or not writable. Mend that, then give nnU-Net the split:\n"
                f"  mkdir -p $nnUNet_preprocessed/{target.name}\n"
                f"  cp {target}/splits_final.json $nnUNet_preprocessed/{target.name}/"
            )
    else:
        print("split: none is published; nnU-Net makes five folds")
    print(
        f"next:\n  nnUNetv2_plan_and_preprocess -d {number} -c {found.configuration} --verify_dataset_integrity\n"
        f"  nnUNetv2_train {number} {found.configuration} 0 -tr nnUNetTrainerDSKD"
    )
