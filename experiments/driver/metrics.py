"""The one place where the studies meet the package's metrics and statistics."""

from pathlib import Path

import pandas as pd

from nnunet_skd.tools.compare.comparison import DISTANCES, LOWER_IS_BETTER
from nnunet_skd.tools.evaluate.calibration import CALIBRATION, labels_of
from nnunet_skd.tools.evaluate.folders import evaluate_folders
from nnunet_skd.tools.evaluate.statistics import holm, wilcoxon_p
from nnunet_skd.tools.nnunet_json import read_dataset_json

__all__ = ["CALIBRATION", "DISTANCES", "LOWER_IS_BETTER", "holm", "labels_of", "metrics_of", "wilcoxon_p"]


def metrics_of(references: Path, predictions: Path, dataset_json: Path, metrics: list[str]) -> pd.DataFrame:
    """One row per case and class: ``case``, ``label``, then a column per metric, five digits each."""
    return evaluate_folders(
        references, predictions, read_dataset_json(dataset_json), num_processes=1, metrics=metrics, chill=True
    ).round(5)
