"""Run what a study lacks: one single-threaded process per training, in the order in which they need each other."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tqdm import tqdm

from driver.datasets import Raw
from driver.definition import EXPERIMENTS, Study
from driver.fingerprint import fingerprint
from driver.place import Place, write_whole
from driver.rows import add_cell, complete, read_rows, refuse_mixtures, rows_of, write_rows
from driver.trainings import Training, plan, with_needs
from nnunet_skd.compat import READS_EXT_TRAINER, nnunet_version
from nnunet_skd.tools.errors import BadInput

TAIL_LINES = 25
POLL_SECONDS = 0.5
TRAINER = '''"""Written by experiments/study.py: a trainer under the protocol of all studies."""

from driver.finding import find_trainer
from protocol import Protocol


class {name}(Protocol, find_trainer("{base}")):
    seed = {seed}
    epochs = {epochs}
    iterations = {iterations}
'''


@dataclass
class Paths:
    """Where a run reads and writes.

    Args:
        raw: the folder with the raw datasets, as nnUNet_raw.
        work: everything that can be made again: datasets, models, predictions.
        results: the folder of the committed CSVs.
    """

    raw: Path
    work: Path
    results: Path


def fingerprints(trainings: list[Training]) -> dict[str, str | None]:
    """Each training's fingerprint by its key, None where its trainer does not exist; an ensemble has its members'."""
    codes: dict[str, str | None] = {}
    for training in with_needs(trainings):
        if training.recipe["ensemble"]:
            members = {codes[member.key] for member in training.needs}
            codes[training.key] = None if None in members else " + ".join(sorted(members))
            continue
        try:
            codes[training.key] = fingerprint(training.recipe)
        except LookupError:
            codes[training.key] = None
    return codes


def lock(work: Path) -> IO[str]:
    """Hold the work folder until the returned file is closed.

    Raises:
        BadInput: another run holds it.
    """
    work.mkdir(parents=True, exist_ok=True)
    file = (work / "lock").open("a+")
    for _ in range(15):  # the trainings of a driver that was killed end within a second
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.3)
            continue
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        os.set_inheritable(file.fileno(), True)  # its trainings hold it as well
        return file
    file.seek(0)
    raise BadInput(f"another run (process {file.read()}) works in {work}. Wait for it, or name another folder: --work")


def run(name: str, study: Study, paths: Paths, *, jobs: int, restart: list[str]) -> int:
    """Run the missing trainings and tests of a study.

    Returns:
        0, or 1 where a training has failed.

    Raises:
        BadInput: rows of other code or settings, an unknown arm, a missing dataset, another run in this folder, or a
            release of nnU-Net that is too old.
    """
    if not READS_EXT_TRAINER:
        raise BadInput(
            f"the studies need nnU-Net 2.8, which finds the trainers that they write; here is {nnunet_version()}"
        )
    if not (paths.raw / study.dataset / "dataset.json").is_file():
        raise BadInput(f"{paths.raw} has no dataset {study.dataset}; name the folder of your raw datasets with --raw")
    raw = Raw(paths.raw / study.dataset)
    if study.test == "imagesTs" and not raw.cases("Ts"):
        raise BadInput(f"{study.dataset} has no labelsTs: there is nothing to test on")
    if study.labelled is not None and study.labelled >= len(raw.cases()):
        raise BadInput(
            f"{study.dataset} has {len(raw.cases())} labelled cases, so a draw of {study.labelled} is no draw"
        )
    with lock(paths.work) as held:
        return Run(name, study, paths, held.fileno()).run(jobs, restart)


class Run:
    """One call of ``study.py run``."""

    def __init__(self, name: str, study: Study, paths: Paths, lock_number: int) -> None:
        self.name, self.study, self.paths, self.lock_number = name, study, paths, lock_number
        self.plan = plan(study)
        self.file = paths.results / f"{name}.csv"
        self.rows = read_rows(self.file)
        self.codes = fingerprints(list(self.plan.values()))
        self.failed: dict[str, str] = {}
        self.restarted: set[str] = set()
        for folder in ("raw", "preprocessed"):
            (paths.work / folder).mkdir(parents=True, exist_ok=True)

    def run(self, jobs: int, restart: list[str]) -> int:
        if restart:
            self.restart(restart)
        refuse_mixtures(self.rows, self.plan, self.codes)
        self.adopt()
        missing = [training for cell, training in self.plan.items() if rows_of(self.rows, cell).empty]
        tested = {training.key for training in missing}
        waiting = [t for t in with_needs(missing) if t.key in tested or self.place(t).read_model() is None]
        self.refuse_old_models(waiting)
        if not waiting:
            print(f"{self.name}: all {len(self.plan)} cells have their rows in {self.file}")
            return 0
        print(f"{self.name}: {len(waiting)} trainings to go, {jobs} at a time")
        running: dict[str, tuple[Training, subprocess.Popen]] = {}
        bar = Progress(waiting, self.place)
        try:
            while waiting or running:
                self.skip_what_cannot_come(waiting)
                while len(running) < jobs and (training := self.next_ready(waiting, running)):
                    waiting.remove(training)
                    bar.say(f"start  {training}")
                    running[training.key] = (training, self.start(training, training.key in tested))
                for training, process in list(running.values()):
                    if process.poll() is not None:
                        del running[training.key]
                        bar.finish(training)
                        self.end(training, process.returncode, bar, training.key in tested)
                bar.update([training for training, _ in running.values()])
                time.sleep(POLL_SECONDS)
        finally:
            for _, process in running.values():
                os.killpg(process.pid, signal.SIGKILL)  # it can be continued after any kill
            bar.close()
        for reason in self.failed.values():
            print(reason.splitlines()[0])
        print(f"{self.name}: {len(self.failed)} failed" if self.failed else f"{self.name}: done, see {self.file}")
        return 1 if self.failed else 0

    def place(self, training: Training) -> Place:
        return Place(self.paths.work, training.key)

    # ---------------------------------------------------------------------------------------------- before

    def restart(self, arms: list[str]) -> None:
        """Forget the rows and the models of these arms, and of all arms that stand on them."""
        if unknown := set(arms) - set(self.study.arms):
            raise BadInput(f"the study has no arm {', '.join(sorted(unknown))}: {', '.join(self.study.arms)}")
        everything = with_needs(list(self.plan.values()))
        keys = {training.key for training in everything if training.cell.arm in arms}
        keys = {training.key for training in everything if keys & {other.key for other in with_needs([training])}}
        again = {training.cell.arm for training in everything if training.key in keys}
        print(f"Restarted: {', '.join(sorted(again))}")
        self.rows = self.rows[~self.rows["arm"].isin(again)]
        write_rows(self.rows, self.study, self.file)
        for key in keys:
            Place(self.paths.work, key).forget()
        self.restarted = keys

    def adopt(self) -> None:
        """Take rows of equal recipe and code from the work folder, and from the other studies' CSVs.

        What is to be trained anew is not taken.
        """
        others = [read_rows(file) for file in sorted(self.paths.results.glob("*.csv")) if file != self.file]
        for cell, training in self.plan.items():
            if training.key in self.restarted or not rows_of(self.rows, cell).empty:
                continue
            for rows in [read_rows(self.place(training).rows), *others]:
                mine = rows[(rows["recipe"] == training.key) & (rows["fingerprint"] == self.codes[training.key])]
                if len(mine) and "arm" in mine:
                    mine = mine[mine["arm"] == mine["arm"].iloc[0]]
                    mine = mine[mine["draw"] == mine["draw"].iloc[0]]
                if complete(mine, self.study):
                    self.rows = add_cell(self.rows, cell, mine, self.study)
                    write_rows(self.rows, self.study, self.file)
                    break

    def refuse_old_models(self, waiting: list[Training]) -> None:
        """Nothing may stand on a model that other code has made."""
        for training in with_needs(waiting):
            model, now = self.place(training).read_model(), self.codes[training.key]
            if model and now not in (None, model["fingerprint"]):
                raise BadInput(
                    f"the model of {training} was made by other code: {model['fingerprint']}; now {now}. "
                    f'Train it anew with --restart "{training.cell.arm}", or check out the code that made it'
                )

    # ---------------------------------------------------------------------------------------------- meanwhile

    def skip_what_cannot_come(self, waiting: list[Training]) -> None:
        """Take trainings out that lack their trainer or a model that they need, and say so at the end."""
        for training in list(waiting):
            if self.codes[training.key] is None and not training.recipe["ensemble"]:
                reason = f"there is no trainer {training.recipe['trainer']}"
            elif broken := [other for other in training.needs if other.key in self.failed]:
                reason = f"it needs {broken[0]}, which failed"
            else:
                continue
            waiting.remove(training)
            self.failed[training.key] = f"not run  {training}: {reason}"

    def next_ready(self, waiting: list[Training], running: Iterable[str]) -> Training | None:
        """The first training whose needs are met, if there is one."""
        unfinished = {training.key for training in waiting} | set(running)
        ready = (t for t in waiting if not unfinished & {other.key for other in t.needs})
        return next(ready, None)

    def start(self, training: Training, tested: bool) -> subprocess.Popen:
        """A worker for one training; ``tested`` where it has a place in the study's rows."""
        place, recipe = self.place(training), training.recipe
        folders = {key: self.model_folder(key) for key in [*recipe["models"], *filter(None, [recipe["start"]])]}
        start = next(folders[recipe["start"]].glob("fold_*/checkpoint_final.pth")) if recipe["start"] else None
        job = {
            "recipe": recipe,
            "class_name": training.class_name,
            "raw": str(self.paths.raw.resolve()),
            "models": [str(folders[key]) for key in recipe["models"]],
            "start": start and str(start),
            "environment": list(recipe["environment"].items()),
            "metrics": self.study.metrics if tested else [],
            "mirroring": self.study.mirroring,
            "fingerprint": self.codes[training.key],
        }
        write_whole(place.job, json.dumps(job, indent=1))
        write_whole(
            place.trainer / f"{training.class_name}.py",
            TRAINER.format(
                name=training.class_name,
                base=recipe["trainer"],
                **{key: recipe[key] for key in ("seed", "epochs", "iterations")},
            ),
        )
        trainers = [place.trainer, *(Place(self.paths.work, other.key).trainer for other in with_needs([training]))]
        threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
        variables = {
            "nnUNet_raw": str(self.paths.work / "raw"),
            "nnUNet_preprocessed": str(self.paths.work / "preprocessed"),
            "nnUNet_results": str(place.results),
            "nnUNet_extTrainer": os.pathsep.join(dict.fromkeys(map(str, trainers))),
            "PYTHONPATH": os.pathsep.join([str(EXPERIMENTS), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        switches = {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f", "PYTHONUNBUFFERED": "1"}
        with place.log.open("w") as log:
            return subprocess.Popen(  # noqa: S603 - this program
                [sys.executable, "-m", "driver.worker", place.folder, str(os.getpid())],
                env=os.environ | threads | variables | switches,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                pass_fds=(self.lock_number,),
                start_new_session=True,
            )

    def model_folder(self, key: str) -> Path:
        place = Place(self.paths.work, key)
        return place.work / place.read_model()["folder"]

    def end(self, training: Training, code: int, bar: "Progress", tested: bool) -> None:
        """Take a finished training's rows, or tell how it failed."""
        place = self.place(training)
        if code != 0:
            tail = "\n".join(place.log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
            self.failed[training.key] = f"failed  {training}, exit code {code}; {place.log} ends:\n{tail}"
            bar.say(self.failed[training.key])
            return
        bar.say(f"done   {training}")
        if not tested:
            return
        rows = read_rows(place.rows)
        for cell, other in self.plan.items():
            if other.key == training.key and rows_of(self.rows, cell).empty:
                self.rows = add_cell(self.rows, cell, rows, self.study)
        write_rows(self.rows, self.study, self.file)


class Progress:
    """Steps of all trainings that are to be run, and the time that they will take at the pace so far."""

    def __init__(self, trainings: list[Training], place: Callable[[Training], Place]) -> None:
        self.place, self.finished = place, 0
        self.steps = {t.key: 0 if place(t).read_model() else t.steps for t in trainings}  # 0: only the test is missing
        self.bar = tqdm(
            total=sum(self.steps.values()),
            unit="step",
            smoothing=0,
            mininterval=0.5 if sys.stderr.isatty() else 60,
        )

    def update(self, running: list[Training]) -> None:
        steps = self.finished + sum(self.steps_done(training) for training in running)
        self.bar.update(max(0, steps - self.bar.n))

    def steps_done(self, training: Training) -> int:
        """From the last epoch that nnU-Net has named in the log."""
        log = self.place(training).log
        if not log.is_file() or not self.steps[training.key]:
            return 0
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 20_000))
            epochs = re.findall(rb"Epoch (\d+) *\r?\n", file.read())
        return min(training.steps, int(epochs[-1]) * training.recipe["iterations"] if epochs else 0)

    def finish(self, training: Training) -> None:
        self.finished += self.steps[training.key]

    def say(self, text: str) -> None:
        self.bar.write(f"{time.strftime('%H:%M:%S')}  {text}")

    def close(self) -> None:
        self.bar.close()
