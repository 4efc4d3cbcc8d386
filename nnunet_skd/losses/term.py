"""What every term of the loss has in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from nnunet_skd.step import Step, Task


class Term(nn.Module):
    """One summand of a training step's loss. A trainer declares its terms: ``terms = (MyTerm(weight=0.1),)``.

    A subclass sets :attr:`name` and writes :meth:`forward`; everything else has a default. The trainer copies its terms
    before it attaches them, so that a class attribute can hold them. A trainer with a second stream shows its terms a
    batch of it and a labelled one, of zeros, before the first epoch, and sets their buffers back.

    Attributes:
        name: of the term in the log, the csv and the plot.
        needs_teacher: whether the term compares with the trainer's teacher. It is skipped while there is none.
        needs_features: whether the term reads ``step.features``.
        under_autocast: whether the term runs in nnU-Net's mixed precision, as its networks do. Otherwise products stay
            in the precision of their operands.
        on_labelled: whether the term applies to nnU-Net's labelled patches.
        on_unlabelled: whether the term applies to patches of the second stream, see :mod:`nnunet_skd.second_stream`.

    Raises:
        ValueError: for a negative weight.
    """

    name = ""
    needs_teacher = True
    needs_features = False
    under_autocast = False
    on_labelled = True
    on_unlabelled = False

    def __init__(self, *, weight: float = 1.0):
        super().__init__()
        if weight < 0:
            raise ValueError(f"the weight of {type(self).__name__} must not be negative, got {weight}")
        self.weight = weight

    def extra_repr(self) -> str:
        return f"weight={self.weight:g}"

    @property
    def names(self) -> tuple[str, ...]:
        """Of the values that :meth:`weighted` may return."""
        return (self.name,)

    @property
    def distilling(self) -> tuple[str, ...]:
        """Of :attr:`names`, those that follow a teacher: they should stay smaller than the segmentation loss."""
        return self.names

    @property
    def lowest(self) -> dict[str, float]:
        """The lowest value, weight included, of those of :attr:`names` for which that is not 0."""
        return {}

    def attach(self, task: Task) -> None:
        """Learn what stays the same during the training, and refuse what cannot work (``ValueError``)."""

    def start_anew(self, task: Task) -> None:
        """Called before the first epoch, and where a checkpoint holds nothing of this term's parameters.

        The network may have got trained weights since :meth:`attach`.
        """

    def parameter_groups(self) -> list[dict]:
        """Of the term's own parameters, if it has any, for :class:`nnunet_skd.own_parameters.OwnParameters`."""
        parameters = list(self.parameters())
        return [{"params": parameters}] if parameters else []

    def start_epoch(self, epoch: int, num_epochs: int) -> None:
        """Called at the start of each epoch."""

    def weight_at(self, epoch: int, num_epochs: int) -> float:
        """The weight in this epoch."""
        return self.weight

    def name_of(self, step: Step) -> str:
        """The name of what this step adds, one of :attr:`names`."""
        return self.name

    def weighted(self, step: Step) -> dict[str, Tensor]:
        """The summands by name, weights included; empty where the weight is 0."""
        weight = self.weight_at(step.epoch, step.num_epochs)
        return {self.name_of(step): weight * self(step)} if weight else {}

    def warnings(self, rows: list[dict[str, float]]) -> list[str]:
        """What a user should look at after an epoch. ``rows``: of the log, the newest last."""
        return []

    def forward(self, step: Step) -> Tensor:
        """The unweighted value: a scalar that is finite and connected to the graph, also where nothing counts."""
        raise NotImplementedError
