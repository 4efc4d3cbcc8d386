"""The classes that plans name, found without running anything that the plans could choose."""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterable

import dynamic_network_architectures.architectures
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn

from nnunet_skd.tools.errors import BadInput

_ARCHITECTURES = "dynamic_network_architectures.architectures"
_LAYERS = "torch.nn.modules"
# Argument of a network -> the modules whose classes it may be
_PLACES = {
    "conv_op": (f"{_LAYERS}.conv",),
    "norm_op": (f"{_LAYERS}.batchnorm", f"{_LAYERS}.instancenorm", f"{_LAYERS}.normalization"),
    "dropout_op": (f"{_LAYERS}.dropout",),
    "nonlin": (f"{_LAYERS}.activation",),
    "block": ("dynamic_network_architectures.building_blocks.residual",),
}


def require_stock_network(configuration: ConfigurationManager, remedy: str) -> None:
    """Refuse plans whose network is not of stock nnU-Net: any other name would be imported, and what it is called.

    nnU-Net looks names up with `pydoc.locate`, which follows attributes: ``torch.nn.parallel.distributed.os.system`` is
    a name "in torch.nn". Here a name has to be a class of PyTorch's layers or of nnU-Net's architectures itself.

    Raises:
        BadInput: another class, or an argument that the class does not have. The message ends in ``remedy``.
    """
    arguments = configuration.network_arch_init_kwargs
    network = _architecture(configuration.network_arch_class_name)
    if network is None:
        raise BadInput(f"the plans build their network from {configuration.network_arch_class_name}. {remedy}")
    _refuse_unknown(arguments, network, remedy)
    for argument in configuration.network_arch_init_kwargs_req_import:
        name = arguments.get(argument)
        if name is None and argument in arguments:
            continue
        layer = _class_in(_PLACES.get(argument, ()), name)
        if layer is None:
            raise BadInput(f"the plans build their network with {argument} = {name!r}. {remedy}")
        of_layer = arguments.get(f"{argument}_kwargs") or {}
        if not isinstance(of_layer, dict):
            raise BadInput(f"the plans' {argument}_kwargs is {of_layer!r}, not an object with keys. {remedy}")
        _refuse_unknown(of_layer, layer, remedy)


def _architecture(name: str) -> type[nn.Module] | None:
    """One of nnU-Net's architectures. Where its module was renamed, its own name is enough, as for nnU-Net."""
    modules = [
        module.name
        for module in pkgutil.iter_modules(dynamic_network_architectures.architectures.__path__, f"{_ARCHITECTURES}.")
    ]
    module_name, _, class_name = name.rpartition(".")
    if module_name.rpartition(".")[0] != _ARCHITECTURES:
        return None
    for module in [module_name] if module_name in modules else modules:
        found = vars(importlib.import_module(module)).get(class_name)
        if found is not None:
            return found if _is_layer(found) and found.__module__ in modules else None
    return None


def _class_in(places: Iterable[str], name: object) -> type[nn.Module] | None:
    """A class by the name of a module that is loaded already, ``torch.nn`` included; attributes are not followed."""
    module_name, _, class_name = name.rpartition(".") if isinstance(name, str) else ("", "", "")
    module = sys.modules.get(module_name)
    found = None if module is None else vars(module).get(class_name)
    return found if _is_layer(found) and found.__module__ in places else None


def _is_layer(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, nn.Module)


def _refuse_unknown(arguments: dict, layer: type[nn.Module], remedy: str) -> None:
    if unknown := sorted(set(arguments) - set(inspect.signature(layer).parameters)):
        raise BadInput(f"{layer.__name__} has no argument {', '.join(unknown)}, which the plans give it. {remedy}")
