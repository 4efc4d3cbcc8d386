"""Where nnU-Net finds this package's trainers: the shim inside nnunetv2, and the folder for nnUNet_extTrainer."""

import importlib.metadata
import os
from contextlib import suppress
from pathlib import Path

import nnunetv2

import nnunet_skd.trainers
from nnunet_skd.compat import READS_EXT_TRAINER, nnunet_version

# nnU-Net searches nnunetv2/training/nnUNetTrainer: modules first, then packages in alphabetical order, and imports each
# on the way. A package that sorts behind all others is therefore never imported when a stock trainer is asked for.
SHIM_PACKAGE = "zz_nnunet_skd"
SHIM = '''"""Written by `nnunet-skd register`, removed by `nnunet-skd register --remove`.

Makes the trainers of nnunet_skd known to nnU-Net; does nothing where nnunet_skd is not installed.
"""

import sys

try:
    from nnunet_skd.catalogue import trainer_classes

    globals().update(trainer_classes())
except Exception as error:  # nnU-Net looks for trainers of others after these: they must not fail with us
    if not (isinstance(error, ModuleNotFoundError) and error.name == "nnunet_skd"):
        print(f"WARNING: the trainers of nnunet_skd cannot be used ({error!r}). nnunet-skd doctor", file=sys.stderr)
'''


def trainers_folder() -> Path:
    """The folder that ``nnUNet_extTrainer`` should name."""
    return Path(nnunet_skd.trainers.__path__[0]).resolve()


def export_line() -> str:
    """The shell line that adds the folder to ``nnUNet_extTrainer``, keeping what is there."""
    if os.name == "nt":
        return f"set nnUNet_extTrainer=%nnUNet_extTrainer%;{trainers_folder()}"
    return f'export nnUNet_extTrainer="{trainers_folder()}${{nnUNet_extTrainer:+:$nnUNet_extTrainer}}"'


def with_our_trainers() -> str:
    """``nnUNet_extTrainer`` with this package's trainers first, as :func:`export_line` puts them."""
    return os.pathsep.join(dict.fromkeys([str(trainers_folder()), *entries_on_variable()]))


def ways_in() -> str:
    """The lines that make nnU-Net find the trainers, one of which is enough."""
    return f"nnunet-skd register\nor: {export_line()}" if READS_EXT_TRAINER else "nnunet-skd register"


def without_variable() -> str:
    """What to say where somebody relies on a variable that this nnU-Net does not read."""
    return f"nnU-Net {nnunet_version()} does not read nnUNet_extTrainer: this came with 2.8"


def shim_folder() -> Path:
    """Where the shim lives in the active nnunetv2, which may be an editable clone."""
    return Path(nnunetv2.__path__[0], "training", "nnUNetTrainer", SHIM_PACKAGE)


def shim_files(folder: Path | None = None) -> dict[Path, str]:
    """The shim: a package of one module in this folder, by default in the active nnunetv2."""
    folder = folder or shim_folder()
    return {folder / "__init__.py": "", folder / "nnunet_skd_trainers.py": SHIM}


def pips_list() -> Path | None:
    """pip's list of nnunetv2's files, where it owns that folder: what it does not list, stays when it removes nnunetv2.

    Python would take what stays for nnunetv2, before an editable clone that is installed instead.
    """
    with suppress(importlib.metadata.PackageNotFoundError):
        nnunet = importlib.metadata.distribution("nnunetv2")
        if Path(nnunet.locate_file("nnunetv2")).resolve() == Path(nnunetv2.__path__[0]).resolve():
            return next((Path(file.locate()) for file in nnunet.files or () if file.name == "RECORD"), None)
    return None


def is_registered() -> bool:
    """Whether the shim is there, and is the one of this version."""
    return all(
        path.is_file() and path.read_text(encoding="utf-8", errors="replace") == text
        for path, text in shim_files().items()
    )


def entries_on_variable() -> list[str]:
    """What ``nnUNet_extTrainer`` names, whether it is there or not."""
    return [entry for entry in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep) if entry.strip()]


def folders_on_variable() -> list[Path]:
    """The existing folders that ``nnUNet_extTrainer`` names, in nnU-Net's order; none where nnU-Net reads none."""
    if not READS_EXT_TRAINER:
        return []
    return [Path(entry).resolve() for entry in entries_on_variable() if os.path.exists(entry)]
