"""M2CAISeg: laparoscopic images with colour-coded masks, 19 classes.

  nnunet-skd convert m2caiseg m2caiseg.zip -d 90

Expected (Kaggle, salmanmaq/m2caiseg): train, trainval and test, each with images/NAME.jpg and groundtruth/NAME_gt.png.
trainval repeats the training images; its images that are neither in train nor in test are the validation part (as are
folders named val or validation). Images are stored once; two different files of one name are refused.
Labels: black, the outside of the round view, is background 0; then grasper, bipolar, hook, scissors, clipper,
irrigator, specimen bag, trocars, clip, liver, gallbladder, fat, upper wall, artery, intestine, bile, blood (1-17),
unknown 18. Three channels R, G, B.
Colours are those of the publishers' code (github salmanmaq/segmentationNetworks); artery's comes from its list of
organ classes, because its list of all classes repeats liver's colour there. A colour that is not in the table is never
ignored: masks that contain it are refused, with the colour. --nearest_colour gives such pixels to the closest colour
of the table, as the publishers' label refinement does for the borders of hand-drawn regions, and says how many.
Split: train and val become fold 0 of splits_final.json and test goes to imagesTs and labelsTs; without a validation
part, train and test become fold 0.
Reference: Maqbool et al., m2caiSeg, arXiv 2008.10134. Licence: CC BY-NC 4.0 according to MedSegBench; check on Kaggle.
"""

import filecmp
from argparse import ArgumentParser
from functools import partial
from pathlib import Path

import numpy as np

from nnunet_skd.messages import listed
from nnunet_skd.tools.convert.common import (
    BadCase,
    Case,
    Files,
    Found,
    Written,
    index,
    natural,
    paired,
    require_any,
    short,
)
from nnunet_skd.tools.convert.pixels import read_image, write_png

NAME = "M2CAISeg"
COLOURS = {
    "background": (0, 0, 0),
    "grasper": (0, 85, 170),
    "bipolar": (0, 85, 255),
    "hook": (0, 170, 85),
    "scissors": (0, 255, 85),
    "clipper": (0, 255, 170),
    "irrigator": (85, 0, 170),
    "specimen_bag": (85, 0, 255),
    "trocars": (170, 85, 85),
    "clip": (170, 170, 170),
    "liver": (85, 170, 0),
    "gallbladder": (85, 170, 255),
    "fat": (85, 255, 0),
    "upper_wall": (85, 255, 170),
    "artery": (170, 0, 255),
    "intestine": (255, 0, 255),
    "bile": (255, 255, 0),
    "blood": (255, 0, 0),
    "unknown": (170, 0, 85),
}
PARTS = {"train": "train", "test": "test", "trainval": "val", "val": "val", "validation": "val"}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--nearest_colour",
        action="store_true",
        help="give pixels of unknown colours to the closest colour of the table (default: list these masks and stop)",
    )


def find(files: Files, nearest_colour: bool = False) -> Found:
    """Pair ``NAME`` with ``NAME_gt`` in each folder, then settle which part each name belongs to."""
    problems = []
    folders = "|".join(PARTS)
    images = index(files, rf"({folders})/images?/([^/]+)\.(?:jpg|jpeg|png)", problems)
    masks = index(files, rf"({folders})/groundtruth/([^/]+?)(?:_gt)?\.png", problems)
    keys = paired(images, masks, problems)
    require_any(keys, files, "train/images/NAME.jpg with train/groundtruth/NAME_gt.png, trainval, test")
    chosen: dict[str, tuple] = {}
    doubtful = set()
    # train and test first: trainval repeats them, and only what is left there is the validation part
    for key in sorted(keys, key=lambda key: (PARTS[key[0]] == "val", natural(key[1]))):
        folder, name = key
        if name not in chosen:
            chosen[name] = key
            continue
        first = chosen[name]
        if {folder, first[0]} == {"train", "test"}:
            problems.append(f"{name}: in train and in test")
            doubtful.add(name)
        for kind in (images, masks):
            if not filecmp.cmp(kind[first], kind[key], shallow=False):
                problems.append(f"{short(kind[key])}: not the file of this name in {first[0]}")
                doubtful.add(name)
    cases = [
        Case(name, PARTS[key[0]], partial(_write, images[key], masks[key], nearest_colour))
        for name, key in sorted(chosen.items(), key=lambda item: natural(item[0]))
        if name not in doubtful
    ]
    return Found(
        cases=cases,
        labels={name: label for label, name in enumerate(COLOURS)},
        channel_names={"0": "R", "1": "G", "2": "B"},
        file_ending=".png",
        configuration="2d",
        reference="Maqbool et al., m2caiSeg: Semantic segmentation of laparoscopic images using convolutional neural "
        "networks, arXiv:2008.10134; https://www.kaggle.com/datasets/salmanmaq/m2caiseg",
        licence="CC BY-NC 4.0 according to MedSegBench; not verified",
        description="M2CAISeg: laparoscopic images, instruments, organs and fluids",
        problems=problems,
        test_validates=not any(PARTS[folder] == "val" for folder, _ in {*images, *masks}),
        resolved="mask pixels had a colour outside the class table and went to the closest one",
    )


def decode(mask: np.ndarray, nearest_colour: bool) -> tuple[np.ndarray, int]:
    """Colours (H, W, 3) as labels (H, W), and how many pixels had none of the table's colours."""
    if mask.ndim != 3 or mask.dtype != np.uint8:
        raise BadCase("the mask is not an 8-bit colour image")
    table = np.array(list(COLOURS.values()))
    colours, inverse, areas = np.unique(mask.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True)
    distance = ((colours[:, None].astype(int) - table[None]) ** 2).sum(-1)  # colours, classes
    unknown = distance.min(1) > 0
    if unknown.any() and not nearest_colour:
        order = np.flatnonzero(unknown)[np.argsort(-areas[unknown])]
        found = listed((f"{tuple(colours[i].tolist())} in {areas[i]} pixels" for i in order), 5)
        raise BadCase(f"{unknown.sum()} colours of the mask are not in the class table: {found}")
    return distance.argmin(1)[inverse.ravel()].reshape(mask.shape[:2]).astype(np.uint8), int(areas[unknown].sum())


def _write(image: Path, mask: Path, nearest_colour: bool, image_path: Path, label_path: Path) -> Written:
    pixels = read_image(image)
    if pixels.ndim != 3:
        raise BadCase(f"{image.name} is a grey image, but R, G, B was expected")
    labels, resolved = decode(read_image(mask), nearest_colour)
    return write_png(pixels, labels, resolved, image_path, label_path)
