from copy import deepcopy

import pytest
import torch
from torch import nn

from nnunet_skd.feature_tap import FeatureTap


def test_reads_what_enters_the_layer_in_training_only_and_is_empty_afterwards():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 3, 1))
    tap = FeatureTap(network[1])
    data = torch.ones(1, 1, 2, 2)
    network(data)
    features = tap.pop()
    assert torch.equal(features, network[0](data)) and features.requires_grad
    with pytest.raises(RuntimeError, match="tap is empty"):
        tap.pop()
    network.eval()(data)
    with pytest.raises(RuntimeError, match="tap is empty"):
        tap.pop()


def test_the_network_keeps_its_state_dict():
    network = nn.Sequential(nn.Conv2d(1, 2, 1))
    before = list(network.state_dict())
    FeatureTap(network[0])
    assert list(network.state_dict()) == before


def test_a_network_can_be_copied_while_its_tap_is_full():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 3, 1))
    tap = FeatureTap(network[1])
    data = torch.ones(1, 1, 2, 2)
    network(data)
    copied = deepcopy(network)
    copied(2 * data)
    assert torch.equal(tap.pop(), network[0](data))
