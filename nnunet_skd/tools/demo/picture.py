"""The demo's picture: image, truth and prediction side by side."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nnunet_skd.tools.cases import channel_files, reader_class
from nnunet_skd.tools.figures import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, YELLOW
from nnunet_skd.tools.files import write_file
from nnunet_skd.tools.images import read_images, read_segmentation
from nnunet_skd.tools.nnunet_json import channel_names, read_dataset_json
from nnunet_skd.tools.slices import fullest_slice, grey, in_colour, slice_axis, take_image, take_slice

PICTURE_ROWS = 4
COLOURS = (VERMILION, SKY, YELLOW, GREEN, PURPLE, BLUE, ORANGE)


def draw_predictions(raw: str | Path, predictions: dict[str, Path], table: pd.DataFrame, path: str | Path) -> None:
    """A picture of up to four cases, from the best to the worst Dice: image, truth and predictions side by side.

    2D: the whole image. 3D: the slice with most foreground. Pixels keep their physical proportions. CT is shown from
    -160 to 240 HU, any other image between its 0.5 and 99.5 percentile.

    Args:
        raw: data set folder with imagesTs, labelsTs and dataset.json.
        predictions: folder of nnUNetv2_predict for each trainer.
        table: ``trainer``, ``case``, ``label``, ``Dice``. The last trainer's Dice orders the cases.
        path: PNG to write.
    """
    raw, path = Path(raw), Path(path)
    dataset_json = read_dataset_json(raw / "dataset.json")
    by_trainer = table.groupby(["trainer", "case"])["Dice"].mean()
    dice = by_trainer[list(predictions)[-1]].sort_values(ascending=False, kind="stable")
    places = np.linspace(0, len(dice) - 1, min(PICTURE_ROWS, len(dice))).round().astype(int)
    cases = dice.index[places]
    slices = [read_slice(raw, list(predictions.values()), dataset_json, case) for case in cases]
    with matplotlib.rc_context({"font.size": 9, "text.parse_math": False}):
        columns = 2 + len(predictions)
        width = 3.0 * columns
        heights = [3.0 * np.clip(s.aspect * s.truth.shape[0] / s.truth.shape[1], 0.4, 2) for s in slices]
        figure = Figure(figsize=(width, sum(heights) + 0.25 * len(slices) + 0.4), layout="constrained")
        grid = figure.subplots(len(slices), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
        for row, case, shown in zip(grid, cases, slices, strict=True):
            for axes, labels in zip(row, (None, shown.truth, *shown.predictions), strict=True):
                axes.imshow(shown.image, cmap="gray", vmin=0, vmax=1, aspect=shown.aspect)
                if labels is not None:
                    axes.imshow(_tint(labels, dataset_json), aspect=shown.aspect, interpolation="nearest")
                axes.set_axis_off()
            row[0].set_title(case + shown.where)
            row[1].set_title("truth")
            for axes, trainer in zip(row[2:], predictions, strict=True):
                name = "prediction" if len(predictions) == 1 else trainer
                axes.set_title(f"{name}, Dice {by_trainer[trainer, case]:.2f}")
        figure.legend(handles=_legend(dataset_json), loc="outside lower center", ncols=4, frameon=False)
        write_file(path, lambda file: figure.savefig(file, dpi=150))


@dataclass(frozen=True)
class CaseSlice:
    """One slice of a case: ``image`` (H, W) or (H, W, 3) from 0 to 1, label maps (H, W), height of a pixel by width."""

    image: np.ndarray
    truth: np.ndarray
    predictions: list[np.ndarray]
    aspect: float
    where: str


def read_slice(raw: Path, predictions: list[Path], dataset_json: dict, case: str) -> CaseSlice:
    """Read a test case and its predictions with nnU-Net's reader and take the slice with most foreground."""
    ending = dataset_json["file_ending"]
    label = raw / "labelsTs" / f"{case}{ending}"
    reader = reader_class(dataset_json, label)
    files = channel_files(raw / "imagesTs", case, ending)
    image, properties = read_images(reader, files)
    truth = read_segmentation(reader, label)[0][0]
    axis = slice_axis(properties["spacing"])
    index = fullest_slice((truth > 0) & (truth != dataset_json["labels"].get("ignore")), axis)
    take = partial(take_slice, axis=axis, index=index)
    height, width = (float(size) for a, size in enumerate(properties["spacing"]) if a != axis)

    first_channel = str(next(iter(channel_names(dataset_json).values())))
    shown = take_image(image, axis, index, colour=in_colour(len(image), len(files), dataset_json))
    low, high = (-160, 240) if first_channel.upper() == "CT" else np.percentile(shown, (0.5, 99.5))
    return CaseSlice(
        image=grey(shown, low, high),
        truth=take(truth).astype(int),
        predictions=[
            take(read_segmentation(reader, folder / f"{case}{ending}")[0][0]).astype(int) for folder in predictions
        ],
        aspect=height / width,
        where=f", slice {index}" if truth.shape[axis] > 1 else "",
    )


def _tint(labels: np.ndarray, dataset_json: dict) -> np.ndarray:
    """Label values (H, W) as colours (H, W, 4), transparent where there is background."""
    tint = np.zeros((*labels.shape, 4))
    for value in np.unique(labels[labels > 0]):
        tint[labels == value] = matplotlib.colors.to_rgba(_colour(value, dataset_json), 0.65)
    return tint


def _colour(value: int, dataset_json: dict) -> str:
    return "#AAAAAA" if value == dataset_json["labels"].get("ignore") else COLOURS[(value - 1) % len(COLOURS)]


def _legend(dataset_json: dict) -> list[Patch]:
    """A patch per label value; a value that lies in several regions is named after all of them."""
    names = {}
    for name, values in dataset_json["labels"].items():
        for value in values if isinstance(values, list) else [values]:
            names.setdefault(value, []).append(name)
    return [
        Patch(color=_colour(value, dataset_json), label=", ".join(names[value])) for value in sorted(names) if value > 0
    ]
