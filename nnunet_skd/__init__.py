"""Self-knowledge distillation trainers for nnU-Net v2.

The names below are what a trainer, a term or a teacher of one's own is made of. They need torch alone, and are imported
when they are first used: the command line answers without waiting for torch.
"""

import importlib

__version__ = "0.1.0"

_MODULES = {
    "losses.term": ("Term",),
    "losses.deep_distribution": ("DeepDistribution", "deep_distribution_loss"),
    "losses.pixelwise": ("Pixelwise", "soft_minus_hard_cross_entropy"),
    "losses.channel_wise": ("ChannelWise", "channel_wise_loss"),
    "losses.unlabelled": ("Unlabelled", "unlabelled_loss"),
    "losses.temperature_divergence": ("temperature_divergence",),
    "acw.losses": ("class_wise_feature_loss", "feature_reconstruction_loss", "token_loss"),
    "acw.method": ("AdversarialClassWise",),
    "step": ("Step", "Task"),
    "teachers": ("MovingAverage", "PreviousEpoch", "Teacher"),
}
_HOME = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
