"""Raw datasets of the studies' own: the labelled cases of a draw alone, so that fingerprint and plans know no others.

They are links into the raw datasets that you name with --raw, and numbered from 500 on. Folds are nnU-Net's own, in the
dataset that holds all cases.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from nnunetv2.utilities.crossval_split import generate_crossval_split

from driver.fingerprint import hash_sources
from driver.place import write_whole

FIRST_ID = 500
BIN = Path(sys.executable).parent
READY = "ready"  # a folder that holds this file is complete


class Raw:
    """A raw dataset of nnU-Net: its cases and their files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.json = json.loads((folder / "dataset.json").read_text())
        self.ending = self.json["file_ending"]

    def cases(self, part: str = "Tr") -> list[str]:
        return sorted(f.name.removesuffix(self.ending) for f in (self.folder / f"labels{part}").glob(f"*{self.ending}"))

    def images(self, case: str, part: str = "Tr") -> list[Path]:
        """One file per channel."""
        names = [f"{case}_{channel:04d}{self.ending}" for channel in range(len(self.json["channel_names"]))]
        return [self.folder / f"images{part}" / name for name in names]

    def label(self, case: str, part: str = "Tr") -> Path:
        return self.folder / f"labels{part}" / f"{case}{self.ending}"


def choose(cases: list[str], which: str) -> list[str]:
    """The cases that a recipe names: ``all``, ``fold 0`` (nnU-Net's training cases), or ``5 of draw 0``.

    A draw with more cases holds those of the draw of the same number with fewer.
    """
    if which == "all":
        return cases
    if which.startswith("fold "):
        return sorted(folds(cases)[int(which.removeprefix("fold "))]["train"])
    number, draw = map(int, re.fullmatch(r"(\d+) of draw (\d+)", which).groups())
    return sorted(np.random.default_rng(draw).permutation(cases)[:number].tolist())


def folds(cases: list[str]) -> list[dict]:
    """nnU-Net's own five folds; fewer where there are fewer cases."""
    return generate_crossval_split(sorted(cases), seed=12345, n_splits=min(5, len(cases)))


def outside(cases: list[str], which: str) -> list[str]:
    """The labelled cases that are not in a draw or fold."""
    return sorted(set(cases) - set(choose(cases, which)))


def draw_dataset(source: Raw, which: str, annotated_slices: int | None, raw: Path) -> str:
    """The raw dataset of a draw in the folder ``raw``, made if it is not there yet; returns its name."""
    which = "all" if which.startswith("fold ") else which
    if which == "all" and annotated_slices is None:
        link = raw / source.folder.name
        if not link.exists():
            link.symlink_to(source.folder.resolve())
        return source.folder.name
    kind = source.folder.name[11:]
    suffix = which.replace(" ", "") + (f"_{annotated_slices}slices" if annotated_slices else "")
    cases = choose(source.cases(), which)
    labels = {case: source.label(case) for case in cases}
    return new_dataset(raw, f"{kind}_{suffix}", source, labels, annotated_slices)


def new_dataset(raw: Path, name: str, source: Raw, labels: dict[str, Path], annotated_slices: int | None = None) -> str:
    """A raw dataset of links: images of ``source`` and these labels; returns its full name."""
    code = hash_sources([Path(__file__)])
    for folder in raw.glob(f"Dataset???_{name}"):
        if (folder / READY).is_file() and (folder / READY).read_text() == code:
            return folder.name
        for old in raw.parent.glob(f"*/{folder.name}"):  # unfinished, or of other code: what was made of it goes too
            shutil.rmtree(old)
    used = {int(folder.name[7:10]) for folder in raw.glob("Dataset???_*")}
    number = next(i for i in range(FIRST_ID, 1000) if i not in used)
    folder = raw / f"Dataset{number:03d}_{name}"
    for sub in ("imagesTr", "labelsTr"):
        (folder / sub).mkdir(parents=True)
    for case, label in labels.items():
        link_all(source.images(case), folder / "imagesTr")
        target = folder / "labelsTr" / f"{case}{source.ending}"
        if annotated_slices is None:
            target.symlink_to(label.resolve())
        else:
            keep_slices(label, target, annotated_slices, max(_values(source.json)) + 1)
    content = source.json | {"name": folder.name, "numTraining": len(labels)}
    if annotated_slices is not None:
        content["labels"] = source.json["labels"] | {"ignore": max(_values(source.json)) + 1}
    (folder / "dataset.json").write_text(json.dumps(content, indent=1))
    (folder / READY).write_text(code)
    return folder.name


