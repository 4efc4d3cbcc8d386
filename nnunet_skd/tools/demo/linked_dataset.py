"""The user's data set as one that the demo may train and test on: linked, neither copied nor changed."""

import json
import re
from pathlib import Path

from tqdm import tqdm

from nnunet_skd.messages import listed
from nnunet_skd.tools.cases import ImagesAndLabels, bring_label, cases_of_folders, link_images, training_cases
from nnunet_skd.tools.demo.data import hold_out, refuse_few
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.files import left_behind, new_folder
from nnunet_skd.tools.images import require_whole
from nnunet_skd.tools.nnunet_json import channel_names, read_dataset_json


def link_dataset(data: str | Path, raw_folder: str | Path) -> Path:
    """Link a data set in nnU-Net's raw format into another raw folder, with the test cases that have labels.

    Where imagesTs and labelsTs hold no test case, a fifth of the training cases (at most 8) is held out instead, evenly
    spread over the sorted names.

    Args:
        data: DatasetXXX_Name with dataset.json, imagesTr, labelsTr and perhaps imagesTs, labelsTs.
        raw_folder: where nnUNet_raw will point to.

    Returns:
        The new data set's folder; it has the same name.

    Raises:
        BadInput: not such a folder, files missing, or fewer than five training cases left.
    """
    data = Path(data).absolute()
    if not re.fullmatch(r"Dataset\d{3}_.+", data.name):
        raise BadInput(
            f"{data} is not named like DatasetXXX_Name (three digits). Rename it, or use --images and --masks."
        )
    if not (data / "dataset.json").is_file():
        raise BadInput(
            f"{data} has no dataset.json. Write one (nnU-Net's dataset_format.md), or use --images and --masks."
        )
    dataset_json = read_dataset_json(data / "dataset.json", channels=True)
    ending = dataset_json["file_ending"]
    for folder in () if "dataset" in dataset_json else ("imagesTr", "labelsTr"):
        if not (data / folder).is_dir():
            raise BadInput(f"{data} has no folder {folder}. Training needs it.")

    train = training_cases(data, dataset_json)
    if not train:
        raise BadInput(f"{data / 'imagesTr'} has no image named CASE_0000{ending}. Training needs some")
    if "dataset" not in dataset_json:
        _refuse_misnamed(data / "imagesTr", train, ending)
    _refuse_missing(train)
    test = cases_of_folders(data / "imagesTs", data / "labelsTs", ending)
    test = {case: (images, label) for case, (images, label) in test.items() if label.is_file()}
    if not test:
        train, test = hold_out(train)
    refuse_few(train, data)
    _refuse_damaged(train | test)

    target = Path(raw_folder) / data.name
    with new_folder(target) as folder:
        for split, cases in (("Tr", train), ("Ts", test)):
            for case, (images, label) in cases.items():
                link_images(case, images, folder / f"images{split}", ending)
                bring_label(case, label, folder / f"labels{split}", ending)
        content = {key: value for key, value in dataset_json.items() if key not in ("dataset", "modality")}
        content |= {"channel_names": channel_names(dataset_json), "numTraining": len(train)}
        (folder / "dataset.json").write_text(json.dumps(content, indent=4), encoding="utf-8")

    return target


def _refuse_misnamed(folder: Path, cases: ImagesAndLabels, ending: str) -> None:
    known = {file for images, _ in cases.values() for file in images}
    files = (file for file in folder.glob(f"*{ending}") if not left_behind(file.name))
    if others := sorted(file.name for file in files if file not in known):
        raise BadInput(f"{listed(others)} in {folder} belong to no case. Name them CASE_0000{ending}, or take them out")


def _refuse_missing(cases: ImagesAndLabels) -> None:
    absent = [str(f) for images, label in cases.values() for f in (*images, label) if not f.is_file()]
    if absent:
        raise BadInput(f"files of the data set are missing: {listed(absent)}. Put them back, or remove these cases.")


def _refuse_damaged(cases: ImagesAndLabels) -> None:
    """nnU-Net would train on, and be tested with, a file that was cut short: it reads what is missing as zeros."""
    problems = []
    for images, label in tqdm(cases.values(), desc="checking images and labels", unit="case"):
        for file in (*images, label):
            try:
                require_whole(file)
            except BadInput as error:
                problems.append(str(error))
    if problems:
        raise BadInput(listed(problems, between="\n"))
