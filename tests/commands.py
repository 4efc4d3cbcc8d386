"""Run the real commands of this environment, and shrink plans so that they take seconds."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nnunetv2
import pandas as pd
import pytest

from nnunet_skd.compat import READS_EXT_TRAINER
from nnunet_skd.tools.install.discovery import SHIM_PACKAGE, shim_files, trainers_folder

BIN = Path(sys.executable).parent
HELD = """
import os
import time


class Held:
    '''Waits in the middle of its third epoch, to be killed there.'''

    def train_step(self, batch):
        while self.current_epoch == 2 and "HOLD" in os.environ:
            open(os.environ["HOLD"], "w").close()
            time.sleep(1)
        return super().train_step(batch)
"""
IN_ONE_PROCESS = ("-npp", 0, "-nps", 0)  # for nnUNetv2_predict, which starts six more, and each imports PyTorch
HAS_PROC = Path("/proc/self/stat").exists()


def clone_nnunet(parent: Path, patch: pytest.MonkeyPatch) -> Path:
    """An nnunetv2 of the test's own for the commands that it starts, as an editable clone would be."""
    clone = parent / "clone"
    shutil.copytree(nnunetv2.__path__[0], clone / "nnunetv2", ignore=shutil.ignore_patterns("__pycache__", "zz_*"))
    patch.setenv("PYTHONPATH", str(clone))
    return clone


def make_known_to_commands(parent: Path, patch: pytest.MonkeyPatch, *folders: Path) -> None:
    """nnU-Net's commands find the trainers in these folders.

    By its variable; before 2.8, which reads none, in a clone, where this package's trainers are registered.
    """
    if READS_EXT_TRAINER:
        patch.setenv("nnUNet_extTrainer", os.pathsep.join(map(str, folders)))
        return
    trainers = clone_nnunet(parent, patch) / "nnunetv2" / "training" / "nnUNetTrainer"
    for folder in folders:
        if folder == trainers_folder():
            (trainers / SHIM_PACKAGE).mkdir()
            for file, text in shim_files(trainers / SHIM_PACKAGE).items():
                file.write_text(text)
        else:
            for file in folder.glob("*.py"):
                shutil.copy(file, trainers)


def run(*command, **env: str) -> str:
    """Run ``nnUNetv2_...`` or ``nnunet-skd`` and return what it printed; its output becomes the failure's message."""
    done = subprocess.run(
        [BIN / command[0], *map(str, command[1:])],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))} -> {done.returncode}\n{done.stdout[-6000:]}"
    return done.stdout


def plan_and_preprocess(configuration: str) -> None:
    """nnU-Net's planning and preprocessing of dataset 900."""
    command = ("nnUNetv2_plan_and_preprocess", "-d", 900, "-c", configuration, "-np", 1, "-npfp", 1)
    run(*command, nnUNet_n_proc_DA="1")  # the planner takes it for a number of threads, which 0 is not


def kill_in_the_third_epoch(command: tuple[str, ...], fold: Path, **env: str) -> None:
    """Start a training whose trainer is ``Held``, and kill it with -9 when it waits."""
    held = fold.parents[2] / "held"
    process = subprocess.Popen(
        [BIN / command[0], *command[1:]],
        env=os.environ | {"OMP_NUM_THREADS": "1", "HOLD": str(held)} | env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    try:
        while not held.is_file():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert len(epochs(fold)) == 2 and (fold / "checkpoint_best.pth").is_file()


def epochs(fold: Path) -> pd.DataFrame:
    """distillation.csv so far."""
    return pd.read_csv(fold / "distillation.csv") if (fold / "distillation.csv").is_file() else pd.DataFrame()


def workers_after_kill_9(process: subprocess.Popen) -> list[int]:
    """Kill a command while it works in several processes. Returns those of them that have not ended a minute later."""
    workers = [
        int(stat.parent.name) for stat in Path("/proc").glob("[0-9]*/stat") if state(stat)[1:] == [str(process.pid)]
    ]
    assert process.poll() is None and workers
    process.kill()
    process.wait()
    end = time.monotonic() + 60
    while (left := [pid for pid in workers if state(Path(f"/proc/{pid}/stat"))[0] != "Z"]) and time.monotonic() < end:
        time.sleep(0.1)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return left


def state(stat: Path) -> list[str]:
    """The state of a process ("Z": it has ended) and its parent."""
    try:
        return stat.read_text().rsplit(")", 1)[1].split()[:2]
    except OSError:
        return ["Z"]


def fold_folder(
    dataset: Path, trainer: str, configuration: str = "2d", plans_name: str = "nnUNetPlans", *, fold: int | str = 0
) -> Path:
    """Where nnUNetv2_train leaves a fold."""
    model = f"{trainer}__{plans_name}__{configuration}"
    return Path(os.environ["nnUNet_results"], dataset.name, model, f"fold_{fold}")


def shrink_plans(dataset: Path, plans_name: str = "nnUNetPlans", *, stages: int = 4, patch: int = 32) -> None:
    """Make every configuration of the preprocessed dataset a network of a few channels on small patches."""
    file = Path(os.environ["nnUNet_preprocessed"], dataset.name, f"{plans_name}.json")
    plans = json.loads(file.read_text())
    for configuration in plans["configurations"].values():
        if "architecture" not in configuration:
            continue
        dim = len(configuration["patch_size"])
        configuration["patch_size"], configuration["batch_size"] = [patch] * dim, 2
        arguments = configuration["architecture"]["arch_kwargs"]
        arguments["n_stages"] = stages
        arguments["features_per_stage"] = [4, 8, 8, 8, 8][:stages]
        arguments["kernel_sizes"] = [[3] * dim] * stages
        arguments["strides"] = [[1] * dim] + [[2] * dim] * (stages - 1)
        for name in ("n_conv_per_stage", "n_blocks_per_stage"):
            if name in arguments:
                arguments[name] = [1] * stages
        arguments["n_conv_per_stage_decoder"] = [1] * (stages - 1)
    file.write_text(json.dumps(plans))
