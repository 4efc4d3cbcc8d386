"""The student's probabilities, which nnU-Net's Dice and the distillation both need, computed once."""

from collections.abc import Callable

from torch import Tensor


class SharedProbabilities:
    """Stands in for the nonlinearity of a Dice loss and keeps what it returns, gradient path included.

    One softmax forward and one backward pass less for each output, and one full-size buffer. Only while :attr:`keep`
    is set: nothing may outlive a step.
    """

    def __init__(self, nonlinearity: Callable[[Tensor], Tensor]):
        self.nonlinearity = nonlinearity
        self.keep = False
        self._kept: list[tuple[Tensor, Tensor]] = []

    def __call__(self, logits: Tensor) -> Tensor:
        probabilities = self.nonlinearity(logits)
        if self.keep:
            self._kept.append((logits, probabilities))
        return probabilities

    def of(self, logits: Tensor) -> Tensor | None:
        """The probabilities of these very logits, or None where Dice did not see them."""
        return next((probabilities for seen, probabilities in self._kept if seen is logits), None)

    def clear(self) -> None:
        self.keep = False
        self._kept.clear()
