"""The student's stronger view: what moves, what moves with it, and what must stay."""

import random

import pytest
import torch

from nnunet_skd.stronger_view import StrongerView, _change_intensity


def coordinates(dim, n=16, batch=3):
    """Every voxel's value is unique: batch, then position."""
    data = torch.arange(batch * n**dim, dtype=torch.float32).view(batch, 1, *(n,) * dim)
    return data.expand(-1, 2, *data.shape[2:]).contiguous()


def pooled(x, step):
    """The mean of blocks, by which a lower resolution is told from the full one."""
    pool = torch.nn.functional.avg_pool2d if x.dim() == 4 else torch.nn.functional.avg_pool3d
    return pool(x.double(), step)


def moved(view, data, monkeypatch, lower=(2, 4)):
    """A view without intensity, of data, outputs at three resolutions (one is missing) and targets."""
    monkeypatch.setattr("nnunet_skd.stronger_view._change_intensity", lambda x, masked: x)
    outputs = [data[:, :1].double(), None, *(pooled(data[:, :1], step) for step in lower)]
    target = [data[:, :1].long(), *(pooled(data[:, :1], step) for step in lower[:1])]
    return view(data, outputs, target)


@pytest.mark.parametrize("dim", [2, 3])
def test_outputs_and_targets_of_all_resolutions_move_with_the_data(dim, monkeypatch):
    random.seed(0)
    data, changed, mixed = coordinates(dim), 0, 0
    view = StrongerView(tuple(range(dim)), (1.0,) * dim)
    for _ in range(30):
        seen, outputs, target = moved(view, data, monkeypatch)
        assert torch.equal(seen[:, :1], seen[:, 1:]) and torch.equal(outputs[0], seen[:, :1].double())
        assert outputs[1] is None and torch.equal(target[0], seen[:, :1].long())
        for part, step in ((outputs[2], 2), (outputs[3], 4), (target[1], 2)):
            torch.testing.assert_close(part, pooled(seen[:, :1], step), rtol=0, atol=0)
        assert all(x is None or x.is_contiguous() for x in (seen, *outputs, *target))  # or torch.compile starts anew
        changed += not torch.equal(seen, data)
        mixed += any(set(a.flatten().tolist()) != set(b.flatten().tolist()) for a, b in zip(seen, data, strict=True))
    assert changed >= 25 and 5 <= mixed <= 25


def test_images_without_labels_have_no_target():
    data = coordinates(2)
    seen, outputs, target = StrongerView((0, 1), (1.0, 1.0))(data, [data], None)
    assert target is None and len(outputs) == 1 and seen.shape == data.shape


def flips_and_turns(view, data, monkeypatch, draws=200):
    """All distinct arrangements without CutMix."""
    random.seed(1)
    monkeypatch.setattr(view, "_cut_mix", lambda parts: parts)
    return {tuple(moved(view, data, monkeypatch, lower=())[0].flatten().tolist()) for _ in range(draws)}


@pytest.fixture
def one_patch():
    return coordinates(2, n=4, batch=1)


@pytest.mark.parametrize(
    ("axes", "spacing", "expected"),
    [((0, 1), (1.0, 1.0), 8), ((0, 1), (1.0, 2.0), 4), ((0,), (1.0, 1.0), 2),
     ((1,), (1.0, 1.0), 2), ((), (1.0, 1.0), 1)],
)  # fmt: skip
def test_turns_only_planes_of_equal_spacing_that_nnunet_mirrors(axes, spacing, expected, one_patch, monkeypatch):
    """All symmetries of the square; those that mirror; or one mirror, as where left and right are different organs."""
    arrangements = flips_and_turns(StrongerView(axes, spacing), one_patch, monkeypatch)
    assert len(arrangements) == expected
    if len(axes) == 1:
        assert tuple(one_patch.flip(axes[0] + 2).flatten().tolist()) in arrangements


def test_does_not_turn_a_plane_of_unequal_size(monkeypatch):
    data = torch.arange(32.0).view(1, 1, 4, 8).repeat(1, 2, 1, 1)
    view = StrongerView((0, 1), (1.0, 1.0))
    monkeypatch.setattr(view, "_cut_mix", lambda parts: parts)
    monkeypatch.setattr("nnunet_skd.stronger_view._change_intensity", lambda x, masked: x)
    assert {view(data, [], None)[0].shape for _ in range(30)} == {data.shape}


