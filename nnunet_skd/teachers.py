"""Where a student's second opinion comes from, apart from finished models (see finished_models.py)."""

from __future__ import annotations

import random
from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from nnunet_skd.trainer import SelfDistillationTrainer


class Teacher:
    """What a trainer declares as its ``teacher = MyTeacher()``: a subclass writes :meth:`attach` and :meth:`outputs`.

    Deliberately not an ``nn.Module``: as an attribute of a trainer it must not show up in the state dict,
    ``parameters()`` or ``train()`` of anything.

    Args:
        mirror: show the teacher each batch flipped along a random subset of the axes that nnU-Net mirrors at inference,
            and flip its outputs back: on average it says what test-time mirroring would say.
    """

    def __init__(self, *, mirror: bool = False):
        self.mirror = mirror
        self.mirror_axes: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(mirror={self.mirror})"

    def check(self, trainer: SelfDistillationTrainer) -> None:
        """Refuse what cannot work (``ValueError``) when a training begins or continues, before any data is read."""

    def attach(self, trainer: SelfDistillationTrainer) -> None:
        """Take what is needed from an initialised trainer whose training begins or continues now."""
        self.mirror_axes = tuple(trainer.inference_allowed_mirroring_axes or ())

    def start_epoch(self, epoch: int) -> None:
        """Called at the start of each epoch."""

    def after_step(self) -> None:
        """Called after each training step."""

    def state_dict(self) -> dict:
        """What a checkpoint must hold so that a training continues exactly: tensors, numbers and text."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Called before :meth:`attach`, with what :meth:`state_dict` gave."""

    def outputs(self, data: Tensor) -> list[Tensor | None] | None:
        """Logits of every output, highest resolution first (``B, K, spatial``), or None while there is no teacher."""
        raise NotImplementedError

    @torch.no_grad()
    def __call__(self, data: Tensor) -> list[Tensor | None] | None:
        """:meth:`outputs`, mirrored where that is asked for; under the caller's autocast, without a gradient."""
        axes = [axis + 2 for axis in self.mirror_axes if self.mirror and random.random() < 0.5]
        if not axes:
            return self.outputs(data)
        outputs = self.outputs(data.flip(axes))
        return outputs and [None if z is None else z.flip(axes) for z in outputs]


class PreviousEpoch(Teacher):
    """The network at the end of the previous epoch, with all its side outputs; none in the first epoch.

    DSKD's "past iteration" (arXiv 2509.03173); once per epoch as quoted in an unofficial re-implementation. A
    checkpoint at an epoch's end holds these very weights, so there is no state of its own.
    """

    def attach(self, trainer: SelfDistillationTrainer) -> None:
        super().attach(trainer)
        self._network = trainer.plain_network()
        self._copy = FrozenCopy(self._network, compile_network=trainer._do_i_compile())
        self._ready = False

    def start_epoch(self, epoch: int) -> None:
        self._ready = epoch > 0
        if self._ready:
            self._copy.module.load_state_dict(self._network.state_dict())

    def outputs(self, data: Tensor) -> list[Tensor] | None:
        return self._copy(data) if self._ready else None


class MovingAverage(Teacher):
    """The exponential moving average of the network: ``phi <- d phi + (1 - d) theta`` after each step.

    ``d = min(1 - 1 / (t + 1), decay)``, so that the first steps are a plain mean (UA-MT's form). Buffers are copied.
    Its weights are part of the checkpoint; in a distributed training they are equal on all ranks, as the network's.

    Raises:
        ValueError: for a decay outside [0, 1).
    """

    def __init__(self, *, decay: float = 0.99, mirror: bool = False):
        super().__init__(mirror=mirror)
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}")
        self.decay = decay
        self._steps = 0
        self._copy: FrozenCopy | None = None
        self._state: dict = {}

    def __repr__(self) -> str:
        return f"MovingAverage(decay={self.decay}, mirror={self.mirror})"

    def attach(self, trainer: SelfDistillationTrainer) -> None:
        super().attach(trainer)
        self._network = trainer.plain_network()
        self._copy = FrozenCopy(self._network, compile_network=trainer._do_i_compile())
        if self._state:
            self._steps = self._state["steps"]
            self._copy.module.load_state_dict(self._state["network"])
            self._state = {}

    @torch.no_grad()
    def after_step(self) -> None:
        self._steps += 1
        weight = 1 - min(1 - 1 / (self._steps + 1), self.decay)
        average, network = self._copy.module, self._network
        torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), weight)
        for mine, theirs in zip(average.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)

    def state_dict(self) -> dict:
        if self._copy is None:
            return self._state
        return {"steps": self._steps, "network": self._copy.module.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self._state = state if "steps" in state else {}  # another teacher's: begin anew

    def outputs(self, data: Tensor) -> list[Tensor]:
        return self._copy(data)


class FrozenCopy:
    """A copy of a network in evaluation mode. ``network``: neither compiled nor wrapped."""

    def __init__(self, network: nn.Module, *, compile_network: bool):
        self.module = deepcopy(network).eval().requires_grad_(False)
        self._forward = torch.compile(self.module) if compile_network else self.module

    def __call__(self, data: Tensor) -> list[Tensor]:
        return list(self._forward(data))
