"""What the terms of a loss may read: of the whole training, and of one step."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from nnunet_skd.feature_tap import FeatureTap
from nnunet_skd.losses.probabilities import class_probabilities, split_target

# nnU-Net gives the lowest output the weight 0, or 1e-6 under DDP: its head learns nothing, so it teaches nothing.
UNSUPERVISED = 1e-5


@dataclass(frozen=True)
class Task:
    """What stays the same during a training.

    Attributes:
        trainer, configuration: names, for messages.
        segmentation_loss: nnU-Net's loss of one output, ``(logits, target) -> scalar``.
        head_weights: of deep supervision, highest resolution first.
        has_regions, ignore_label: as in :func:`nnunet_skd.losses.probabilities.split_target`.
        cross_entropy_weight: within nnU-Net's loss of one output; None where that loss is not nnU-Net's Dice and
            cross-entropy, without class weights or label smoothing.
        lowest_value: of nnU-Net's loss: minus the weight of its Dice, as nnU-Net's Dice loss is minus the Dice.
        segmentation_layer: the network's last layer, from its penultimate features to the full-resolution logits.
    """

    trainer: str
    configuration: str
    segmentation_loss: nn.Module
    head_weights: tuple[float, ...]
    has_regions: bool
    ignore_label: int | None
    cross_entropy_weight: float | None
    lowest_value: float = 0.0
    segmentation_layer: nn.Module | None = None

    @property
    def num_outputs(self) -> int:
        """K: classes including the background, or regions."""
        return self.segmentation_layer.out_channels

    @cached_property
    def supervised(self) -> tuple[int, ...]:
        """The outputs that nnU-Net trains."""
        return tuple(i for i, weight in enumerate(self.head_weights) if weight > UNSUPERVISED)


@dataclass
class Step:
    """What one step offers to the terms. What several terms share is computed once, and only where one asks for it.

    Attributes:
        outputs: the student's logits, highest resolution first, each ``B, K, spatial``.
        target: nnU-Net's targets at the same resolutions; None for patches of images without labels.
        teacher_outputs: the teacher's logits of the same patches, or None while there is no teacher. A teacher of
            another configuration may lack an output; then that one is None.
        from_stream: whether the patches are of the second stream: without labels, but for what ``target`` says.
        log: what the terms want in the log, beside their values: numbers or scalars on the device, or by a tuple of
            names a vector with a value for each. nan is left out.
    """

    task: Task
    outputs: list[Tensor]
    target: list[Tensor] | None
    teacher_outputs: list[Tensor | None] | None = None
    epoch: int = 0
    num_epochs: int = 1
    tap: FeatureTap | None = None
    from_stream: bool = False
    log: dict[str | tuple[str, ...], float | Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._probabilities: dict[int, Tensor] = {}
        self._teacher_probabilities: dict[int, Tensor] = {}
        self._targets: dict[int, tuple[Tensor, Tensor | None]] = {}

    def teacher_has(self, head: int) -> bool:
        """Whether the teacher has an output of this resolution."""
        return self.teacher_outputs[head] is not None

    def probabilities(self, head: int) -> Tensor:
        """The student's: ``B, K, spatial`` of this output in float32, with a gradient."""
        if head not in self._probabilities:
            self._probabilities[head] = class_probabilities(self.outputs[head], has_regions=self.task.has_regions)
        return self._probabilities[head]

    def teacher_probabilities(self, head: int) -> Tensor:
        """The teacher's, without a gradient."""
        if head not in self._teacher_probabilities:
            logits = self.teacher_outputs[head].detach()
            self._teacher_probabilities[head] = class_probabilities(logits, has_regions=self.task.has_regions)
        return self._teacher_probabilities[head]

    def labels(self, head: int) -> Tensor:
        """The target of this output without the ignore label: ``B, 1, spatial``, or regions ``B, R, spatial``."""
        return self._split(head)[0]

    def valid(self, head: int) -> Tensor | None:
        """Which voxels have a label, ``B, 1, spatial`` (bool), or None where all have."""
        return self._split(head)[1]

    def without_label(self, head: int) -> Tensor | None:
        """Which voxels have no label, ``B, 1, spatial`` (bool), or None where none has."""
        if self.target is None:
            return None
        valid = self.valid(head)
        return torch.zeros_like(self.labels(head)[:, :1], dtype=torch.bool) if valid is None else ~valid

    def _split(self, head: int) -> tuple[Tensor, Tensor | None]:
        if head not in self._targets:
            self._targets[head] = split_target(
                self.target[head], has_regions=self.task.has_regions, ignore_label=self.task.ignore_label
            )
        return self._targets[head]

    @cached_property
    def features(self) -> Tensor:
        """What enters the network's last layer: ``B, D, spatial``."""
        return self.tap.pop()
