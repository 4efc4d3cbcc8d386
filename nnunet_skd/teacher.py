"""The teacher of self-knowledge distillation: the network's own earlier state."""

from collections.abc import Iterator
from copy import deepcopy

import torch
from torch import Tensor, nn


class Teacher:
    """A frozen copy of a network in evaluation mode, with all its deep-supervision outputs.

    Deliberately no ``nn.Module``: as an attribute of a trainer or a loss it must not show up in the state dict,
    ``parameters()`` or ``train()`` of these.
    """

    def __init__(self, network: nn.Module, *, compile_network: bool = False):
        self._module = deepcopy(network).eval().requires_grad_(False)
        self._forward = torch.compile(self._module) if compile_network else self._module

    def update(self, network: nn.Module) -> None:
        """Become what the network is now. ``network``: neither compiled nor wrapped."""
        self._module.load_state_dict(network.state_dict())

    def parameters(self) -> Iterator[nn.Parameter]:
        """In the order of the network's."""
        return self._module.parameters()

    @torch.no_grad()
    def __call__(self, data: Tensor) -> list[Tensor]:
        """Logits of every output, highest resolution first (``B, K, spatial``), under the caller's autocast."""
        return list(self._forward(data))
