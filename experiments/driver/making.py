"""One training from its job.json to its rows.csv: dataset, training, prediction, metrics."""

import json
import os
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

from driver.datasets import (
    BIN,
    READY,
    Raw,
    choose,
    draw_dataset,
    fill_ignored,
    link_all,
    new_dataset,
    outside,
    preprocess,
)
from driver.fingerprint import fingerprint
from driver.place import Place, locked, write_whole
from driver.prediction import predict
from nnunet_skd.tools.beginning import load_all_weights
from nnunet_skd.tools.evaluate.calibration import CALIBRATION
from nnunet_skd.tools.evaluate.folders import evaluate_folders
from nnunet_skd.tools.nnunet_json import read_dataset_json
from nnunet_skd.tools.pseudo_labels.second_look import NAMED, least, look_again, read_table


class Making:
    """The steps of one training, and what they share."""

    def __init__(self, folder: Path) -> None:
        self.place = Place(folder.parents[1], folder.name)
        self.job = json.loads(self.place.job.read_text())
        self.recipe = self.job["recipe"]
        self.source = Raw(Path(self.job["raw"]) / self.recipe["dataset"])
        self.models = [Path(model) for model in self.job["models"]]
        self.preprocessed = Path(os.environ["nnUNet_preprocessed"])

    def run(self) -> None:
        """Train where there is no model yet, and test where the study has a place for it."""
        if not self.recipe["ensemble"] and not self.place.model.is_file():
            self.train()
        if self.job["metrics"]:
            self.test()

    # ---------------------------------------------------------------------------------------------- training

    def train(self) -> None:
        """Make the dataset, and start nnU-Net's training or continue it; what is written last is model.json.

        Raises:
            SystemExit: the code is not the one that the driver has found at its start.
        """
        code = fingerprint(self.recipe)
        if code != self.job["fingerprint"]:
            raise SystemExit(f"the code was changed while the study ran: {self.job['fingerprint']}, now {code}")
        with locked(self.place.work / "datasets.lock"):
            name = self.dataset()
            if self.recipe.get("annotated_intensities"):
                self.measure_annotated(name)
            compact = preprocess(name, self.recipe["configuration"], self.recipe["preset"], self.preprocessed)
            if self.recipe["prepare"] == "unlabelled":
                self.add_unlabelled(name)
        environment = {k: v.format(models=os.pathsep.join(map(str, self.models))) for k, v in self.job["environment"]}
        os.environ.update(environment)
        started = any(self.place.results.glob("*/*/fold_*/checkpoint_[lf]*.pth"))  # latest or final
        if not started and self.place.results.exists():
            shutil.rmtree(self.place.results)  # killed before the first checkpoint
        trainer = get_trainer_from_args(
            name, compact, self.fold(), self.job["class_name"], continue_training=started, device=torch.device("cpu")
        )
        maybe_load_checkpoint(trainer, started, False, None if started else self.job["start"])
        if self.recipe.get("keeps_last_layer") and not started:
            load_all_weights(trainer, Path(self.job["start"]))
        trainer.run_training()
        times = trainer.logger.local_logger.my_fantastic_logging
        epochs = np.subtract(times["epoch_end_timestamps"], times["epoch_start_timestamps"])
        model = {
            "folder": os.path.relpath(trainer.output_folder_base, self.place.work),
            "step_seconds": float(np.median(epochs)) / self.recipe["iterations"],
            "fingerprint": code,
        }
        write_whole(self.place.model, json.dumps(model, indent=1))

    def fold(self) -> int | str:
        """nnU-Net's fold, or all cases of a dataset that holds no others."""
        cases = self.recipe["cases"]
        return int(cases.removeprefix("fold ")) if cases.startswith("fold ") else "all"

    def dataset(self) -> str:
        """The raw dataset to train on."""
        raw, slices = Path(os.environ["nnUNet_raw"]), self.recipe["annotated_slices"]
        if self.recipe["prepare"] != "pseudo_labels":
            return self.given_dataset(self.recipe["cases"])
        given = Raw(raw / self.given_dataset(self.recipe["outside"]))
        others = outside(self.source.cases(), self.recipe["outside"])
        folder = self.place.folder / "pseudo_labels"
        asked = self.source.cases() if slices else others
        images = {case: self.source.images(case) for case in asked}
        predict(self.models, images, folder, mirroring=True)
        labels = {case: folder / f"{case}{self.source.ending}" for case in asked}
        if review := self.recipe.get("review"):
            for case in self.reviewed(review, images, folder):
                if review == "doubtful left out":
                    del labels[case]
                else:
                    labels[case] = self.source.label(case)
        for case in given.cases():
            if slices:
                fill_ignored(given.label(case), labels[case], given.json["labels"]["ignore"])
            else:
                labels[case] = given.label(case)
        kind = self.source.folder.name[11:]
        name = new_dataset(raw, f"{kind}_pseudo_{self.place.folder.name}", self.source, labels)
        if slices:
            self.normalise_alike(given.folder.name, name)
        return name

    def reviewed(self, review: str, images: dict[str, list[Path]], mirrored: Path) -> list[str]:
        """The cases whose pseudo-labels a person looks at: those that agree least, or any."""
        if review.startswith("random"):
            return np.random.default_rng(self.recipe["seed"]).choice(sorted(images), NAMED, replace=False).tolist()
        unmirrored = self.place.folder / "unmirrored"
        predict(self.models, images, unmirrored, mirroring=False)
        look_again(images, mirrored, unmirrored, self.source.json, self.place.folder, processes=1)
        return least(read_table(self.place.folder)).index.tolist()

    def given_dataset(self, cases: str) -> str:
        """The raw dataset of a draw. Where intensities are measured otherwise, it is one of its own."""
        raw, slices = Path(os.environ["nnUNet_raw"]), self.recipe["annotated_slices"]
        if not self.recipe.get("annotated_intensities"):
            return draw_dataset(self.source, cases, slices, raw)
        cases = "all" if cases.startswith("fold ") else cases
        labels = {case: self.source.label(case) for case in choose(self.source.cases(), cases)}
        name = f"{self.source.folder.name[11:]}_{cases.replace(' ', '')}_{slices}slices_intensities"
        return new_dataset(raw, name, self.source, labels, slices)

    def measure_annotated(self, name: str) -> None:
        """Fingerprint by ``nnunet-skd fingerprint``, once."""
        marker = self.preprocessed / name / f"{READY}_fingerprint"
        if not marker.is_file() or marker.read_text() != version("nnunetv2"):
            words = ["fingerprint", "-d", str(int(name[7:10])), "-np", "1"]
            subprocess.run([BIN / "nnunet-skd", *words], check=True)  # noqa: S603 - our own command
            marker.write_text(version("nnunetv2"))

    def normalise_alike(self, given: str, name: str) -> None:
        """Both datasets get one fingerprint, whose intensities normalise a CT."""
        (self.preprocessed / name).mkdir(parents=True, exist_ok=True)
        for file in ("dataset_fingerprint.json", f"{READY}_fingerprint"):
            shutil.copy(self.preprocessed / given / file, self.preprocessed / name / file)

    def add_unlabelled(self, name: str) -> None:
        """Give the images outside the draw to the training, in a copy of the preprocessed dataset.

        The copy keeps trainings apart that must not see these images.
        """
        mine = self.place.work / f"preprocessed_unlabelled_{self.recipe['configuration']}"
        os.environ["nnUNet_preprocessed"] = str(mine)
        done = mine / name / f"{READY}_unlabelled"
        if not done.exists():
            shutil.rmtree(mine / name, ignore_errors=True)
            shutil.copytree(self.preprocessed / name, mine / name)
            images = self.place.work / "unlabelled_images" / name
            for case in outside(self.source.cases(), self.recipe["outside"]):
                link_all(self.source.images(case), images)
            words = ["unlabelled", "-d", str(int(name[7:10])), "-i", images, "-c", self.recipe["configuration"]]
            words += ["-np", "1"]
            environment = os.environ | {"nnUNet_n_proc_DA": "1"}
            subprocess.run([BIN / "nnunet-skd", *words], env=environment, check=True)  # noqa: S603 - our own command
            done.touch()
        preprocess(name, self.recipe["configuration"], self.recipe["preset"], mine)  # another preset, maybe

    # ---------------------------------------------------------------------------------------------- test

    def test(self) -> None:
        """Predict the test cases and measure; what is written last is rows.csv."""
        model = self.place.read_model()
        models = self.models if self.recipe["ensemble"] else [self.place.work / model["folder"]]
        part = "Ts" if self.recipe["test"] == "imagesTs" else "Tr"
        cases = self.source.cases(part)
        if part == "Tr":
            cases = outside(cases, self.recipe["test"].removeprefix("outside "))
        images = {case: self.source.images(case, part) for case in cases}
        description = read_dataset_json(self.source.folder / "dataset.json")
        asks_probabilities = bool(set(self.job["metrics"]) & set(CALIBRATION))
        tables = []
        for mirroring in self.job["mirroring"]:
            folder = self.place.predicted / ("mirrored" if mirroring else "plain")
            seconds = predict(models, images, folder, mirroring=mirroring, probabilities=asks_probabilities)
            references = self.source.folder / f"labels{part}"
            table = evaluate_folders(
                references, folder, description, num_processes=1, metrics=self.job["metrics"], chill=True
            ).round(5)
            table.insert(0, "mirroring", mirroring)
            table["case_seconds"] = table["case"].map(seconds).round(3)
            tables.append(table)
        rows = pd.concat(tables)
        rows["step_seconds"] = round(model["step_seconds"], 4) if model else np.nan
        rows["recipe"] = self.place.folder.name
        rows["fingerprint"] = self.job["fingerprint"]
        write_whole(self.place.rows, rows.to_csv(index=False))
