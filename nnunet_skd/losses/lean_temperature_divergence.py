""":func:`~nnunet_skd.losses.temperature_divergence.temperature_divergence` of whole outputs, in less memory.

Both gradients are known with the value. Autograd would keep five maps of K channels, this keeps one; and it works on
half a batch at a time, in place. Measured in 3D: the peak memory of a step falls from 1.53 to 1.28 of nnU-Net's.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable


def lean_temperature_divergence(
    logits: Tensor, teacher_logits: Tensor, tau: Tensor, weight: Tensor | None = None, *, has_regions: bool = False
) -> Tensor:
    """Arguments and result as of the plain form."""
    return _LeanTemperatureDivergence.apply(logits, teacher_logits.detach(), tau, weight, has_regions)


class _LeanTemperatureDivergence(torch.autograd.Function):
    """With a = z_T / tau, b = z / tau, p and q their probabilities, J = tau^2 <KL>:

    dJ/dz = tau (q - p), and dJ/dtau = 2 tau <KL> - tau < a dKL/da + b dKL/db >.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, logits: Tensor, teacher_logits: Tensor, tau: Tensor, weight: Tensor | None, has_regions: bool
    ) -> Tensor:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        temperature = tau.detach().to(dtype)
        sum_kl = sum_slope = torch.zeros((), dtype=dtype, device=logits.device)
        gap = torch.empty_like(logits)
        divergence = _bernoulli if has_regions else _categorical
        weights = [None, None] if weight is None else weight.chunk(2)
        halves = zip(logits.chunk(2), teacher_logits.chunk(2), weights, gap.chunk(2))  # noqa: B905 - batch size 1: one
        for student, teacher, counting, half_gap in halves:
            kl, slope = divergence(student, teacher, counting, temperature, half_gap)
            sum_kl, sum_slope = sum_kl + kl, sum_slope + slope
        if weight is None:
            positions = logits[:, 0].numel()
        else:
            positions = (weight > 0).sum().clamp_min(1)
        norm = positions * (logits.shape[1] if has_regions else 1)
        d_tau = (2 * temperature * sum_kl - temperature * sum_slope) / norm
        # gap stays in [-1, 1] and is scaled in float32 later: 1e-6 of it would be lost in float16
        ctx.save_for_backward(gap, temperature / norm, d_tau.to(tau.dtype))
        return temperature.square() * sum_kl / norm

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        gap, scale, d_tau = ctx.saved_tensors
        d_logits = (gap * (gradient * scale).reshape((1,) * gap.dim())).to(gap.dtype)
        return d_logits, None, gradient * d_tau, None, None


def _over_tau(logits: Tensor, counting: Tensor | None, tau: Tensor) -> Tensor:
    """In float32, and 0 where nothing counts: student and teacher are equal there, and every summand is 0."""
    logits = logits.to(tau.dtype)
    return (logits if counting is None else torch.where(counting > 0, logits, 0)) / tau


def _categorical(
    student: Tensor, teacher: Tensor, counting: Tensor | None, tau: Tensor, gap: Tensor
) -> tuple[Tensor, Tensor]:
    """Sum of KL and sum of a dKL/da + b dKL/db; ``gap`` becomes q - p. In place: at most five maps at a time."""
    log_p = _over_tau(teacher, counting, tau).log_softmax(1)
    log_q = _over_tau(student, counting, tau).log_softmax(1)
    p, ratio = log_p.exp(), log_p - log_q
    kl = (p * ratio).sum(1, keepdim=True)
    difference = log_q.exp().sub_(p)
    gap.copy_(difference)
    # a and b may be shifted by a constant: log p and log q do the same with less rounding
    slope = p.mul_(log_p).mul_(ratio.sub_(kl)).sum() + log_q.mul_(difference).sum()
    return kl.sum(), slope


def _bernoulli(
    student: Tensor, teacher: Tensor, counting: Tensor | None, tau: Tensor, gap: Tensor
) -> tuple[Tensor, Tensor]:
    """The same for one binary distribution per channel; up to eight maps."""
    student, teacher = _over_tau(student, counting, tau), _over_tau(teacher, counting, tau)
    p = teacher.sigmoid()
    difference = student.sigmoid().sub_(p)
    gap.copy_(difference)
    log = nn.functional.logsigmoid
    kl = log(teacher).sub_(log(student)).mul_(p).sum() + log(-teacher).sub_(log(-student)).mul_(1 - p).sum()
    slope = difference.mul_(student).sum() + (teacher - student).mul_(teacher).mul_(p).mul_(1 - p).sum()
    return kl, slope
