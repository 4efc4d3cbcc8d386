"""Pixel-wise self-knowledge distillation loss (PSDL) of DSKD: soft targets for the final output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nnunet_skd.losses.term import Term

if TYPE_CHECKING:
    from nnunet_skd.step import Step, Task


def soft_minus_hard_cross_entropy(
    logits: Tensor, teacher: Tensor, labels: Tensor, valid: Tensor | None = None, *, has_regions: bool = False
) -> Tensor:
    """``CE(z, p_T) - CE(z, y) = < z_y - sum_k p_T,k z_k >``: the normaliser of the softmax cancels.

    Regions: the same identity of the binary cross-entropies, ``(y - p_T) z`` for each region, with nnU-Net's reduction:
    the mean over regions, but their sum where the dataset has an ignore label.

    >>> logits = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)
    >>> teacher = torch.tensor([0.5, 0.5]).view(1, 2, 1, 1)
    >>> soft_minus_hard_cross_entropy(logits, teacher, torch.zeros(1, 1, 1, 1)).item()
    1.0

    Args:
        logits: the student's, ``B, K, spatial``.
        teacher: probabilities of the same shape; gets no gradient.
        labels: ``B, 1, spatial``, or regions ``B, K, spatial``; without the ignore label.
        valid: ``B, 1, spatial`` (bool), or None where every voxel counts.

    Returns:
        Scalar, mean over the valid voxels; 0 and connected to the graph where there is none.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    teacher = teacher.detach()
    if has_regions:
        difference = ((labels.to(logits.dtype) - teacher) * logits).sum(1, keepdim=True)
        if valid is None:
            difference = difference / logits.shape[1]
    else:
        difference = logits.gather(1, labels.long()) - (teacher * logits).sum(1, keepdim=True)
    if valid is None:
        return difference.mean()
    return torch.where(valid, difference, 0).sum() / valid.sum().clamp_min(1)


class Pixelwise(Term):
    """PSDL: ``L_PSDL = CE(z, alpha p_T + (1 - alpha) y)`` on the full-resolution output (arXiv 2509.03173, Eq. 5-7).

    Cross-entropy is linear in its target, so ``L_PSDL = CE(z, y) + alpha [CE(z, p_T) - CE(z, y)]``. The first summand
    is already in nnU-Net's loss, with weight ``w_CE``; this term is ``w_CE alpha [...]``. With ``weight=1`` L_PSDL
    replaces nnU-Net's full-resolution cross-entropy, and alpha = 0 is nnU-Net's own to the last bit.

    alpha rises linearly with the epochs up to ``alpha`` (the paper's Eq. 7, as quoted in an unofficial
    re-implementation), or stays at it with ``rising=False``, for a teacher that is good from the start.

    Raises:
        ValueError: for an ``alpha`` outside [0, 1], and for another loss than nnU-Net's plain Dice and cross-entropy.
    """

    name = "psdl"

    def __init__(self, *, weight: float = 1.0, alpha: float = 0.5, rising: bool = True):
        super().__init__(weight=weight)
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must lie in [0, 1], got {alpha}")
        self.alpha = alpha
        self.rising = rising

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, alpha={self.alpha:g}, rising={self.rising}"

    def attach(self, task: Task) -> None:
        if task.cross_entropy_weight is None:
            raise ValueError(
                f"{task.trainer} softens the targets of nnU-Net's cross-entropy, but its loss is not nnU-Net's Dice "
                f"and cross-entropy, without class weights or label smoothing. Take Pixelwise out of its terms."
            )
        self.cross_entropy_weight = task.head_weights[0] * task.cross_entropy_weight

    def alpha_at(self, epoch: int, num_epochs: int) -> float:
        return self.alpha * epoch / num_epochs if self.rising else self.alpha

    def weight_at(self, epoch: int, num_epochs: int) -> float:
        return self.weight * self.cross_entropy_weight * self.alpha_at(epoch, num_epochs)

    def weighted(self, step: Step) -> dict[str, Tensor]:
        step.log["alpha"] = self.alpha_at(step.epoch, step.num_epochs)
        return super().weighted(step)

    def forward(self, step: Step) -> Tensor:
        return soft_minus_hard_cross_entropy(
            step.outputs[0],
            step.teacher_probabilities(0),
            step.labels(0),
            step.valid(0),
            has_regions=step.task.has_regions,
        )
