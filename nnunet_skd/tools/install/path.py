"""Print the folder for nnU-Net's environment variable nnUNet_extTrainer.

For containers, read-only installations, and everyone who prefers a variable to `nnunet-skd register`. It must be set
for training and for prediction; nnU-Net reads it since version 2.8. This keeps what the variable already holds:

  export nnUNet_extTrainer="$(nnunet-skd path)${nnUNet_extTrainer:+:$nnUNet_extTrainer}"
"""

import argparse

from nnunet_skd.compat import READS_EXT_TRAINER
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.install.discovery import trainers_folder, without_variable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser  # no arguments


def run(args: argparse.Namespace) -> None:
    if not READS_EXT_TRAINER:
        raise BadInput(f"{without_variable()}. Use 'nnunet-skd register'")
    print(trainers_folder())
