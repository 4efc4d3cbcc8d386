"""kill -9 at random moments of real trainings, the final validation included: nothing that was saved is lost.

Only with HOSTILE=all: 100 kills over all families, or HOSTILE_KILLS.
"""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from commands import BIN, fold_folder, run

from nnunet_skd.tools.install.discovery import trainers_folder

FAMILIES = ("DSKD", "ACWSKD", "DSKD_ACW", "DSKD_unlabelled", "Distill")
KILLS = int(os.environ.get("HOSTILE_KILLS", 100))
EPOCHS = 8
BEGINS = "Using device"  # what nnU-Net prints first, before it makes the fold's folder
VALIDATES = "predicting "  # what it prints first in its final validation
BRIEF = """
from nnunet_skd.trainers.nnUNetTrainer{0} import nnUNetTrainer{0}


class nnUNetTrainer{0}_brief(nnUNetTrainer{0}):
    def initialize(self):
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = {1}, 4, 1
        self.save_every = 1
        super().initialize()
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("HOSTILE") != "all", reason="make hostile"),
]


@pytest.fixture
def dataset(nnunet_env, phantoms, make_known) -> Path:
    """With a short variant of every family."""
    mine = nnunet_env / "mine"
    mine.mkdir()
    for family in FAMILIES:
        (mine / f"brief_{family}.py").write_text(BRIEF.format(family, EPOCHS))
    make_known(mine, trainers_folder())
    return phantoms


@pytest.mark.parametrize("family", FAMILIES)
def test_no_kill_loses_what_was_saved(dataset, nnunet_env, monkeypatch, capsys, family):
    if family == "DSKD_unlabelled":
        run("nnunet-skd", "unlabelled", "-d", 900, "-i", dataset / "imagesTs", "-np", 1)
    if family == "Distill":
        run("nnUNetv2_train", 900, "2d", 0, "-tr", "nnUNetTrainerDSKD_brief", "-device", "cpu")
        monkeypatch.setenv("nnUNet_skd_teacher", str(folder(dataset, "DSKD").parent))
    fold, chance = folder(dataset, family), random.Random(family)
    log = nnunet_env / "log.txt"
    process = train(family, log)
    begins, validates = when_it_says(BEGINS, process, log), when_it_says(VALIDATES, process, log)
    assert process.wait() == 0, log.read_text()[-3000:]
    spans = {BEGINS: validates - begins, VALIDATES: time.monotonic() - validates}
    fold.rename(fold.with_name("uninterrupted"))

    kills = in_validation = finished = epochs = 0
    while kills < -(-KILLS // len(FAMILIES)):
        from_here = (BEGINS, VALIDATES)[(kills + FAMILIES.index(family)) % 2]
        if from_here == BEGINS and epochs == EPOCHS:  # trained already: begin another one
            fold.rename(fold.with_name(f"trained_{kills}"))
            epochs = 0
        process = train(family, log, "--c")
        when_it_says(from_here, process, log)
        moment = chance.uniform(0, spans[from_here])
        try:
            process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            in_validation += VALIDATES in log.read_text()
        else:
            assert process.returncode == 0, log.read_text()[-3000:]
            assert_finished(fold)
            fold.rename(fold.with_name(f"finished_{finished}"))
            finished, epochs = finished + 1, 0
            continue
        saved = saved_epochs(fold)
        assert saved >= epochs
        epochs = saved
    assert train(family, log, "--c").wait() == 0, log.read_text()[-3000:]
    assert_finished(fold)
    with capsys.disabled():
        print(
            f"\n{family}: {kills} kills within {spans[BEGINS]:.1f} s of training and {spans[VALIDATES]:.1f} s of final "
            f"validation, {in_validation} of them there; {finished} trainings finished between them, none lost"
        )


def folder(dataset: Path, family: str) -> Path:
    return fold_folder(dataset, f"nnUNetTrainer{family}_brief")


def train(family: str, log: Path, *options: str) -> subprocess.Popen:
    command = ["nnUNetv2_train", "900", "2d", "0", "-tr", f"nnUNetTrainer{family}_brief", "-device", "cpu", *options]
    with log.open("w") as printed:
        return subprocess.Popen(
            [BIN / command[0], *command[1:]],
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def when_it_says(text: str, process: subprocess.Popen, log: Path) -> float:
    """Wait until a training prints this, or has ended. Returns the time."""
    while text not in log.read_text() and process.poll() is None:
        time.sleep(0.02)
    return time.monotonic()


def saved_epochs(fold: Path) -> int:
    """How many epochs the best checkpoint to go on from holds; every file that is there can be read."""
    for unfinished in fold.glob("*.tmp"):  # what a kill may leave: nothing reads it
        unfinished.unlink()
    epochs = [torch.load(file, weights_only=False)["current_epoch"] for file in fold.glob("checkpoint_*.pth")]
    if (fold / "distillation.csv").is_file():
        assert pd.read_csv(fold / "distillation.csv")["epoch"].is_monotonic_increasing
    return max(epochs, default=0)


def assert_finished(fold: Path) -> None:
    assert torch.load(fold / "checkpoint_final.pth", weights_only=False)["current_epoch"] == EPOCHS
    assert pd.read_csv(fold / "distillation.csv")["epoch"].tolist() == [*range(EPOCHS)]
    assert (fold / "validation" / "summary.json").is_file()
