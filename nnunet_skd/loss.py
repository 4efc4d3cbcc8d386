"""The loss of a training step: nnU-Net's own, and the trainer's terms."""

from collections.abc import Sequence
from contextlib import nullcontext

from torch import Tensor, nn

from nnunet_skd.epoch_log import EpochMeans, shares
from nnunet_skd.feature_tap import FeatureTap
from nnunet_skd.losses.precision import without_autocast
from nnunet_skd.losses.term import Term
from nnunet_skd.step import Step, Task


class SelfDistillationLoss(nn.Module):
    """``L = L_nnU-Net + sum of the terms``; in evaluation mode nnU-Net's loss and nothing else.

    Args:
        segmentation_loss: nnU-Net's, with deep supervision.
        terms: already this training's own; they are attached here.
        task: what the terms may know.

    Raises:
        ValueError: where a term cannot work with this task, or two have one name.
    """

    def __init__(self, segmentation_loss: nn.Module, terms: Sequence[Term], task: Task):
        super().__init__()
        self.segmentation_loss = segmentation_loss
        self.task = task
        for term in terms:
            term.attach(task)
        self.terms = nn.ModuleList(terms)
        if twice := [name for name in self.names if self.names.count(name) > 1]:
            raise ValueError(
                f"two terms are named {twice[0]!r}, which names a column of the log and a key of the checkpoint. Give "
                f"one of them another name, in a subclass"
            )
        self.tap = FeatureTap(task.segmentation_layer) if any(term.needs_features for term in terms) else None
        self.means = EpochMeans()
        self.epoch, self.num_epochs = 0, 1
        self.teacher_outputs: list[Tensor | None] | None = None  # of the coming step's patches

    @property
    def names(self) -> list[str]:
        """Of the summands."""
        return ["segmentation", *(name for term in self.terms for name in term.names)]

    @property
    def distilling(self) -> list[str]:
        """The summands that follow a teacher."""
        return [name for term in self.terms for name in term.distilling]

    def row(self, means: dict[str, float]) -> dict[str, float]:
        """An epoch's row of the log: the terms as added to the loss, their shares of it, and what else was logged."""
        terms = {name: means.get(name, 0.0) for name in self.names}
        lowest = {"segmentation": self.task.lowest_value}
        for term in self.terms:
            lowest |= term.lowest
        return terms | shares(terms, lowest) | means

    def warnings(self, rows: list[dict[str, float]]) -> list[str]:
        """What a user should look at after an epoch. ``rows``: of the log, the newest last."""
        share = {name: rows[-1].get(f"share_{name}", 0.0) for name in self.names}
        warnings = [
            f"the {name} term is larger than the segmentation loss; lower its weight or look at distillation.png"
            for name in self.distilling
            if share[name] > share["segmentation"]
        ]
        return warnings + [warning for term in self.terms for warning in term.warnings(rows)]

    def start_epoch(self, epoch: int, num_epochs: int) -> None:
        self.epoch, self.num_epochs = epoch, num_epochs
        for term in self.terms:
            if epoch == 0:  # since the term was made, the network may have got the weights of a finished model
                term.start_anew(self.task)
            term.start_epoch(epoch, num_epochs)

    def forward(self, outputs: list[Tensor], target: list[Tensor]) -> Tensor:
        """One step.

        Args:
            outputs: logits, highest resolution first, each ``B, K, spatial``.
            target: nnU-Net's targets at the same resolutions.

        Returns:
            Scalar.
        """
        if not self.training:
            return self.segmentation_loss(outputs, target)
        return sum(self.values(outputs, target).values())

    def values(self, outputs: list[Tensor], target: list[Tensor]) -> dict[str, Tensor]:
        """The summands of a training step's loss, weights included, of which the means are kept for the log."""
        teacher_outputs, self.teacher_outputs = self.teacher_outputs, None
        step = Step(self.task, outputs, target, teacher_outputs, self.epoch, self.num_epochs, self.tap)
        terms = [term for term in self.terms if term.on_labelled]
        values = {"segmentation": self.segmentation_loss(outputs, target)} | _values(terms, step)
        if self.tap is not None:
            self.tap.clear()  # where no term read it in this epoch
        return self._recorded(values, step)

    @property
    def teaches_labelled(self) -> bool:
        """Whether a term compares with the teacher on nnU-Net's labelled patches in this epoch."""
        return any(term.needs_teacher and term.on_labelled and self._weight(term) for term in self.terms)

    @property
    def teaches_unlabelled(self) -> bool:
        """Whether a term has a weight on patches of the second stream in this epoch."""
        return any(term.on_unlabelled and self._weight(term) for term in self.terms)

    def _weight(self, term: Term) -> float:
        return term.weight_at(self.epoch, self.num_epochs)

    def unlabelled(
        self, outputs: list[Tensor], target: list[Tensor] | None, teacher_outputs: list[Tensor | None]
    ) -> Tensor:
        """What the terms add on patches of the second stream. ``target``: None where no voxel has a label."""
        step = Step(self.task, outputs, target, teacher_outputs, self.epoch, self.num_epochs, from_stream=True)
        if self.tap is not None:
            self.tap.clear()
        values = _values([term for term in self.terms if term.on_unlabelled], step)
        return sum(self._recorded(values, step).values())

    def _recorded(self, values: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        self.means.add(values)
        self.means.add(step.log, skip_undefined=True)
        return values


def _values(terms: Sequence[Term], step: Step) -> dict[str, Tensor]:
    values = {}
    for term in terms:
        if step.teacher_outputs is not None or not term.needs_teacher:
            with nullcontext() if term.under_autocast else without_autocast(step.outputs[0]):
                values |= term.weighted(step)
    return values
