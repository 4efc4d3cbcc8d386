"""The feature reconstruction modules: zero start, and the context map that is never built."""

import pytest
import torch
from torch import nn

from nnunet_skd.acw.feature_reconstruction import ClassWiseReconstruction, PenultimateReconstruction


def wake(module):
    """Random weights in place of the zero start."""
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def test_class_wise_reconstruction_starts_as_the_identity():
    features = torch.randn(2, 4, 6)
    module = ClassWiseReconstruction(6)
    assert torch.equal(module(features), features)
    wake(module)
    hidden = nn.functional.gelu(features @ module.expand.weight.T + module.expand.bias)
    torch.testing.assert_close(module(features), features + hidden @ module.project.weight.T + module.project.bias)


@pytest.mark.parametrize("conv,size", [(nn.Conv2d, (4, 6)), (nn.Conv3d, (3, 4, 2))], ids=["2d", "3d"])
def test_penultimate_reconstruction_starts_at_zero_with_a_gradient(conv, size):
    module = PenultimateReconstruction(3, conv, context=True)
    features = torch.randn(2, 3, *size)
    context = module.context_map(torch.randn(2, 5, 3), torch.rand(2, 5, *size))
    correction = module(features, context)
    assert torch.equal(correction, torch.zeros(2, 3, *size))
    correction.sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    assert module.project.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("conv,size", [(nn.Conv2d, (4, 6)), (nn.Conv3d, (3, 4, 2))], ids=["2d", "3d"])
def test_context_equals_a_convolution_of_the_concatenation(conv, size):
    module = wake(PenultimateReconstruction(3, conv, context=True).double())
    leaves = [torch.randn(2, *shape, dtype=torch.float64, requires_grad=True) for shape in ((3, *size), (5, 3))]
    masks = torch.rand(2, 5, *size, dtype=torch.float64)

    def plain(features, class_features):
        context = torch.zeros_like(features)
        for k in range(5):
            painted = masks[:, k : k + 1].flatten(2) * class_features[:, k].unsqueeze(2)
            context = context + painted.unflatten(2, size)
        weight = torch.cat((module.expand.weight.flatten(1), module.context.weight), 1)
        hidden = torch.einsum("od,bdn->bon", weight, torch.cat((features, context), 1).flatten(2))
        hidden = (hidden - hidden.mean(2, keepdim=True)) / (hidden.var(2, keepdim=True, unbiased=False) + 1e-5).sqrt()
        hidden = hidden * module.norm.weight[:, None] + module.norm.bias[:, None]
        hidden = torch.where(hidden > 0, hidden, 0.01 * hidden).unflatten(2, size)
        return module.project(hidden)

    got = module(leaves[0], module.context_map(leaves[1], masks))
    expected = plain(*leaves)
    torch.testing.assert_close(got, expected)
    seed = torch.randn_like(expected)
    inputs = [*leaves, *module.parameters()]
    for a, b in zip(
        torch.autograd.grad((got * seed).sum(), inputs),
        torch.autograd.grad((expected * seed).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_without_context_there_is_no_parameter_for_it():
    module = PenultimateReconstruction(3, nn.Conv2d, context=False)
    assert module.context is None
    assert module(torch.randn(1, 3, 4, 4), None).shape == (1, 3, 4, 4)
