"""L_u: known values, plain loops with their gradients, what does not count, and classes that the teacher lacks."""

import math

import numpy as np
import pytest
import torch
from cases import DIMS, HALF, HEAD_WEIGHTS, REGIONS, random_step

from nnunet_skd.losses.probabilities import class_probabilities
from nnunet_skd.losses.unlabelled import Unlabelled, unlabelled_loss


def random_input(dim, has_regions, size=4, seed=0):
    """Logits, sharp probabilities of a teacher, and a mask, in float64."""
    generator = torch.Generator().manual_seed(seed)
    z, teacher = (torch.randn(2, 3, *(size,) * dim, generator=generator, dtype=torch.float64) for _ in range(2))
    accepted = torch.rand(2, 1, *(size,) * dim, generator=generator) > 0.3
    return z.requires_grad_(), class_probabilities(3 * teacher, has_regions=has_regions), accepted


def plain_loops(z, q, accepted, known, has_regions):
    """The docstring's formula in numpy, voxel by voxel, and its gradient by hand."""
    z, q, accepted = (x.detach().numpy() for x in (z, q, accepted))
    classes = z.shape[1]
    compared = [k for k in range(classes) if known[k]]
    p, q_known = np.zeros_like(z), np.zeros_like(q)
    value, gradient = 0.0, np.zeros_like(z)
    voxels = [tuple(v) for v in np.argwhere(accepted[:, 0])]
    for b, *v in voxels:
        at = (b, slice(None), *v)
        logits, target = z[at], q[at]
        soft, wanted = np.zeros(classes), np.zeros(classes)
        if has_regions:
            soft[compared] = 1 / (1 + np.exp(-logits[compared]))
            wanted[compared] = target[compared]
            entropies = wanted * np.log(soft + ~known) + (1 - wanted) * np.log(1 - soft)
            value -= entropies[compared].sum() / classes / len(voxels)
            gradient[at] += (soft - wanted) / classes / len(voxels)
        else:
            soft[compared] = np.exp(logits[compared]) / np.exp(logits[compared]).sum()
            wanted[compared] = target[compared] / target[compared].sum()
            value -= (wanted[compared] * np.log(soft[compared])).sum() / len(voxels)
            gradient[at] += (soft - wanted) / len(voxels)
        p[at], q_known[at] = soft, wanted
    foreground = range(0 if has_regions else 1, classes)
    slope = np.zeros_like(z)  # d Dice loss / d p
    for k in foreground:
        if not (known[k] and (q_known[:, k] > 0.5).any()):
            continue
        overlap, size = (p[:, k] * q_known[:, k]).sum(), (p[:, k] + q_known[:, k]).sum()
        value += (1 - 2 * overlap / size) / len(foreground)
        slope[:, k] = -2 * (q_known[:, k] * size - overlap) / size**2 / len(foreground) * accepted[:, 0]
    if has_regions:
        gradient += slope * p * (1 - p)
    else:
        gradient += p * (slope - (p * slope).sum(1, keepdims=True))
    return value, gradient


@DIMS
@REGIONS
@pytest.mark.parametrize("known", [[True, True, True], [True, False, True], [True, True, False]])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_plain_loops_in_value_and_gradient(dim, has_regions, known, masked):
    z, q, accepted = random_input(dim, has_regions)
    if not masked:
        accepted = torch.ones_like(accepted)
    known = np.array(known)
    expected, gradient = plain_loops(z, q, accepted, known, has_regions)
    value = unlabelled_loss(z, q, accepted if masked else None, torch.from_numpy(known), has_regions=has_regions)
    value.backward()
    assert value.item() == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(z.grad, torch.from_numpy(gradient))


def test_known_values_by_hand():
    z = torch.tensor([0.0, math.log(3)]).view(1, 2, 1).repeat(1, 1, 2)  # p = 1/4, 3/4 in two voxels
    q = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).T.view(1, 2, 2)  # foreground, background
    cross_entropy = (math.log(4 / 3) + math.log(4)) / 2
    dice = 2 * 0.75 / (1.5 + 1)
    assert unlabelled_loss(z, q).item() == pytest.approx(cross_entropy + 1 - dice)
    # a region of the same probabilities
    z, q = torch.tensor([math.log(3)] * 2).view(1, 1, 2), torch.tensor([1.0, 0.0]).view(1, 1, 2)
    assert unlabelled_loss(z, q, has_regions=True).item() == pytest.approx(cross_entropy + 1 - dice)


@REGIONS
def test_passes_gradcheck(has_regions):
    z, q, accepted = random_input(2, has_regions, size=3)
    known = torch.tensor([True, True, False])
    assert torch.autograd.gradcheck(lambda z: unlabelled_loss(z, q, accepted, known, has_regions=has_regions), (z,))


