"""Kullback-Leibler divergence of teacher and student at a temperature that is learnt."""

import torch
from torch import Tensor, nn


def temperature_divergence(
    logits: Tensor, teacher_logits: Tensor, tau: Tensor, weight: Tensor | None = None, *, has_regions: bool = False
) -> Tensor:
    """``tau^2 < KL( softmax(z_T / tau) || softmax(z / tau) ) >``, mean over the positions that count.

    Regions: the Bernoulli KL of each channel, mean over channels. CTKD's loss (arXiv 2211.16231, closest published).

    >>> z, z_T = torch.zeros(1, 2, 1), torch.tensor([3.0, 0.0]).view(1, 2, 1)
    >>> round(temperature_divergence(z, z_T, torch.tensor(1.0)).item(), 4)  # log 2 - H(0.9526)
    0.5023

    Args:
        logits: ``B, K, positions...``; cast to float32 here (float64 stays).
        teacher_logits: same shape; gets no gradient.
        tau: scalar, gets a gradient.
        weight: which positions count: ``B, 1, positions...``, bool or 0 and 1. None: all.

    Returns:
        Scalar; 0 and connected to the graph where nothing counts.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    student, teacher = logits.to(dtype), teacher_logits.detach().to(dtype)
    if weight is not None:
        student, teacher = (torch.where(weight > 0, z, 0) for z in (student, teacher))
    student, teacher = student / tau, teacher / tau
    if has_regions:
        log = nn.functional.logsigmoid
        p = teacher.sigmoid()
        kl = p * (log(teacher) - log(student)) + (1 - p) * (log(-teacher) - log(-student))
        kl = kl.mean(1)
    else:
        log_p, log_q = teacher.log_softmax(1), student.log_softmax(1)
        kl = (log_p.exp() * (log_p - log_q)).sum(1)
    if weight is None:
        return tau.square() * kl.mean()
    return tau.square() * kl.sum() / (weight > 0).sum().clamp_min(1)
