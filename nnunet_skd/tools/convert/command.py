"""Convert a public data set of the self-distillation papers, or of their field, to nnU-Net's raw format.

  nnunet-skd convert dca1 DB_Angiograms_134.zip -d 82

writes $nnUNet_raw/Dataset082_DCA1: images and labels as nnU-Net needs them, dataset.json with channels, labels,
reference and licence, and splits_final.json if there is a published split. At the end it prints the next two commands.

The source is the archive (zip, tar, tar.gz ...) or the unpacked folder as the publishers distribute it; several
sources are read as one. The source is never changed. You download it yourself, and accept its terms.
'nnunet-skd convert DATASET --help' describes the files that are expected, the labels, the split, the reference and the
licence of a data set, and says what we could not find out about it.

Checks: each image has a reference and each reference an image; all published cases are there, where their number is
known to us (not m2caiseg, nor the last slices of synapse); every file can be read; sizes, spacings and orientations
agree; all labels, colours and categories are known. If a check fails, the files concerned are listed and nothing is
written. --partial converts the rest, and records in dataset.json what was left out.

Splits: a published train/validation split becomes fold 0 of splits_final.json, and the test part goes to imagesTs and
labelsTs. A published train/test split without validation part also becomes fold 0: train on fold 0, and nnU-Net's final
validation is the test result. (Folds other than 0 would be random, as nnU-Net reports.) nnU-Net reads the split from
$nnUNet_preprocessed/DatasetXXX_NAME: it is copied there if that variable is set; otherwise the command to copy it is
printed.

Nothing is overwritten: an id that is in use in any of nnU-Net's folders is refused. Everything is written to temporary
folders inside $nnUNet_raw, which also needs room for the unpacked archive, and moved into place at the end. (A run that
is killed with SIGKILL, as for lack of memory, leaves them there: .nnunet_skd_... and .DatasetXXX_... Remove them.)
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
        command.add_argument(
            "-d", dest="dataset_id", type=int, required=True, metavar="ID", help="dataset id, 1 to 999, not yet in use"
        )
        command.add_argument("--name", help=f"name of the data set, DatasetXXX_NAME (default: {module.NAME})")
        command.add_argument(
            "--partial",
            action="store_true",
            help="convert the rest if files are missing, unpaired or damaged (default: list them and stop)",
        )
        if hasattr(module, "add_arguments"):
            module.add_arguments(command)


def run(args: argparse.Namespace) -> None:
    convert(**vars(args))
