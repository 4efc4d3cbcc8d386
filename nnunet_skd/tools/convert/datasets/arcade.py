"""ARCADE: 1500 X-ray coronary angiograms with vessels (syntax) and 1500 with stenoses, as COCO polygons.

  nnunet-skd convert arcade arcade.zip -d 84                      vessel against background
  nnunet-skd convert arcade arcade.zip -d 85 --segments           the 25 SYNTAX segments
  nnunet-skd convert arcade arcade.zip -d 86 --task stenosis      stenosis against background

Expected (Zenodo 10390295, version COCO): syntax and stenosis, each with train, val and test; in each of these
images/*.png and annotations/*.json. Earlier records of the challenge have other folders and cannot be read.
Labels: background 0, then vessel 1, or the segments in the order of the SYNTAX score 1, 2, ... 16c, or stenosis 1.
The polygons of neighbouring segments overlap: the pixels of an overlap go to the smaller segment, and are counted.
Polygons are filled up to and including their outline, at coordinates cut to whole pixels, as in the organisers' script.
Annotations are found by image, never by their own id (which is not unique in the published files).
Split: train and val become fold 0 of splits_final.json; test goes to imagesTs and labelsTs.
Reference: Popov et al., Scientific Data 11:20, 2024, doi 10.1038/s41597-023-02871-z.
Licence: CC0 1.0 according to users of the Zenodo record; check there.
"""

from argparse import ArgumentParser
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from nnunet_skd.tools.convert.common import BadCase, Case, Files, Found, Written, index, numbered, require_any
from nnunet_skd.tools.convert.pixels import read_grey, write_png
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.json_file import ANYTHING, INTEGER, NUMBER, TEXT, read_json

NAME = "ARCADE"
COCO = {
    "categories": [{"id": INTEGER, "name": TEXT}],
    "images": [{"id": INTEGER, "file_name": TEXT}],
    "annotations": [{"image_id": INTEGER, "category_id": INTEGER, "segmentation": ANYTHING}],
}
MOST_PIXELS = 1e6  # no edge of an image is that long; NaN and infinite coordinates do not lie below it
SEGMENTS = "1 2 3 4 5 6 7 8 9 9a 10 10a 11 12 12a 12b 13 14 14a 14b 15 16 16a 16b 16c".split()


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--task", choices=("syntax", "stenosis"), default="syntax", help="default: %(default)s")
    parser.add_argument(
        "--segments", action="store_true", help="label the SYNTAX segments one by one (default: all of them are vessel)"
    )


