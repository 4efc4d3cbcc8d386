"""Moves the terms' own parameters beside nnU-Net's optimizer."""

from __future__ import annotations

import torch
from torch import distributed, nn


class OwnParameters:
    """An SGD of nnU-Net's kind for parameters that are not the network's.

    It steps right after nnU-Net's optimizer, of whatever kind that is, with its learning rate and under its gradient
    scaler. So nnU-Net's optimizer, its scheduler and their state in a checkpoint stay what they are without us, and
    stock nnU-Net can continue a checkpoint. Gradients are clipped as nnU-Net clips the network's, and averaged over the
    processes of a distributed training.

    Args:
        groups: SGD's parameter groups; what they leave open is nnU-Net's.
        optimizer: nnU-Net's.
        grad_scaler: nnU-Net's, or None without mixed precision.
        weight_decay: nnU-Net's.
    """

    def __init__(
        self,
        groups: list[dict],
        optimizer: torch.optim.Optimizer,
        grad_scaler: torch.amp.GradScaler | None,
        weight_decay: float,
    ):
        self.optimizer = torch.optim.SGD(
            groups, lr=optimizer.param_groups[0]["lr"], momentum=0.99, nesterov=True, weight_decay=weight_decay
        )
        self._grad_scaler, self._leader, self._hook = grad_scaler, None, None
        self._parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.follow(optimizer)
        if distributed.is_initialized():
            for parameter in self._parameters:
                distributed.broadcast(parameter.data, 0)

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Step after this optimizer, no longer after an earlier one: some trainers make a new one for each stage."""
        if optimizer is not self._leader:
            if self._hook is not None:
                self._hook.remove()
            self._leader, self._hook = optimizer, optimizer.register_step_post_hook(self._step)

    def zero_grad(self) -> None:
        """Called before each step."""
        self.optimizer.zero_grad(set_to_none=True)

    def _step(self, leader: torch.optim.Optimizer, *_: object) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = leader.param_groups[0]["lr"]
        if distributed.is_initialized():
            self._average_gradients()
        if all(parameter.grad is None for parameter in self._parameters):
            return  # no term has begun yet; a gradient scaler refuses a step without gradients
        if self._grad_scaler is None:
            nn.utils.clip_grad_norm_(self._parameters, 12)
            self.optimizer.step()
        else:
            self._grad_scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self._parameters, 12)
            self._grad_scaler.step(self.optimizer)

    def _average_gradients(self) -> None:
        for parameter in self._parameters:
            if parameter.grad is None:  # a term that had nothing to say on this rank; the others wait for it
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)
            parameter.grad /= distributed.get_world_size()
