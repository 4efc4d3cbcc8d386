"""What only a process of its own can show: signals, pipes, terminals and what is not installed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from commands import BIN, HAS_PROC, state, workers_after_kill_9

from nnunet_skd.compat import READS_EXT_TRAINER
from nnunet_skd.tools import commands, signals
from nnunet_skd.tools.cli import COMMANDS, main
from nnunet_skd.tools.demo.processes import stream

COMMAND = [str(BIN / "nnunet-skd")]
prints_the_path = pytest.mark.skipif(not READS_EXT_TRAINER, reason="this nnU-Net needs no path")


HEED = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
HEED += "if hasattr(signal, 'SIGHUP'): signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"


def started(code: str) -> subprocess.Popen:
    """A Python process in a session of its own that heeds what a shell's background and nohup ignore."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", HEED + code], **pipes, start_new_session=True)


def run(*arguments, **options) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | options.pop("env", {})
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, env=environment, timeout=120, **options
    )


@prints_the_path
def test_a_closed_pipe(nnunet_env):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND, "path"], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writer)
    assert done.returncode == 1 and "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1


@prints_the_path
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_behind_the_output(nnunet_env):
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, "path"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 1 and "No space left" in done.stderr and len(done.stderr.splitlines()) == 1


def test_an_ascii_terminal(nnunet_env):
    env = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    done = run("evaluate", "référence", "b", "-djfile", "c", env=env)
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_a_name_that_is_not_utf_8(nnunet_env):
    done = subprocess.run([*COMMAND, "evaluate", b"\xff", "b", "-djfile", "c"], capture_output=True, timeout=120)
    assert done.returncode == 2 and b"Traceback" not in done.stderr and b"is not a folder" in done.stderr


def test_nnunet_processes_that_are_no_number(nnunet_env):
    done = run("evaluate", "a", "b", "-djfile", "c", env={"nnUNet_def_n_proc": "abc"})
    assert done.returncode == 2 and "nnUNet_def_n_proc=abc" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["doctor", "path", "evaluate"])
def test_without_nnunet(command):
    code = "import sys; sys.modules['nnunetv2'] = None\nfrom nnunet_skd.tools.cli import main\n"
    code += f"sys.exit(main(['{command}']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "nnunetv2 is not installed" in done.stderr and "Traceback" not in done.stderr


def test_ctrl_c():
    code = (
        "import sys, time\nfrom nnunet_skd.tools import cli\nfrom nnunet_skd.tools.install import path\n"
        "def wait(_):\n    print('ready', flush=True)\n    time.sleep(100)\n"
        "path.run = wait\nsys.exit(cli.main(['path']))"
    )
    process = started(code)
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and said == "nnunet-skd path: stopped\n"


NNUNET = """
import os, signal, sys, time
from multiprocessing import Process

if "{how}" == "stubborn":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
worker = Process(target=time.sleep, args=(100,), daemon="{how}" == "tidy")
worker.start()
try:
    print("ready", worker.pid, flush=True)
    time.sleep(100)
except KeyboardInterrupt:
    time.sleep(1)  # longer than Python waits for a command at Ctrl-C
    print("tidied up", flush=True)
    if "{how}" == "orphan":
        os._exit(1)
    sys.exit(1)
"""


@pytest.mark.skipif(not HAS_PROC, reason="finds the processes in /proc")
@pytest.mark.parametrize("how", ["tidy", "orphan", "stubborn"])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_command_ends_nnunets_and_its_workers_and_removes_its_scratch(tmp_path, how, sent):
    """``orphan``: a command that leaves its worker behind. ``stubborn``: one that no Ctrl-C ends."""
    (tmp_path / "nnunet.py").write_text(NNUNET.format(how=how))
    code = (
        "import sys\nfrom nnunet_skd.tools import cli, commands\nfrom nnunet_skd.tools.files import scratch_folder\n"
        "from nnunet_skd.tools.install import path\ncommands.SECONDS_TO_END = 3\n"
        f"def run(_):\n    with scratch_folder({str(tmp_path / 'made')!r}):\n"
        f"        return commands.show_and_run([sys.executable, {str(tmp_path / 'nnunet.py')!r}])\n"
        "path.run = run\nsys.exit(cli.main(['path']))"
    )
    process = started(code)
    assert process.stdout.readline().startswith("$ ")
    worker = int(process.stdout.readline().removeprefix("ready "))
    process.send_signal(sent)
    printed, said = process.communicate(timeout=60)  # ends when all have closed their output
    assert process.returncode == 130 and said.endswith("nnunet-skd path: stopped\n")
    assert ("tidied up" in printed) == (how != "stubborn")
    assert state(Path(f"/proc/{worker}/stat"))[0] == "Z" and not (tmp_path / "made").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux does it")