def test_does_not_turn_a_plane_whose_side_outputs_are_not_square(monkeypatch):
    random.seed(0)
    data, side = torch.zeros(2, 1, 8, 8), torch.zeros(2, 3, 8, 4)
    view = StrongerView((0, 1), (1.0, 1.0))
    assert {view(data, [data, side], None)[1][1].shape for _ in range(30)} == {side.shape}


def test_in_3d_only_the_plane_of_equal_spacing_turns(monkeypatch):
    data = coordinates(3, n=2, batch=1)
    slices = {tuple(sorted(data[0, 0, i].flatten().tolist())) for i in range(2)}
    for arrangement in flips_and_turns(StrongerView((0, 1, 2), (3.0, 1.0, 1.0)), data, monkeypatch):
        seen = torch.tensor(arrangement).view(2, 2, 2, 2)[0]
        assert {tuple(sorted(s.flatten().tolist())) for s in seen} == slices


def test_cut_mix_takes_a_box_of_the_next_patch(monkeypatch):
    random.seed(0)
    view = StrongerView((), (1.0, 1.0))
    data = torch.zeros(3, 1, 32, 32) + torch.arange(3).view(3, 1, 1, 1)
    shares = []
    for _ in range(200):
        seen = view._cut_mix([data, data[..., ::8, ::8]])[0]
        foreign = seen != data
        assert torch.equal(foreign[0], foreign[1]) and torch.equal(seen[foreign], data.roll(1, 0)[foreign])
        shares.append(foreign[0].float().mean().item())
        if shares[-1]:
            rows, columns = foreign[0, 0].any(1).sum(), foreign[0, 0].any(0).sum()
            assert rows * columns == foreign[0].sum() and rows % 8 == columns % 8 == 0  # a box of whole cells
    assert 70 < sum(share > 0 for share in shares) < 130
    assert 0.05 < min(share for share in shares if share) and max(shares) < 0.6
    alone = torch.rand(1, 1, 8, 8)
    assert all(view._cut_mix([alone])[0] is alone for _ in range(10))


@pytest.mark.parametrize("dim", [2, 3])
def test_intensity_changes_each_patch_and_channel_for_itself(dim):
    torch.manual_seed(0)
    data = 100 * torch.rand(4, 2, *(8,) * dim) + 1000
    seen = _change_intensity(data)
    axes = tuple(range(2, dim + 2))
    shift = (seen.mean(axes) - data.mean(axes)) / data.std(axes)
    scale = seen.std(axes) / data.std(axes)
    assert shift.abs().max() < 0.4 and len(shift.flatten().unique()) == 8
    assert 0.65 < scale.min() and scale.max() < 1.4 and len(scale.flatten().unique()) == 8
    correlation = ((seen - seen.mean(axes, keepdim=True)) * (data - data.mean(axes, keepdim=True))).sum(axes)
    correlation = correlation / seen.std(axes) / data.std(axes) / (8**dim - 1)
    assert 0.95 < correlation.min() < 0.999  # one and the same image, with noise
    assert shift.abs().max() > 0.1 and (scale - 1).abs().max() > 0.1
    constant = torch.full((1, 1, *(4,) * dim), 5.0)
    assert torch.equal(_change_intensity(constant), constant)


@pytest.mark.parametrize("dim", [2, 3])
def test_what_nnunet_masks_stays_zero_and_does_not_count(dim):
    """A skull-stripped channel, and one that keeps its background."""
    data = 10 * torch.rand(3, 2, *(8,) * dim) + 100
    data[:, :, :4] = 0
    torch.manual_seed(0)
    seen = _change_intensity(data, (True, False))
    assert (seen[:, 0, :4] == 0).all() and (seen[:, 1, :4] != 0).all()
    torch.manual_seed(0)
    alone = _change_intensity(data[:, :, 4:])  # the same scale and shift; the noise is drawn for another size
    axes = tuple(range(1, dim + 1))
    torch.testing.assert_close(seen[:, 0, 4:].mean(axes), alone[:, 0].mean(axes), rtol=0.005, atol=0)
