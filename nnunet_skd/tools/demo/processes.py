"""Run nnU-Net's commands as a user would, with nnU-Net's folders inside the demo's."""

import codecs
import os
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path

from nnunet_skd.tools.commands import SECONDS_TO_END, CommandFailed, ask_to_end, kill, program, start
from nnunet_skd.tools.demo.state import NNUNET_FOLDERS, State
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.install.discovery import with_our_trainers


def say(title: str) -> None:
    print(f"\n=== {title} ===", flush=True)


def cpu_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def demo_environment(out: Path, device: str, num_processes: int) -> dict[str, str]:
    """The environment of the commands: nnU-Net's folders inside ``out``, and the trainers of this package."""
    environment = dict(os.environ)
    environment |= {name: str(out / name) for name in NNUNET_FOLDERS}
    environment["nnUNet_extTrainer"] = with_our_trainers()
    environment["nnUNet_def_n_proc"] = str(num_processes)
    if environment.get("nnUNet_n_proc_DA", "0") == "0":  # with 0 nnU-Net's planner fails (2.8.1)
        environment["nnUNet_n_proc_DA"] = str(
            min(12, cpu_cores()) if device == "cuda" else max(1, min(4, cpu_cores() - 1))
        )
    if device != "cuda":
        environment["nnUNet_compile"] = "f"  # compiling takes longer than a few small epochs
    environment["PYTHONUNBUFFERED"] = "1"  # progress at once, not in blocks
    return environment


def check_trainer(trainer: str, environment: dict[str, str]) -> None:
    """Look the trainer up as nnU-Net will.

    Raises:
        BadInput: nnU-Net does not find it, or cannot import it.
    """
    print(f"Looking for {trainer} ...", flush=True)
    code = "import sys; from nnunet_skd.tools.trainers import look_up; look_up(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, trainer], env=environment, capture_output=True, text=True)  # noqa: S603 - no shell
    if done.returncode:
        cause = done.stderr.strip().rpartition("\n")[2].partition(": ")[2]  # a traceback ends with KIND: MESSAGE
        raise BadInput(cause or f"looking for the trainer {trainer} ended with exit status {done.returncode}")


class Steps:
    """Runs commands one after the other: shows each, streams and logs its output, remembers that it is finished."""

    def __init__(self, out: Path, state: State, environment: dict[str, str]):
        self.logs, self.state, self.environment = out / "logs", state, environment
        self.logs.mkdir(exist_ok=True)

    def __call__(self, name: str, title: str, command: list[str]) -> None:
        say(title)
        print(f"$ {shlex.join(command)}", flush=True)
        if self.state.finished(name):
            print("finished before, skipped")
            return
        log = self.logs / f"{name}.log"
        started = time.monotonic()
        status = stream([program(command[0]), *command[1:]], log, self.environment)
        if status:
            raise CommandFailed(
                f"this command ended with {_status(status)}:\n  {shlex.join(command)}\n"
                f"Its output is in {log}, with the cause near its end. When you have fixed it, run the same demo again:"
                f" it continues with this step. 'nnunet-skd doctor' checks the installation."
            )
        self.state.set(name, True)
        print(f"({time.monotonic() - started:.0f} s, log: {log})")


def _status(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    return f"signal {-status} (killed from outside; signal 9 usually means that memory ran out: close other programs)"


def stream(command: list[str], log: Path, environment: dict[str, str]) -> int:
    """Run a command; show and log what it prints while it prints it. Returns its exit status.

    It gets a session of its own, so that stopping the demo also stops the command's worker processes.
    """
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    with (
        open(log, "ab") as record,
        start(command, environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process,
    ):
        record.write(f"$ {shlex.join(command)}\n".encode())
        threading.Thread(target=_close_pipe_after, args=(process,), daemon=True).start()
        try:
            while chunk := process.stdout.read1():
                record.write(chunk)
                record.flush()
                sys.stdout.write(decode(chunk))
                sys.stdout.flush()
            return process.wait()
        except BaseException:
            ask_to_end(process, 2 * SECONDS_TO_END)  # it may be one of ours that ends a command of its own
            kill(process)
            raise


def _close_pipe_after(process: subprocess.Popen) -> None:
    """Worker processes hold the pipe, and outlive a command that the system has killed."""
    process.wait()
    kill(process)
