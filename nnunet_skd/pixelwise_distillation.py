"""Pixel-wise self-knowledge distillation loss (PSDL) of DSKD: soft targets for the final output."""

import torch
from torch import Tensor, nn

DOT_LIMIT = 2**30  # elements; CUDA's dot product takes 2**31 - 1


def teacher_minus_truth(
    teacher_probabilities: Tensor, target: Tensor, valid: Tensor | None, *, has_regions: bool
) -> Tensor:
    """``p_T - y``, 0 where a voxel is not valid.

    Args:
        teacher_probabilities: ``B, K, spatial``, no gradient. **Overwritten**: its memory becomes the result's.
        target: without ignore label (:func:`nnunet_skd.targets.split_target`): labels ``B, 1, spatial`` or regions
            ``B, R, spatial``.
        valid: ``B, 1, spatial`` (bool), or None where every voxel counts.

    Returns:
        ``B, K, spatial``.
    """
    difference = teacher_probabilities
    if has_regions:
        difference.sub_(target.to(difference.dtype))
    else:
        minus_one = torch.full((), -1.0, dtype=difference.dtype, device=difference.device).expand(target.shape)
        difference.scatter_add_(1, target.long(), minus_one)
    return difference if valid is None else difference.mul_(valid)


class PixelwiseDistillationLoss(nn.Module):
    r"""What the teacher's probabilities change in the cross-entropy: ``CE(z, p_T) - CE(z, y)``.

    The paper (arXiv 2509.03173, Eq. 5-7, second hand) trains on ``L_PSDL = CE(z, alpha * p_T + (1 - alpha) * y)`` with
    alpha rising linearly. Cross-entropy is linear in its target, so

        ``L_PSDL = CE(z, y) + alpha * < sum_k (y_k - p_T,k) * z_k >``

    (the normaliser of the softmax cancels, as both targets sum to one). The first summand is already in nnU-Net's loss;
    this module is the bracket, the mean over valid voxels. alpha = 0 therefore is nnU-Net's own cross-entropy to the
    last bit. Regions (ours): the same identity holds for the binary cross-entropy of each region, with nnU-Net's
    reduction: the mean over regions, but their sum where the dataset has an ignore label.
    """

    def __init__(self, *, has_regions: bool):
        super().__init__()
        self.has_regions = has_regions

    def extra_repr(self) -> str:
        return f"has_regions={self.has_regions}"

    def forward(self, logits: Tensor, difference: Tensor, valid: Tensor | None) -> Tensor:
        """One output.

        Args:
            logits: the student's, ``B, K, spatial``.
            difference: :func:`teacher_minus_truth`, same shape; the one full-size tensor kept for the backward pass.
            valid: ``B, 1, spatial`` (bool), or None where every voxel counts.

        Returns:
            Scalar; 0 and connected to the graph where no voxel is valid.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if valid is not None:
            count = valid.sum().clamp_min(1)
        else:
            count = logits.numel() if self.has_regions else logits[:, 0].numel()
        return -_InnerProduct.apply(logits, difference) / count


class _InnerProduct(torch.autograd.Function):
    """Of two tensors of one shape, the second without a gradient.

    Of contiguous tensors it makes one of full size, the gradient: a product and its sum would make another, and the
    gradient of a flattened tensor is a view, to which autograd cannot add the cross-entropy's in place.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, difference: Tensor) -> Tensor:
        ctx.save_for_backward(difference)
        pieces = zip(logits.flatten().split(DOT_LIMIT), difference.flatten().split(DOT_LIMIT), strict=True)
        return sum(torch.dot(*piece) for piece in pieces)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (difference,) = ctx.saved_tensors
        return gradient * difference, None
