"""ACW-SKD's own losses: known values and plain loops."""

import math

import pytest
import torch
from cases import DIMS
from torch import nn

from nnunet_skd.acw.losses import class_wise_feature_loss, feature_reconstruction_loss, token_loss


def test_the_teacher_gets_no_gradient():
    student, teacher = torch.randn(2, 1, 3, 4, 4).unbind()
    student.requires_grad_(), teacher.requires_grad_()
    losses = (
        class_wise_feature_loss(student.flatten(2), teacher.flatten(2), torch.ones(1, 3)),
        feature_reconstruction_loss(student, teacher, torch.ones(1, 1, 4, 4)),
    )
    sum(losses).backward()
    assert teacher.grad is None and student.grad is not None


def test_token_loss_of_labels():
    present = torch.tensor([[1.0, 0, 1, 0, 0]])
    assert token_loss(torch.zeros(1, 5, 5), present, None).item() == pytest.approx(math.log(5))
    assert token_loss(100 * torch.eye(5)[None], present, None).item() == 0
    tokens = torch.zeros(1, 5, 5)
    tokens[0, 0, 0] = math.log(4)  # class 0 is right with probability 4 / 8
    assert token_loss(tokens, present, None).item() == pytest.approx((math.log(2) + math.log(5)) / 2)
    tokens[0, 1] = 1e4  # an absent class
    assert token_loss(tokens, present, None).item() == pytest.approx((math.log(2) + math.log(5)) / 2)


def test_token_loss_of_regions():
    overlaps = torch.tensor([[[1.0, 0.5], [1.0, 1.0], [0.0, 0.0]]])
    assert token_loss(torch.zeros(1, 3, 2), torch.ones(1, 3), overlaps).item() == pytest.approx(math.log(2))
    tokens = torch.tensor([[[50.0, 0.0], [50.0, 50.0], [-50.0, -50.0]]])
    assert token_loss(tokens, torch.ones(1, 3), overlaps).item() == pytest.approx(math.log(2) / 6)
    assert token_loss(tokens, torch.tensor([[0.0, 1, 1]]), overlaps).item() == pytest.approx(0, abs=1e-6)


def test_class_wise_feature_loss():
    student = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]])
    teacher = torch.tensor([[[0.0, 3.0], [0.0, -1.0], [7.0, 7.0]]])
    for k, expected in enumerate((1.0, 2.0, 0.0)):
        present = torch.eye(3)[k : k + 1]
        assert class_wise_feature_loss(student, teacher, present).item() == pytest.approx(expected)
    features = torch.randn(2, 3, 32)
    assert class_wise_feature_loss(features, features.clone(), torch.ones(2, 3)).item() == 0
    torch.testing.assert_close(
        class_wise_feature_loss(features, features.flip(2), torch.ones(2, 3)),
        1 - nn.functional.cosine_similarity(features, features.flip(2), dim=2).mean(),
    )


@pytest.mark.parametrize("loss", ["token", "feature"])
def test_no_class_present_is_a_connected_zero(loss):
    x = torch.zeros(1, 3, 3, requires_grad=True)
    absent = torch.zeros(1, 3)
    value = token_loss(x, absent, None) if loss == "token" else class_wise_feature_loss(x, x + 1, absent)
    value.backward()
    assert value.item() == 0 and torch.equal(x.grad, torch.zeros_like(x))


@DIMS
def test_feature_reconstruction_equals_a_plain_loop(dim):
    size = (3,) * dim
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 2, 4, *size, dtype=torch.float64)
    student.requires_grad_()
    voxels = torch.randint(0, 3, (2, 1, *size)).double()

    def attention(x, counts):
        energy = [sum(f * f for f in v) / len(v) for v, c in zip(x.flatten(1).T, counts.flatten(), strict=True) if c]
        length = sum(e * e for e in energy) ** 0.5
        return [e / length for e in energy]

    expected = 0
    for b in range(2):
        pairs = zip(attention(student[b], voxels[b]), attention(teacher[b], voxels[b]), strict=True)
        expected = expected + sum((s - t) ** 2 for s, t in pairs) / 2
    loss = feature_reconstruction_loss(student, teacher, voxels)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, student), torch.autograd.grad(expected, student))
    assert torch.autograd.gradcheck(lambda x: feature_reconstruction_loss(x, teacher, voxels), (student,))


def test_feature_reconstruction_limits():
    everywhere = torch.ones(1, 1, 2, 2)
    left, right = (torch.tensor(x).reshape(1, 1, 2, 2) for x in ([1.0, 0, 1, 0], [0.0, 1, 0, 1]))
    assert feature_reconstruction_loss(left, right, everywhere).item() == pytest.approx(2)
    features = torch.randn(1, 4, 2, 2)
    assert feature_reconstruction_loss(features, 3 * features, everywhere).item() == pytest.approx(0, abs=1e-12)
    features.requires_grad_()
    nothing = feature_reconstruction_loss(features, right, 0 * everywhere)
    nothing.backward()
    assert nothing.item() == 0 and torch.equal(features.grad, torch.zeros_like(features))
