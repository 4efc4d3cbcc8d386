"""How well does the agreement that ``nnunet-skd pseudo-labels`` measures find the worst of its labels?

    python experiments/agreement.py DATASET REFERENCES

DATASET is the folder in nnUNet_raw that the command made, REFERENCES holds the true labels of its cases. Printed:
Spearman's correlation between agreement and true Dice, over the cases with pseudo-labels, and how many of the worst
fifth are in the fifth that agrees least.
"""

import sys
from pathlib import Path

from nnunet_skd.tools.evaluate.folders import evaluate_folders
from nnunet_skd.tools.nnunet_json import read_dataset_json
from nnunet_skd.tools.pseudo_labels.second_look import agreement_of_cases, read_table


def main(dataset: Path, references: Path) -> None:
    description = read_dataset_json(dataset / "dataset.json")
    true = evaluate_folders(
        references, dataset / "labelsTr", description, num_processes=1, metrics=["Dice"], chill=True
    )
    both = agreement_of_cases(read_table(dataset)).to_frame()
    both = both.join(true.groupby("case")["Dice"].mean())  # of these cases alone: the labelled ones have no agreement
    empty = both["agreement"].isna().sum()
    both = both.dropna()
    fifth = len(both) // 5
    worst, doubtful = (both.nsmallest(fifth, column).index for column in ("Dice", "agreement"))
    rank = both.corr("spearman").loc["agreement", "Dice"]
    print(
        f"{len(both)} cases (and {empty} where nothing was found), Dice {both['Dice'].mean():.3f}: "
        f"Spearman {rank:.2f}, "
        f"{len(worst.intersection(doubtful))} of the worst {fifth} are among the {fifth} that agree least"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
