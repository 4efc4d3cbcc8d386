"""Whether nnU-Net uses torch.compile here."""

from types import SimpleNamespace

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


def nnunet_compiles(device: torch.device) -> bool:
    """What nnUNetTrainer decides for this device, operating system and ``nnUNet_compile``."""
    return nnUNetTrainer._do_i_compile(SimpleNamespace(device=device, print_to_log_file=lambda *_: None))
