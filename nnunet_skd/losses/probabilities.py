"""What a network's outputs say, as probabilities, and what nnU-Net's targets say."""

import torch
from torch import Tensor


def class_probabilities(logits: Tensor, *, has_regions: bool) -> Tensor:
    """Softmax over the classes, or a sigmoid per region: ``B, K, spatial`` in float32 (float64 stays)."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(dtype).sigmoid() if has_regions else logits.softmax(1, dtype=dtype)


def split_target(target: Tensor, *, has_regions: bool, ignore_label: int | None) -> tuple[Tensor, Tensor | None]:
    """Separate what a voxel is from whether it counts.

    Args:
        target: labels ``B, 1, spatial``, or regions ``B, R, spatial`` with the ignored voxels as an additional last
            channel where the dataset has an ignore label (nnU-Net's convention).
        has_regions: whether the dataset trains on regions.
        ignore_label: the label that marks ignored voxels, or None.

    Returns:
        The target without the ignore label (labels: ignored voxels are 0; regions: ``B, R, spatial``), and the mask of
        valid voxels ``B, 1, spatial`` (bool), or None where every voxel is valid.
    """
    if ignore_label is None:
        return target, None
    if has_regions:
        return target[:, :-1], target[:, -1:] == 0
    valid = target != ignore_label
    return torch.where(valid, target, 0), valid
