"""The dataset of labelled and pseudo-labelled cases, in nnUNet_raw and nnUNet_preprocessed.

Its dataset.json names each case's files ("dataset", see nnU-Net's dataset_format.md), so no image is copied. It is
written when all labels are there. pseudo_labels.json is written first, and says what the dataset is made of.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from nnunetv2.utilities.dataset_name_id_conversion import find_candidate_datasets

from nnunet_skd.compat import nnunet_folder
from nnunet_skd.model_checks import CHECKPOINT
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.files import new_folder, write_file
from nnunet_skd.tools.images import UnreadableImage, read_segmentation
from nnunet_skd.tools.json_file import TEXT, read_json
from nnunet_skd.tools.pseudo_labels.teachers import Teacher
from nnunet_skd.tools.unlabelled.checks import Cases
from nnunet_skd.tools.unlabelled.dataset import Dataset, labelled_images

RECORD = "pseudo_labels.json"
FINGERPRINT = "dataset_fingerprint.json"
NUM_FOLDS = 5  # as nnU-Net's


@dataclass
class NewDataset:
    """Where it is, and what it is made of."""

    source: Dataset
    number: int
    folder: Path  # in nnUNet_raw
    images: Path
    fold: str
    made_of: dict

    @classmethod
    def beside(cls, source: Dataset, number: int, fold: str, teachers: list[Teacher], images: Path) -> "NewDataset":
        """
        Raises:
            BadInput: nnUNet_raw does not hold the source; the number cannot be used, or is another dataset's; or what
                an earlier run left was made of other things.
        """
        raw, source_name = nnunet_folder("nnUNet_raw"), source.plans.dataset_name
        if raw is None:
            raise BadInput("nnUNet_raw is not set. Export it as for nnUNetv2_plan_and_preprocess")
        if not 0 < number < 1000:
            raise BadInput(f"-t is {number}, but nnU-Net's datasets have the numbers 1 to 999")
        name = f"Dataset{number:03d}_{source_name.partition('_')[2]}_pseudo"
        made_of = {
            "dataset": source_name,
            "plans": source.plans.plans_name,
            "images": str(images.resolve()),
            "teachers": {str(teacher.folder): teacher.folds for teacher in teachers},
            "fold": fold,
        }
        target = cls(source, number, raw / name, images, fold, made_of)
        record = target.folder / RECORD
        if others := [str(other) for other in find_candidate_datasets(number) if other != name or not record.is_file()]:
            raise BadInput(f"-t {number} is the number of {', '.join(others)}. Choose one that no dataset has")
        if record.is_file():
            remedy = f"Remove {target.folder}, or choose another number"
            shape = {"dataset": TEXT, "plans": TEXT, "images": TEXT, "teachers": {str: [TEXT]}, "fold": TEXT}
            before = read_json(record, shape, remedy)
            for what, value in made_of.items():
                if before[what] != value:
                    raise BadInput(f"{record} was made with other {what}: {before[what]}, now {value}. {remedy}")
        if labelled_images(source) is None:
            raise BadInput(f"{raw / source_name} holds no labelled images, which the new dataset needs. Put them back")
        fingerprint = target._preprocessed(source_name) / FINGERPRINT
        if not fingerprint.is_file():
            raise BadInput(f"{fingerprint} is missing. Run nnUNetv2_extract_fingerprint for {source_name}")
        target.labelled_cases()
        target.split([])
        return target

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def labels(self) -> Path:
        return self.folder / "labelsTr"

    @property
    def predicted(self) -> Path:
        """Where several models' probabilities lie until they are joined."""
        return self.folder / "predicted"

    @property
    def labelled(self) -> int:
        return len(self.labelled_cases())

    def labelled_cases(self) -> dict[str, dict]:
        """The source's cases, each as `dataset` of a dataset.json holds it.

        Raises:
            BadInput: label files are missing.
        """
        raw, ending = self.folder.parent / self.source.plans.dataset_name, self.source.file_ending
        named = self.source.description.get("dataset", {})
        cases = {}
        for case, images in labelled_images(self.source).items():
            label = raw / os.path.expandvars(named[case]["label"]) if named else raw / "labelsTr" / f"{case}{ending}"
            if not label.is_file():
                raise BadInput(f"{label} is missing. Put it back")
            cases[case] = self._entry(images, label)
        return cases

    def split(self, added: list[str]) -> dict[str, list[str]]:
        """Training and validation cases: those of the source's fold, or all; validation cases are labelled ones.

        Raises:
            BadInput: the source has no split yet.
        """
        if self.fold == "all":
            labelled = sorted(self.labelled_cases())
            return {"train": sorted([*labelled, *added]), "val": labelled}
        file = self._preprocessed(self.source.plans.dataset_name) / "splits_final.json"
        remedy = "nnUNetv2_train made it where the models were trained: copy it from there"
        split = read_json(file, [{"train": [TEXT], "val": [TEXT]}], remedy)[int(self.fold)]
        return {"train": sorted([*split["train"], *added]), "val": split["val"]}

    def begin(self) -> None:
        """Say in nnUNet_raw what will be here, if an earlier run has not."""
        if not self.folder.is_dir():
            with new_folder(self.folder) as folder:
                write_file(folder / RECORD, json.dumps(self.made_of, indent=4))

    def drop_old_labels(self, folder: Path, cases: Cases, teachers: list[Teacher]) -> None:
        """Remove predictions that are older than the images or the models, or that a killed run left unreadable."""
        checkpoints = [t.folder / f"fold_{fold}" / CHECKPOINT for t in teachers for fold in t.folds]
        reader = self.source.plans.image_reader_writer_class
        for case, images in cases.items():
            file = folder / f"{case}{self.source.file_ending}"
            if not file.is_file():
                continue
            try:
                read_segmentation(reader, file)
                whole = True
            except UnreadableImage:
                whole = False
            if not whole or file.stat().st_mtime < max(made.stat().st_mtime for made in [*images, *checkpoints]):
                file.unlink()

    def without_label(self, cases: Cases) -> list[str]:
        return [case for case in cases if not (self.labels / f"{case}{self.source.file_ending}").is_file()]

    def write(self, cases: Cases) -> None:
        """dataset.json, with a copy in nnUNet_preprocessed, beside fingerprint and split."""
        added = {
            case: self._entry(images, self.labels / f"{case}{self.source.file_ending}")
            for case, images in cases.items()
        }
        entries = self.labelled_cases() | added
        content = self.source.description | {"numTraining": len(entries), "dataset": entries}
        preprocessed, source = self._preprocessed(self.name), self._preprocessed(self.source.plans.dataset_name)
        preprocessed.mkdir(parents=True, exist_ok=True)
        for folder in (preprocessed, self.folder):
            write_file(folder / "dataset.json", json.dumps(content, indent=4))
        write_file(preprocessed / FINGERPRINT, (source / FINGERPRINT).read_bytes())
        write_file(preprocessed / "splits_final.json", json.dumps([self.split(sorted(added))] * NUM_FOLDS, indent=4))

    def _entry(self, images: list[Path], label: Path) -> dict:
        return {"images": [self._path(image) for image in images], "label": self._path(label)}

    def _path(self, file: Path) -> str:
        """Relative to the dataset, so that nnUNet_raw can be moved; absolute where that is not possible (Windows)."""
        try:
            return os.path.relpath(file.absolute(), self.folder)
        except ValueError:  # another drive
            return str(file.absolute())

    @staticmethod
    def _preprocessed(name: str) -> Path:
        return nnunet_folder("nnUNet_preprocessed") / name
