"""Class-wise features of ACW-SKD: prediction masks from the auxiliary head, and what the network says per class.

All of it happens on the grid of the coarse head. One coarse cell covers a block of full-resolution voxels; giving a
block its cell's mask (instead of interpolating the masks linearly) makes class-wise pooling over all voxels the same
as pooling over cells, so no full-resolution mask or class-wise map ever exists. That is ours.
"""

import math

import torch
from torch import Tensor, nn


def coarse_features(features: Tensor, valid: Tensor | None, coarse_size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Mean of the valid voxels in each coarse cell.

    Args:
        features: ``B, D, spatial``.
        valid: ``B, 1, spatial`` (bool), or None where every voxel counts.
        coarse_size: spatial size of the coarse logits.

    Returns:
        Features ``B, D, coarse`` in the dtype of ``features`` (0 where a cell has no valid voxel), and the number of
        valid voxels per cell, ``B, 1, coarse`` in float32 (float64 stays).

    Raises:
        ValueError: where the coarse size does not divide the full size (nnU-Net's always does).
    """
    full_size = tuple(features.shape[2:])
    if len(full_size) != len(coarse_size) or any(n % m for n, m in zip(full_size, coarse_size, strict=True)):
        raise ValueError(f"the coarse size {tuple(coarse_size)} must divide the full size {full_size} axis by axis")
    block = tuple(n // m for n, m in zip(full_size, coarse_size, strict=True))
    pool = nn.functional.avg_pool2d if len(block) == 2 else nn.functional.avg_pool3d
    dtype = torch.promote_types(features.dtype, torch.float32)
    if valid is None:
        valid_per_cell = torch.full((), math.prod(block), dtype=dtype, device=features.device)
        return pool(features, block), valid_per_cell.expand(features.shape[0], 1, *coarse_size)
    share = pool(valid.to(dtype), block)
    mean = pool(torch.where(valid, features, 0), block) / share.clamp_min(1 / math.prod(block)).to(features.dtype)
    return mean, share * math.prod(block)


def prediction_masks(coarse_logits: Tensor, valid_per_cell: Tensor, *, has_regions: bool) -> Tensor:
    """Soft masks of the classes, from the auxiliary head's coarse segmentation (its role is the paper's).

    Labels: softmax, ``K' = K``. Regions: a sigmoid each, and as one more class what is in none of them,
    ``prod_k(1 - M_k)``, so ``K' = K + 1``. Cells without a valid voxel are 0. Soft masks follow OCRNet and ACFNet; that
    they carry no gradient is ours: distillation must not pull the coarse head.

    Args:
        coarse_logits: ``B, K, coarse``.
        valid_per_cell: valid voxels per cell from :func:`coarse_features`.

    Returns:
        ``B, K', coarse`` in float32 (float64 stays), without gradient.
    """
    logits = coarse_logits.detach().to(valid_per_cell.dtype)
    if has_regions:
        masks = logits.sigmoid()
        masks = torch.cat((masks, (1 - masks).prod(1, keepdim=True)), 1)
    else:
        masks = logits.softmax(1)
    return torch.where(valid_per_cell > 0, masks, 0)


def class_wise_pooling(features: Tensor, masks: Tensor, valid_per_cell: Tensor) -> Tensor:
    """``c_k = sum_v M_kv F_v / (sum_v M_kv + 1)`` over the valid voxels v of the patch.

    The mask-weighted mean is ACFNet's (closest published). The one voxel in the denominator is ours: a class without
    any mask becomes the zero vector and nothing is divided by nearly nothing.

    Args:
        features: ``B, D, coarse``, float32 and outside autocast, as everything here.
        masks: ``B, K', coarse``.
        valid_per_cell: valid voxels per cell, ``B, 1, coarse``.

    Returns:
        ``B, K', D``.
    """
    weights = (masks * valid_per_cell).flatten(2)
    # B,K',N x B,N,D
    return weights @ features.flatten(2).transpose(1, 2) / (weights.sum(2, keepdim=True) + 1)


def present_classes(labels: Tensor, valid: Tensor | None, num_outputs: int, *, has_regions: bool) -> Tensor:
    """1 for each class with a valid ground-truth voxel in the patch (ours: nnU-Net's patches often miss classes).

    Args:
        labels: ``B, 1, spatial``, or regions ``B, K, spatial``; without the ignore label.
        valid: ``B, 1, spatial`` (bool), or None where every voxel counts.
        num_outputs: K. For regions the complement is class K + 1.

    Returns:
        ``B, K'`` in float32.
    """
    if has_regions:
        inside = _regions_and_the_rest(labels)
        if valid is not None:
            inside = inside & valid
        return inside.flatten(2).any(2).float()
    index = labels if valid is None else torch.where(valid, labels, num_outputs)
    # ignored voxels land in one class more, which is cut off
    present = torch.zeros((labels.shape[0], num_outputs + 1), device=labels.device)
    return present.scatter_(1, index.flatten(1).long(), 1.0)[:, :num_outputs]


def masks_that_hit(
    masks: Tensor, valid_per_cell: Tensor, labels: Tensor, valid: Tensor | None, *, has_regions: bool
) -> Tensor:
    """1 for each class of whose mask more than half lies in the class: ``sum_v M_kv y_kv > sum_v M_kv / 2`` (ours).

    The mask of a class that the coarse head does not know yet lies anywhere, and so does the class-wise feature under
    it: to distil from it, or to recognise the class in it, teaches the network that anything is that class. Measured in
    experiments/notebook.md. The truth of a coarse cell is that of its first voxel; where that one is ignored, the cell
    does not count.

    Args:
        masks: ``B, K', coarse``.
        valid_per_cell: valid voxels per cell, ``B, 1, coarse``.
        labels, valid: as in :func:`present_classes`.

    Returns:
        ``B, K'`` in float32. 0 for a mask without a valid voxel.
    """
    first = (..., *(slice(None, None, n // m) for n, m in zip(labels.shape[2:], masks.shape[2:], strict=True)))
    weights = masks * valid_per_cell
    if valid is not None:
        weights = weights * valid[first]
    labels = labels[first]
    if has_regions:
        inside = _regions_and_the_rest(labels)
        own = (weights * inside).flatten(2).sum(2)
    else:
        index = labels.long()
        own = weights.new_zeros(weights.shape[:2])
        own = own.scatter_add(1, index.flatten(1), weights.gather(1, index).flatten(1))
    return (2 * own > weights.flatten(2).sum(2)).float()


def _regions_and_the_rest(labels: Tensor) -> Tensor:
    """Regions ``B, K, spatial`` as bool, and as class K + 1 what is in none of them."""
    inside = labels != 0
    return torch.cat((inside, ~inside.any(1, keepdim=True)), 1)


def region_overlaps(labels: Tensor, valid: Tensor | None) -> Tensor:
    """``t_kj = |R_k and R_j| / |R_k|``: how much of region k lies in region j (ours).

    Args:
        labels: regions ``B, K, spatial``.
        valid: ``B, 1, spatial`` (bool), or None where every voxel counts.

    Returns:
        ``B, K + 1, K`` in float32. The last row, the voxels in no region, is 0, as is the row of an absent region.
    """
    inside = labels != 0
    if valid is not None:
        inside = inside & valid
    inside = inside.flatten(2).float()
    overlaps = inside @ inside.transpose(1, 2)
    overlaps = overlaps / inside.sum(2, keepdim=True).clamp_min(1)
    return nn.functional.pad(overlaps, (0, 0, 0, 1))


@torch.no_grad()
def inter_class_similarity(class_features: Tensor, present: Tensor) -> Tensor:
    """Mean cosine between the class-wise features of two different classes of a patch: scalar, nan if there is no pair.

    The paper's claim is that this falls; as a number to watch it is ours.

    Args:
        class_features: ``B, K', D``.
        present: ``B, K'``.
    """
    directions = nn.functional.normalize(class_features, dim=2, eps=1e-6)
    pairs = present.unsqueeze(1) * present.unsqueeze(2)
    pairs = pairs - torch.diag_embed(pairs.diagonal(dim1=1, dim2=2))
    return (directions @ directions.transpose(1, 2) * pairs).sum() / pairs.sum()
