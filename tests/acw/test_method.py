import contextlib
import os

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from nnunet_skd.acw_skd import AdversarialClassWiseDistillation, distillation_ramp
from nnunet_skd.targets import split_target

K, D = 3, 4
TERMS = ("teacher", "token", "adversarial", "class_wise", "class_wise_feature", "reconstruction")
DISTILLATION = TERMS[2:]
DIMS = pytest.mark.parametrize("dim", [2, 3], ids=["2d", "3d"])
REGIONS = pytest.mark.parametrize("has_regions", [False, True], ids=["labels", "regions"])
IGNORE = pytest.mark.parametrize("ignore", [False, True], ids=["all", "ignore"])


def nnunet_loss(*, has_regions, ignore):
    dice = {"batch_dice": False, "smooth": 1e-5, "do_bg": has_regions, "ddp": False}
    if has_regions:
        return DC_and_BCE_loss({}, dice, use_ignore_label=ignore, dice_class=MemoryEfficientSoftDiceLoss)
    label = K if ignore else None
    return DC_and_CE_loss(dice, {}, ignore_label=label, dice_class=MemoryEfficientSoftDiceLoss)


def plain_loss(*, has_regions):
    """A stand-in in double precision, where nnU-Net's own loss computes in float32. Class K and channel K: ignored."""

    def loss(logits, target):
        if not has_regions:
            return nn.functional.cross_entropy(logits, target[:, 0].long(), ignore_index=K)
        value = nn.functional.binary_cross_entropy_with_logits(logits, target[:, :K].to(logits.dtype), reduction="none")
        return (value * (1 - target[:, K:].sum(1, keepdim=True))).mean()

    return loss


class Case:
    """A patch as the trainer hands it over: everything random but the head, which is the network's."""

    def __init__(
        self, dim=2, *, has_regions=False, ignore=False, dtype=torch.float32, awake=True, size=8, block=2, **options
    ):
        torch.manual_seed(0)
        self.has_regions, self.ignore_label = has_regions, K if ignore else None
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
            self.loss = nnunet_loss(has_regions=has_regions, ignore=ignore)
        self.module = AdversarialClassWiseDistillation(
            self.head, has_regions=has_regions, segmentation_loss=self.loss, **options
        ).to(dtype)
        self.module.set_epoch(500, 1000)
        if awake:
            for name, parameter in self.module.named_parameters():
                if name != "temperature.theta":
                    nn.init.normal_(parameter, std=0.5)

    @property
    def arguments(self):
        labels, valid = split_target(self.target, has_regions=self.has_regions, ignore_label=self.ignore_label)
        return self.features, self.head(self.features), self.coarse, self.target, labels, valid

    def terms(self):
        return self.module(*self.arguments)

    def ignore_everything(self):
        if self.has_regions:
            self.target[:, -1] = 1
        else:
            self.target.fill_(K)


def up(x, size):
    return nn.functional.interpolate(x, size=size, mode="bilinear" if len(size) == 2 else "trilinear")


def reference(case):
    """METHODS in plain steps: masks and class features by loops at full resolution, FT and the context map built."""
    features, logits, coarse, target, labels, valid = case.arguments
    module, regions = case.module, case.has_regions
    size = tuple(features.shape[2:])
    spatial = tuple(range(2, features.dim()))
    if valid is None:
        valid = torch.ones_like(target[:, :1], dtype=torch.bool)
    tau = 1 + 4 * torch.sigmoid(module.temperature.theta)
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


def test_classes_whose_masks_miss_them_are_not_taught():
    """What lies under the masks of a coarse head that is wrong is no class's feature."""
    case = Case()
    assert all(case.terms()[name] > 0 for name in ("token", "class_wise", "class_wise_feature"))
    case.coarse = -case.coarse.detach()
    terms = case.terms()
    for name in ("token", "class_wise", "class_wise_feature"):
        assert terms[name].item() == 0
    assert terms["teacher"] > 0 and terms["adversarial"] > 0


