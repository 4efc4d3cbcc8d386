"""Channel-wise distillation (CWD): where a class is, as the teacher sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nnunet_skd.losses.term import Term

if TYPE_CHECKING:
    from nnunet_skd.step import Step


def channel_wise_loss(
    logits: Tensor, teacher_logits: Tensor, valid: Tensor | None = None, *, temperature: float = 4.0
) -> Tensor:
    """``tau^2 / (B K) sum_k KL( phi(z_T,k) || phi(z_k) )``, phi the softmax over the positions of a channel at tau.

    Shu et al., ICCV 2021 (arXiv 2011.13256). As phi runs over positions, it compares where a class is, not how much of
    it there is. Regions need no other form: their channels are compared one by one too. The mask is ours.

    >>> z, z_T = torch.zeros(1, 1, 2), torch.tensor([[[3.0, 0.0]]])
    >>> round(channel_wise_loss(z, z_T, temperature=1.0).item(), 4)  # log 2 - H(0.9526)
    0.5023

    Args:
        logits: ``B, K, spatial``; cast to float32 here (float64 stays).
        teacher_logits: same shape; gets no gradient.
        valid: the positions that count, ``B, 1, spatial`` (bool), or None for all.

    Returns:
        Scalar; 0 and connected to the graph where nothing counts.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    student, teacher = logits.to(dtype) / temperature, teacher_logits.detach().to(dtype) / temperature
    if valid is not None:
        student, teacher = (torch.where(valid, z, torch.finfo(dtype).min / 2) for z in (student, teacher))
    log_student, log_teacher = student.flatten(2).log_softmax(2), teacher.flatten(2).log_softmax(2)
    return temperature**2 * (log_teacher.exp() * (log_teacher - log_student)).sum(2).mean()


class ChannelWise(Term):
    """CWD on the full-resolution logits, with its authors' weight 3 and temperature 4. Any teacher will do.

    No trainer of this package has it: beside L_u on images without labels it took away half of what L_u had gained
    (docs/results.md, the choice of the terms).

    Where: on the labelled voxels of nnU-Net's patches, and on the voxels without a label of the second stream.

    Raises:
        ValueError: for a temperature that is not above 0.
    """

    name = "cwd"
    on_unlabelled = True

    def __init__(self, *, weight: float = 3.0, temperature: float = 4.0):
        super().__init__(weight=weight)
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.temperature = temperature

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, temperature={self.temperature:g}"

    @property
    def names(self) -> tuple[str, ...]:
        return self.name, "cwd_unlabelled"

    def name_of(self, step: Step) -> str:
        return "cwd_unlabelled" if step.from_stream else self.name

    def forward(self, step: Step) -> Tensor:
        where = step.without_label(0) if step.from_stream else step.valid(0)
        return channel_wise_loss(step.outputs[0], step.teacher_outputs[0], where, temperature=self.temperature)
