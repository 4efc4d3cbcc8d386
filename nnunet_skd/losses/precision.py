"""Where mixed precision must not reach."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def without_autocast(tensor: Tensor) -> AbstractContextManager:
    """A block in which products stay in the precision of their operands.

    nnU-Net uses autocast on CUDA only, and older versions of torch cannot even name it for other devices than CPU.
    """
    device = tensor.device.type
    return torch.autocast(device, enabled=False) if device in ("cuda", "cpu") else nullcontext()