@DIMS
@REGIONS
@IGNORE
def test_terms_and_gradients_equal_the_plain_reference(dim, has_regions, ignore):
    case = Case(dim, has_regions=has_regions, ignore=ignore, dtype=torch.float64, size=6)
    theta = case.module.temperature.theta
    inputs = [case.features, case.coarse, *case.head.parameters(), *case.module.parameters()]
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

    def teacher(features):
        return case.module(features, *arguments)["teacher"]

    arguments = [x if x is None else x.detach() for x in case.arguments[1:]]
    assert torch.autograd.gradcheck(teacher, (case.features,), fast_mode=True)


@DIMS
@REGIONS
@IGNORE
def test_at_the_first_step_the_distillation_is_exactly_zero(dim, has_regions, ignore):
    case = Case(dim, has_regions=has_regions, ignore=ignore, awake=False)
    terms = case.terms()
    for name in DISTILLATION:
        assert terms[name].item() == 0, name
    gradient = torch.autograd.grad(sum(terms[name] for name in DISTILLATION), case.features)[0]
    assert not gradient.any()
    logits = case.head(case.features)
    assert terms["teacher"] == case.loss(logits, case.target)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
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
    assert all(torch.isfinite(p.grad).all() for p in case.module.parameters())


@DIMS
@REGIONS
def test_ignored_voxels_change_nothing(dim, has_regions):
    case = Case(dim, has_regions=has_regions, ignore=True)
    case.target[..., :3] = 1 if has_regions else K  # a whole column of cells, and half of the next
    reference_terms = case.terms()
    _, logits, coarse, target, labels, valid = case.arguments
    junk = case.features.detach().masked_fill(~valid, 1e3).requires_grad_()
    junk_coarse = coarse.detach().clone()
    junk_coarse[..., :1] = -50
    terms = case.module(junk, logits.detach().masked_fill(~valid, -1e3), junk_coarse, target, labels, valid)
    # the teacher's loss is nnU-Net's, which masks by itself
    for name in TERMS:
        torch.testing.assert_close(terms[name], reference_terms[name], rtol=1e-5, atol=1e-6)
    sum(terms.values()).backward()
    assert not junk.grad[(~valid).expand_as(junk)].any() and junk.grad.any()


@DIMS
@REGIONS
@pytest.mark.parametrize("patch", ["ignored", "background"])
def test_empty_patches_are_finite_and_connected(dim, has_regions, patch):
    case = Case(dim, has_regions=has_regions, ignore=True)
    if patch == "ignored":
        case.ignore_everything()
    else:
        case.target.zero_()
    terms = case.terms()
    assert all(torch.isfinite(value) and value.requires_grad for value in terms.values())
    if patch == "ignored":
        assert all(terms[name].item() == 0 for name in TERMS[1:])
    weights = case.module.weights()
    sum(weights[name] * terms[name] for name in terms).backward()
    for name, parameter in case.module.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    assert torch.isfinite(case.features.grad).all()
    watched = case.module.diagnostics()
    assert all(torch.isfinite(value) for name, value in watched.items() if name != "inter_class_similarity")


def test_a_class_missing_from_patch_and_masks_contributes_nothing():
    case = Case()
    case.target[case.target == 1] = 0
    case.coarse = case.coarse.detach().index_fill(1, torch.tensor(1), -1e4)
    terms = case.terms()
    sum(terms.values()).backward()
    assert all(torch.isfinite(value) for value in terms.values())
    assert torch.isfinite(case.features.grad).all()
    # its token is the bias alone, and nobody asks for it
    case.module.teacher_head.bias.data[1] -= 1e4
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
        got = {key.split(".")[0] for key, p in case.module.named_parameters() if p.grad is not None}
        got |= {"features"} if case.features.grad is not None else set()
        got |= {"head"} if case.head.weight.grad is not None else set()
        assert got == parts, name
        assert case.coarse.grad is None, name


