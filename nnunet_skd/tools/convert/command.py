"""Bring a public data set of the self-distillation papers, and of their field, into nnU-Net's raw format.

  nnunet-skd convert dca1 DB_Angiograms_134.zip -d 82

writes $nnUNet_raw/Dataset082_DCA1: images and labels as nnU-Net wants them, dataset.json with channels, labels,
reference and licence, and splits_final.json where there is a published split. It ends by naming the next two commands.

The source is the archive (zip, tar, tar.gz ...) or the unpacked folder as the publishers distribute it; several
sources are read as one. It is never changed. Downloading it, and accepting its terms, is yours to do.
'nnunet-skd convert DATASET --help' says what is expected of each data set, its labels, split, reference and licence,
and what could not be established about it.

What is checked: each image has its reference and the other way round; published cases are all there; every file can be
read; sizes and spacings agree; labels, colours and categories are all known. Whatever fails is listed by name, and then
nothing is written. --partial converts the rest nevertheless, and records what was left out in dataset.json.

Splits: a published train/validation split becomes fold 0 of splits_final.json and the test part goes to imagesTs and
labelsTs. A published train/test split without validation part becomes fold 0 too: train on fold 0, and nnU-Net's final
validation is the test result. (Other folds than 0 would be random, nnU-Net says so.) nnU-Net reads the file from
$nnUNet_preprocessed/DatasetXXX_NAME: it is put there as well when that variable is set; otherwise the command to copy
it is printed.

Nothing is overwritten: an id that is in use in any of nnU-Net's folders is refused. Everything is made in a temporary
folder inside $nnUNet_raw, which needs room for the unpacked archive too, and moved into place at the end.
"""

import argparse
from pathlib import Path

from nnunet_skd.tools.convert.conversion import DATASETS, convert, dataset_module


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="dataset", required=True, metavar="DATASET", title="data sets")
    for dataset, line in DATASETS.items():
        module = dataset_module(dataset)
        command = commands.add_parser(
            dataset, help=line, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help="archive or unpacked folder")
        command.add_argument("-d", type=int, required=True, metavar="ID", help="dataset id, 1 to 999, not yet in use")
        command.add_argument("--name", help=f"DatasetXXX_NAME (default: {module.NAME})")
        command.add_argument(
            "--partial",
            action="store_true",
            help="convert what is sound although files are missing, unpaired or damaged (default: name them, refuse)",
        )
        if hasattr(module, "add_arguments"):
            module.add_arguments(command)


def run(args: argparse.Namespace) -> None:
    options = dict(vars(args))
    convert(
        options.pop("dataset"),
        options.pop("sources"),
        options.pop("d"),
        name=options.pop("name"),
        partial=options.pop("partial"),
        **options,
    )