@REGIONS
def test_the_minimum_of_hard_targets_is_zero(has_regions):
    _, q, _ = random_input(2, has_regions)
    q = (q > 0.5).double() if has_regions else torch.nn.functional.one_hot(q.argmax(1), 3).movedim(-1, 1).double()
    assert unlabelled_loss(100 * (2 * q - 1), q, has_regions=has_regions).item() == pytest.approx(0, abs=1e-9)


@REGIONS
def test_nothing_accepted_is_a_connected_zero(has_regions):
    z, q, accepted = random_input(2, has_regions)
    value = unlabelled_loss(z, q, accepted & False, has_regions=has_regions)
    value.backward()
    assert value.item() == 0 and torch.equal(z.grad, torch.zeros_like(z))


@REGIONS
def test_voxels_that_are_not_accepted_do_not_matter(has_regions):
    z, q, accepted = random_input(2, has_regions)
    value = unlabelled_loss(z, q, accepted, has_regions=has_regions)
    value.backward()
    assert not z.grad[(~accepted).expand_as(z)].any()
    other = torch.where(accepted, z.detach(), -7.0)
    assert unlabelled_loss(other, torch.where(accepted, q, 0.5), accepted, has_regions=has_regions) == value


@HALF
@REGIONS
def test_is_finite_in_half_precision(dtype, has_regions):
    z = torch.tensor([1e4, -1e4, 0.0]).view(1, 3, 1, 1).repeat(2, 1, 64, 64).to(dtype).requires_grad_()
    q = class_probabilities(-z.detach(), has_regions=has_regions)
    known = torch.tensor([True, True, False])
    value = unlabelled_loss(z, q, None, known, has_regions=has_regions)
    value.backward()
    assert value.dtype == torch.float32 and value.isfinite() and z.grad.isfinite().all()


@pytest.mark.parametrize("scale", [1.0, 1e4])
@REGIONS
def test_an_unknown_class_is_not_pulled_and_changes_nothing_for_the_others(has_regions, scale):
    z, q, _ = random_input(2, has_regions)
    known, results = torch.tensor([True, True, False]), []
    for unknown in (-3.0, 5.0):  # whatever student and teacher say about it
        logits = (scale * z.detach()).clone()
        logits[:, 2] = scale * unknown
        logits.requires_grad_()
        value = unlabelled_loss(logits, q, None, known, has_regions=has_regions)
        value.backward()
        assert not logits.grad[:, 2].any()
        results.append((value.detach(), logits.grad))
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_no_class_is_known_at_all():
    z, q, _ = random_input(2, False)
    value = unlabelled_loss(z, q, None, torch.zeros(3, dtype=torch.bool))
    value.backward()
    assert value.isfinite() and not z.grad.any()


def test_gives_the_teacher_no_gradient():
    z, q, _ = random_input(2, False)
    unlabelled_loss(z, q.requires_grad_()).backward()
    assert q.grad is None


# --- the term --------------------------------------------------------------------------------------------------------


def a_step(term, *, stream=True, labels=False, **kind):
    """A step of the stream; ``labels``: beside nnU-Net's targets."""
    step = random_step(**kind)
    step.from_stream = stream
    if not labels:
        step.target = None
    object.__setattr__(step.task, "segmentation_layer", torch.nn.Conv2d(1, 3, 1))
    term.attach(step.task)
    term.start_epoch(step.epoch, step.num_epochs)
    return step


@REGIONS
@pytest.mark.parametrize("target", ["soft", "hard"])
def test_sums_the_supervised_outputs_with_nnunets_weights(has_regions, target):
    term = Unlabelled(weight=0.5, target=target)
    step = a_step(term, has_regions=has_regions)
    expected = 0
    for head in (0, 1):  # the third has the weight 0
        q = class_probabilities(step.teacher_outputs[head], has_regions=has_regions)
        if target == "hard":
            one_hot = torch.nn.functional.one_hot(q.argmax(1), 3).movedim(-1, 1)
            q = (q > 0.5).float() if has_regions else one_hot.float()
        expected += HEAD_WEIGHTS[head] * unlabelled_loss(step.outputs[head], q, has_regions=has_regions)
    assert term.weighted(step)["unlabelled"].item() == pytest.approx(0.5 * expected.item())


@REGIONS
def test_beside_labels_only_ignored_voxels_count(has_regions):
    term = Unlabelled()
    step = a_step(term, stream=False, labels=True, has_regions=has_regions, ignore=True)
    values = term.weighted(step)
    assert set(values) == {"ignored"} and term.on_labelled
    values["ignored"].backward()
    for head in (0, 1):
        labelled = step.valid(head).expand_as(step.outputs[head])
        assert not step.outputs[head].grad[labelled].any() and step.outputs[head].grad[~labelled].any()


@REGIONS
def test_the_threshold_lets_sure_voxels_pass(has_regions):
    term = Unlabelled(threshold=0.8)
    step = a_step(term, has_regions=has_regions)
    term.weighted(step)["unlabelled"].backward()
    q = class_probabilities(step.teacher_outputs[0], has_regions=has_regions)
    sure = torch.maximum(q, 1 - q).amin(1) > 0.8 if has_regions else q.amax(1) > 0.8
    assert torch.equal(step.outputs[0].grad.any(1), sure) and 0 < sure.sum() < sure.numel()
    assert step.log["accepted"].item() == pytest.approx(sure.float().mean().item())


