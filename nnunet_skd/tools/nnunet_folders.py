"""The folders that nnU-Net's variables name."""

from pathlib import Path

from nnunet_skd.compat import nnunet_folder
from nnunet_skd.tools.errors import BadInput


def require_variable(name: str) -> Path:
    """The folder that one of nnU-Net's variables names.

    Raises:
        BadInput: the variable is not set.
    """
    folder = nnunet_folder(name)
    if folder is None:
        raise BadInput(f"{name} is not set. Export it as for nnU-Net's own commands")
    return folder
