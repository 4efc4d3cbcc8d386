"""Where a study's things lie in its work folder, and files that are there whole or not at all."""

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunet_skd.tools.files import write_file


class Place:
    """The folder of one training.

    job.json       what the driver asks for
    trainer/       the generated trainer
    results/       nnU-Net's results folder of this training alone
    model.json     written when the training is done: model folder, seconds per step, fingerprint
    predicted/     the test cases' predictions, without and with mirroring
    rows.csv       their metrics, written last
    log.txt        what was printed
    """

    def __init__(self, work: Path, key: str) -> None:
        self.work = work
        self.folder = work / "trainings" / key
        self.job = self.folder / "job.json"
        self.trainer = self.folder / "trainer"
        self.results = self.folder / "results"
        self.model = self.folder / "model.json"
        self.predicted = self.folder / "predicted"
        self.rows = self.folder / "rows.csv"
        self.log = self.folder / "log.txt"

    def forget(self) -> None:
        """Remove everything, its own dataset too; what says that it is finished goes first."""
        for file in (self.rows, self.model):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        for dataset in self.work.glob(f"*/Dataset???_*_{self.folder.name}"):
            shutil.rmtree(dataset)

    def read_model(self) -> dict | None:
        return json.loads(self.model.read_text()) if self.model.is_file() else None


def write_whole(path: Path, text: str) -> None:
    """Write a file and the folders that it needs, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, text)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other process holds this lock; a killed process holds none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