@REGIONS
def test_logs_agreement_and_what_the_teacher_predicts(has_regions):
    term = Unlabelled()
    step = a_step(term, has_regions=has_regions)
    term.weighted(step)
    if has_regions:
        student, teacher = step.outputs[0] > 0, step.teacher_outputs[0] > 0
        agree, shares = (student == teacher).all(1).float().mean(), teacher.float().mean((0, 2, 3))
    else:
        student, teacher = step.outputs[0].argmax(1), step.teacher_outputs[0].argmax(1)
        agree, shares = (student == teacher).float().mean(), teacher.flatten().bincount() / teacher.numel()
    assert step.log["agreement"].item() == pytest.approx(agree.item())
    assert step.log["accepted"].item() == 1
    first = 0 if has_regions else 1  # the background is no news
    names = tuple(f"teacher_share_{k}" for k in range(first, 3))
    torch.testing.assert_close(step.log[names], shares[first:], check_dtype=False)
    assert any("teacher_share_0" in key for key in step.log if isinstance(key, tuple)) == has_regions


def test_logs_of_ignored_voxels_are_about_these_alone():
    term = Unlabelled()
    step = a_step(term, stream=False, labels=True, ignore=True)
    term.weighted(step)
    ignored = ~step.valid(0)[:, 0]
    assert 0 < ignored.float().mean() < 1
    student, teacher = (logits[0].argmax(1)[ignored] for logits in (step.outputs, step.teacher_outputs))
    assert step.log["agreement"].item() == pytest.approx((student == teacher).float().mean().item())
    shares = teacher.bincount(minlength=3) / teacher.numel()
    torch.testing.assert_close(step.log["teacher_share_1", "teacher_share_2"], shares[1:], check_dtype=False)


def test_a_teacher_that_lacks_an_output_teaches_the_others():
    term = Unlabelled()
    step = a_step(term)
    step.teacher_outputs[1] = None
    term.weighted(step)["unlabelled"].backward()
    assert step.outputs[0].grad.any() and step.outputs[1].grad is None


@REGIONS
def test_a_class_is_known_until_a_whole_epoch_has_passed_without_it(has_regions):
    term = Unlabelled()
    step = a_step(term, has_regions=has_regions)
    seen, unseen = (class_probabilities(torch.tensor([4.0, 4.0, z]).view(1, 3, 1, 1), has_regions=has_regions)
                    for z in (5.0, -9.0))  # fmt: skip
    known = [term._known(seen, step).tolist()]
    for _ in range(2):
        term.start_epoch(0, 1)
        known.append(term._known(unseen, step).tolist())
    assert known == [[True] * 3 if has_regions else [False, False, True], [True] * 3, [True, True, False]]


@REGIONS
def test_one_overflow_of_the_teacher_does_not_end_the_teaching(has_regions):
    """A teacher in half precision may overflow in a step; a nan must not stay in what the term remembers."""
    term = Unlabelled(weight=1.0)
    step = a_step(term, has_regions=has_regions)
    before = term.weighted(step)["unlabelled"].item()
    overflow = step.teacher_probabilities(0).clone()
    overflow[0] = torch.nan
    assert term._known(overflow, step).any()
    assert term.weighted(step)["unlabelled"].item() == before > 0


def test_the_weight_waits_and_rises():
    term = Unlabelled(weight=0.5, start=0.25, rise=0.2)
    weights = [term.weight_at(epoch, 100) for epoch in (0, 24, 25, 35, 45, 99)]
    assert weights == pytest.approx([0, 0, 0, 0.25, 0.5, 0.5])
    assert Unlabelled().weight_at(0, 1000) == 1
    assert term.weighted(a_step(term, epoch=0)) == {}


@pytest.mark.parametrize(
    ("options", "match"),
    [({"target": "firm"}, "target must be one of .*'firm'"), ({"threshold": 1.0}, r"threshold must lie in \[0, 1\)"),
     ({"start": -0.1}, "start must lie"), ({"rise": 1.5}, "rise must lie"), ({"weight": -1}, "must not be negative")],
)  # fmt: skip
def test_refuses_options_that_cannot_be(options, match):
    with pytest.raises(ValueError, match=match):
        Unlabelled(**options)


def test_warns_of_a_class_that_the_teacher_predicts_no_longer():
    term, gone = Unlabelled(), {"teacher_share_1": 0.1, "teacher_share_2": 0.0}
    assert term.warnings([gone] * 4) == []
    (warning,) = term.warnings([gone] * 5)
    assert "class or region 2 nowhere" in warning
    assert term.warnings([gone] * 4 + [{"teacher_share_2": math.nan}]) == []
    assert term.warnings([gone | {"teacher_share_2": 0.01}] + [gone] * 4) == []
