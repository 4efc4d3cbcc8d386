"""The demo's picture: image, truth and prediction side by side."""

import json
import os
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

from nnunet_skd.tools.demo.data import channels_of

PICTURE_ROWS = 4
COLOURS = ("#D55E00", "#56B4E9", "#F0E442", "#009E73", "#CC79A7", "#0072B2", "#E69F00")  # Okabe and Ito


def reader_of(dataset_json: dict, example):
    """nnU-Net's reader for the files of a data set."""
    return determine_reader_writer_from_dataset_json(dataset_json, str(example), verbose=False)()


def draw_cases(raw, predictions, table: pd.DataFrame, path) -> None:
    """A picture of up to four cases, from the best to the worst Dice: image, truth and prediction side by side.

    2D: the whole image. 3D: of the slices across the axis of the largest spacing, the one with most foreground. Voxels
    keep their physical proportions. CT is shown from -160 to 240 HU, all else between its 0.5 and 99.5 percentile.

    Args:
        raw: data set folder with imagesTs, labelsTs and dataset.json.
        predictions: folder of nnUNetv2_predict.
        table: ``case``, ``label``, ``Dice``.
        path: PNG to write.
    """
    raw, predictions, path = Path(raw), Path(predictions), Path(path)
    dataset_json = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    dice = table.groupby("case")["Dice"].mean().sort_values(ascending=False, kind="stable")
    places = np.linspace(0, len(dice) - 1, min(PICTURE_ROWS, len(dice))).round().astype(int)
    slices = [_read_slice(raw, predictions, dataset_json, case) for case in dice.index[places]]
    with matplotlib.rc_context({"font.size": 9, "text.parse_math": False}):
        width = 9.0
        heights = [width / 3 * np.clip(s["aspect"] * s["truth"].shape[0] / s["truth"].shape[1], 0.4, 2) for s in slices]
        figure = Figure(figsize=(width, sum(heights) + 0.25 * len(slices) + 0.4), layout="constrained")
        grid = figure.subplots(len(slices), 3, squeeze=False, gridspec_kw={"height_ratios": heights})
        for row, case, content in zip(grid, dice.index[places], slices, strict=True):
            for axes, name in zip(row, ("image", "truth", "prediction"), strict=True):
                axes.imshow(content["image"], cmap="gray", vmin=0, vmax=1, aspect=content["aspect"])
                if name != "image":
                    axes.imshow(_tint(content[name], dataset_json), aspect=content["aspect"], interpolation="nearest")
                axes.set_axis_off()
            row[0].set_title(case + content["where"])
            row[1].set_title("truth")
            row[2].set_title(f"prediction, Dice {dice[case]:.2f}")
        figure.legend(handles=_legend(dataset_json), loc="outside lower center", ncols=4, frameon=False)
        unfinished = path.with_name(f".{path.name}")
        figure.savefig(unfinished, dpi=150, format="png")
    os.replace(unfinished, path)


def _read_slice(raw, predictions, dataset_json, case):
    ending = dataset_json["file_ending"]
    label = raw / "labelsTs" / f"{case}{ending}"
    reader = reader_of(dataset_json, label)
    image, properties = reader.read_images([str(f) for f in channels_of(raw / "imagesTs", case, ending)])
    truth = reader.read_seg(str(label))[0][0]
    prediction = reader.read_seg(str(predictions / f"{case}{ending}"))[0][0]
    axis = int(np.argmax(properties["spacing"]))
    foreground = (truth > 0) & (truth != dataset_json["labels"].get("ignore"))
    index = int(np.argmax(foreground.sum(axis=tuple(a for a in range(3) if a != axis))))
    down, across = (float(s) for a, s in enumerate(properties["spacing"]) if a != axis)

    def take(volume):  # with the head on top where the slice is not transverse
        return np.take(volume, index, axis=axis)[:: 1 if axis == 0 else -1]

    colour = len(image) == 3 and next(iter(dataset_json["channel_names"].values())) == "R"
    shown = np.stack([take(channel) for channel in image], axis=-1) if colour else take(image[0])
    is_ct = str(next(iter(dataset_json["channel_names"].values()))).upper() == "CT"
    low, high = (-160, 240) if is_ct else np.percentile(shown, (0.5, 99.5))
    return {
        "image": np.clip((shown - low) / max(high - low, 1e-6), 0, 1),
        "truth": take(truth).astype(int),
        "prediction": take(prediction).astype(int),
        "aspect": down / across,
        "where": f", slice {index}" if truth.shape[axis] > 1 else "",
    }


def _tint(labels, dataset_json):
    tint = np.zeros((*labels.shape, 4))
    for value in np.unique(labels[labels > 0]):
        tint[labels == value] = matplotlib.colors.to_rgba(_colour(value, dataset_json), 0.65)
    return tint


def _colour(value, dataset_json):
    return "#AAAAAA" if value == dataset_json["labels"].get("ignore") else COLOURS[(value - 1) % len(COLOURS)]


def _legend(dataset_json):
    """A patch per label value; a value that lies in several regions is named after all of them."""
    names = {}
    for name, values in dataset_json["labels"].items():
        for value in values if isinstance(values, list) else [values]:
            names.setdefault(value, []).append(name)
    return [
        Patch(color=_colour(value, dataset_json), label=", ".join(names[value])) for value in sorted(names) if value > 0
    ]
