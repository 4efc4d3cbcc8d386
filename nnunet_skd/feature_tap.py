"""Reads a network's penultimate features without changing the network."""

from __future__ import annotations

from torch import Tensor, nn


class FeatureTap:
    """Keeps what enters a layer during training until it is read: nothing in evaluation mode, nothing after the read.

    Register before the network's first forward pass: torch.compile ignores hooks that come later. And it may take the
    graph of another network of the same class, unless ``torch._dynamo.config.skip_nnmodule_hook_guards`` is off.
    """

    def __init__(self, layer: nn.Module):
        self._inputs: list[Tensor] = []
        layer.register_forward_pre_hook(self._record)

    def __deepcopy__(self, memo: dict) -> FeatureTap:
        """A copy of the network has a tap of its own; a tensor with a gradient could not be copied."""
        copied = object.__new__(FeatureTap)
        copied._inputs = []
        return copied

    def _record(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if module.training:
            self._inputs.append(inputs[0])

    def clear(self) -> None:
        self._inputs.clear()

    def pop(self) -> Tensor:
        """The features of the last forward pass, ``B, D, spatial``.

        Raises:
            RuntimeError: there was no forward pass in training mode since the last read.
        """
        if not self._inputs:
            raise RuntimeError(
                "the feature tap is empty: the network's last segmentation layer was not run in training mode, or "
                "torch.compile traced the network before the tap was registered, or it took the graph of another "
                "network of its class that this process had compiled before. For several trainings in one process set "
                "torch._dynamo.config.skip_nnmodule_hook_guards = False first"
            )
        features = self._inputs[-1]
        self._inputs.clear()
        return features
