"""Where PyTorch computes, by name."""

import platform
from pathlib import Path

import torch

from nnunet_skd.messages import counted
from nnunet_skd.tools.errors import BadInput


def find_device(name: str) -> torch.device:
    """The device of ``-device``.

    Raises:
        BadInput: there is no such device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise BadInput("PyTorch finds no CUDA device. Use -device cpu, or fix the driver (nvidia-smi shows its state)")
    if name == "mps" and not torch.backends.mps.is_available():
        raise BadInput("PyTorch finds no MPS device. Use -device cpu")
    return torch.device(name)


def device_name(device: torch.device, most_threads: int | None = None) -> str:
    """What stands beside a measurement: the GPU, or the processor and the number of threads (at most so many)."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads() if most_threads is None else min(torch.get_num_threads(), most_threads)
    return f"{_processor()}, {counted(threads, 'thread')}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")  # Linux, where platform.processor() only says x86_64
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