def find(files: Files, task: str = "syntax", segments: bool = False) -> Found:
    """Collect the polygons of each image of ``task``."""
    if task == "stenosis":
        if segments:
            raise BadInput("--segments belongs to --task syntax; the stenosis task has no segments")
        by_category = {"stenosis": 1}
        labels = {"background": 0, "stenosis": 1}
    elif segments:
        by_category = {name: label for label, name in enumerate(SEGMENTS, 1)}
        labels = numbered(f"segment {name}" for name in SEGMENTS)
    else:
        by_category = dict.fromkeys(SEGMENTS, 1)
        labels = {"background": 0, "vessel": 1}

    problems, notes, cases = [], [], []
    images = index(files, rf"{task}/(train|val|test)/images/([^/]+\.png)", problems)
    tables = index(files, rf"{task}/(train|val|test)/annotations/([^/]+\.json)", problems)
    require_any(images and tables, files, f"{task}/train/images/*.png and {task}/train/annotations/*.json, val, test")
    for part in ("train", "val", "test"):
        here = {name: path for (where, name), path in images.items() if where == part}
        table = [path for (where, _), path in tables.items() if where == part]
        if len(table) != 1:
            problems.append(f"{task}/{part}/annotations: {len(table)} json files, but one was expected")
            continue
        try:
            shapes = _shapes_by_image(read_json(table[0], COCO, "Download it again"))
        except (ValueError, KeyError) as error:  # the second: an id that no image or category has
            problems.append(f"{task}/{part}/annotations/{table[0].name}: damaged or not a COCO file ({error!r})")
            continue
        problems.extend(f"{task}/{part}/images/{name}: not in {table[0].name}" for name in here if name not in shapes)
        problems.extend(f"{task}/{part}/images/{name}: missing" for name in shapes if name not in here)
        bare = [name for name in here if name in shapes and not shapes[name]]
        if bare:
            notes.append(f"no annotation, so all is background: {task}/{part} {', '.join(bare)}")
        cases += [
            Case(
                f"{task}_{part}_{Path(name).stem}",
                part,
                partial(_write, here[name], table[0].name, shapes[name], by_category),
            )
            for name in here
            if name in shapes
        ]
    return Found(
        cases=cases,
        labels=labels,
        channel_names={"0": "angiogram"},
        file_ending=".png",
        configuration="2d",
        reference="Popov et al., Dataset for automatic region-based coronary artery disease diagnostics using X-ray "
        "angiography images, Scientific Data 11:20, 2024, https://doi.org/10.1038/s41597-023-02871-z; "
        "https://doi.org/10.5281/zenodo.10390295",
        licence="CC0 1.0 according to users of the Zenodo record 10390295; not verified",
        description=f"ARCADE, {task}: X-ray coronary angiograms, polygons drawn as labels",
        problems=problems,
        notes=notes,
        resolved="pixels lie in two segments and went to the smaller one" if segments else "",
    )


def _shapes_by_image(table: dict) -> dict[str, list[tuple[str, list]]]:
    """File name -> (category's name, polygons) for each annotation of a COCO table."""
    category = {entry["id"]: str(entry["name"]) for entry in table["categories"]}
    name_of = {}
    for entry in table["images"]:
        if entry["id"] in name_of or entry["file_name"] in name_of.values():
            raise ValueError(f"image {entry['id']} ({entry['file_name']}) is listed twice")
        name_of[entry["id"]] = entry["file_name"]
    shapes = {name: [] for name in name_of.values()}
    for entry in table["annotations"]:
        shapes[name_of[entry["image_id"]]].append((category[entry["category_id"]], entry["segmentation"]))
    return shapes


def draw(shape: tuple[int, int], polygons: list) -> np.ndarray:
    """COCO polygons [x0, y0, x1, y1, ...] as a mask (H, W), outline included."""
    canvas = Image.new("1", shape[::-1])
    if not isinstance(polygons, list) or not polygons:
        raise BadCase("an annotation has no polygon")
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise BadCase("an annotation is not a polygon of three or more points")
        if not all(NUMBER.holds(value) and abs(value) < MOST_PIXELS for value in polygon):
            raise BadCase("an annotation has coordinates that are no pixels")
        ImageDraw.Draw(canvas).polygon([int(coordinate) for coordinate in polygon], fill=1, outline=1)
    return np.asarray(canvas)


def _write(
    image: Path, table: str, shapes: list, by_category: dict[str, int], image_path: Path, label_path: Path
) -> Written:
    pixels = read_grey(image)
    unknown = sorted({category for category, _ in shapes if category not in by_category})
    if unknown:
        raise BadCase(f"{table}: annotation of the category {', '.join(unknown)}, which this task does not have")
    try:
        masks = [(draw(pixels.shape, polygons), by_category[category]) for category, polygons in shapes]
    except BadCase as error:
        raise BadCase(f"{table}: {error}") from error
    masks.sort(key=lambda mask: -mask[0].sum())
    labels = np.zeros(pixels.shape, np.uint8)
    overlap = np.zeros(pixels.shape, bool)
    for mask, label in masks:
        overlap |= mask & (labels > 0) & (labels != label)
        labels[mask] = label
    return write_png(pixels, labels, int(overlap.sum()), image_path, label_path)
