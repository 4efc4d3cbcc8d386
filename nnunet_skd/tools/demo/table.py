"""The metrics of the demo's test cases as a table for the screen."""

import numpy as np
import pandas as pd

from nnunet_skd.tools.text_table import aligned

DEMO_METRICS = ["Dice", "IoU", "Sensitivity", "Specificity", "Accuracy"]


def format_table(table: pd.DataFrame, most_rows: int = 24) -> str:
    """The table for the screen: a row per case and label, then the mean over cases of each label and over the labels.

    Args:
        table: ``case``, ``label`` and DEMO_METRICS; nan where a metric is not defined, left out of the means.
        most_rows: case rows to print; the rest is in metrics.csv.
    """
    means = table.groupby("label", sort=False)[DEMO_METRICS].mean().reset_index()
    if len(means) > 1:
        means.loc[len(means)] = ["all labels", *means[DEMO_METRICS].mean()]
    rows = pd.concat([table.head(most_rows), means.assign(case="mean")], ignore_index=True)
    rows = rows[["case", "label", *DEMO_METRICS]]
    cells = [rows.columns.tolist()]
    for row in rows.itertuples(index=False):
        cells.append([str(row[0]), str(row[1]), *("-" if np.isnan(value) else f"{value:.3f}" for value in row[2:])])
    lines = aligned(cells, left=(0, 1))
    shown = min(len(table), most_rows)
    left_out = [f"... {len(table) - shown} more rows in metrics.csv"] if shown < len(table) else []
    rule = "-" * max(map(len, lines))
    return "\n".join([lines[0], rule, *lines[1 : 1 + shown], *left_out, rule, *lines[1 + shown :]])
