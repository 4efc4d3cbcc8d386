"""The trainers that this package offers to ``-tr``."""

import importlib
import pkgutil
from types import ModuleType

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.training_length import nnUNetTrainer_Xepochs

from nnunet_skd import trainers

LENGTHS = ("1epoch", "5epochs", "10epochs", "20epochs", "50epochs", "100epochs", "250epochs", "500epochs")


def epoch_variants(trainer: type[nnUNetTrainer]) -> dict[str, type[nnUNetTrainer]]:
    """The trainer with fewer epochs than nnU-Net's 1000, by name: ``globals().update(epoch_variants(MyTrainer))``.

    Each is a class of the trainer's own module: it can be imported from there, pickled and found.
    """
    variants = {}
    for length in LENGTHS:
        name = f"{trainer.__name__}_{length}"
        bases = (trainer, getattr(nnUNetTrainer_Xepochs, f"nnUNetTrainer_{length}"))
        doc = f"{trainer.__name__} for {length.replace('epoch', ' epoch')}."
        variants[name] = type(name, bases, {"__module__": trainer.__module__, "__doc__": doc})
    return variants


def trainer_classes() -> dict[str, type[nnUNetTrainer]]:
    """Every trainer of ``nnunet_skd.trainers`` by its name."""
    classes = {}
    for info in pkgutil.iter_modules(trainers.__path__):
        module = importlib.import_module(f"{trainers.__name__}.{info.name}")
        classes |= {name: value for name, value in vars(module).items() if _is_trainer(value, module)}
    return classes


def _is_trainer(value: object, module: ModuleType) -> bool:
    return (
        isinstance(value, type) and value.__module__ == module.__name__ and value.__name__.startswith("nnUNetTrainer")
    )
