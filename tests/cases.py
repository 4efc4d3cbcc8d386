"""Random inputs of the losses and terms, and what every test of them asks: kinds of data, and memory kept."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor, nn

from nnunet_skd.losses.probabilities import class_probabilities
from nnunet_skd.step import Step, Task

DIMS = pytest.mark.parametrize("dim", [2, 3], ids=["2d", "3d"])
REGIONS = pytest.mark.parametrize("has_regions", [False, True], ids=["labels", "regions"])
IGNORE = pytest.mark.parametrize("ignore", [False, True], ids=["all", "ignore"])
HALF = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])

HEAD_WEIGHTS = (2 / 3, 1 / 3, 0.0)  # as nnU-Net's for three outputs: the lowest is not trained


@dataclass
class Case:
    """``logits`` are the student's, ``teacher`` are probabilities; ``labels`` and ``valid`` as split_target gives."""

    logits: Tensor
    teacher: Tensor
    labels: Tensor
    valid: Tensor | None


def random_case(
    dim: int = 2,
    *,
    has_regions: bool = False,
    ignore: bool = False,
    size: int = 4,
    classes: int = 3,
    batch: int = 2,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Case:
    generator = torch.Generator().manual_seed(seed)
    full = (size,) * dim
    logits, teacher = (torch.randn(batch, classes, *full, generator=generator, dtype=dtype) for _ in range(2))
    valid = torch.rand(batch, 1, *full, generator=generator) > 0.3
    if has_regions:
        labels = torch.rand(batch, classes, *full, generator=generator) > 0.5
    else:
        labels = torch.randint(0, classes, (batch, 1, *full), generator=generator)
    teacher = class_probabilities(teacher, has_regions=has_regions)
    return Case(logits, teacher, torch.where(valid, labels, 0) if ignore else labels, valid if ignore else None)


def nnunet_loss(*, has_regions: bool = False, ignore: bool = False, classes: int = 3) -> nn.Module:
    """nnU-Net's loss of one output, as nnUNetTrainer._build_loss makes it; the ignore label comes after the classes."""
    dice = {"batch_dice": False, "smooth": 1e-5, "ddp": False, "do_bg": has_regions}
    if has_regions:
        return DC_and_BCE_loss({}, dice, use_ignore_label=ignore, dice_class=MemoryEfficientSoftDiceLoss)
    label = classes if ignore else None
    return DC_and_CE_loss(dice, {}, ignore_label=label, dice_class=MemoryEfficientSoftDiceLoss)


def supervised_loss(**kind) -> nn.Module:
    """nnU-Net's loss of three outputs."""
    return DeepSupervisionWrapper(nnunet_loss(**kind), HEAD_WEIGHTS)


def toy_task(*, has_regions: bool = False, ignore: bool = False, classes: int = 3, **changes) -> Task:
    settings = {
        "trainer": "nnUNetTrainerToy",
        "configuration": "configuration 2d",
        "segmentation_loss": nnunet_loss(has_regions=has_regions, ignore=ignore, classes=classes),
        "head_weights": HEAD_WEIGHTS,
        "has_regions": has_regions,
        "ignore_label": classes if ignore else None,
        "cross_entropy_weight": 1.0,
        "lowest_value": -1.0,
    }
    return Task(**settings | changes)


def random_outputs(
    *, has_regions: bool = False, ignore: bool = False, size: int = 32, classes: int = 3, seed: int = 0
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """The student's and the teacher's logits and nnU-Net's targets, at three resolutions in 2D."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [size // 2**i for i in range(3)]
    student, teacher = ([torch.randn(2, classes, n, n, generator=generator) for n in sizes] for _ in range(2))
    if has_regions:
        target = [torch.rand(2, classes + ignore, n, n, generator=generator) > 0.5 for n in sizes]
    else:
        target = [torch.randint(0, classes + ignore, (2, 1, n, n), generator=generator) for n in sizes]
    return student, teacher, target


def random_step(*, epoch: int = 500, num_epochs: int = 1000, seed: int = 0, size: int = 32, **kind) -> Step:
    student, teacher, target = random_outputs(size=size, seed=seed, **kind)
    student = [z.requires_grad_() for z in student]
    return Step(toy_task(**kind), student, target, teacher, epoch, num_epochs)


def kept_for_backward(forward: Callable[[], Tensor], *existing: Tensor, at_least: int) -> list[tuple[int, ...]]:
    """Shapes of the distinct tensors of ``at_least`` so many numbers that the backward pass of ``forward`` keeps.

    ``existing``: tensors that are there anyway, as logits of networks are.
    """
    known = {x.untyped_storage().data_ptr() for x in existing}
    references = []

    def pack(x: Tensor) -> _Kept:
        kept = _Kept(x)
        references.append(weakref.ref(kept))
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        result = forward()
    alive = [kept.tensor for kept in (reference() for reference in references) if kept is not None]
    large = {
        x.untyped_storage().data_ptr(): tuple(x.shape)
        for x in alive
        if x.untyped_storage().nbytes() >= at_least * x.element_size()
    }
    del result  # it held the graph
    return [shape for address, shape in large.items() if address not in known]


class _Kept:
    def __init__(self, tensor: Tensor):
        self.tensor = tensor
