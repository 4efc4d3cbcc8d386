"""The folders that nnU-Net's variables name, and the datasets in them."""

from pathlib import Path

from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

from nnunet_skd.compat import nnunet_folder
from nnunet_skd.tools.errors import BadInput

SPLITS = "splits_final.json"
FINGERPRINT = "dataset_fingerprint.json"


def require_variable(name: str) -> Path:
    """The folder that one of nnU-Net's variables names.

    Raises:
        BadInput: the variable is not set.
    """
    folder = nnunet_folder(name)
    if folder is None:
        raise BadInput(f"{name} is not set. Export it as for nnU-Net's own commands")
    return folder


def dataset_name(dataset: int | str) -> str:
    """A dataset's full name, from its id or name.

    Raises:
        BadInput: there is no such dataset, or several of this id.
    """
    try:
        return maybe_convert_to_dataset_name(dataset)
    except (RuntimeError, ValueError) as error:  # nnU-Net says which
        raise BadInput(str(error)) from error
