"""Where mixed precision reaches, and where it must not."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def mixed_precision(device: torch.device) -> AbstractContextManager:
    """As nnU-Net runs its networks: autocast on CUDA, nothing elsewhere."""
    return torch.autocast(device.type) if device.type == "cuda" else nullcontext()


def without_autocast(tensor: Tensor) -> AbstractContextManager:
    """A block in which products stay in the precision of their operands.

    nnU-Net uses autocast on CUDA only, and torch has none for some devices, such as meta.
    """
    device = tensor.device.type
    return torch.autocast(device, enabled=False) if device in ("cuda", "cpu") else nullcontext()
