"""The trainers that this package offers to ``-tr``."""

import importlib
import pkgutil


def trainer_classes() -> dict[str, type]:
    """Every trainer of ``nnunet_skd.trainers`` by its name."""
    import nnunet_skd.trainers as package

    classes = {}
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        classes |= {name: value for name, value in vars(module).items() if _is_trainer(value, module)}
    return classes


def _is_trainer(value: object, module: object) -> bool:
    return (
        isinstance(value, type) and value.__module__ == module.__name__ and value.__name__.startswith("nnUNetTrainer")
    )
