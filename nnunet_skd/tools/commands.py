"""nnU-Net's commands, started as a user would start them."""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import nnunetv2

from nnunet_skd.tools.errors import BadInput, Failed


class CommandFailed(Failed):
    """A command that one of ours has started ended with an error, and the message names it."""


def own_folders() -> list[Path]:
    """Where the commands of this Python may be: its environment, ``pip install --user``, ``pip install --target``."""
    folders = [
        Path(sys.executable).parent,
        sysconfig.get_path("scripts"),
        sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user")),
        Path(nnunetv2.__path__[0]).parent / "bin",
    ]
    return [Path(os.path.abspath(folder)) for folder in folders]


def program(name: str) -> str:
    """The path of a command: this Python's own, else the one on PATH.

    Raises:
        BadInput: there is none.
    """
    folders = own_folders()
    found = shutil.which(name, path=os.pathsep.join(map(str, folders))) or shutil.which(name)
    if found is None:
        package = "nnunetv2" if name.startswith("nnUNetv2") else "nnunet_skd"
        raise BadInput(
            f"{name} is neither in {folders[0]} nor on PATH. Install it: {sys.executable} -m pip install {package}"
        )
    return found


def show_and_run(command: list[str], variables: dict[str, str] | None = None) -> int:
    """Print a command line with the variables that it needs, run it, return its exit status."""
    variables = variables or {}
    print("$", *(f"{name}={shlex.quote(value)}" for name, value in variables.items()), shlex.join(command), flush=True)
    return subprocess.run([program(command[0]), *command[1:]], env=os.environ | variables).returncode  # noqa: S603 - no shell, nnU-Net's command
