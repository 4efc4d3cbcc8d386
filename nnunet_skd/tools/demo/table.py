"""The metrics of the demo's test cases as a table for the screen."""

import numpy as np
import pandas as pd

from nnunet_skd.tools.text_table import aligned

DEMO_METRICS = ["Dice", "IoU", "Sensitivity", "Specificity", "Accuracy"]


def format_table(table: pd.DataFrame, most_rows: int = 24) -> str:
    """The table for the screen: a row per case and label, then the means over the cases, and over the labels.

    With several trainers the case rows are left out: the means stand below each other.

    Args:
        table: ``trainer``, ``case``, ``label`` and DEMO_METRICS; nan where a metric is not defined, left out of the
            means.
        most_rows: case rows to print; the rest is in metrics.csv.
    """
    several = table["trainer"].nunique() > 1
    means = []
    for trainer, rows in table.groupby("trainer", sort=False):
        mean = rows.groupby("label", sort=False)[DEMO_METRICS].mean().reset_index()
        if len(mean) > 1:
            mean.loc[len(mean)] = ["all labels", *mean[DEMO_METRICS].mean()]
        means.append(mean.assign(case=trainer if several else "mean"))
    shown = 0 if several else min(len(table), most_rows)
    rows = pd.concat([table.head(shown), *means], ignore_index=True)[["case", "label", *DEMO_METRICS]]
    cells = [["mean of the test cases" if several else "case", "label", *DEMO_METRICS]]
    for row in rows.itertuples(index=False):
        cells.append([str(row[0]), str(row[1]), *("-" if np.isnan(value) else f"{value:.3f}" for value in row[2:])])
    lines = aligned(cells, left=(0, 1))
    left_out = [f"... {len(table) - shown} more rows in metrics.csv"] if 0 < shown < len(table) else []
    rule = "-" * max(map(len, lines))
    case_rows = [*lines[1 : 1 + shown], *left_out, rule] if shown else []
    return "\n".join([lines[0], rule, *case_rows, *lines[1 + shown :]])
