"""What differs between the versions of nnU-Net that this package works with; all else is the same in each of them.

* 2.8 looks trainers up in the folders of ``nnUNet_extTrainer`` too; earlier versions only inside nnunetv2.
* 2.8 reads its folders (``nnUNet_raw`` ...) from the environment when it needs them; earlier versions when imported.
* 2.7 can log elsewhere too (W&B), and builds a network from the plans; 2.6 from three of their values.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import nnunetv2
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from packaging.version import Version

if TYPE_CHECKING:  # both import torch, which takes seconds: `nnunet-skd path` stands in shells' start-up files
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
    from torch import nn

OLDEST = "2.6.4"
TESTED = (OLDEST, "2.7.0", "2.8.0", "2.8.1")

try:
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as _find_by_name
except ModuleNotFoundError:  # before 2.8
    _find_by_name = None

READS_EXT_TRAINER = _find_by_name is not None


def nnunet_version() -> str:
    return version("nnunetv2")


def require_supported_nnunet() -> None:
    """Refuse a release that lacks what the trainers stand on, before an import fails for want of it.

    Raises:
        ImportError: the release is too old. 2.5.2 has no ``nnUNetDataLoader``, and another constructor.
    """
    if is_too_old(nnunet_version()):
        raise ImportError(
            f"nnunetv2 {nnunet_version()} is too old for nnunet_skd, which needs {OLDEST} or later: "
            f'pip install "nnunetv2=={TESTED[-1]}"'
        )


def is_too_old(nnunet: str) -> bool:
    """Whether a release of nnU-Net came before the first that this package works with."""
    return Version(nnunet) < Version(OLDEST)


def find_trainer(name: str) -> type:
    """The trainer that ``-tr name`` means.

    Raises:
        RuntimeError: there is none.
    """
    if _find_by_name is not None:
        return _find_by_name(name)
    folder = os.path.join(nnunetv2.__path__[0], "training", "nnUNetTrainer")
    found = recursive_find_python_class(folder, name, "nnunetv2.training.nnUNetTrainer")
    if found is None:
        raise RuntimeError(
            f"Could not find requested nnunet trainer {name} in {folder}, and nnU-Net {nnunet_version()} looks nowhere "
            f"else: 'nnunet-skd register' makes the trainers of nnunet_skd known there"
        )
    return found


def build_network(
    trainer: type,
    plans: PlansManager,
    configuration: ConfigurationManager,
    input_channels: int,
    output_channels: int,
    enable_deep_supervision: bool,
) -> nn.Module:
    """The network of a trainer's class, which may have been written for an earlier nnU-Net than the one installed."""
    build = trainer.build_network_architecture
    if "plans_manager" in inspect.signature(build).parameters:
        described = (plans, configuration)
    else:  # 2.6
        described = (
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
        )
    return build(*described, input_channels, output_channels, enable_deep_supervision)


def external_loggers(logger: Any) -> list:
    """Where nnU-Net's logger passes each value on to, such as W&B."""
    return getattr(logger, "loggers", [])


def nnunet_folder(name: str) -> Path | None:
    """The folder that one of nnU-Net's variables names; None where it is not set, or set to nothing."""
    value = os.environ.get(name)
    return Path(value) if value else None


def set_variables(values: dict[str, str | None]) -> None:
    """Change environment variables so that nnU-Net sees it within this process, too; None unsets one."""
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
        for module in _holders(name):
            setattr(module, name, value)


@contextmanager
def with_variables(values: dict[str, str | None]) -> Iterator[None]:
    """:func:`set_variables` for a while."""
    before = {name: os.environ.get(name) for name in values}
    set_variables(values)
    try:
        yield
    finally:
        set_variables(before)


def _holders(name: str) -> Iterator[ModuleType]:
    """nnU-Net's modules that hold the variable as a constant of their own: none since 2.8."""
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith("nnunetv2.") and name in vars(module) and isinstance(vars(module)[name], str | None):
            yield module
