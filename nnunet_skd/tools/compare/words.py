"""The words and the Markdown table of ``nnunet-skd compare``."""

import math

import numpy as np
import pandas as pd

from nnunet_skd.messages import counted
from nnunet_skd.tools.compare.comparison import DISTANCES
from nnunet_skd.tools.compare.paired_table import ALPHA, MEAN, PAIRS_ALONE, TOO_FEW, TOO_FEW_DIFFER
from nnunet_skd.tools.evaluate.metrics import OVERLAP
from nnunet_skd.tools.evaluate.statistics import smallest_p

TEST_WORDS = {
    "wilcoxon": "Wilcoxon's signed-rank test (two-sided, zero differences dropped)",
    "permutation": "sign-flip permutation test of the mean difference (two-sided; exact for few differences)",
}
VERDICT_WORDS = {
    "better": "is better",
    "worse": "is worse",
    f"better{PAIRS_ALONE}": f"is better{PAIRS_ALONE}",
    f"worse{PAIRS_ALONE}": f"is worse{PAIRS_ALONE}",
    "no difference shown": "shows no difference beyond chance",
    TOO_FEW: "cannot be judged: too few cases",
    TOO_FEW_DIFFER: "cannot be judged: too few cases differ",
    "shifted, mean unclear": "changes most cases in one way, but the mean could still lie on either side of zero",
}
FEW_FOR_BOOTSTRAP = 30


def number(value: float, decimals: int, *, signed: bool = False) -> str:
    """A number for people: fixed decimals, or a dash for nan."""
    return "-" if math.isnan(value) else f"{value:{'+' if signed else ''}.{decimals}f}"


