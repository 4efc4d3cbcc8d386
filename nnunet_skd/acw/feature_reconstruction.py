"""Feature reconstruction modules (FRM) of ACW-SKD: they rebuild the student's features into the teacher's.

The two places, the penultimate feature and the class-wise features, are the paper's; the layers are ours. Both modules
add a correction that starts at exactly 0: at the first step the teacher is the student, in the same feature basis.
"""

from torch import Tensor, nn


class ClassWiseReconstruction(nn.Module):
    """FRM of the class-wise features: ``cT = c + W2 GELU(W1 c)``, one MLP shared by all classes, W2 starts at 0."""

    def __init__(self, channels: int):
        super().__init__()
        self.expand = nn.Linear(channels, channels)
        self.project = nn.Linear(channels, channels)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, class_features: Tensor) -> Tensor:
        """``B, K', D`` -> ``B, K', D``; float32 and outside autocast."""
        return class_features + self.project(nn.functional.gelu(self.expand(class_features)))


class PenultimateReconstruction(nn.Module):
    """FRM of the penultimate feature: the correction in ``FT = F + up(correction)``.

        ``correction = Conv3( LReLU( IN( Conv1([F ; ctx]) ) ) )``,  ``ctx_v = sum_k M_kv cT_k``,  Conv3 starts at 0

    Conv-activation-conv is MGD's, painting class features back is OCRNet's (closest published); residual form, zero
    start and context as input are ours. So is the resolution, the coarse head's: a full-resolution FRM costs more than
    the method may cost.

    Linear algebra spares the context map: ``Conv1([F ; ctx]) = W_F F + sum_k M_k (W_ctx cT_k)``. Conv1 has no bias, as
    the normalisation would remove it.
    """

    def __init__(self, channels: int, conv: type[nn.Conv2d] | type[nn.Conv3d], *, context: bool):
        super().__init__()
        norm = nn.InstanceNorm2d if conv is nn.Conv2d else nn.InstanceNorm3d
        self.expand = conv(channels, channels, 1, bias=False)
        self.context = nn.Linear(channels, channels, bias=False) if context else None
        self.norm = norm(channels, affine=True)
        self.nonlin = nn.LeakyReLU(0.01, inplace=True)
        self.project = conv(channels, channels, 3, padding=1)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def context_map(self, class_features: Tensor, masks: Tensor) -> Tensor:
        """``sum_k M_k (W_ctx cT_k)``; float32 and outside autocast.

        Args:
            class_features: the reconstructed ones, ``B, K', D``.
            masks: ``B, K', coarse``.

        Returns:
            ``B, D, coarse``, for :meth:`forward`.
        """
        painted = self.context(class_features).transpose(1, 2) @ masks.flatten(2)
        return painted.unflatten(2, masks.shape[2:])

    def forward(self, features: Tensor, context_map: Tensor | None) -> Tensor:
        """The correction; under autocast as the network is.

        Args:
            features: ``B, D, coarse``.
            context_map: from :meth:`context_map`, or None for a module built without context.

        Returns:
            ``B, D, coarse``.
        """
        hidden = self.expand(features)
        if context_map is not None:
            hidden = hidden + context_map.to(hidden.dtype)
        return self.project(self.nonlin(self.norm(hidden)))
