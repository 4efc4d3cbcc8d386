"""The regular grid of patches over which the deep distribution loss pools an output."""

import math

import torch
from torch import Tensor, nn


class Patches:
    """Means over the patches of one output, of the voxels that count.

    Args:
        patches_per_axis: of the full-resolution output; axes of fewer than 32 voxels get one patch per 8 voxels
            (anisotropic 3D patches).
        full_size: spatial size of the full-resolution output.
        valid: ``B, 1, spatial`` of this output (bool), or None where every voxel counts.
        dtype: of the values to be pooled, float32 or float64: the sum over a patch overflows float16.

    Attributes:
        grid: patches per axis.
        voxels: full-resolution voxels per patch.
        counted: ``B, 1, grid``, share of the voxels that count in each patch, or None where all do.
    """

    def __init__(self, patches_per_axis: int, full_size: tuple[int, ...], valid: Tensor | None, dtype: torch.dtype):
        self.grid = tuple(patches_per_axis if n >= 32 else min(patches_per_axis, max(1, n // 8)) for n in full_size)
        self.voxels = math.prod(full_size) / math.prod(self.grid)
        self._valid = None if valid is None else valid.to(dtype)
        self.counted = None if valid is None else _pool(self._valid, self.grid)

    def fractions(self, values: Tensor) -> Tensor:
        """``B, K, spatial`` -> ``B, K, grid``; 0 where no voxel counts."""
        if self._valid is None:
            return _pool(values, self.grid)
        return _pool(values * self._valid, self.grid) / self.counted.clamp_min(torch.finfo(self.counted.dtype).tiny)

    def weights(self, fractions: Tensor) -> Tensor:
        """Of each patch in the mean over batch and patches, those apart in which no voxel counts: ``B, 1, grid``.

        They add up to 1, or to 0 where no voxel counts at all.
        """
        if self.counted is None:
            shape = (fractions.shape[0], 1, *fractions.shape[2:])
            return fractions.new_full(shape, 1 / math.prod(shape))
        counts = (self.counted > 0).to(fractions.dtype)
        return counts / counts.sum().clamp_min(1)


def _pool(values: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Mean per patch: ``B, C, spatial`` -> ``B, C, grid``; an output smaller than the grid keeps its own size."""
    size = values.shape[2:]
    grid = tuple(min(n, g) for n, g in zip(size, grid, strict=True))
    if any(n % g for n, g in zip(size, grid, strict=True)):
        pool = nn.functional.adaptive_avg_pool2d if len(size) == 2 else nn.functional.adaptive_avg_pool3d
        return pool(values, grid)
    return _PatchMeans.apply(values, grid)


class _PatchMeans(torch.autograd.Function):
    """Means over the patches of a grid that divides the output evenly.

    An axis at a time from the slowest: measured 2 to 6 times faster than adaptive pooling on the CPU. Autograd's own
    gradient of it is a view, to which it cannot add Dice's gradient in place: a full-size buffer more.
    """

    @staticmethod
    def forward(ctx, values: Tensor, grid: tuple[int, ...]) -> Tensor:
        ctx.edges = tuple(n // parts for n, parts in zip(values.shape[2:], grid, strict=True))
        for axis, (parts, edge) in enumerate(zip(grid, ctx.edges, strict=True), start=2):
            shape = values.shape
            values = values.view(*shape[:axis], parts, edge, *shape[axis + 1 :]).sum(axis + 1)
        return values / math.prod(ctx.edges)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient / math.prod(ctx.edges)
        for axis, edge in reversed(list(enumerate(ctx.edges, start=2))):
            if edge > 1:  # or it would become a view of itself
                shape = (*gradient.shape[: axis + 1], edge, *gradient.shape[axis + 1 :])
                gradient = gradient.unsqueeze(axis + 1).expand(shape).flatten(axis, axis + 1)
        return gradient.contiguous(), None  # an axis of a single patch was only expanded so far
