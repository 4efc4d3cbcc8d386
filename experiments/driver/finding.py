"""Find a trainer by the name that a study gives it."""

import importlib

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_skd import compat
from nnunet_skd.catalogue import trainer_classes


def find_trainer(name: str) -> type[nnUNetTrainer]:
    """A trainer of nnU-Net or of this package by its name, or one of a file in experiments/ as ``module:Class``.

    Raises:
        LookupError: there is no such trainer.
    """
    try:
        if ":" in name:
            module, _, class_name = name.partition(":")
            return getattr(importlib.import_module(module), class_name)
        return trainer_classes().get(name) or compat.find_trainer(name)
    except (ModuleNotFoundError, AttributeError, RuntimeError) as error:
        raise LookupError(f"there is no trainer '{name}': {error}") from error
