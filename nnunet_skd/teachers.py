"""Where a student's second opinion comes from."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from nnunet_skd.trainer import SelfDistillationTrainer


class Teacher:
    """What a trainer declares as its ``teacher = MyTeacher()``: a subclass writes what differs.

    Deliberately not an ``nn.Module``: as an attribute of a trainer it must not show up in the state dict,
    ``parameters()`` or ``train()`` of anything.
    """

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def check(self, trainer: SelfDistillationTrainer) -> None:
        """Refuse what cannot work (``ValueError``), before any data is read."""

    def attach(self, trainer: SelfDistillationTrainer) -> None:
        """Take what is needed from an initialised trainer whose training begins or continues now."""

    def start_epoch(self, epoch: int) -> None:
        """Called at the start of each epoch."""

    def after_step(self) -> None:
        """Called after each training step."""

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint must hold so that a training continues exactly."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Called before :meth:`attach`, with what :meth:`state_dict` gave."""

    def __call__(self, data: Tensor) -> list[Tensor] | None:
        """Logits of every output, highest resolution first (``B, K, spatial``), or None while there is no teacher.

        Runs under the caller's autocast, without a gradient.
        """
        raise NotImplementedError


class PreviousEpoch(Teacher):
    """The network at the end of the previous epoch, with all its side outputs; none in the first epoch.

    DSKD's "past iteration" (arXiv 2509.03173); once per epoch as quoted in an unofficial re-implementation. A
    checkpoint at an epoch's end holds these very weights, so there is no state of its own.
    """

    def attach(self, trainer: SelfDistillationTrainer) -> None:
        self._network = trainer.plain_network()
        self._copy = FrozenCopy(self._network, compile_network=trainer._do_i_compile())
        self._ready = False

    def start_epoch(self, epoch: int) -> None:
        self._ready = epoch > 0
        if self._ready:
            self._copy.module.load_state_dict(self._network.state_dict())

    def __call__(self, data: Tensor) -> list[Tensor] | None:
        return self._copy(data) if self._ready else None


class FrozenCopy:
    """A copy of a network in evaluation mode. ``network``: neither compiled nor wrapped."""

    def __init__(self, network: nn.Module, *, compile_network: bool):
        self.module = deepcopy(network).eval().requires_grad_(False)
        self._forward = torch.compile(self.module) if compile_network else self.module

    @torch.no_grad()
    def __call__(self, data: Tensor) -> list[Tensor]:
        return list(self._forward(data))
