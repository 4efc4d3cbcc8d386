"""nnU-Net's commands, started as a user would start them."""

import os
import shlex
import shutil
import signal
import site
import subprocess
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path

import nnunetv2

from nnunet_skd.tools.errors import BadInput, Failed

SECONDS_TO_END = 10
# On Linux a Python of its own becomes the command. Before that it asks the kernel for Ctrl-C's signal when we are gone
# (PR_SET_PDEATHSIG, 1 in linux/prctl.h), and heeds it even where we ignore it, as under nohup. Popen's preexec_fn could
# do so, too, but may hang where there are threads.
BECOME = """
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
signal.signal(signal.SIGINT, signal.SIG_DFL)
ctypes.CDLL(None).prctl(1, signal.SIGINT)
if os.getppid() != int(parent):
    sys.exit("stopped")
try:
    os.execvp(command[0], command)
except OSError as error:
    sys.exit(f"{command[0]}: {error.strerror}")
"""


class CommandFailed(Failed):
    """A command that one of ours has started ended with an error, and the message names it."""


def own_folders() -> list[Path]:
    """Where the commands of this Python may be: its environment, ``pip install --user``, ``pip install --target``."""
    folders = [
        Path(sys.executable).parent,
        sysconfig.get_path("scripts"),
        Path(nnunetv2.__path__[0]).parent / "bin",
    ]
    if site.ENABLE_USER_SITE:
        folders.append(sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user")))
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
    return run_and_end([program(command[0]), *command[1:]], os.environ | variables)


def run_and_end(command: list[str], environment: dict[str, str]) -> int:
    """Run a command and return its exit status. Whatever ends the waiting for it ends the command too."""
    process = start(command, environment)
    try:
        return process.wait()
    except BaseException:
        ask_to_end(process)
        raise
    finally:
        kill(process)


def start(command: list[str], environment: dict[str, str], **pipes: int) -> subprocess.Popen:
    """Start a command in a session of its own, so that :func:`kill` ends its worker processes with it.

    On Linux it ends, too, where we are killed and cannot do that.
    """
    if sys.platform == "linux":
        command = [sys.executable, "-I", "-S", "-c", BECOME, str(os.getpid()), *command]
    return subprocess.Popen(  # noqa: S603 - no shell, nnU-Net's command
        command, env=environment, start_new_session=True, **pipes
    )


def ask_to_end(process: subprocess.Popen, seconds: float | None = None) -> None:
    """As Ctrl-C does, so that it can tidy up, and wait for it, but not for ever."""
    _send(process, "SIGINT")
    with suppress(subprocess.TimeoutExpired):
        process.wait(SECONDS_TO_END if seconds is None else seconds)


def kill(process: subprocess.Popen) -> None:
    """A command that has not ended, and what it leaves: worker processes, where the system has killed it alone."""
    process.kill()
    _send(process, "SIGKILL")
    process.wait()


def _send(process: subprocess.Popen, name: str) -> None:
    """A signal to a whole session. Windows has none, and there Ctrl-C reaches every process of a terminal."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):  # nothing is left of it; PermissionError: on macOS
            os.killpg(process.pid, getattr(signal, name))
