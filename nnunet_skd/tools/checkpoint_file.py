"""Read nnU-Net's checkpoints without running what they contain, and tell equal weights by their hash."""

import hashlib
import math
import pickle
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from nnunet_skd.checkpoint import of_the_machine
from nnunet_skd.tools.errors import BadInput

# nnU-Net logs NumPy numbers. Rebuilding one runs no code of the file's; NumPy 1 and 2 give the function two names.
_NUMPY_SCALAR = np.float64(0).__reduce__()[0]
_HARMLESS = [
    (_NUMPY_SCALAR, "numpy.core.multiarray.scalar"),
    (_NUMPY_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *{type(np.dtype(code)) for code in "?bhilqBHILQefd"},
]


OLDEST_TORCH = (2, 6)  # as in setup.cfg; earlier ones execute what a checkpoint contains, whatever they are asked for


class NeedsCode(BadInput):
    """A checkpoint that cannot be read without executing what it contains."""

    def __init__(self, path: Path, code: str):
        super().__init__(
            f"{path} was not read: to read it, Python would have to execute {code}, and code in a checkpoint can do "
            "anything"
        )


class NotOfNnunet(BadInput):
    """A file that can be read and does not hold what a checkpoint of nnU-Net does."""


def read_checkpoint(path: Path, allow_pickle: bool = False, *, mapped: bool = False) -> dict:
    """Read one of nnU-Net's checkpoints, on the CPU, without executing what it contains.

    Args:
        path: the checkpoint file.
        allow_pickle: execute the file's code if it cannot be read otherwise. Only for files whose origin is trusted.
        mapped: leave the tensors on the disk until they are used.

    Raises:
        NeedsCode: the file needs ``allow_pickle``.
        NotOfNnunet: the file is no checkpoint of nnU-Net.
        BadInput: the file is damaged.
    """
    try:
        checkpoint = _without_code(path, mapped)
    except NeedsCode:
        if not allow_pickle:
            raise
        checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    if problem := _not_a_checkpoint(checkpoint):
        raise NotOfNnunet(f"{path} is not a checkpoint of nnU-Net v2 ({problem})")
    return checkpoint


def _without_code(path: Path, mapped: bool) -> object:
    """What is in the file, if that can be read without executing any of it."""
    if torch.__version__ < OLDEST_TORCH:
        raise NeedsCode(path, "whatever it contains, with a torch older than 2.6")
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            if mapped:
                with suppress(Exception):  # torch's older format cannot be mapped, and some file systems map nothing
                    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in as many ways as it can be damaged
        if of_the_machine(error):
            raise
        found = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if found is None:
            raise BadInput(f"{path} is damaged or not a checkpoint ({type(error).__name__}). Copy it again") from error
        raise NeedsCode(path, f"'{found[1]}'") from error


def _not_a_checkpoint(content: object) -> str:
    """What a checkpoint of nnU-Net has to hold and this one does not, empty if it does."""
    if not isinstance(content, dict):
        return f"it holds a {type(content).__name__}"
    for key in ("network_weights", "trainer_name", "init_args"):
        if key not in content:
            return f"{key!r} is missing"
    weights, arguments = content["network_weights"], content["init_args"]
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        return "its network_weights are not tensors by name"
    if not isinstance(content["trainer_name"], str):
        return "its trainer_name is not a name"
    if not isinstance(arguments, dict) or not isinstance(arguments.get("configuration"), str):
        return "its init_args name no configuration"
    axes = content.get("inference_allowed_mirroring_axes")
    if axes is not None and not (isinstance(axes, (list, tuple)) and all(axis in (0, 1, 2) for axis in axes)):
        return "its inference_allowed_mirroring_axes are not axes"
    origin = content.get("nnunet_skd", {})
    if not isinstance(origin, dict):
        return "its nnunet_skd tells no origin"
    if not isinstance(origin.get("epochs", content.get("current_epoch")), (int, type(None))):
        return "its number of epochs is not a number"
    temperature = origin.get("temperature", 1.0)
    if not (isinstance(temperature, float) and 0 < temperature < math.inf):
        return "its temperature is not a number above 0"
    return ""


def weights_sha256(weights: dict[str, torch.Tensor]) -> str:
    """SHA-256 of a state dict, the same for the same numbers however and by whichever version they were stored.

    Hashed, for each tensor in the order of its name: name, dtype and shape as text, then the values' bytes in C order.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
