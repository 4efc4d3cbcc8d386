import torch

from nnunet_skd.targets import split_target


def test_labels_lose_the_ignore_label_and_gain_a_mask():
    target = torch.tensor([[[[0, 1], [3, 2]]]])
    labels, valid = split_target(target, has_regions=False, ignore_label=3)
    assert labels.tolist() == [[[[0, 1], [0, 2]]]]
    assert valid.tolist() == [[[[True, True], [False, True]]]]


def test_regions_lose_the_ignore_channel():
    target = torch.tensor([[[[1, 0]], [[0, 1]]]], dtype=torch.bool)  # one region, then the ignored voxels
    regions, valid = split_target(target, has_regions=True, ignore_label=3)
    assert regions.tolist() == [[[[True, False]]]]
    assert valid.tolist() == [[[[True, False]]]]


def test_without_an_ignore_label_nothing_is_masked():
    target = torch.tensor([[[[0, 1]]]])
    labels, valid = split_target(target, has_regions=False, ignore_label=None)
    assert labels is target and valid is None
