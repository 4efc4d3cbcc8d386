"""What the teacher says about voxels without a label: images that nobody annotated, and ignored voxels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed, nn

from nnunet_skd.losses.term import Term

if TYPE_CHECKING:
    from nnunet_skd.step import Step, Task

TARGETS = ("soft", "hard")


def unlabelled_loss(
    logits: Tensor,
    target: Tensor,
    accepted: Tensor | None = None,
    known: Tensor | None = None,
    *,
    has_regions: bool = False,
) -> Tensor:
    """``CE(z, q) + mean_k (1 - Dice(p_k, q_k))`` over the accepted voxels, ``Dice = 2 sum p q / (sum p + sum q)``.

    nnU-Net's loss with the teacher's opinion q for the truth (ours in this form). The Dice is over the whole batch
    (under DDP each process's own), of the classes apart from the background, and 1 for a class that q gives more than
    one half nowhere; without it thin structures vanish. It sharpens soft targets: it is largest where p is 0 or 1, not
    where p = q. Regions: binary cross-entropy, mean over regions, and the Dice of each region.

    >>> z, q = torch.tensor([20.0, -20.0]).view(1, 2, 1), torch.tensor([1.0, 0.0]).view(1, 2, 1)
    >>> round(unlabelled_loss(z, q).item(), 4)  # agreement on background: no cross-entropy, Dice 1
    0.0

    Args:
        logits: the student's, ``B, K, spatial``; cast to float32 here (float64 stays).
        target: q, ``B, K, spatial``, probabilities or 0 and 1; gets no gradient.
        accepted: ``B, 1, spatial`` (bool), or None for all voxels.
        known: ``K`` (bool): the classes that are compared, or None for all. For softmax the others are taken out of
            both distributions.

    Returns:
        Scalar; 0 and connected to the graph where no voxel is accepted.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    target = target.detach()
    accepted = torch.ones_like(logits[:, :1], dtype=torch.bool) if accepted is None else accepted
    known = logits.new_ones(logits.shape[1], dtype=torch.bool) if known is None else known
    known = known.view(-1, *(1,) * (logits.dim() - 2))
    target = target * known
    if has_regions:
        probabilities = logits.sigmoid()
        cross_entropy = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none") * known
        cross_entropy = cross_entropy.mean(1, keepdim=True)
    else:
        target = target / target.sum(1, keepdim=True).clamp_min(1e-6)
        log_probabilities = torch.where(known, logits, torch.finfo(logits.dtype).min / 2).log_softmax(1)
        probabilities = log_probabilities.exp()
        cross_entropy = -(target * log_probabilities).sum(1, keepdim=True)
        probabilities, target, known = probabilities[:, 1:], target[:, 1:], known[1:]
    axes = (0, *range(2, logits.dim()))
    overlap = (probabilities * target * accepted).sum(axes)
    size = ((probabilities + target) * accepted).sum(axes)
    present = ((target > 0.5) & accepted).any(dim=0).flatten(1).any(1) & known.flatten()
    dice_loss = torch.where(present, 1 - 2 * overlap / size.clamp_min(1e-6), 0).mean()
    return torch.where(accepted, cross_entropy, 0).sum() / accepted.sum().clamp_min(1) + dice_loss


class Unlabelled(Term):
    """L_u: the sum over the supervised outputs, with nnU-Net's weights, of :func:`unlabelled_loss` (ours).

    Where: on the patches of the second stream (:mod:`nnunet_skd.second_stream`), and where the dataset has an ignore
    label, on the ignored voxels of nnU-Net's labelled patches as well.

    q is the teacher's probabilities (``soft``) or its decision (``hard``: the most probable class, or the regions above
    0.5). Only voxels count where the teacher is sure: its most probable class, or each region's decision, has more than
    ``threshold``.

    A class that the teacher does not know must not be unlearnt: it is left out of the comparison until the teacher has
    given it more than chance somewhere (1 / K; regions: 0.5), in this epoch or the last.

    The weight is 0 in the first ``start`` of the training and rises linearly over the next ``rise`` of it.

    Raises:
        ValueError: for an unknown ``target``, or a threshold, start or rise outside [0, 1).
    """

    name = "unlabelled"
    on_unlabelled = True
    distilling = ()  # may be the larger one: the segmentation loss of labels that are known by heart is small

    def __init__(
        self,
        *,
        weight: float = 1.0,
        start: float = 0.0,
        rise: float = 0.0,
        target: str = "soft",
        threshold: float = 0.0,
    ):
        super().__init__(weight=weight)
        if target not in TARGETS:
            raise ValueError(f"target must be one of {TARGETS}, got {target!r}")
        for name, value in (("start", start), ("rise", rise), ("threshold", threshold)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {value}")
        self.start, self.rise, self.target, self.threshold = start, rise, target, threshold

    def extra_repr(self) -> str:
        schedule = f"start={self.start:g}, rise={self.rise:g}"
        return f"{super().extra_repr()}, {schedule}, target={self.target}, threshold={self.threshold:g}"

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, "ignored") if self.on_labelled else (self.name,)

    def attach(self, task: Task) -> None:
        self.on_labelled = task.ignore_label is not None
        self.register_buffer("highest", torch.zeros(2, task.num_outputs))  # this epoch, the last

    def start_epoch(self, epoch: int, num_epochs: int) -> None:
        self.highest = torch.stack((torch.zeros_like(self.highest[0]), self.highest[0]))

    def weight_at(self, epoch: int, num_epochs: int) -> float:
        progress = epoch / num_epochs
        if progress < self.start:
            return 0.0
        return self.weight * (min(1.0, (progress - self.start) / self.rise) if self.rise else 1.0)

    def name_of(self, step: Step) -> str:
        return self.name if step.from_stream else "ignored"

    def weighted(self, step: Step) -> dict[str, Tensor]:
        step.log["unlabelled_weight"] = self.weight_at(step.epoch, step.num_epochs)
        return super().weighted(step)

    def forward(self, step: Step) -> Tensor:
        known = self._known(step.teacher_probabilities(0), step)
        value = 0
        for head in filter(step.teacher_has, step.task.supervised):
            q = step.teacher_probabilities(head)
            accepted = self._accepted(q, step, head)
            if head == 0:
                self._log(step, q, accepted)
            target = _decision(q, step) if self.target == "hard" else q
            loss = unlabelled_loss(step.outputs[head], target, accepted, known, has_regions=step.task.has_regions)
            value = value + step.task.head_weights[head] * loss
        return value

    def _known(self, q: Tensor, step: Step) -> Tensor:
        self.highest[0] = torch.maximum(self.highest[0], q.amax((0, *range(2, q.dim()))).nan_to_num(0))
        if distributed.is_initialized():  # all processes leave out the same classes
            distributed.all_reduce(self.highest[0], distributed.ReduceOp.MAX)
        return self.highest.amax(0) > (0.5 if step.task.has_regions else 1 / q.shape[1])

    def _accepted(self, q: Tensor, step: Step, head: int) -> Tensor | None:
        without_label = step.without_label(head)
        if self.threshold == 0:
            return without_label
        confidence = torch.maximum(q, 1 - q).amin(1, keepdim=True) if step.task.has_regions else q.amax(1, keepdim=True)
        sure = confidence > self.threshold
        return sure if without_label is None else sure & without_label

    @torch.no_grad()
    def _log(self, step: Step, q: Tensor, accepted: Tensor | None) -> None:
        """Shares of the voxels without a label: accepted, agreed upon, and given to each class by the teacher."""
        where = step.without_label(0)
        where = torch.ones_like(q[:, :1], dtype=torch.bool) if where is None else where
        count = where.sum()
        teacher, student = _decision(q, step), _decision(step.outputs[0].detach(), step, boundary=0.0)
        agree = (teacher == student).all(1, keepdim=True)
        step.log["agreement"] = (agree & where).sum() / count
        step.log["accepted"] = ((where if accepted is None else accepted) & where).sum() / count
        shares = (teacher * where).sum((0, *range(2, q.dim()))) / count
        told = range(0 if step.task.has_regions else 1, len(shares))  # the background is no news
        step.log[tuple(f"teacher_share_{k}" for k in told)] = shares[told.start :]

    def warnings(self, rows: list[dict[str, float]]) -> list[str]:
        """A class that the labels have, and the teacher no longer predicts, over the last five epochs."""
        seen_for_long = rows[-1] if len(rows) >= 5 else ()
        vanished = [
            name.removeprefix("teacher_share_")
            for name in seen_for_long
            if name.startswith("teacher_share_") and all(row.get(name, math.nan) < 1e-6 for row in rows[-5:])
        ]
        text = (
            f"the teacher has predicted class or region {', '.join(vanished)} nowhere on voxels without a label for 5 "
            f"epochs: it is not taught there. Look at distillation.png, and train longer or label more of it"
        )
        return [text] if vanished else []


def _decision(x: Tensor, step: Step, *, boundary: float = 0.5) -> Tensor:
    """1 for the most probable class, or for each region above the boundary: 0.5 for probabilities, 0 for logits."""
    if step.task.has_regions:
        return (x > boundary).to(x.dtype)
    return torch.zeros_like(x).scatter_(1, x.argmax(1, keepdim=True), 1)
