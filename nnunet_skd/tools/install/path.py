"""Print the folder for nnU-Net's environment variable nnUNet_extTrainer.

For containers, read-only installations, and everyone who prefers a variable to `nnunet-skd register`. It must be set
for training and for prediction. This keeps what the variable already holds:

  export nnUNet_extTrainer="$(nnunet-skd path)${nnUNet_extTrainer:+:$nnUNet_extTrainer}"
"""

import argparse

from nnunet_skd.tools.install.discovery import trainers_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser  # no arguments


def run(args: argparse.Namespace) -> None:
    print(trainers_folder())
