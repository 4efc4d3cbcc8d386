"""ACW-SKD as a term: every row of it against a plain reference, its ablations, and what it must never do."""

import pytest
import torch
from cases import DIMS, HALF, IGNORE, REGIONS, nnunet_loss, toy_task
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from nnunet_skd.acw.branch import ReconstructionBranch
from nnunet_skd.acw.method import AdversarialClassWise, distillation_ramp
from nnunet_skd.step import Step

K, D = 3, 4
TERMS = ("teacher", "token", "adversarial", "class_wise", "class_wise_feature", "reconstruction")
DISTILLATION = TERMS[2:]
ALL_ONE = dict.fromkeys(TERMS, 1.0)


def plain_loss(*, has_regions):
    """A stand-in in double precision, where nnU-Net's own loss computes in float32. Class K and channel K: ignored."""

    def loss(logits, target):
        if not has_regions:
            return nn.functional.cross_entropy(logits, target[:, 0].long(), ignore_index=K)
        value = nn.functional.binary_cross_entropy_with_logits(logits, target[:, :K].to(logits.dtype), reduction="none")
        return (value * (1 - target[:, K:].sum(1, keepdim=True))).mean()

    return loss


class GivenFeatures:
    """In place of the tap on a network's last layer."""

    def __init__(self, features):
        self.features = features

    def pop(self):
        return self.features