def test_a_killed_command_takes_nnunets_and_its_workers_with_it(tmp_path):
    """Or a second training would write into the folder of the first."""
    (tmp_path / "nnunet.py").write_text(NNUNET.format(how="tidy"))
    child = [sys.executable, str(tmp_path / "nnunet.py")]
    process = started(f"from nnunet_skd.tools.commands import show_and_run\nshow_and_run({child!r})")
    assert process.stdout.readline().startswith("$ ")
    worker = Path(f"/proc/{process.stdout.readline().removeprefix('ready ').strip()}/stat")
    assert workers_after_kill_9(process) == []
    assert process.stdout.read() == "tidied up\n"  # ends when all have closed their output
    assert state(worker)[0] == "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the command is started directly")
def test_a_command_that_cannot_be_started_is_named(capfd):
    assert commands.run_and_end(["/gone/nnUNetv2_train", "80"], os.environ | {}) == 1
    assert capfd.readouterr().err == "/gone/nnUNetv2_train: No such file or directory\n"


KILLED = """
import os, signal, time
if os.fork() == 0:
    time.sleep(100)
print("training", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks")
def test_a_command_that_the_system_kills_does_not_leave_its_workers(tmp_path):
    """They hold its output, so that the demo would wait for it for ever."""
    command = [sys.executable, "-c", KILLED]
    assert stream(command, tmp_path / "log.txt", os.environ | {}) == -signal.SIGKILL
    assert "training" in (tmp_path / "log.txt").read_text()
    code = f"from nnunet_skd.tools.commands import run_and_end\nimport os\nprint(run_and_end({command!r}, os.environ))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "training\n-9\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks")
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_a_forked_process_of_a_command_is_ended_by_the_signal_itself(monkeypatch, sent):
    """A handler of Python's would not end one that waits for a lock, and nnU-Net's Pool would wait for it for ever."""
    ended = []

    def run(_):
        process = os.fork()
        if process == 0:
            time.sleep(20)
            os._exit(0)
        os.kill(process, sent)  # at once: it may not have run yet
        ended.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))

    monkeypatch.setattr("nnunet_skd.tools.install.path.run", run)
    mask, handler = signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.signal(sent, signal.SIG_DFL)
    try:
        while len(ended) < 20:
            assert main(["path"]) == 0 and ended[-1] == -sent
    finally:
        signal.signal(sent, handler)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="nothing forks")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_comes_during_a_fork_stops_the_command_after_it(monkeypatch, sent):
    def run(_):
        signals._before_fork()
        os.kill(os.getpid(), sent)
        signals._after_fork()
        time.sleep(20)

    monkeypatch.setattr("nnunet_skd.tools.install.path.run", run)
    usual = signal.default_int_handler if sent == signal.SIGINT else signal.SIG_DFL
    handler = signal.signal(sent, usual)
    try:
        assert main(["path"]) == 130 and signal.getsignal(sent) is usual
    finally:
        signal.signal(sent, handler)


def test_a_stopped_command_does_not_wait_for_the_cases_that_its_processes_are_at():
    code = (
        "import sys, time\nfrom nnunet_skd.tools import cli\nfrom nnunet_skd.tools.install import path\n"
        "from nnunet_skd.tools.parallel import for_each_case\n"
        "path.run = lambda _: list(for_each_case(time.sleep, {'a': (500,), 'b': (500,)}, 2, 'waiting'))\n"
        "sys.exit(cli.main(['path']))"
    )
    process = started(code)
    assert process.stderr.read(8) == "\nwaiting"
    time.sleep(2)
    process.terminate()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and said.endswith("nnunet-skd path: stopped\n")


def test_only_the_first_signal_stops_a_command_and_the_next_ones_leave_its_tidying_alone(monkeypatch):
    tidied = []

    def run(_):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            tidied.append(True)

    monkeypatch.setattr("nnunet_skd.tools.install.path.run", run)
    assert main(["path"]) == 130 and tidied


def test_signals_that_are_ignored_or_handled_stay(monkeypatch):
    seen = []
    monkeypatch.setattr("nnunet_skd.tools.install.path.run", lambda _: seen.append(signal.getsignal(signal.SIGHUP)))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert main(["path"]) == 0 and seen == [signal.SIG_IGN] == [signal.getsignal(signal.SIGHUP)]
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (MemoryError(), 1, "too little memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), 1, "the GPU has too little memory"),
        (OSError(28, "No space left on device", "/a/file"), 1, "No space left on device (/a/file)"),
        (KeyboardInterrupt(), 130, "stopped"),
        (ModuleNotFoundError("No module", name="skimage.io"), 1, "pip install scikit-image"),
        (ZeroDivisionError("division"), 1, "bug of nnunet-skd"),
    ],
)
def test_whatever_ends_a_command(monkeypatch, capsys, error, status, said):
    def fail(*_):
        raise error

    monkeypatch.setattr("nnunet_skd.tools.install.path.run", fail)
    assert "path" in COMMANDS and main(["path"]) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    monkeypatch.setenv("NNUNET_SKD_TRACEBACK", "1")
    with pytest.raises(type(error)):
        main(["path"])