def p_value(p: float) -> str:
    """A p-value for people: three decimals, never a plain zero."""
    return "-" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def markdown_table(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table whose columns also line up on a terminal."""
    cells = [columns, *[[str(cell).replace("|", "\\|") for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def result_sentences(table: pd.DataFrame, metrics: dict) -> list[str]:
    """One sentence per metric and arm, for the mean over the classes (or the only class)."""
    sentences = []
    for (metric, arm), rows in table.groupby(["metric", "arm"], sort=False):
        row = rows.iloc[0]
        unit, d = metrics[metric].unit, metrics[metric].decimals
        what = f"mean {metric} over the classes" if row.label == MEAN else f"{metric} of {row.label}"
        sentences.append(
            f"**{arm}** {VERDICT_WORDS[row.verdict]} in {what}: {number(row.difference, d, signed=True)}{unit} against "
            f"{row.reference} (95 % interval {number(row.low, d, signed=True)} to {number(row.high, d, signed=True)}), "
            f"{row.better} of {row.cases} cases better, {row.worse} worse, corrected p {p_value(row.p_holm)}."
            f"{_left_out(row)}"
        )
    return sentences


def _left_out(row: pd.Series) -> str:
    arms = {row.reference: int(row.only_reference), row.arm: int(row.only_arm)}
    what = " of some class" if row.label == MEAN else ""
    told = " and in ".join(f"{counted(n, 'case')} only {arm} has a value{what}" for arm, n in arms.items() if n)
    return told and f" In {told}. These values do not count: see *Left out* below."


def result_table(table: pd.DataFrame, metrics: dict) -> str:
    """The full table."""
    rows = []
    for row in table.itertuples():
        unit, d = metrics[row.metric].unit, metrics[row.metric].decimals
        rows.append(
            [
                f"{row.metric}{unit and f' ({unit.strip()})'}",
                row.label,
                row.arm,
                row.cases,
                number(row.reference_mean, d),
                number(row.arm_mean, d),
                f"{number(row.difference, d, signed=True)} "
                f"[{number(row.low, d, signed=True)}, {number(row.high, d, signed=True)}]",
                f"{row.better} / {row.worse} / {row.same}",
                p_value(row.p),
                p_value(row.p_holm),
                row.verdict,
            ]
        )
    columns = ["metric", "class", "arm", "cases", "reference arm's mean", "arm's mean", "difference [95 %]"]
    return markdown_table([*columns, "better / worse / same", "p", "p (Holm)", "verdict"], rows)


def time_table(epoch_seconds: dict[str, list[float]]) -> str:
    """Median seconds per epoch of each arm, and their ratio to the first arm's."""
    medians = {arm: float(np.median(s)) if s else math.nan for arm, s in epoch_seconds.items()}
    reference = next(iter(medians.values()))
    rows = [
        [arm, len(epoch_seconds[arm]), number(median, 1), number(median / reference if reference else math.nan, 2)]
        for arm, median in medians.items()
    ]
    return markdown_table(["arm", "epochs in the logs", "median s per epoch", "ratio"], rows)


def cautions(table: pd.DataFrame, *, folds: list[str], repeated: list[str], ignored: bool = False) -> list[str]:
    """What the numbers cannot say, in plain words.

    On folds: Bengio and Grandvalet 2004, "No unbiased estimator of the variance of k-fold cross-validation".

    Args:
        table: from paired_table.
        folds: the folds whose validation cases are compared; none for predictions of one test set.
        repeated: cases that more than one fold validated.
        ignored: the dataset has an ignore label.
    """
    tests = int(table["p"].notna().sum())
    words = []
    few = table[table["verdict"].isin((TOO_FEW, TOO_FEW_DIFFER))]
    if len(few):
        needed = next(n for n in range(1, 100) if smallest_p(n) * tests <= ALPHA)
        corrected = f" With {tests} tests, Holm's correction requires at least {needed}." if tests > 1 else ""
        words.append(
            f"**Too few cases to conclude**, in {len(few)} of {counted(len(table), 'row')} of the table, where at most "
            f"{counted(int((few['better'] + few['worse']).max()), 'case')} differ between two arms. Even if all n of "
            f"them change in the same direction, this test gives no p below 2 / 2^n: with 5 that is 0.0625, so fewer "
            f"than 6 can never reach {ALPHA}.{corrected} These are minimum numbers, not sufficient ones: add folds or "
            "cases."
        )
    if table["cases"].min() < FEW_FOR_BOOTSTRAP:
        words.append(
            f"Intervals of fewer than {FEW_FOR_BOOTSTRAP} cases are too narrow: of those with 10 cases about nine in "
            "ten, not 95 %, hold the true mean."
        )
    words.append(
        "**A p-value on one seed says nothing about training noise.** It asks whether other cases would agree, not "
        "whether another training run would: the same trainer run twice can differ as much. Before you believe a small "
        "difference, train every arm again with other seeds."
    )
    if len(folds) > 1:
        words.append(
            "**Cross-validation folds are not independent.** The networks of two folds were trained on mostly the same "
            "cases, so the p-values are too small and the intervals too narrow, by an amount nobody can compute. "
            "Repeating the cross-validation with other splits does not help; an untouched test set (--pred) does."
        )
    if "all" in folds:
        words.append(
            "**Fold 'all' validates on its own training cases.** These numbers say how well the cases were learnt, "
            "not how well new ones are segmented."
        )
    if ignored:
        words.append(
            "**Voxels with the ignore label do not count.** What a model gets wrong there is not seen: cases that are "
            "annotated throughout say more."
        )
    if repeated:
        words.append(
            f"Validated by more than one fold: {counted(len(repeated), 'case')} (e.g. {repeated[0]}); each counts "
            "once, with the mean of its values."
        )
    words.append(
        "Every case is taken as independent. Several images of one patient are not: the p-values are then too small."
    )
    if "no difference shown" in set(table["verdict"]):
        words.append("'No difference shown' does not mean equal: the interval holds every difference still possible.")
    for row in table[(table["label"] != MEAN) & (table["only_reference"] + table["only_arm"] > 0)].itertuples():
        words.append(
            f"**Left out:** in {counted(row.only_reference + row.only_arm, 'case')}, {row.metric} of {row.label} has "
            f"a value for one arm only ({row.only_reference} x {row.reference}, {row.only_arm} x {row.arm}), hence no "
            f"pair. {_why_one_alone(row.metric, ignored)} Leaving such a case out favours the arm in error. Look at "
            "them in cases.csv."
        )
    return words


def _why_one_alone(metric: str, ignored: bool) -> str:
    if metric in DISTANCES:
        why = "The other arm misses the class there"
    elif metric == "Precision":
        why = "The other arm does not find the class there, be it present or absent"
    else:
        why = "The class is absent there, and the other arm rightly does not find it"
    return f"{why}{', or its objects touch ignored voxels' if ignored and metric not in OVERLAP else ''}."
