"""The loss terms that only ACW-SKD has. The teacher always comes second and never gets a gradient."""

import torch
from torch import Tensor, nn


def token_loss(tokens: Tensor, taught: Tensor, overlaps: Tensor | None) -> Tensor:
    """L_tok: each class that is taught must be recognised from its own class-wise feature (ours).

    Labels: ``CE(uT_k, k)``. Regions: ``BCE(uT_kj, t_kj)`` with the overlaps t, mean over j.

    >>> tokens = torch.zeros(1, 3, 3)  # of three classes, none is recognised
    >>> round(token_loss(tokens, torch.ones(1, 3), None).item(), 4)  # log 3
    1.0986

    Args:
        tokens: class tokens, the teacher head's logits of the class-wise features: ``B, K', K``.
        taught: ``B, K'``, 1 or 0.
        overlaps: regions only: ``B, K', K`` from :func:`nnunet_skd.acw.class_wise_features.region_overlaps`.

    Returns:
        Scalar, mean over the classes taught; 0 and connected to the graph where there is none.
    """
    if overlaps is None:
        loss = -tokens.log_softmax(2).diagonal(dim1=1, dim2=2)
    else:
        overlaps = overlaps.to(tokens.dtype)
        loss = nn.functional.binary_cross_entropy_with_logits(tokens, overlaps, reduction="none").mean(2)
    return _mean_over(taught, loss)


def class_wise_feature_loss(class_features: Tensor, teacher_features: Tensor, taught: Tensor) -> Tensor:
    """L_CW,f = ``1 - cos(c_k, cT_k)``, mean over the classes taught (ours; free of the features' scale).

    Computed as half the squared distance of the unit vectors: the same number, and exactly 0 for equal features.

    >>> student = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])  # two classes, two channels
    >>> teacher = torch.tensor([[[0.0, 5.0], [0.0, 5.0]]])  # at a right angle, and of the same direction
    >>> class_wise_feature_loss(student, teacher, torch.ones(1, 2)).item()
    0.5

    Args:
        class_features: ``B, K', D``.
        teacher_features: ``B, K', D``.
        taught: ``B, K'``, 1 or 0.
    """
    student = nn.functional.normalize(class_features, dim=2, eps=1e-6)
    teacher = nn.functional.normalize(teacher_features.detach(), dim=2, eps=1e-6)
    return _mean_over(taught, (student - teacher).square().sum(2) / 2)


def feature_reconstruction_loss(features: Tensor, teacher_features: Tensor, valid: Tensor) -> Tensor:
    """L_FR = ``mean_b || A(F) - A(FT) ||^2``, A(F) the channel mean of F^2 with unit length over valid positions.

    FRSKD's and EMKD's attention maps (closest published). FRSKD's mean over positions is a sum here (ours): a mean over
    a million voxels is silent, the sum lies in [0, 2].

    >>> features = torch.tensor([1.0, 0.0]).view(1, 1, 2)  # one channel, all of it at the first of two positions
    >>> teacher = torch.tensor([0.0, 3.0]).view(1, 1, 2)
    >>> feature_reconstruction_loss(features, teacher, torch.ones(1, 1, 2)).item()
    2.0

    Args:
        features: ``B, D, positions...``; float32.
        teacher_features: same shape.
        valid: ``B, 1, positions...``; positions with 0 are left out.
    """

    def attention(x: Tensor) -> Tensor:
        energy = torch.where(valid > 0, x.square().mean(1, keepdim=True), 0)
        return nn.functional.normalize(energy.flatten(1), dim=1, eps=1e-6)

    return (attention(features) - attention(teacher_features.detach())).square().sum(1).mean()


def _mean_over(taught: Tensor, loss: Tensor) -> Tensor:
    return (loss * taught).sum() / taught.sum().clamp_min(1)
