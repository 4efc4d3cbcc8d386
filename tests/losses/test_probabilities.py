"""What outputs and targets say."""

import math

import pytest
import torch
from cases import REGIONS

from nnunet_skd.losses.probabilities import class_probabilities, split_target


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


def test_probabilities_by_hand():
    logits = torch.tensor([math.log(3), 0.0]).view(1, 2, 1, 1)
    assert class_probabilities(logits, has_regions=False).flatten().tolist() == pytest.approx([0.75, 0.25])
    assert class_probabilities(logits, has_regions=True).flatten().tolist() == pytest.approx([0.75, 0.5])


@REGIONS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_probabilities_are_computed_in_float32_at_least(has_regions, dtype):
    logits = torch.tensor([1e4, -1e4, 0.0, 0.3]).to(dtype).view(1, 4, 1, 1)
    result = class_probabilities(logits, has_regions=has_regions)
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    expected = logits.double().sigmoid() if has_regions else logits.double().softmax(1)
    assert result.dtype == wanted
    torch.testing.assert_close(result.double(), expected, rtol=1e-6, atol=1e-7)
