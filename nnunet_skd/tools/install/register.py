"""Make nnU-Net find the trainers of this package without environment variables.

Writes one small module into the active nnunetv2 (site-packages or an editable clone). After that,
`-tr nnUNetTrainerDSKD` works for nnUNetv2_train, nnUNetv2_predict and nnUNetv2_predict_from_modelfolder in every shell,
cluster job and GUI that uses this Python environment. nnU-Net finds its own trainers before it reads that module,
and the module does nothing if nnunet_skd is uninstalled. pip removes it together with nnunetv2: run the command again
after reinstalling that.

Where nnunetv2 is read-only or must not be changed, set nnUNet_extTrainer instead (see `nnunet-skd path --help`).
nnU-Net before 2.8 does not read that variable: there, this command is the only way.

  nnunet-skd register
  nnunet-skd register --remove
"""

import argparse
import shutil
from pathlib import Path

from nnunet_skd.compat import READS_EXT_TRAINER
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.files import FULL, write_file
from nnunet_skd.tools.install.discovery import (
    export_line,
    is_registered,
    pips_list,
    shim_files,
    shim_folder,
    without_variable,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--remove", action="store_true", help="remove the module")


def run(args: argparse.Namespace) -> None:
    if args.remove:
        removed = remove()
        print(f"Removed {shim_folder()}" if removed else f"Nothing to remove: {shim_folder()} does not exist")
    else:
        written = register()
        print(f"Registered in {shim_folder()}" if written else f"Already registered in {shim_folder()}")
        print("Try: nnUNetv2_train DATASET 2d 0 -tr nnUNetTrainerDSKD")


def register() -> bool:
    """Write the shim.

    Returns:
        False where it was already there.

    Raises:
        BadInput: the folder or a file in it is a link, or nnunetv2 is read-only; the message says what to use instead.
    """
    if is_registered():
        _list_for_pip()
        return False
    _refuse_links(shim_folder(), *shim_files())
    try:
        shim_folder().mkdir(exist_ok=True)
        for path, text in shim_files().items():
            write_file(path, text)  # half a module would break every -tr
        _list_for_pip()
    except OSError as error:
        if error.errno in FULL:  # a full disk is nothing to go around
            raise
        instead = f"Use the environment variable instead:\n{export_line()}"
        if not READS_EXT_TRAINER:
            instead = f"{without_variable()}. Install nnunetv2 into an environment of your own, or upgrade it"
        raise BadInput(f"cannot write to {shim_folder()}: {error.strerror}. {instead}") from error
    return True


def remove() -> bool:
    """Remove the shim.

    Returns:
        False where there was none.

    Raises:
        BadInput: the folder is a link, or cannot be removed.
    """
    _refuse_links(shim_folder())
    if not shim_folder().is_dir():
        return False
    try:
        shutil.rmtree(shim_folder())
        _list_for_pip(listed=False)
    except OSError as error:
        raise BadInput(f"cannot remove {shim_folder()}: {error.strerror}. Remove it as its owner.") from error
    return True


def _list_for_pip(*, listed: bool = True) -> None:
    """Whether pip takes the shim away together with nnunetv2."""
    record = pips_list()
    if record is None:
        return
    ours = [f"{path.relative_to(shim_folder().parents[3]).as_posix()},," for path in shim_files()]
    before = record.read_text(encoding="utf-8").splitlines()
    after = [line for line in before if line not in ours] + ours * listed
    if after != before:
        write_file(record, "\n".join(after) + "\n")


def _refuse_links(*paths: Path) -> None:
    for path in paths:
        if path.is_symlink():
            raise BadInput(f"{path} is a link, which this command did not make. Remove it: rm {path}")
