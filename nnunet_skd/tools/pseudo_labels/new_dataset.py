"""The dataset of labelled and pseudo-labelled cases, in nnUNet_raw and nnUNet_preprocessed.

pseudo_labels.json is written first and says what the dataset is made of, so that a run which was stopped can go on, and
nothing else is touched; in the end it says what the preprocessed labels were, so that a corrected one is noticed.
dataset.json is written when all images and labels are there. Images are links. Labels are files of their own: whoever
corrects one does not change the dataset that it came from.
"""

import json
import os
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.utilities.dataset_name_id_conversion import find_candidate_datasets
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_skd.compat import nnunet_folder
from nnunet_skd.tools.beginning import was_trained
from nnunet_skd.tools.cases import Cases, bring_label, link_images, segmented_cases
from nnunet_skd.tools.errors import BadInput, as_bad_input
from nnunet_skd.tools.files import copy, file_hash, new_folder, write_file
from nnunet_skd.tools.images import UnreadableImage, read_segmentation
from nnunet_skd.tools.json_file import ANYTHING, read_json
from nnunet_skd.tools.nnunet_folders import FINGERPRINT, SPLITS
from nnunet_skd.tools.nnunet_json import read_plans
from nnunet_skd.tools.parallel import for_each_case
from nnunet_skd.tools.pseudo_labels.labelled_cases import LabelledCases
from nnunet_skd.tools.source_dataset import RECORD
from nnunet_skd.tools.unlabelled.dataset import Dataset
from nnunet_skd.unlabelled_data import labelled_cases


def new_name(source: str, number: int) -> str:
    return f"Dataset{number:03d}_{source.partition('_')[2]}_pseudo"


def require_free_number(source: str, number: int) -> None:
    """
    Raises:
        BadInput: the number cannot be used, or is another dataset's.
    """
    if not 0 < number < 1000:
        raise BadInput(f"-t is {number}, but nnU-Net's datasets have the numbers 1 to 999")
    name = new_name(source, number)
    begun = (nnunet_folder("nnUNet_raw") / name / RECORD).is_file()
    if others := [str(other) for other in find_candidate_datasets(number) if other != name or not begun]:
        raise BadInput(f"-t {number} is the number of {', '.join(others)}. Choose one that no dataset has")


