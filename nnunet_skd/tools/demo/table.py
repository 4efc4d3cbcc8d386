"""The metrics of the demo's test cases as a table for the screen."""

import numpy as np
import pandas as pd

METRICS = ["Dice", "IoU", "Sensitivity", "Specificity", "Accuracy"]


def format_table(table: pd.DataFrame, most_rows: int = 24) -> str:
    """The table for the screen: a row per case and label, then the mean over cases of each label and over the labels.

    Args:
        table: ``case``, ``label`` and METRICS; nan where a metric is not defined, left out of the means.
        most_rows: case rows to print; the rest is in metrics.csv.
    """
    means = table.groupby("label", sort=False)[METRICS].mean().reset_index()
    if len(means) > 1:
        means.loc[len(means)] = ["all labels", *means[METRICS].mean()]
    rows = pd.concat([table.head(most_rows), means.assign(case="mean")], ignore_index=True)[["case", "label", *METRICS]]
    cells = [rows.columns.tolist()]
    for row in rows.itertuples(index=False):
        cells.append([str(row[0]), str(row[1]), *("-" if np.isnan(value) else f"{value:.3f}" for value in row[2:])])
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    shown = min(len(table), most_rows)
    left_out = [f"... {len(table) - shown} more rows in metrics.csv"] if shown < len(table) else []
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1 : 1 + shown], *left_out, rule, *lines[1 + shown :]])
