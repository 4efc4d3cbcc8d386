"""Ranks on the CPU, by gloo. nnU-Net's own DDP is CUDA only, so the harness sets the device itself."""

import os
from datetime import timedelta

import nnunetv2.training.nnUNetTrainer.nnUNetTrainer as module
import torch
from torch import distributed

TIMEOUT = timedelta(seconds=120)  # a rank that waits for ever is a failure, not a hanging test


def join(rank: int, world: int, file: str) -> None:
    """This process becomes one of ``world`` ranks, which meet at ``file``."""
    torch.set_num_threads(1)
    os.environ |= {"nnUNet_compile": "f", "nnUNet_n_proc_DA": "0"}
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world, timeout=TIMEOUT)


def on_cpu(trainer_class: type) -> type:
    """nnU-Net puts every rank on its own CUDA device; this trainer takes them back to the CPU."""

    class CPUTrainer(trainer_class):
        def initialize(self):
            self.device, self.grad_scaler = torch.device("cpu"), None
            real = torch.nn.parallel.DistributedDataParallel
            module.DDP = lambda network, device_ids: real(network)
            super().initialize()

    return CPUTrainer
