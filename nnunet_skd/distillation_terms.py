"""The loss terms of ACW-SKD. The teacher always comes second and never gets a gradient."""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def temperature_divergence(
    logits: Tensor, teacher_logits: Tensor, tau: Tensor, weight: Tensor | None, *, has_regions: bool
) -> Tensor:
    """``tau^2 < KL( softmax(z_T / tau) || softmax(z / tau) ) >``: L_AT on voxels, L_CW,kl on class tokens.

    Regions: the Bernoulli KL of each channel, mean over channels. CTKD's loss (closest published; the paper names the
    adversarial temperature loss and class-wise distillation, not their formulas). On class tokens it is ours.

    Args:
        logits: ``B, K, positions...``; cast to float32 here.
        teacher_logits: same shape.
        tau: scalar, gets a gradient.
        weight: 1 for the positions that count, else 0: ``B, 1, positions...``, bool or float. None: all count.

    Returns:
        Scalar; 0 and connected to the graph where nothing counts.
    """
    return _TemperatureDivergence.apply(logits, teacher_logits.detach(), tau, weight, has_regions)


class _TemperatureDivergence(torch.autograd.Function):
    """Both gradients are known with the value; autograd would keep five maps of K channels, this keeps one.

    With a = z_T / tau, b = z / tau, p and q their probabilities, J = tau^2 <KL>:
    dJ/dz = tau (q - p), and dJ/dtau = 2 tau <KL> - tau < a dKL/da + b dKL/db >.
    """

    @staticmethod
    def forward(ctx, logits, teacher_logits, tau, weight, has_regions):
        dtype = torch.promote_types(logits.dtype, torch.float32)
        scale = tau.detach().to(dtype)
        sum_kl = sum_along = torch.zeros((), dtype=dtype, device=logits.device)
        gap = torch.empty_like(logits)
        one_half = _bernoulli if has_regions else _categorical
        # half a batch at a time: the maps that only live in there would be the peak of the step's memory
        weights = [None, None] if weight is None else weight.chunk(2)
        halves = zip(logits.chunk(2), teacher_logits.chunk(2), weights, gap.chunk(2))  # noqa: B905 - batch size 1: one
        for student, teacher, counts, gap_of_half in halves:
            kl, along = one_half(student, teacher, counts, scale, gap_of_half)
            sum_kl, sum_along = sum_kl + kl, sum_along + along
        if weight is None:
            positions = logits[:, 0].numel()
        else:
            positions = (weight > 0).sum().clamp_min(1)
        norm = positions * (logits.shape[1] if has_regions else 1)
        d_tau = (2 * scale * sum_kl - scale * sum_along) / norm
        # gap stays in [-1, 1] and is scaled in float32 later: 1e-6 of it would be lost in float16
        ctx.save_for_backward(gap, scale / norm, d_tau.to(tau.dtype))
        return scale.square() * sum_kl / norm

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        gap, scale, d_tau = ctx.saved_tensors
        d_logits = (gap * (gradient * scale).reshape((1,) * gap.dim())).to(gap.dtype)
        return d_logits, None, gradient * d_tau, None, None


def _over_tau(logits: Tensor, counts: Tensor | None, tau: Tensor) -> Tensor:
    """In float32, and 0 where nothing counts: student and teacher are equal there, and every summand is 0."""
    logits = logits.to(tau.dtype)
    return (logits if counts is None else torch.where(counts > 0, logits, 0)) / tau


def _categorical(
    student: Tensor, teacher: Tensor, counts: Tensor | None, tau: Tensor, gap: Tensor
) -> tuple[Tensor, Tensor]:
    """Sum of KL and sum of a dKL/da + b dKL/db; ``gap`` becomes q - p. In place: at most five maps at a time."""
    log_p = _over_tau(teacher, counts, tau).log_softmax(1)
    log_q = _over_tau(student, counts, tau).log_softmax(1)
    p, ratio = log_p.exp(), log_p - log_q
    kl = (p * ratio).sum(1, keepdim=True)
    difference = log_q.exp().sub_(p)
    gap.copy_(difference)
    # a and b may be shifted by a constant: log p and log q do the same with less rounding
    along = p.mul_(log_p).mul_(ratio.sub_(kl)).sum() + log_q.mul_(difference).sum()
    return kl.sum(), along


