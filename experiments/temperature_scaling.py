"""What one temperature does to a model's calibration (Guo et al., ICML 2017): ``softmax(logits / T)``.

    python experiments/temperature_scaling.py PREDICTED REFERENCES

PREDICTED holds predictions of nnU-Net's with their probabilities (``nnUNetv2_predict --save_probabilities``), in 2D as
PNG, REFERENCES the labels. T is fitted on every second case, by the mean log-likelihood of the voxels, and tested on
the others; then the other way round. The decision of a voxel stays the same.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.optimize import minimize_scalar

from nnunet_skd.tools.evaluate.calibration import KEY, read_probabilities, softmax_calibration

Case = tuple[np.ndarray, np.ndarray]  # probabilities (C, rows, columns), labels (rows, columns)
SMALLEST = 1e-7  # nnU-Net writes half precision, in which small probabilities are 0


def read_cases(predicted: Path, references: Path) -> list[Case]:
    files, cases = sorted(predicted.glob("*.npz")), []
    channels = np.load(files[0])[KEY].shape[0]  # the same in all
    for file in files:
        labels = np.asarray(Image.open(references / f"{file.stem}.png"))
        cases.append((read_probabilities(file, channels, labels.shape).astype(float), labels))
    return cases


def scaled(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """``softmax(log p / T)``, which is ``softmax(logits / T)``."""
    powers = np.maximum(probabilities, SMALLEST) ** (1 / temperature)
    return powers / powers.sum(0)


def fit(cases: list[Case]) -> float:
    """The temperature of the highest mean log-likelihood."""

    def loss(temperature: float) -> float:
        of_truth = [np.take_along_axis(scaled(p, temperature), labels[None], 0) for p, labels in cases]
        return -float(np.mean([np.log(p).mean() for p in of_truth]))

    return float(minimize_scalar(loss, bounds=(0.2, 10), method="bounded").x)


def mean_error(cases: list[Case], temperature: float) -> float:
    """The mean ECE of the cases."""
    return float(np.mean([softmax_calibration(scaled(p, temperature), labels)["ECE"] for p, labels in cases]))


def main(predicted: Path, references: Path) -> None:
    cases = read_cases(predicted, references)
    for fitted, tested in ((cases[::2], cases[1::2]), (cases[1::2], cases[::2])):
        temperature = fit(fitted)
        print(
            f"T = {temperature:.2f} from {len(fitted)} cases; ECE of the {len(tested)} others "
            f"{mean_error(tested, 1):.4f} -> {mean_error(tested, temperature):.4f}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
