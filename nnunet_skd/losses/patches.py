"""The regular grid of patches over which the deep distribution loss pools an output."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def patch_grid(full_size: tuple[int, ...], patches_per_axis: int) -> tuple[int, ...]:
    """Patches per axis of an output of this spatial size.

    Axes of fewer than 32 voxels get one patch per 8 voxels (anisotropic 3D patches; ours).
    """
    return tuple(patches_per_axis if n >= 32 else min(patches_per_axis, max(1, n // 8)) for n in full_size)


def patch_means(values: Tensor, grid: tuple[int, ...], valid: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Mean of the valid voxels in each patch.

    Args:
        values: ``B, K, spatial`` in float32 or float64: a sum over a patch overflows float16.
        grid: patches per axis. An axis with fewer voxels than patches keeps its own size.
        valid: ``B, 1, spatial`` (bool), or None where every voxel counts.

    Returns:
        The means ``B, K, grid``, 0 where no voxel is valid; and which patches hold a valid voxel, ``B, 1, grid``
        (bool), or None where all do.
    """
    size = values.shape[2:]
    grid = tuple(min(n, g) for n, g in zip(size, grid, strict=True))
    pool = nn.functional.adaptive_avg_pool2d if len(size) == 2 else nn.functional.adaptive_avg_pool3d
    if valid is None:
        return pool(values, grid), None
    share = pool(valid.to(values.dtype), grid)
    # the product is computed again in the backward pass, and not kept beside the values
    means = checkpoint(lambda x: pool(x * valid, grid), values, use_reentrant=False, preserve_rng_state=False)
    return means / share.clamp_min(torch.finfo(share.dtype).tiny), share > 0