class NewDataset:
    """Where it is, and what it is made of."""

    def __init__(self, source: Dataset, number: int, made_of: dict):
        """
        Raises:
            BadInput: an earlier run began with other things.
        """
        self.source, self.number, self.made_of = source, number, made_of
        self.ending = source.file_ending
        self.name = new_name(source.plans.dataset_name, number)
        self.folder = nnunet_folder("nnUNet_raw") / self.name
        self.preprocessed = nnunet_folder("nnUNet_preprocessed") / self.name
        self.images, self.labels = self.folder / "imagesTr", self.folder / "labelsTr"
        self.waiting, self.predicted = self.folder / "waiting", self.folder / "predicted"
        self.unmirrored = self.folder / "unmirrored"
        self._plans = self.preprocessed / f"{made_of['plans']}.json"
        before = self._read_record() if (self.folder / RECORD).is_file() else {}
        self._finished = {"labels": before["labels"]} if "labels" in before else {}
        self.was_complete = bool(self._finished)  # a run has finished it; labels may have been corrected since

    def _read_record(self) -> dict:
        remedy = "Choose another number"
        results = nnunet_folder("nnUNet_results") / self.name
        if not any(map(was_trained, results.glob("*/fold_*"))):  # no model to lose
            folders = [shlex.quote(str(f)) for f in (self.folder, self.preprocessed, results) if f.is_dir()]
            remedy += f", or remove what was made: {' '.join(folders)}"
        if self.labels.is_dir():
            remedy += f". {self.labels} may hold labels that were corrected"
        before = read_json(self.folder / RECORD, dict.fromkeys(self.made_of, ANYTHING), remedy)
        # the model is known by its checkpoints, wherever it lies
        changed = [what for what, value in self.made_of.items() if before[what] != value and what != "model"]
        if changed == ["images"] and not self.labels.is_dir() and self._agree_where_both_are(before["images"]):
            changed = []  # an image that nnU-Net cannot predict was taken out before anything was made of it
        if not changed and self._has_other_plans():
            changed = ["network, patch or batch size"]
        if changed:
            raise BadInput(f"{self.folder} was made with other {', '.join(changed)}. {remedy}")
        return before

    def _agree_where_both_are(self, images: object) -> bool:
        ours = self.made_of["images"]
        return isinstance(images, dict) and all(images[case] == ours[case] for case in images.keys() & ours.keys())

    def _has_other_plans(self) -> bool:
        """Whether the plans that a run brought here were planned anew since: a training may have begun with them."""
        if not self._plans.is_file():
            return False
        there, here = PlansManager(read_plans(self._plans)), self.source.plans
        return any(
            name not in there.available_configurations
            or there.get_configuration(name).configuration != here.get_configuration(name).configuration
            for name in self.configurations
        )

    @property
    def configurations(self) -> list[str]:
        """To be preprocessed: nnU-Net's validation of a low resolution looks for the data of the next stage."""
        wanted = self.made_of["configuration"]
        return [wanted, *(self.source.plans.get_configuration(wanted).next_stage_names or [])]

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do: what was made may have been removed from nnUNet_preprocessed, a label may have
        been corrected, or a second preprocessing was stopped.

        Raises:
            BadInput: the preprocessed data hold files that are not nnU-Net's.
        """
        if not self.was_complete:
            return False
        data = [self.source.plans.get_configuration(name).data_identifier for name in self.configurations]
        needed = [self._plans.name, FINGERPRINT, SPLITS, "dataset.json", *data]
        if not all((self.preprocessed / name).exists() for name in needed):
            return False
        labels = self._label_hashes()
        with as_bad_input():
            there = all(labels.keys() <= labelled_cases(self.preprocessed / name) for name in data)
        # nnU-Net writes the .pkl of a case last
        whole = all((self.preprocessed / name / f"{case}.pkl").is_file() for case in labels for name in data)
        return there and whole and self._finished["labels"] == labels

    def begin(self, cases: Cases, processes: int) -> None:
        """Say what will be here, and drop what a run that was killed left half done."""
        record = json.dumps(self.made_of | self._finished, indent=4)
        if self.folder.is_dir():
            write_file(self.folder / RECORD, record)
        else:
            with new_folder(self.folder) as folder:
                write_file(folder / RECORD, record)
        for folder in (self.predicted, self.unmirrored):
            self._drop_others(folder, cases)
            self.drop_unreadable(folder, cases, processes)

    def without_label(self, cases: Cases) -> list[str]:
        return self._missing(cases, self.predicted, self.labels)

    def without_second_prediction(self, cases: Cases) -> list[str]:
        return self._missing(cases, self.unmirrored)

    def link_waiting(self, cases: Cases) -> None:
        """The folder that nnU-Net's prediction reads."""
        shutil.rmtree(self.waiting, ignore_errors=True)
        for case, images in cases.items():
            link_images(case, images, self.waiting, self.ending)

    def complete(self, cases: Cases, labelled: LabelledCases) -> None:
        """Bring images, labels and dataset.json together, and plans and what else nnU-Net's training reads."""
        self.labels.mkdir(exist_ok=True)
        for case, images in cases.items():
            link_images(case, images, self.images, self.ending)
            for file in self._files(case):
                if (self.predicted / file).is_file() and not (self.labels / file).is_file():  # it may be corrected
                    os.replace(self.predicted / file, self.labels / file)
        for case, (images, label) in labelled.files.items():
            link_images(case, images, self.images, self.ending)
            bring_label(case, label, self.labels, self.ending, copy)
        content = {key: value for key, value in self.source.description.items() if key != "dataset"}
        content = json.dumps(content | {"numTraining": len(cases) + len(labelled.files)}, indent=4)
        self.preprocessed.mkdir(parents=True, exist_ok=True)
        write_file(self.preprocessed / FINGERPRINT, labelled.fingerprint)
        write_file(self.preprocessed / SPLITS, json.dumps(labelled.splits(sorted(cases)), indent=4))
        # nnUNetv2_move_plans_between_datasets chooses a reader anew: for 3D TIFF one that loses the spacing
        names = {"dataset_name": self.name, "plans_name": self.made_of["plans"]}
        write_file(self._plans, json.dumps(self.source.plans.plans | names, indent=4))
        for folder in (self.preprocessed, self.folder):
            write_file(folder / "dataset.json", content)
        # nnU-Net's preprocessing copies a label there only where it is newer than what is there
        shutil.rmtree(self.preprocessed / "gt_segmentations", ignore_errors=True)
        self._finished = {"labels": self._label_hashes()}  # before they are preprocessed

    def finish(self) -> None:
        write_file(self.folder / RECORD, json.dumps(self.made_of | self._finished, indent=4))
        for folder in (self.waiting, self.predicted, self.unmirrored):
            shutil.rmtree(folder, ignore_errors=True)

    def _files(self, case: str) -> tuple[str, str]:
        """A segmentation, and the spacing of 3D TIFF beside it."""
        return f"{case}{self.ending}", f"{case}.json"

    def _label_hashes(self) -> dict[str, str]:
        cases = segmented_cases(self.labels, self.ending) if self.labels.is_dir() else ()
        return {case: file_hash(self.labels / f"{case}{self.ending}") for case in sorted(cases)}

    def _missing(self, cases: Cases, *folders: Path) -> list[str]:
        files = {case: f"{case}{self.ending}" for case in cases}
        return [case for case, file in files.items() if not any((folder / file).is_file() for folder in folders)]

    def _drop_others(self, folder: Path, cases: Cases) -> None:
        """Predictions of images that were taken out: another image of that name must not get them."""
        for case in segmented_cases(folder, self.ending) - cases.keys() if folder.is_dir() else ():
            for file in self._files(case):
                (folder / file).unlink(missing_ok=True)

    def drop_unreadable(self, folder: Path, cases: Iterable[str], processes: int) -> None:
        """A kill or a full disk leaves a part of a prediction, which SimpleITK reads without a word."""
        files = {case: folder / f"{case}{self.ending}" for case in cases}
        reader = self.source.plans.image_reader_writer_class
        jobs = {case: (reader, file) for case, file in files.items() if file.is_file()}
        for case, readable in for_each_case(_is_readable, jobs, processes, "checking predictions") if jobs else ():
            if not readable:
                files[case].unlink()


def _is_readable(reader: type[BaseReaderWriter], file: Path) -> bool:
    try:
        read_segmentation(reader, file)
    except UnreadableImage:
        return False
    return True