def test_a_step_on_theta_raises_the_adversarial_loss():
    case = Case()
    optimizer = torch.optim.SGD(case.module.parameter_groups()[1:], lr=0.1, momentum=0.99, nesterov=True)
    before = case.terms()
    (before["adversarial"] + before["class_wise"]).backward()
    optimizer.step()
    after = case.terms()
    assert after["adversarial"] > before["adversarial"]
    assert after["class_wise"] > before["class_wise"]


def test_a_plane_is_a_volume_of_depth_one():
    plane, volume = Case(2), Case(3)
    with torch.no_grad():
        for a, b in zip(plane.module.parameters(), volume.module.parameters(), strict=True):
            if a.dim() == 4:
                b.zero_()[:, :, b.shape[2] // 2] = a
            else:
                b.copy_(a)
    features, logits, coarse, target, labels, valid = plane.arguments
    deep = [x.unsqueeze(2) for x in (features, logits, coarse, target, labels)]
    expected, got = plane.terms(), volume.module(*deep, valid)
    for name in TERMS:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-5, atol=1e-6)


def test_ramp_and_weights():
    assert [distillation_ramp(e, 1000) for e in (0, 49)] == [0, 0]
    assert distillation_ramp(50, 1000) == pytest.approx(0.006738, rel=1e-3)  # exp(-5)
    assert distillation_ramp(150, 1000) == pytest.approx(0.286505, rel=1e-5)  # exp(-1.25)
    assert distillation_ramp(250, 1000) == distillation_ramp(999, 1000) == 1
    module = Case().module
    module.set_epoch(150, 1000)
    assert module.weights() == {
        "teacher": 1,
        "token": 0.5,
        "adversarial": pytest.approx(0.0286505),
        "class_wise": pytest.approx(0.00286505),
        "class_wise_feature": pytest.approx(0.00286505),
        "reconstruction": pytest.approx(0.0286505),
    }
    module.set_epoch(0, 1000)
    assert sum(module.weights().values()) == 1.5
    assert module.temperature.strength.item() == 0


def test_diagnostics():
    case = Case()
    assert case.module.diagnostics() == {}
    case.module.set_epoch(150, 1000)
    case.terms()
    values = case.module.diagnostics()
    assert set(values) == {"ramp", "tau", "lambda", "inter_class_similarity"}
    assert not any(value.requires_grad for value in values.values())
    assert values["tau"].item() == pytest.approx(3.924234)
    assert values["lambda"].item() == 1
    assert values["ramp"].item() == pytest.approx(0.2865048)
    assert -1 <= values["inter_class_similarity"].item() <= 1


def test_parameter_groups_fit_nnunets_optimizer():
    case = Case()
    optimizer = torch.optim.SGD(case.head.parameters(), 0.01, weight_decay=3e-5, momentum=0.99, nesterov=True)
    for group in case.module.parameter_groups():
        optimizer.add_param_group(group)
    network, others, theta = optimizer.param_groups
    assert (others["momentum"], others["nesterov"], others["weight_decay"]) == (0.99, True, 3e-5)
    assert (theta["momentum"], theta["nesterov"], theta["weight_decay"], theta["lr"]) == (0, False, 0, 0.01)
    assert theta["params"] == [case.module.temperature.theta]
    assert {id(p) for p in others["params"] + theta["params"]} == {id(p) for p in case.module.parameters()}


NO_CW = {"token_weight": 0, "class_wise_weight": 0, "class_wise_feature_weight": 0}
ABLATIONS = {
    "noCW": (NO_CW, {"teacher", "adversarial", "reconstruction"}, {"penultimate", "teacher_head", "temperature"}),
    "noAT": ({"adversarial_weight": 0}, set(TERMS) - {"adversarial"}, {"penultimate", "class_wise", "teacher_head"}),
    "noFRM": ({"feature_reconstruction": False}, {"teacher", "adversarial"}, {"teacher_head", "temperature"}),
    "class-wise only": (
        {"teacher_weight": 0, "adversarial_weight": 0, "reconstruction_weight": 0},
        {"token", "class_wise", "class_wise_feature"},
        {"class_wise", "teacher_head"},
    ),
    "nothing": (NO_CW | {f"{n}_weight": 0 for n in ("teacher", "adversarial", "reconstruction")}, set(), set()),
}


