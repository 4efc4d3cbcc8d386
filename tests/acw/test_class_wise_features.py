"""Class-wise features on the coarse grid, by hand and by loops over full-resolution voxels."""

import math

import pytest
import torch

from nnunet_skd.acw.class_wise_features import (
    class_wise_pooling,
    coarse_features,
    inter_class_similarity,
    masks_that_hit,
    prediction_masks,
    present_classes,
    region_overlaps,
)


def test_coarse_features_are_the_mean_of_the_valid_voxels():
    features = torch.arange(16.0).reshape(1, 1, 4, 4)
    mean, voxels = coarse_features(features, None, (2, 2))
    assert mean.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert voxels.flatten().tolist() == [4, 4, 4, 4]

    valid = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    valid[0, 0, 0, :2] = False  # of the first cell 4 and 5 remain
    valid[0, 0, 2:, 2:] = False  # of the last one nothing
    features[~valid] = math.nan
    mean, voxels = coarse_features(features, valid, (2, 2))
    assert mean.flatten().tolist() == [4.5, 4.5, 10.5, 0]
    assert voxels.flatten().tolist() == [2, 4, 4, 0]


def test_coarse_features_of_an_anisotropic_network():
    features = torch.randn(1, 3, 5, 4, 6)
    mean, voxels = coarse_features(features, None, (5, 2, 3))
    torch.testing.assert_close(mean[0, 1, 3, 1, 2], features[0, 1, 3, 2:, 4:].mean())
    assert voxels.unique().tolist() == [4]


@pytest.mark.parametrize("size", [(3, 4), (2, 2, 2)])
def test_a_coarse_size_that_does_not_divide_is_refused(size):
    with pytest.raises(ValueError, match=r"must divide the full size \(8, 8\)"):
        coarse_features(torch.zeros(1, 1, 8, 8), None, size)


def test_masks_of_labels():
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]]).reshape(1, 2, 2, 1).requires_grad_()
    masks = prediction_masks(logits, torch.tensor([4.0, 0.0]).reshape(1, 1, 2, 1), has_regions=False)
    torch.testing.assert_close(masks.flatten(), torch.tensor([0.25, 0.0, 0.75, 0.0]))
    assert not masks.requires_grad


def test_masks_of_regions_have_a_complement():
    logits = torch.tensor([0.0, math.log(3)]).reshape(1, 2, 1, 1)
    masks = prediction_masks(logits, torch.ones(1, 1, 1, 1), has_regions=True)
    torch.testing.assert_close(masks.flatten(), torch.tensor([0.5, 0.75, 0.125]))


