"""The one place where the studies meet the package's metrics."""

from pathlib import Path

import pandas as pd

from nnunet_skd.tools.evaluate import evaluate_folders


def metrics_of(references: Path, predictions: Path, dataset_json: Path, metrics: list[str]) -> pd.DataFrame:
    """One row per case and class: ``case``, ``label``, then a column per metric, five digits each."""
    return evaluate_folders(references, predictions, dataset_json, num_processes=1, metrics=metrics, chill=True).round(
        5
    )