@pytest.mark.parametrize("name", ABLATIONS)
@REGIONS
def test_ablations_have_neither_the_terms_nor_the_parameters(name, has_regions):
    options, terms, parts = ABLATIONS[name]
    case = Case(has_regions=has_regions, **options)
    got = case.terms()
    assert set(got) == set(case.module.weights()) == terms
    prefixes = {"penultimate_reconstruction": "penultimate", "class_wise_reconstruction": "class_wise"}
    keys = {key.split(".")[0] for key in case.module.state_dict()}
    assert {prefixes.get(key, key) for key in keys} == parts
    groups = case.module.parameter_groups()
    assert sum(len(group["params"]) for group in groups) == len(list(case.module.parameters()))
    if terms:
        sum(got.values()).backward()
        assert all(parameter.grad is not None for parameter in case.module.parameters())
    # what stays is what it was, but for the context that noCW takes from FRM_p
    if name == "noAT":
        assert case.module.diagnostics()["tau"].item() == pytest.approx(3.924234)


def test_a_teacher_that_nothing_trains_is_refused():
    with pytest.raises(ValueError, match="need teacher_weight above 0"):
        Case(teacher_weight=0)
    with pytest.raises(ValueError, match="need teacher_weight or token_weight above 0"):
        Case(teacher_weight=0, token_weight=0, adversarial_weight=0, reconstruction_weight=0)
    with pytest.raises(ValueError, match="not be negative, got {'token': -1}"):
        Case(token_weight=-1)
    with pytest.raises(ValueError, match="1x1 Conv2d or Conv3d, got Linear"):
        AdversarialClassWiseDistillation(nn.Linear(4, 3), has_regions=False, segmentation_loss=None)


def test_the_head_is_copied_not_shared():
    case = Case(awake=False)
    head = case.module.teacher_head
    assert torch.equal(head.weight, case.head.weight) and head.weight is not case.head.weight
    nn.init.normal_(case.head.weight)
    assert not torch.equal(head.weight, case.head.weight)
    case.module.copy_head(case.head)
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
    arguments = case.arguments
    with Largest() as largest:
        sum(case.module(*arguments).values()).backward()
    assert largest.numel == case.features.numel()


@REGIONS
@IGNORE
def test_nothing_waits_for_the_device(has_regions, ignore, monkeypatch):
    """Tensors without data cannot be looked at, so neither is any value on its way to Python."""
    case = Case(has_regions=has_regions, ignore=ignore)
    case.module._segmentation_loss = (lambda logits, target: logits.square().mean(),)
    meta = [x if x is None else x.detach().to("meta") for x in case.arguments]
    meta[0].requires_grad_()
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())  # knows no such device
    sum(case.module.to("meta")(*meta).values()).backward()
    assert meta[0].grad.shape == case.features.shape


