"""Find a trainer by the name that a study gives it."""

import importlib
import os

import nnunetv2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

from nnunet_skd.catalogue import trainer_classes


def find_trainer(name: str) -> type[nnUNetTrainer]:
    """A trainer of nnU-Net or of this package by its name, or one of a file in experiments/ as ``module:Class``.

    Raises:
        LookupError: there is no such trainer.
    """
    if ":" in name:
        module, _, name = name.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ModuleNotFoundError, AttributeError) as error:
            raise LookupError(f"there is no trainer '{module}:{name}': {error}") from error
    ours = trainer_classes()
    if name in ours:
        return ours[name]
    folder = os.path.join(nnunetv2.__path__[0], "training", "nnUNetTrainer")
    found = recursive_find_python_class(folder, name, "nnunetv2.training.nnUNetTrainer", nnunetv2.__path__[0])
    if found is None:
        raise LookupError(f"neither nnU-Net nor nnunet_skd has a trainer '{name}'")
    return found
