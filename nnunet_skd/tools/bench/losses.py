"""What each loss term adds to nnU-Net's Dice and cross-entropy, on random logits."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from nnunet_skd.loss import SelfDistillationLoss
from nnunet_skd.losses.deep_distribution import DeepDistribution
from nnunet_skd.losses.lean_temperature_divergence import lean_temperature_divergence
from nnunet_skd.losses.pixelwise import Pixelwise
from nnunet_skd.losses.precision import mixed_precision
from nnunet_skd.losses.term import Term
from nnunet_skd.step import Task
from nnunet_skd.tools.bench.measure import Memory, Stopwatch, alternate, paired_ratio, tensor_memory
from nnunet_skd.tools.compiling import nnunet_compiles
from nnunet_skd.tools.evaluate.statistics import quartiles

REFERENCE = "Dice + CE"
WITH_REFERENCE = ("DDL", "PSDL", "DDL + PSDL")
# Classes and edge of a cubic patch: a vessel, an abdomen and a whole body.
SIZES = {2: 96, 14: 64, 105: 32}
BATCH_SIZE = 2
OUTPUTS = 4
WARM_UP_CALLS = 2


def bench_losses(device: torch.device, rounds: int, sizes: dict[int, int] = SIZES) -> list[dict]:
    """Measure the terms, forward and backward pass, on all supervised outputs of a 3D patch.

    The teacher's forward pass is not part of it, turning its logits into probabilities is. The backward pass ends at
    the logits. On CUDA the logits are float16 under autocast, as in training. DDL and PSDL are measured together with
    nnU-Net's loss, as in training; time and memory of nnU-Net's loss in the same round are taken off. The adversarial
    term is measured alone.

    Args:
        device: `cpu` or `cuda`.
        rounds: timed calls of each term.
        sizes: edge of the patch for each number of classes.

    Returns:
        One dict per number of classes and term: `classes`, `edge`, `term`; `ms`, `ratio` with median, q1, q3; `kept`,
        bytes kept from the forward for the backward pass, also in full-size buffers of float32 (`buffers`); `peak`,
        bytes above the logits, of DDL and PSDL above nnU-Net's peak and with the teacher's outputs; `raw_ms`.
    """
    results = []
    for classes, edge in sizes.items():
        inputs = _Inputs(classes, edge, device)
        terms = _terms(device)
        calls = [partial(inputs.time, forward) for forward in terms.values()]
        for _ in range(WARM_UP_CALLS):
            for call in calls:
                call()
        times = alternate(calls, rounds, f"{classes} classes")
        reference = inputs.memory(terms[REFERENCE], uses_up_teacher=False)
        for (term, forward), values in zip(terms.items(), times, strict=True):
            kept, peak = inputs.memory(forward, uses_up_teacher=term in WITH_REFERENCE)
            if term in WITH_REFERENCE:
                values = [value - base for value, base in zip(values, times[0], strict=True)]
                kept, peak = kept - reference[0], peak - reference[1]
            results.append(
                {
                    "classes": classes,
                    "edge": edge,
                    "term": term,
                    "ms": quartiles(values),
                    "ratio": paired_ratio(values, times[0]),
                    "kept": kept,
                    "buffers": kept / (4 * BATCH_SIZE * classes * edge**3),
                    "peak": peak,
                    "raw_ms": values,
                }
            )
    return results


class _Inputs:
    """Logits of student and teacher, and targets, at each output's resolution."""

    def __init__(self, classes: int, edge: int, device: torch.device):
        self.device, self.watch = device, Stopwatch(device)
        generator = torch.Generator().manual_seed(0)
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        shapes = [(edge // 2**i,) * 3 for i in range(OUTPUTS)]

        def logits() -> list[Tensor]:
            drawn = [torch.randn(BATCH_SIZE, classes, *shape, generator=generator) for shape in shapes]
            return [z.to(device, dtype) for z in drawn]

        self.student = [z.requires_grad_() for z in logits()]
        self._teacher = logits()
        self.target = [
            torch.randint(classes, (BATCH_SIZE, 1, *s), generator=generator, dtype=torch.int16).to(device)
            for s in shapes
        ]

    def _forward(self, forward: Callable) -> Tensor:
        with mixed_precision(self.device):
            return forward(self.student, self.teacher, self.target)

    def _prepare(self) -> None:
        """As a step finds it: no gradients, and the outputs of a teacher that has just run, to be used up."""
        self.teacher = [z.clone() for z in self._teacher]
        for z in self.student:
            z.grad = None

    def time(self, forward: Callable) -> float:
        self._prepare()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        start = self.watch.mark()
        self._forward(forward).backward()
        return self.watch.milliseconds(start, self.watch.mark())

    def memory(self, forward: Callable, *, uses_up_teacher: bool) -> tuple[int, int]:
        """Bytes kept for the backward pass, and at the peak of both passes.

        ``uses_up_teacher``: what the term keeps of the teacher's outputs counts as its own.
        """

        def measure(watched: Callable) -> Memory:
            self._prepare()
            if not uses_up_teacher:
                return tensor_memory(lambda: None, lambda _: watched(), self.device)[1]
            self.teacher = None
            return tensor_memory(self._prepare, lambda _: watched(), self.device)[1]

        kept = measure(lambda: self._forward(forward)).end
        return kept, measure(lambda: self._forward(forward).backward()).peak


def _terms(device: torch.device) -> dict[str, Callable]:
    """Functions of (student's logits, teacher's logits, targets), the reference first."""
    dice_and_ce = _nnunet_loss(device)
    tau = torch.tensor(2.0, device=device, requires_grad=True)
    ddl, psdl = DeepDistribution(), Pixelwise(alpha=0.25, rising=False)
    return {
        REFERENCE: lambda student, teacher, target: dice_and_ce(student, target),
        "DDL": _distillation(device, ddl),
        "PSDL": _distillation(device, psdl),
        "DDL + PSDL": _distillation(device, ddl, psdl),
        "adversarial": lambda student, teacher, target: lean_temperature_divergence(student[0], teacher[0], tau),
    }


def _nnunet_loss(device: torch.device) -> nn.Module:
    """nnUNetTrainer's own for labels in 3D, where only a trainer could be asked for it."""
    return nnUNetTrainer._build_loss(
        SimpleNamespace(
            label_manager=SimpleNamespace(has_regions=False, ignore_label=None),
            configuration_manager=SimpleNamespace(batch_dice=False),
            is_ddp=False,
            enable_deep_supervision=True,
            _do_i_compile=lambda: nnunet_compiles(device),
            _get_deep_supervision_scales=lambda: [None] * OUTPUTS,
        )
    )


def _distillation(device: torch.device, *terms: Term) -> Callable:
    """nnU-Net's loss and the terms beside it, as the trainer joins them."""
    base = _nnunet_loss(device)
    task = Task(
        trainer="bench",
        configuration="random logits",
        segmentation_loss=base.loss,
        head_weights=tuple(base.weight_factors),
        has_regions=False,
        ignore_label=None,
        cross_entropy_weight=1.0,
    )
    loss = SelfDistillationLoss(base, terms, task)

    def forward(student: list[Tensor], teacher: list[Tensor], target: list[Tensor]) -> Tensor:
        loss.teacher_outputs = teacher.copy()
        teacher.clear()
        return loss(student, target)

    return forward