def _bernoulli(
    student: Tensor, teacher: Tensor, counts: Tensor | None, tau: Tensor, gap: Tensor
) -> tuple[Tensor, Tensor]:
    """The same for one binary distribution per channel; up to eight maps."""
    student, teacher = _over_tau(student, counts, tau), _over_tau(teacher, counts, tau)
    p = teacher.sigmoid()
    difference = student.sigmoid().sub_(p)
    gap.copy_(difference)
    log = nn.functional.logsigmoid
    kl = log(teacher).sub_(log(student)).mul_(p).sum() + log(-teacher).sub_(log(-student)).mul_(1 - p).sum()
    along = difference.mul_(student).sum() + (teacher - student).mul_(teacher).mul_(p).mul_(1 - p).sum()
    return kl, along


def token_loss(tokens: Tensor, present: Tensor, overlaps: Tensor | None) -> Tensor:
    """L_tok: each class present must be recognised from its own class-wise feature (ours).

    Labels: ``CE(uT_k, k)``. Regions: ``BCE(uT_kj, t_kj)`` with the overlaps t, mean over j.

    Args:
        tokens: teacher's logits of the class-wise features, ``B, K', K``.
        present: ``B, K'``.
        overlaps: regions only: ``B, K', K`` from :func:`nnunet_skd.class_wise_features.region_overlaps`.

    Returns:
        Scalar, mean over the classes present; 0 and connected to the graph where there is none.
    """
    if overlaps is None:
        loss = -tokens.log_softmax(2).diagonal(dim1=1, dim2=2)
    else:
        overlaps = overlaps.to(tokens.dtype)
        loss = nn.functional.binary_cross_entropy_with_logits(tokens, overlaps, reduction="none").mean(2)
    return _mean_present(loss, present)


def class_wise_feature_loss(class_features: Tensor, teacher_features: Tensor, present: Tensor) -> Tensor:
    """L_CW,f = ``1 - cos(c_k, cT_k)``, mean over the classes present (ours; free of the features' scale).

    Computed as half the squared distance of the unit vectors: the same number, and exactly 0 for equal features.

    Args:
        class_features: ``B, K', D``.
        teacher_features: ``B, K', D``.
        present: ``B, K'``.
    """
    student = nn.functional.normalize(class_features, dim=2, eps=1e-6)
    teacher = nn.functional.normalize(teacher_features.detach(), dim=2, eps=1e-6)
    return _mean_present((student - teacher).square().sum(2) / 2, present)


def feature_reconstruction_loss(features: Tensor, teacher_features: Tensor, voxels: Tensor) -> Tensor:
    """L_FR = ``mean_b || A(F) - A(FT) ||^2``, A(F) the channel mean of F^2 with unit length over valid positions.

    FRSKD's and EMKD's attention maps (closest published). FRSKD's mean over positions is a sum here (ours): a mean over
    a million voxels is silent, the sum lies in [0, 2].

    Args:
        features: ``B, D, positions...``; float32.
        teacher_features: same shape.
        voxels: ``B, 1, positions...``; positions with 0 are left out.
    """

    def attention(x: Tensor) -> Tensor:
        energy = torch.where(voxels > 0, x.square().mean(1, keepdim=True), 0)
        return nn.functional.normalize(energy.flatten(1), dim=1, eps=1e-6)

    return (attention(features) - attention(teacher_features.detach())).square().sum(1).mean()


def _mean_present(loss: Tensor, present: Tensor) -> Tensor:
    return (loss * present).sum() / present.sum().clamp_min(1)
