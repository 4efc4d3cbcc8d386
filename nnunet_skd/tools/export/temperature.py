"""A network that divides its own logits by a temperature, so that nnU-Net's prediction and ONNX Runtime need not."""

import copy
from dataclasses import replace

import torch

from nnunet_skd.tools.calibrate.temperature import HIGHEST, LOWEST
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.export.source import Fold, SelfCheckFailed, TrainedModel

LAST_LAYERS = "decoder.seg_layers."


def check_temperature(temperature: float) -> None:
    """Before a model is read.

    Raises:
        BadInput: it is not one that ``nnunet-skd calibrate`` could have found.
    """
    if not LOWEST <= temperature <= HIGHEST:
        raise BadInput(
            f"--temperature is a number from {LOWEST:g} to {HIGHEST:g}, as nnunet-skd calibrate finds it, not "
            f"{temperature:g}"
        )


def at_temperature(fold: Fold, temperature: float, model: TrainedModel) -> Fold:
    """The same network with weights and biases of its last layers, and so its logits, divided by a temperature.

    nnU-Net averages logits, over flips, windows and folds, and resamples them; then comes the softmax, or the sigmoid
    of regions. So its probabilities are those of the divided logits, and its segmentations the same. (nnUNetv2_ensemble
    averages probabilities of several models: there it changes segmentations.)

    Raises:
        BadInput: :func:`check_temperature`; or a network whose logits do not come from ``LAST_LAYERS``.
        SelfCheckFailed: the logits of a random patch are not the source's divided by the temperature.
    """
    check_temperature(temperature)
    if temperature == 1:
        return fold
    layers = [name for name in fold.weights if name.startswith(LAST_LAYERS)]
    if not layers:
        raise BadInput(
            f"--temperature divides the weights of {LAST_LAYERS}*, the last layers of nnU-Net's U-Nets, and "
            f"{fold.file} has none. Divide the logits where you read them"
        )
    weights = fold.weights | {name: fold.weights[name] / temperature for name in layers}
    network = copy.deepcopy(fold.network)
    network.load_state_dict(weights)
    patch = model.random_patch(model.configuration(fold.configuration_name))
    with torch.inference_mode():
        logits, expected = network(patch), fold.network(patch) / temperature
    if not torch.allclose(logits, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max())):
        raise SelfCheckFailed(
            f"fold {fold.name}: with the last layers divided by {temperature:g}, the logits are not those of "
            f"{fold.file} divided by it. Nothing was written. Please report this"
        )
    return replace(fold, weights=weights, network=network, temperature=fold.temperature * temperature)