@pytest.mark.slow
def test_compile_in_one_graph():
    case = Case(ignore=True)
    case.module._segmentation_loss = (lambda logits, target: logits.square().mean(),)
    compiled = torch.compile(case.module, backend="aot_eager", fullgraph=True)
    expected, got = case.terms(), compiled(*case.arguments)
    for name in TERMS:
        torch.testing.assert_close(got[name], expected[name])
    inputs = [case.features, *case.module.parameters()]
    for a, b in zip(*(torch.autograd.grad(sum(x.values()), inputs) for x in (got, expected)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def train_rank(rank, file, results):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    case = Case(awake=False)
    if rank == 1:
        case.target.zero_()  # its patches miss two classes
        case.features = torch.randn_like(case.features).requires_grad_()
    module = nn.parallel.DistributedDataParallel(case.module)
    optimizer = torch.optim.SGD(case.module.parameter_groups(), 0.01, momentum=0.99, nesterov=True)
    for _ in range(3):
        optimizer.zero_grad()
        terms, weights = module(*case.arguments), case.module.weights()
        sum(weights[name] * terms[name] for name in terms).backward()
        optimizer.step()
    torch.save(case.module.state_dict(), os.path.join(results, f"{rank}.pt"))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_stay_equal_with_a_class_missing_on_one(tmp_path):
    torch.multiprocessing.spawn(train_rank, (str(tmp_path / "rendezvous"), str(tmp_path)), nprocs=2)
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    start = Case(awake=False).module.state_dict()
    for key in one:
        assert torch.equal(one[key], other[key]), key
    assert sum(not torch.equal(one[key], start[key]) for key in one) >= len(one) - 1


def toy_network():
    body = nn.Sequential(nn.Conv2d(1, D, 3, padding=1), nn.LeakyReLU(), nn.Conv2d(D, D, 3, padding=1), nn.LeakyReLU())
    return body, nn.Conv2d(D, K, 1), nn.Conv2d(D, K, 1)


def toy_step(network, image, target, module):
    body, head, auxiliary = network
    features = body(image)
    coarse = auxiliary(nn.functional.avg_pool2d(features, 2))
    return module(features, head(features), coarse, target, target, None), head(features), coarse


def toy_image():
    target = torch.zeros(1, 1, 16, 16)
    target[..., 2:8, 2:8] = 1
    target[..., 9:15, 4:14] = 2
    return target + 0.1 * torch.randn(1, 1, 16, 16), target


def test_toy_training_lowers_the_supervised_terms():
    torch.manual_seed(0)
    image, target = toy_image()
    network = toy_network()
    loss = nnunet_loss(has_regions=False, ignore=False)
    module = AdversarialClassWiseDistillation(network[1], has_regions=False, segmentation_loss=loss)
    module.set_epoch(500, 1000)
    parameters = [p for part in network for p in part.parameters()]
    optimizer = torch.optim.SGD(parameters, 0.02, momentum=0.9, nesterov=True)
    for group in module.parameter_groups():
        optimizer.add_param_group(group)
    history = []
    for _ in range(60):
        optimizer.zero_grad()
        terms, logits, coarse = toy_step(network, image, target, module)
        weights = module.weights()
        total = loss(logits, target) + 0.5 * loss(coarse, nn.functional.max_pool2d(target, 2))
        (total + sum(weights[name] * terms[name] for name in terms)).backward()
        optimizer.step()
        history.append({name: value.item() for name, value in terms.items()})
        history[-1]["segmentation"] = loss(logits, target).item()
    for name in ("teacher", "token", "segmentation"):
        assert history[-1][name] < history[0][name] - 0.1, name
    assert all(history[-1][name] > 0 for name in DISTILLATION)


@pytest.mark.parametrize("name", ["adversarial", "class_wise_feature", "reconstruction"])
def test_toy_training_lowers_each_distillation_term(name):
    """The network alone, the modules stand still. ``class_wise`` has no such promise: through one frozen head, teacher
    and student tokens move together with the class-wise features."""
    torch.manual_seed(0)
    image, target = toy_image()
    network = toy_network()
    loss = nnunet_loss(has_regions=False, ignore=False)
    module = AdversarialClassWiseDistillation(network[1], has_regions=False, segmentation_loss=loss)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    parameters = [p for part in network for p in part.parameters()]
    optimizer = torch.optim.SGD(parameters, 0.05, momentum=0.9)
    values = []
    for _ in range(60):
        optimizer.zero_grad()
        term = toy_step(network, image, target, module)[0][name]
        term.backward()
        optimizer.step()
        values.append(term.item())
    assert values[-1] < 0.5 * values[0]
