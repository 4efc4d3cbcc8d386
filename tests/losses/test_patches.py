"""The grid of patches, and means over them."""

import math

import pytest
import torch
from cases import DIMS

from nnunet_skd.losses.patches import patch_grid, patch_means


@pytest.mark.parametrize(
    ("full_size", "grid"), [((28, 256, 256), (3, 4, 4)), ((8, 31, 32), (1, 3, 4)), ((4, 20, 320), (1, 2, 4))]
)
def test_grid_of_anisotropic_patches(full_size, grid):
    assert patch_grid(full_size, 4) == grid


def test_grid_of_another_number_of_patches():
    assert patch_grid((64, 64), 16) == (16, 16)
    assert patch_grid((16, 64), 1) == (1, 1)


def test_means_by_hand():
    values = torch.arange(16.0).view(1, 1, 4, 4)
    means, filled = patch_means(values, (2, 2))
    assert means.flatten().tolist() == [2.5, 4.5, 10.5, 12.5] and filled is None
    valid = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    valid[0, 0, 0, :2] = False  # of the first patch 4 and 5 remain
    valid[0, 0, 2:, 2:] = False  # of the last one nothing
    means, filled = patch_means(values, (2, 2), valid)
    assert means.flatten().tolist() == [4.5, 4.5, 10.5, 0]
    assert filled.flatten().tolist() == [True, True, True, False]


@DIMS
def test_means_of_valid_voxels_equal_loops(dim):
    generator = torch.Generator().manual_seed(0)
    size, grid = ((8, 6), (2, 3)) if dim == 2 else ((4, 6, 8), (2, 3, 4))
    values = torch.randn(2, 3, *size, dtype=torch.float64, generator=generator)
    valid = torch.rand(2, 1, *size, generator=generator) > 0.6
    means, filled = patch_means(values, grid, valid)
    for place in torch.cartesian_prod(torch.arange(2), *(torch.arange(g) for g in grid)).tolist():
        b, patch = place[0], place[1:]
        cut = tuple(slice(p * n // g, (p + 1) * n // g) for p, n, g in zip(patch, size, grid, strict=True))
        mask = valid[b, 0][cut]
        assert filled[(b, 0, *patch)] == mask.any()
        expected = [values[b, k][cut][mask].mean().item() if mask.any() else 0.0 for k in range(3)]
        assert means[(b, slice(None), *patch)].tolist() == pytest.approx(expected)


def test_an_output_smaller_than_the_grid_keeps_its_own_voxels():
    values = torch.rand(1, 2, 3, 2)
    means, _ = patch_means(values, (4, 4))
    assert torch.equal(means, values)


def test_a_hundred_thousand_voxels_of_one_patch_keep_their_mean():
    means, _ = patch_means(torch.full((1, 1, 320, 320), 0.3), (1, 1))
    assert means.item() == pytest.approx(0.3, rel=1e-5)
    assert math.isfinite(means.item())