class Case:
    """A patch as the trainer hands it over: everything random but the head, which is the network's.

    Every weight is 1 and the ramp is over, so that the summands are the unweighted terms.
    """

    def __init__(
        self, dim=2, *, has_regions=False, ignore=False, dtype=torch.float32, awake=True, size=8, block=2, **options
    ):
        torch.manual_seed(0)
        self.head = (nn.Conv2d if dim == 2 else nn.Conv3d)(D, K, 1).to(dtype)
        full, coarse = (size,) * dim, (size // block,) * dim
        self.features = torch.randn(2, D, *full, dtype=dtype, requires_grad=True)
        if has_regions:
            self.target = (torch.rand(2, K, *full) > 0.6).float()
            if ignore:
                self.target = torch.cat((self.target, (torch.rand(2, 1, *full) > 0.7).float()), 1)
        else:
            self.target = torch.randint(0, K + ignore, (2, 1, *full)).float()
        # masks that hit most classes, not all
        first = self.target[(..., *[slice(None, None, block)] * dim)]
        truth = first[:, :K] if has_regions else (first == torch.arange(K).reshape(K, *[1] * dim)).float()
        self.coarse = (torch.randn(2, K, *coarse) + 3 * truth - 1.5 * has_regions).to(dtype).requires_grad_()
        if dtype == torch.float64:
            self.loss = plain_loss(has_regions=has_regions)
        else:
            self.loss = nnunet_loss(has_regions=has_regions, ignore=ignore, classes=K)
        self.task = toy_task(
            has_regions=has_regions, ignore=ignore, segmentation_loss=self.loss, segmentation_layer=self.head
        )
        self.term = AdversarialClassWise(**ALL_ONE | options).to(dtype)
        self.term.attach(self.task)
        self.branch = self.term.branch.to(dtype)
        self.term.start_epoch(500, 1000)
        if awake:
            for name, parameter in self.branch.named_parameters():
                if "theta" not in name:
                    nn.init.normal_(parameter, std=0.5)

    def step(self, epoch=500, features=None, logits=None, coarse=None):
        features = self.features if features is None else features
        outputs = [self.head(features) if logits is None else logits, self.coarse if coarse is None else coarse]
        return Step(self.task, outputs, [self.target], None, epoch, 1000, GivenFeatures(features))

    def terms(self, **changes):
        return self.term.weighted(self.step(**changes))

    def log(self):
        step = self.step()
        self.term.weighted(step)
        return step.log


def up(x, size):
    return nn.functional.interpolate(x, size=size, mode="bilinear" if len(size) == 2 else "trilinear")


def reference(case):
    """docs/method.md in plain steps: masks and class features by loops at full size, FT and the context map built."""
    step, regions, module = case.step(), case.task.has_regions, case.branch
    features, logits, coarse = step.features, step.outputs[0], step.outputs[1]
    target, labels, valid = case.target, step.labels(0), step.valid(0)
    size = tuple(features.shape[2:])
    spatial = tuple(range(2, features.dim()))
    if valid is None:
        valid = torch.ones_like(target[:, :1], dtype=torch.bool)
    tau = 1 + 4 * torch.sigmoid(case.term.temperature.theta)
    ones = (1,) * len(size)

    coarse = coarse.detach()
    masks = coarse.sigmoid() if regions else coarse.softmax(1)
    if regions:
        masks = torch.cat((masks, (1 - masks).prod(1, keepdim=True)), 1)
    full_masks = masks
    for axis in spatial:
        full_masks = full_masks.repeat_interleave(2, axis)
    full_masks = full_masks * valid
    classes = full_masks.shape[1]
    c = torch.stack(
        [
            (full_masks[:, k : k + 1] * features).sum(spatial) / (full_masks[:, k].flatten(1).sum(1, keepdim=True) + 1)
            for k in range(classes)
        ],
        1,
    )

    def frm_c(x):
        frm = module.class_wise_reconstruction
        return x + frm.project(nn.functional.gelu(frm.expand(x)))

    blocks = 2 ** len(size)
    pool = nn.functional.avg_pool2d if len(size) == 2 else nn.functional.avg_pool3d
    count = pool(valid.to(features.dtype), 2) * blocks
    cells = pool(features * valid, 2) * blocks / count.clamp_min(1)
    kept = count > 0
    frm = module.penultimate_reconstruction
    context = sum((masks * kept)[:, k : k + 1] * frm_c(c)[:, k].reshape(2, D, *ones) for k in range(classes))
    hidden = frm.expand(cells) + torch.einsum("od,bd...->bo...", frm.context.weight, context)
    correction = frm.project(nn.functional.leaky_relu(frm.norm(hidden), 0.01))
    teacher_features = features + up(correction, size)
    teacher = module.teacher_head(teacher_features)

    def distribution(x):
        if regions:
            return torch.stack((x.sigmoid(), (-x).sigmoid()), -1)  # B, K, positions, 2
        return x.movedim(1, -1).softmax(-1).unsqueeze(1)

    def kl(t, s, weight):
        p, q = distribution(t.detach() / tau), distribution(s / tau)
        value = (p * (p.log() - q.log())).sum(-1).mean(1)
        return tau**2 * (value * weight).sum() / weight.sum().clamp_min(1)

    def tokens(x, freeze=False):
        weight, bias = module.teacher_head.weight.flatten(1), module.teacher_head.bias
        if freeze:
            weight, bias = weight.detach(), bias.detach()
        return x @ weight.T + bias

    taught, token_losses, feature_losses = torch.zeros(2, classes), [], []
    first = (..., *[slice(None, None, 2)] * len(size))
    token_teacher = tokens(frm_c(c.detach()))
    for b in range(2):
        for k in range(classes):
            if regions:
                r = labels[b].bool() & valid[b]
                region = r[k] if k < K else ~labels[b].bool().any(0) & valid[b][0]
            else:
                region = (labels[b, 0] == k) & valid[b, 0]
            weights = (masks * count)[b, k] * valid[b, 0][first]
            if not region.any() or weights[region[first]].sum() <= weights.sum() / 2:
                continue
            taught[b, k] = 1
            if regions:
                goal = torch.stack([(region & r[j]).sum() / region.sum() for j in range(K)]).to(features.dtype)
                token_losses.append(nn.functional.binary_cross_entropy_with_logits(token_teacher[b, k], goal))
            else:
                token_losses.append(-token_teacher[b, k].log_softmax(0)[k])
            feature_losses.append(1 - nn.functional.cosine_similarity(c[b, k], frm_c(c)[b, k].detach(), dim=0))

    def attention(x):
        energy = (x.square().mean(1, keepdim=True) * kept).flatten(1)
        return energy / energy.norm(dim=1, keepdim=True)

    difference = attention(cells) - attention((cells + correction).detach())
    return {
        "teacher": case.loss(teacher, target),
        "token": sum(token_losses) / len(token_losses),
        "adversarial": kl(teacher, logits, valid[:, 0]),
        "class_wise": kl(token_teacher.transpose(1, 2), tokens(c, freeze=True).transpose(1, 2), taught),
        "class_wise_feature": sum(feature_losses) / len(feature_losses),
        "reconstruction": difference.square().sum(1).mean(),
    }


@DIMS
@REGIONS
@IGNORE
def test_terms_and_gradients_equal_the_plain_reference(dim, has_regions, ignore):
    case = Case(dim, has_regions=has_regions, ignore=ignore, dtype=torch.float64, size=6)
    theta = case.term.temperature.theta
    inputs = [case.features, case.coarse, *case.head.parameters(), *case.term.parameters()]
    got, expected = case.terms(), reference(case)
    assert list(got) == list(TERMS)
    for name in TERMS:
        torch.testing.assert_close(got[name], expected[name], msg=lambda m, n=name: f"{n}: {m}")
        gradients = [
            torch.autograd.grad(x[name], inputs, retain_graph=True, allow_unused=True) for x in (got, expected)
        ]
        for leaf, a, b in zip(inputs, *gradients, strict=True):
            if a is None and b is None:
                continue
            a, b = (torch.zeros_like(leaf) if g is None else g for g in (a, b))
            torch.testing.assert_close(-a if leaf is theta else a, b, rtol=1e-6, atol=1e-9)


@DIMS
@REGIONS
@IGNORE
def test_teacher_passes_gradcheck(dim, has_regions, ignore):
    """On 3 x 3 (x 3); the one term without a stop-gradient between it and the features."""
    case = Case(dim, has_regions=has_regions, ignore=ignore, dtype=torch.float64, size=3, block=1)
    logits = case.head(case.features).detach()

    def teacher(features):
        return case.terms(features=features, logits=logits, coarse=case.coarse.detach())["teacher"]

    assert torch.autograd.gradcheck(teacher, (case.features,), fast_mode=True)


def test_classes_whose_masks_miss_them_are_not_taught():
    """What lies under the masks of a coarse head that is wrong is no class's feature."""
    case = Case()
    class_wise = ("token", "class_wise", "class_wise_feature")
    assert all(case.terms()[name] > 0 for name in class_wise)
    case.coarse = -case.coarse.detach()
    terms = case.terms()
    assert all(terms[name].item() == 0 for name in class_wise)
    assert terms["teacher"] > 0 and terms["adversarial"] > 0


@DIMS
@REGIONS
@IGNORE
def test_at_the_first_step_the_teacher_is_the_student(dim, has_regions, ignore):
    """Every distillation is exactly 0; its gradient is, but for the rounding of the class tokens' softmax."""
    case = Case(dim, has_regions=has_regions, ignore=ignore, awake=False)
    terms = case.terms()
    for name in DISTILLATION:
        assert terms[name].item() == 0, name
        (gradient,) = torch.autograd.grad(terms[name], case.features, retain_graph=True)
        assert gradient.abs().max() <= (1e-6 if name == "class_wise" else 0), name
    assert terms["teacher"] == case.loss(case.head(case.features), case.target)


@HALF
@pytest.mark.parametrize("awake", [False, True])
@REGIONS
def test_autocast(dtype, awake, has_regions):
    case = Case(2, has_regions=has_regions, awake=awake, size=64)
    with torch.autocast("cpu", dtype):
        case.features = (10 * case.features).detach().to(dtype).requires_grad_()
        terms = case.terms()
        (1024 * sum(terms.values())).backward()
    for name, value in terms.items():
        assert torch.isfinite(value), name
        assert name == "teacher" or value.dtype == torch.float32, name
        assert awake or name not in DISTILLATION or value.item() == 0, name
    assert torch.isfinite(case.features.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in case.term.parameters())


@REGIONS
def test_the_class_wise_part_is_computed_in_float32_under_autocast(has_regions):
    """Products of thousands of voxels overflow in half precision: the same numbers as without autocast."""
    case = Case(has_regions=has_regions, size=64)
    case.features = (40 + 10 * case.features).detach().half().float()  # exact in both precisions
    expected = case.terms()
    with torch.autocast("cpu", torch.bfloat16):
        got = case.terms()
    for name in ("token", "class_wise", "class_wise_feature"):
        torch.testing.assert_close(got[name], expected[name], rtol=1e-5, atol=1e-7)


@DIMS
@REGIONS
def test_ignored_voxels_change_nothing(dim, has_regions):
    case = Case(dim, has_regions=has_regions, ignore=True)
    case.target[..., :3] = 1 if has_regions else K  # a whole column of cells, and half of the next
    expected = case.terms()
    invalid = ~case.step().valid(0)
    junk = case.features.detach().masked_fill(invalid, 1e3).requires_grad_()
    junk_coarse = case.coarse.detach().clone()
    junk_coarse[..., :1] = -50
    junk_logits = case.head(case.features).detach().masked_fill(invalid, -1e3)
    terms = case.terms(features=junk, logits=junk_logits, coarse=junk_coarse)
    # the teacher's loss is nnU-Net's, which masks by itself
    for name in TERMS:
        torch.testing.assert_close(terms[name], expected[name], rtol=1e-5, atol=1e-6)
    sum(terms.values()).backward()
    assert not junk.grad[invalid.expand_as(junk)].any() and junk.grad.any()


@DIMS
@REGIONS
@pytest.mark.parametrize("patch", ["ignored", "background"])
def test_empty_patches_are_finite_and_connected(dim, has_regions, patch):
    case = Case(dim, has_regions=has_regions, ignore=True)
    if patch == "background":
        case.target.zero_()
    elif has_regions:
        case.target[:, -1] = 1
    else:
        case.target.fill_(K)
    step = case.step()
    terms = case.term.weighted(step)
    assert all(torch.isfinite(value) and value.requires_grad for value in terms.values())
    if patch == "ignored":
        assert all(terms[name].item() == 0 for name in TERMS[1:])
    sum(terms.values()).backward()
    for name, parameter in case.term.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    assert torch.isfinite(case.features.grad).all()
    assert all(torch.isfinite(torch.as_tensor(v)) for name, v in step.log.items() if name != "inter_class_similarity")


def test_a_class_missing_from_patch_and_masks_contributes_nothing():
    case = Case()
    case.target[case.target == 1] = 0
    case.coarse = case.coarse.detach().index_fill(1, torch.tensor(1), -1e4)
    terms = case.terms()
    sum(terms.values()).backward()
    assert all(torch.isfinite(value) for value in terms.values())
    assert torch.isfinite(case.features.grad).all()
    # its token is the bias alone, and nobody asks for it
    case.branch.teacher_head.bias.data[1] -= 1e4
    assert case.terms()["token"] <= terms["token"]


def test_who_gets_a_gradient():
    frm_p, frm_c = "penultimate_reconstruction", "class_wise_reconstruction"
    expected = {
        "teacher": {"features", frm_p, frm_c, "teacher_head"},
        "token": {frm_c, "teacher_head"},
        "adversarial": {"features", "head", "temperature"},
        "class_wise": {"features", "temperature"},
        "class_wise_feature": {"features"},
        "reconstruction": {"features"},
    }
    for name, parts in expected.items():
        case = Case()
        case.terms()[name].backward()
        got = {key.split(".")[0] for key, p in case.branch.named_parameters() if p.grad is not None}
        got |= {"features"} if case.features.grad is not None else set()
        got |= {"head"} if case.head.weight.grad is not None else set()
        assert got == parts, name
        assert case.coarse.grad is None, name


def test_a_step_on_theta_raises_the_adversarial_loss():
    case = Case()
    optimizer = torch.optim.SGD(case.term.parameter_groups()[1:], lr=0.1, momentum=0.99, nesterov=True)
    before = case.terms()
    (before["adversarial"] + before["class_wise"]).backward()
    optimizer.step()
    after = case.terms()
    assert after["adversarial"] > before["adversarial"]
    assert after["class_wise"] > before["class_wise"]


def test_a_plane_is_a_volume_of_depth_one():
    plane, volume = Case(2), Case(3)
    with torch.no_grad():
        for a, b in zip(plane.term.parameters(), volume.term.parameters(), strict=True):
            if a.dim() == 4:
                b.zero_()[:, :, b.shape[2] // 2] = a
            else:
                b.copy_(a)
    volume.target = plane.target.unsqueeze(2)
    deep = {"features": plane.features, "logits": plane.head(plane.features), "coarse": plane.coarse}
    got = volume.terms(**{name: x.unsqueeze(2) for name, x in deep.items()})
    expected = plane.terms()
    for name in TERMS:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-5, atol=1e-6)


def test_ramp():
    assert [distillation_ramp(e, 1000) for e in (0, 49)] == [0, 0]
    assert distillation_ramp(50, 1000) == pytest.approx(0.006738, rel=1e-3)  # exp(-5)
    assert distillation_ramp(150, 1000) == pytest.approx(0.286505, rel=1e-5)  # exp(-1.25)
    assert distillation_ramp(250, 1000) == distillation_ramp(999, 1000) == 1


def test_the_default_weights_and_which_of_them_are_ramped():
    case = Case(**{name: value for name, value in AdversarialClassWise().weights.items()})
    unweighted, weighted = Case().terms(), case.terms(epoch=150)
    ramp = distillation_ramp(150, 1000)
    expected = [1, 0.5, 0.1 * ramp, 0.01 * ramp, 0.01 * ramp, 0.1 * ramp]
    assert [(weighted[n] / unweighted[n]).item() for n in TERMS] == pytest.approx(expected, rel=1e-4)
    assert case.term.distilling == DISTILLATION


def test_what_is_logged():
    case = Case()
    log = case.log()
    assert set(log) == {"ramp", "tau", "lambda", "inter_class_similarity"}
    assert not any(value.requires_grad for value in log.values() if isinstance(value, torch.Tensor))
    assert log["tau"].item() == pytest.approx(3.924234)
    assert log["lambda"] == log["ramp"] == 1
    assert -1 <= log["inter_class_similarity"].item() <= 1
    case.term.start_epoch(0, 1000)
    assert case.log()["lambda"] == 0


def test_the_bounds_of_tau_reach_the_loss():
    assert Case(tau_min=2.0, tau_range=6.0).log()["tau"].item() == pytest.approx(2 + 6 / (1 + 2.718281828**-1))


NO_CW = {"token": 0.0, "class_wise": 0.0, "class_wise_feature": 0.0}
ABLATIONS = {
    "noCW": (NO_CW, {"teacher", "adversarial", "reconstruction"}, {"penultimate", "teacher_head", "temperature"}),
    "noAT": ({"adversarial": 0.0}, set(TERMS) - {"adversarial"}, {"penultimate", "class_wise", "teacher_head"}),
    "noFRM": ({"feature_reconstruction": False}, {"teacher", "adversarial"}, {"teacher_head", "temperature"}),
    "class-wise only": (
        {"teacher": 0.0, "adversarial": 0.0, "reconstruction": 0.0},
        {"token", "class_wise", "class_wise_feature"},
        {"class_wise", "teacher_head"},
    ),
}


@pytest.mark.parametrize("name", ABLATIONS)
@REGIONS
def test_ablations_have_neither_the_terms_nor_the_parameters(name, has_regions):
    options, terms, parts = ABLATIONS[name]
    case = Case(has_regions=has_regions, **options)
    got = case.terms()
    assert set(got) == set(case.term.names) == terms
    prefixes = {"penultimate_reconstruction": "penultimate", "class_wise_reconstruction": "class_wise"}
    keys = {key.split(".")[0] for key, _ in case.branch.named_parameters()}
    assert {prefixes.get(key, key) for key in keys} == parts
    sum(got.values()).backward()
    assert all(parameter.grad is not None for parameter in case.term.parameters())
    if name == "noAT":
        assert case.log()["tau"].item() == pytest.approx(3.924234)


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_parameter_is_in_one_group_and_theta_moves_by_plain_steps(name):
    case = Case(**ABLATIONS[name][0])
    groups = case.term.parameter_groups()
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted({id(p) for p in case.term.parameters()})
    plain = [group for group in groups if "momentum" in group]
    if "adversarial" in case.term.names:
        assert plain == [
            {"params": [case.term.temperature.theta], "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
        ]
    else:
        assert plain == []


def test_a_teacher_that_nothing_trains_is_refused():
    with pytest.raises(ValueError, match="need teacher above 0"):
        AdversarialClassWise(teacher=0)
    with pytest.raises(ValueError, match="need teacher or token above 0"):
        AdversarialClassWise(teacher=0, token=0, adversarial=0, reconstruction=0)
    with pytest.raises(ValueError, match="not be negative, got {'token': -1}"):
        AdversarialClassWise(token=-1)


def test_a_network_that_cannot_teach_is_refused():
    with pytest.raises(ValueError, match="coarse masks.*lowest of the 2 outputs.*four or more stages"):
        AdversarialClassWise().attach(toy_task(head_weights=(1.0, 0.0)))
    with pytest.raises(ValueError, match="1x1 Conv2d or Conv3d, got Linear"):
        AdversarialClassWise().attach(toy_task(segmentation_layer=nn.Linear(4, 3)))
    with pytest.raises(ValueError, match="1x1 Conv2d or Conv3d, got Conv2d"):
        AdversarialClassWise().attach(toy_task(segmentation_layer=nn.Conv2d(4, 3, 3)))


def test_the_head_is_copied_not_shared():
    case = Case(awake=False)
    head = case.branch.teacher_head
    assert torch.equal(head.weight, case.head.weight) and head.weight is not case.head.weight
    nn.init.normal_(case.head.weight)
    assert not torch.equal(head.weight, case.head.weight)
    case.term.start_anew(case.task)
    assert torch.equal(head.weight, case.head.weight)


def test_no_class_wise_map_of_features_is_ever_built():
    """B x K x D x voxels would be the cost of a naive class-wise part; nothing exceeds the features themselves."""

    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for value in result if isinstance(result, (tuple, list)) else (result,):
                if isinstance(value, torch.Tensor):
                    self.numel = max(self.numel, value.numel())
            return result

    case = Case(size=32)
    logits = case.head(case.features)
    with Largest() as largest:
        sum(case.terms(logits=logits).values()).backward()
    assert largest.numel == case.features.numel()


@pytest.mark.slow
def test_the_branch_compiles_in_one_graph():
    case = Case(ignore=True)
    step = case.step()
    arguments = step.features, step.outputs[1], step.labels(0), step.valid(0)
    compiled = torch.compile(case.branch, backend="aot_eager", fullgraph=True)
    results = [module(*arguments) for module in (case.branch, compiled)]
    assert isinstance(case.branch, ReconstructionBranch)
    for name in ("teacher_logits", "correction", "cells", "tau"):
        torch.testing.assert_close(getattr(results[1], name), getattr(results[0], name))
    inputs = [case.features, *case.branch.parameters()]
    # a graph gives 0 where eager says that there is no gradient: theta
    gradients = [
        torch.autograd.grad(x.teacher_logits.square().sum(), inputs, allow_unused=True, materialize_grads=True)
        for x in results
    ]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def toy_network():
    body = nn.Sequential(nn.Conv2d(1, D, 3, padding=1), nn.LeakyReLU(), nn.Conv2d(D, D, 3, padding=1), nn.LeakyReLU())
    return body, nn.Conv2d(D, K, 1), nn.Conv2d(D, K, 1)


def toy_step(network, image, target, task):
    body, head, auxiliary = network
    features = body(image)
    coarse = auxiliary(nn.functional.avg_pool2d(features, 2))
    outputs = [head(features), coarse]
    return Step(task, outputs, [target, nn.functional.max_pool2d(target, 2)], None, 500, 1000, GivenFeatures(features))


def toy_training(**options):
    torch.manual_seed(0)
    target = torch.zeros(1, 1, 16, 16)
    target[..., 2:8, 2:8] = 1
    target[..., 9:15, 4:14] = 2
    image = target + 0.1 * torch.randn(1, 1, 16, 16)
    network = toy_network()
    term = AdversarialClassWise(**options)
    task = toy_task(segmentation_layer=network[1])
    term.attach(task)
    term.start_epoch(500, 1000)
    return network, image, target, task, term


def test_toy_training_lowers_the_supervised_terms():
    network, image, target, task, term = toy_training()
    parameters = [p for part in network for p in part.parameters()]
    optimizer = torch.optim.SGD(parameters, 0.02, momentum=0.9, nesterov=True)
    for group in term.parameter_groups():
        optimizer.add_param_group(group)
    history = []
    for _ in range(60):
        optimizer.zero_grad()
        step = toy_step(network, image, target, task)
        values = {"segmentation": task.segmentation_loss(step.outputs[0], step.target[0])} | term.weighted(step)
        total = sum(values.values()) + 0.5 * task.segmentation_loss(step.outputs[1], step.target[1])
        total.backward()
        optimizer.step()
        history.append({name: value.item() for name, value in values.items()})
    for name in ("teacher", "token", "segmentation"):
        assert history[-1][name] < history[0][name] - 0.05, name
    assert all(history[-1][name] > 0 for name in DISTILLATION)


@pytest.mark.parametrize("name", ["adversarial", "class_wise_feature", "reconstruction"])
def test_toy_training_lowers_each_distillation_term(name):
    """The network alone, the modules stand still. ``class_wise`` has no such promise: through one frozen head, teacher
    and student tokens move together with the class-wise features."""
    network, image, target, task, term = toy_training()
    for parameter in term.parameters():
        nn.init.normal_(parameter, std=0.2)
    parameters = [p for part in network for p in part.parameters()]
    optimizer = torch.optim.SGD(parameters, 0.05 / term.weights[name], momentum=0.9)
    values = []
    for _ in range(60):
        optimizer.zero_grad()
        value = term.weighted(toy_step(network, image, target, task))[name]
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.5 * values[0]
