"""Find the temperature that makes a network's probabilities trustworthy.

  nnunet-skd calibrate labelsTr fold_0/validation fold_1/validation -djfile dataset.json
  nnunet-skd calibrate CALIBRATION_LABELS calibration -djfile dataset.json -o calibrated

Networks are often too sure of themselves: where they say 95 %, they are right in fewer voxels. Temperature
scaling (Guo et al., ICML 2017) mends that with one number for all voxels and classes: it divides the logits by
T, before the softmax (with regions, the sigmoid). T is the one under which the references are most probable.
The segmentation stays the same; 'nnunet-skd export --temperature T' writes a network that does it by itself.

REFERENCE_DIR holds the reference segmentations, each PREDICTION_DIR predictions of some of these cases and
their probabilities (CASE.npz). They must be cases that the network was not trained on, and not those that you
test on:

  * the validation cases of the folds, whose probabilities nnUNetv2_train --npz writes, after a training
    nnUNetv2_train ... --val --npz. Name the folders of all folds: they get one temperature, that of
    one fold; folds that predict together may be less sure of themselves and need less. Those of fold 'all' are
    refused: nnU-Net validates it on the cases that it was trained on
  * others, predicted with nnUNetv2_predict --save_probabilities

The table says what T does to the expected calibration error and the Brier score ('nnunet-skd evaluate --help'
has both), in the mean over the cases. Each fifth of the cases, in the order of their names, is judged under a
T that was fitted on the others. If these temperatures differ much, there are too few cases. The fit takes a
draw of the voxels, the judgement all of them.

Writes into -o, if named:
  calibration.csv    one row per case: the scores as they are and scaled, and the T of this row
  calibration.png    how often the network is right, against how sure it is: before and after
Exit status: 0 done; 2 unusable input.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from nnunet_skd.tools.calibrate.reliability import draw_reliability
from nnunet_skd.tools.calibrate.temperature import Calibration, calibration_at, fit_temperature, sample_case
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.evaluate.calibration import CALIBRATION
from nnunet_skd.tools.evaluate.case import Case
from nnunet_skd.tools.evaluate.folders import paired_cases
from nnunet_skd.tools.evaluate.options import add_options
from nnunet_skd.tools.files import new_files, require_absent, require_folder, require_writable
from nnunet_skd.tools.nnunet_json import read_dataset_json
from nnunet_skd.tools.parallel import in_order, require_processes
from nnunet_skd.tools.text_table import aligned

CSV, PICTURE = "calibration.csv", "calibration.png"
PARTS = 5  # of the cases; each is judged under a temperature of the others


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("reference", metavar="REFERENCE_DIR", help="folder with the reference segmentations")
    parser.add_argument(
        "prediction", metavar="PREDICTION_DIR", nargs="+", help="folders with predictions and their probabilities"
    )
    add_options(parser)
    parser.add_argument("-o", metavar="DIR", help="folder for the table of all cases and the picture (default: none)")


def run(args: Namespace) -> None:
    require_processes(args.np)
    references, folders = _folders(args)
    if args.o:
        require_absent(args.o, (CSV, PICTURE))
        require_writable(args.o)
    dataset_json = read_dataset_json(args.djfile)
    found = [
        case
        for folder in folders
        for case in paired_cases(references, folder, dataset_json, chill=True, probabilities=True)
    ]
    samples = in_order(sample_case, [(case, len(found)) for case in found], args.np, "read")
    known = [(case, of_case) for case, of_case in zip(found, samples, strict=True) if of_case]
    names = sorted({case.name for case, _ in known})
    if len(names) < 2:
        raise BadInput(
            "at least two cases with voxels that are not ignored are needed, to test the temperature of one on the "
            f"other; found: {len(names)}. Predict more cases"
        )
    # neighbours in one part: slices of a patient have similar names
    part_of = {name: number * min(PARTS, len(names)) // len(names) for number, name in enumerate(names)}
    temperature = fit_temperature([sample for _, of_case in known for sample in of_case])
    of_others = {
        part: fit_temperature([s for case, of_case in known if part_of[case.name] != part for s in of_case])
        for part in tqdm(set(part_of.values()), desc="fit", unit="part")
    }
    cases, tested_at = [case for case, _ in known], [of_others[part_of[case.name]] for case, _ in known]
    jobs = [(case, (1.0, other)) for case, other in zip(cases, tested_at, strict=True)]
    measured = in_order(calibration_at, jobs, args.np, "test")
    table = _table(cases, measured, tested_at)
    print(_text(table, temperature, list(of_others.values())))
    if args.o:
        with new_files(Path(args.o)) as folder:
            table.to_csv(folder / CSV, index=False)
            before, after = (sum(pair[i].bins for pair in measured) for i in range(2))
            draw_reliability(before, after, folder / PICTURE)
        print(f"Written to {args.o}: {CSV}, {PICTURE}")


def _folders(args: Namespace) -> tuple[Path, list[Path]]:
    """The folder of the references, and those of the predictions, each once.

    Raises:
        BadInput: one is missing, has two roles, or holds predictions of cases that the network was trained on.
    """
    references = require_folder(args.reference)
    folders = list({require_folder(folder).resolve(): Path(folder) for folder in args.prediction}.values())
    for folder in folders:
        real = folder.resolve()
        if real == references.resolve():
            raise BadInput(f"{folder} is named twice, as the folder of the references and as one of predictions")
        if real.name == "validation" and real.parent.name == "fold_all":
            raise BadInput(
                f"{folder} holds cases that the network was trained on, as nnU-Net validates fold all on them. Name "
                "predictions of other cases, or the validation folders of folds 0 to 4"
            )
    if args.o and Path(args.o).resolve() in {folder.resolve() for folder in (references, *folders)}:
        raise BadInput(f"-o {args.o} is one of the folders that are read: a picture there may be taken for a case")
    return references, folders


def _table(cases: list[Case], measured: list[list[Calibration]], temperatures: list[float]) -> pd.DataFrame:
    """One row per case: ``case``, ``prediction``, ``T``, and ``ECE``, ``ECE_scaled``, ``Brier``, ``Brier_scaled``."""
    rows = []
    for case, (before, after), temperature in zip(cases, measured, temperatures, strict=True):
        row = {"case": case.name, "prediction": str(case.prediction.parent), "T": temperature}
        for metric in CALIBRATION:
            row |= {metric: before.scores[metric], f"{metric}_scaled": after.scores[metric]}
        rows.append(row)
    return pd.DataFrame(rows)


def _text(table: pd.DataFrame, temperature: float, of_others: list[float]) -> str:
    rows = [["", "as it is", "scaled", "better in"]]
    for metric in CALIBRATION:
        before, after = table[metric], table[f"{metric}_scaled"]
        rows.append(
            [metric, f"{before.mean():.4f}", f"{after.mean():.4f}", f"{(after < before).sum()} of {len(table)}"]
        )
    if all(table[f"{metric}_scaled"].mean() < table[metric].mean() for metric in CALIBRATION):
        advice = f"A network with it:\n  nnunet-skd export ... --temperature {temperature:.3f}"
    else:
        advice = "It does not help: cases that it was not fitted on are calibrated better without. Name more cases"
    return "\n".join(
        [
            f"T = {temperature:.3f}, fitted on {len(table)} predictions",
            f"{min(of_others):.3f} to {max(of_others):.3f} without one of {len(of_others)} parts of the cases each",
            "",
            *aligned(rows, left=[0]),
            "",
            advice,
        ]
    )