def link_all(files: Iterable[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        target = folder / file.name
        if not target.exists():
            target.symlink_to(file.resolve())


def keep_slices(label: Path, target: Path, number: int, ignore: int) -> None:
    """Write a label with ``number`` axial slices, evenly spread over those that hold a class; the rest is ignored."""
    image = sitk.ReadImage(str(label))
    array = sitk.GetArrayFromImage(image)
    annotated = np.flatnonzero(array.any((1, 2)))
    kept = annotated[np.linspace(0, len(annotated) - 1, number + 2).round().astype(int)[1:-1]]
    sparse = np.full_like(array, ignore)
    sparse[kept] = array[kept]
    result = sitk.GetImageFromArray(sparse)
    result.CopyInformation(image)
    sitk.WriteImage(result, str(target))


def fill_ignored(label: Path, prediction: Path, ignore: int) -> None:
    """Overwrite a prediction by the label wherever that is not the ignore label."""
    annotated, predicted = sitk.ReadImage(str(label)), sitk.ReadImage(str(prediction))
    array, known = sitk.GetArrayFromImage(predicted), sitk.GetArrayFromImage(annotated)
    filled = sitk.GetImageFromArray(np.where(known == ignore, array, known).astype(array.dtype))
    filled.CopyInformation(predicted)
    sitk.WriteImage(filled, str(prediction))


def _values(dataset_json: dict) -> list[int]:
    return [value for values in dataset_json["labels"].values() for value in np.atleast_1d(values).tolist()]


def preprocess(name: str, configuration: str, preset: dict, preprocessed: Path) -> str:
    """Fingerprint, plans, preprocessed data and the compact configuration by nnU-Net's commands and ours, once each.

    The environment names nnU-Net's folders. What a kill has left half done is done anew.

    Returns:
        the compact configuration's name.
    """
    number, folder = str(int(name[7:10])), preprocessed / name
    # the planner takes nnUNet_n_proc_DA for a number of threads, which 0 is not
    environment = os.environ | {"nnUNet_n_proc_DA": "1"}

    def once(step: str, *command: str) -> None:
        marker = folder / f"{READY}_{step}"
        if not marker.is_file() or marker.read_text() != version("nnunetv2"):
            subprocess.run([BIN / command[0], *command[1:]], env=environment, check=True)  # noqa: S603 - our own command
            marker.write_text(version("nnunetv2"))

    once("fingerprint", "nnUNetv2_extract_fingerprint", "-d", number, "-np", "1", "--clean")
    once("plans", "nnUNetv2_plan_experiment", "-d", number)
    splits = folder / "splits_final.json"
    if not splits.exists():  # as nnU-Net makes it, but not by two trainings at once
        write_whole(splits, json.dumps(folds(Raw(Path(os.environ["nnUNet_raw"]) / name).cases()), indent=1))
    once(configuration, "nnUNetv2_preprocess", "-d", number, "-c", configuration, "-np", "1")
    compact = f"{configuration}_{preset['name']}"
    write_whole(folder / f"{compact}.json", json.dumps(preset))
    command = ("nnunet-skd", "compact", "-d", number, "-c", configuration, "--preset", folder / f"{compact}.json")
    subprocess.run([BIN / command[0], *command[1:]], env=environment, check=True)  # noqa: S603 - our own command
    return compact