@pytest.mark.parametrize("size", [(4, 6), (2, 4, 4)], ids=["2d", "3d"])
@pytest.mark.parametrize("ignore", [False, True], ids=["all", "ignore"])
def test_pooling_equals_a_loop_over_full_resolution_voxels(size, ignore):
    torch.manual_seed(0)
    features = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(2, 4, *(n // 2 for n in size), dtype=torch.float64)
    valid = torch.rand(2, 1, *size) > 0.6 if ignore else None
    cells, voxels = coarse_features(features, valid, tuple(logits.shape[2:]))
    pooled = class_wise_pooling(cells, prediction_masks(logits, voxels, has_regions=False), voxels)

    masks = logits.softmax(1)
    expected = torch.zeros(2, 4, 3, dtype=torch.float64)
    for b in range(2):
        for k in range(4):
            numerator, denominator = torch.zeros(3, dtype=torch.float64), 1.0
            for v in torch.cartesian_prod(*(torch.arange(n) for n in size)).tolist():
                if valid is None or valid[b, 0][tuple(v)]:
                    mask = masks[b, k][tuple(i // 2 for i in v)]
                    numerator = numerator + mask * features[(b, slice(None), *v)]
                    denominator = denominator + mask
            expected[b, k] = numerator / denominator
    torch.testing.assert_close(pooled, expected)
    seed = torch.randn_like(expected)
    gradients = [torch.autograd.grad((x * seed).sum(), features)[0] for x in (pooled, expected)]
    torch.testing.assert_close(*gradients)


def test_a_class_without_a_mask_is_the_zero_vector():
    features = torch.randn(1, 5, 4, 4, requires_grad=True)
    masks = torch.cat((torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)), 1)
    pooled = class_wise_pooling(features, masks, torch.ones(1, 1, 4, 4))
    assert torch.equal(pooled[0, 0], torch.zeros(5))
    torch.testing.assert_close(pooled[0, 1], features[0].sum((1, 2)) / 17)
    (gradient,) = torch.autograd.grad(pooled[0, 0].sum(), features)
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_a_mask_hits_where_more_than_half_of_it_lies_in_its_class():
    """Three cells of a row with 4 voxels each; the class of a cell is that of its first voxel."""
    labels = torch.tensor([0, 2, 0, 0, 1, 0, 2, 2, 2, 2, 2, 2]).reshape(1, 1, 1, 12)
    masks = torch.tensor([[0.6, 0.1, 0.3], [0.1, 0.2, 0.2], [0.3, 0.7, 0.5]]).reshape(1, 3, 1, 3)
    voxels = torch.full((1, 1, 1, 3), 4.0)
    # 0.6 of 1.0, 0.2 of 0.5, 0.5 of 1.5
    assert masks_that_hit(masks, voxels, labels, None, has_regions=False).tolist() == [[1, 0, 0]]
    valid = torch.ones_like(labels, dtype=torch.bool)
    valid[..., 4] = False  # the second cell no longer counts: 0.2 of 0.3 would be in class 1, but it is nowhere
    assert masks_that_hit(masks, voxels, labels, valid, has_regions=False).tolist() == [[1, 0, 1]]
    nothing = masks_that_hit(masks * 0, voxels, labels, None, has_regions=False)
    assert nothing.tolist() == [[0, 0, 0]]


def test_masks_that_hit_regions():
    """Nested regions, two cells of one voxel: the last class is what lies in no region."""
    labels = torch.tensor([[[1, 0]], [[0, 0]]]).reshape(1, 2, 1, 2)
    masks = torch.tensor([[0.9, 0.2], [0.4, 0.1], [0.06, 0.72]]).reshape(1, 3, 1, 2)
    assert masks_that_hit(masks, torch.ones(1, 1, 1, 2), labels, None, has_regions=True).tolist() == [[1, 0, 1]]


def test_present_classes():
    labels = torch.tensor([[0, 2, 2, 0], [1, 1, 1, 1]]).reshape(2, 1, 2, 2).float()
    assert present_classes(labels, None, 3, has_regions=False).tolist() == [[1, 0, 1], [0, 1, 0]]
    valid = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0]]).reshape(2, 1, 2, 2).bool()
    assert present_classes(labels, valid, 3, has_regions=False).tolist() == [[1, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
def test_present_regions_and_overlaps(dtype):
    whole, core = [1, 1, 1, 0], [0, 1, 1, 0]
    labels = torch.tensor([[whole, core, [0] * 4]]).reshape(1, 3, 2, 2).to(dtype)
    assert present_classes(labels, None, 3, has_regions=True).tolist() == [[1, 1, 0, 1]]
    expected = torch.tensor([[1, 2 / 3, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0]])
    torch.testing.assert_close(region_overlaps(labels, None)[0], expected)

    valid = torch.tensor([1, 1, 0, 0]).reshape(1, 1, 2, 2).bool()
    assert present_classes(labels, valid, 3, has_regions=True).tolist() == [[1, 1, 0, 0]]
    torch.testing.assert_close(region_overlaps(labels, valid)[0, 0], torch.tensor([1, 0.5, 0]))


def test_inter_class_similarity():
    features = torch.tensor([[[1.0, 0.0], [3.0, 3.0], [0.0, -5.0]]])
    assert inter_class_similarity(features, torch.tensor([[1.0, 1, 0]])).item() == pytest.approx(math.sqrt(0.5))
    assert inter_class_similarity(features, torch.tensor([[1.0, 1, 1]])).item() == pytest.approx(0, abs=1e-6)
    assert inter_class_similarity(features, torch.tensor([[0.0, 1, 0]])).isnan()  # no pair
    assert inter_class_similarity(torch.zeros(1, 3, 2), torch.ones(1, 3)).item() == 0
