"""A toy dataset of images that nnU-Net can read, raw and preprocessed, with images that nobody labelled beside it."""

import hashlib
import json
from pathlib import Path

import nibabel
import numpy as np
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from PIL import Image
from toy import DATASET, toy_dataset_json, toy_plans

from nnunet_skd.tools.unlabelled.command import preprocess_unlabelled
from nnunet_skd.tools.unlabelled.dataset import open_dataset
from nnunet_skd.unlabelled_data import checked_cases, unlabelled_folder

RNG = np.random.default_rng(0)
SPLITS = [{"train": ["train_1"], "val": ["train_0"]}, {"train": ["train_0"], "val": ["train_1"]}]


def save(path: Path, voxels: np.ndarray, spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> None:
    """A PNG (rows, columns), or a NIfTI file (x, y, z)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        Image.fromarray(voxels).save(path)
    else:
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([*spacing, 1.0])), path)


def image(dim: int, size: int = 40, dtype: type = np.uint8) -> np.ndarray:
    return RNG.integers(1, 256, (size,) * dim).astype(dtype)


def save_case(folder: Path, case: str, dim: int, channels: int = 1, **options) -> None:
    ending = ".png" if dim == 2 else ".nii.gz"
    for channel in range(channels):
        save(folder / f"{case}_{channel:04d}{ending}", image(dim, **options))


class Toy:
    """A dataset with two labelled cases, raw and preprocessed, and a folder for images without labels."""

    def __init__(self, env: Path, dim: int = 2, channels: int = 1, ignore: bool = False):
        self.dim, self.channels = dim, channels
        self.ending = ".png" if dim == 2 else ".nii.gz"
        self.configuration = "2d" if dim == 2 else "3d_fullres"
        self.raw = env / "nnUNet_raw" / DATASET
        self.folder = env / "nnUNet_preprocessed" / DATASET
        self.source = env / "collected"
        self.source.mkdir()

        self.plans = toy_plans(dim)
        entry = self.plans["configurations"][self.configuration]
        entry["normalization_schemes"], entry["use_mask_for_norm"] = (
            ["ZScoreNormalization"] * channels,
            [False] * channels,
        )
        self.plans["image_reader_writer"] = "NaturalImage2DIO" if dim == 2 else "SimpleITKIO"
        self.plans["foreground_intensity_properties_per_channel"] = {
            str(channel): {"mean": 100.0, "std": 50.0} for channel in range(channels)
        }
        self.plans["configurations"]["3d_lowres"] = {"inherits_from": self.configuration, "data_identifier": "lowres"}
        self.plans["configurations"][f"{self.configuration}_w050"] = {"inherits_from": self.configuration}
        self.plans["configurations"]["3d_cascade_fullres"] = {
            "inherits_from": self.configuration,
            "previous_stage": "3d_lowres",
        }
        self.description = toy_dataset_json(ignore=ignore) | {
            "file_ending": self.ending,
            "channel_names": {str(channel): f"C{channel}" for channel in range(channels)},
        }
        self.folder.mkdir()
        self.write_plans()
        for name in ("dataset.json", "dataset_fingerprint.json", "splits_final.json"):
            (self.folder / name).write_text(json.dumps(self.description if name == "dataset.json" else {}))
        for case in ("train_0", "train_1"):
            save_case(self.raw / "imagesTr", case, dim, channels)
            save(self.raw / "labelsTr" / f"{case}{self.ending}", (image(dim) > 128).astype(np.uint8))
        self.preprocess_labelled("train_0", "train_1")

    def write_plans(self, name: str = "nnUNetPlans") -> None:
        (self.folder / f"{name}.json").write_text(json.dumps(self.plans))

    def manager(self) -> PlansManager:
        return PlansManager(str(self.folder / "nnUNetPlans.json"))

    def preprocess_labelled(self, *cases: str) -> None:
        plans = self.manager()
        configuration = plans.get_configuration(self.configuration)
        target = self.folder / configuration.data_identifier
        target.mkdir(exist_ok=True)
        for case in cases:
            images = [str(path) for path in sorted((self.raw / "imagesTr").glob(f"{case}_*"))]
            label = str(self.raw / "labelsTr" / f"{case}{self.ending}")
            DefaultPreprocessor(verbose=False).run_case_save(
                str(target / case), images, label, plans, configuration, self.description
            )

    def add(self, *cases: str, **options) -> None:
        for case in cases:
            save_case(self.source, case, self.dim, self.channels, **options)

    def run(self, folder: Path | None = None, configurations: list[str] | None = None) -> None:
        preprocess_unlabelled(open_dataset(900, "nnUNetPlans"), folder or self.source, configurations, processes=1)

    @property
    def made(self) -> Path:
        return unlabelled_folder(self.manager(), self.configuration)

    def cases(self) -> list[str]:
        return checked_cases(self.manager(), self.configuration)

    def hashes(self) -> dict[str, str]:
        """Every file of the dataset but those that the command may write."""
        return {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for root in (self.raw, self.folder)
            for path in sorted(root.rglob("*"))
            if path.is_file() and self.folder / "unlabelled" not in path.parents
        }


def prepared(toy: Toy) -> Toy:
    """With a split of two folds, and two images without labels."""
    (toy.folder / "splits_final.json").write_text(json.dumps(SPLITS))
    toy.add("new_0", "new_1")
    return toy


def model(toy: Toy, trainer: str = "nnUNetTrainer", **changes) -> Path:
    """A model folder as nnUNetv2_train leaves it, with the folds 0 and all."""
    results = toy.raw.parents[1] / "nnUNet_results" / DATASET
    folder = results / f"{trainer}__{toy.plans['plans_name']}__{toy.configuration}"
    for fold, case in (("0", "train_0"), ("all", "train_1")):
        (folder / f"fold_{fold}" / "validation").mkdir(parents=True)
        (folder / f"fold_{fold}" / "validation" / f"{case}{toy.ending}").touch()
        (folder / f"fold_{fold}" / "checkpoint_final.pth").touch()
    (folder / "plans.json").write_text(json.dumps(toy.plans))
    (folder / "dataset.json").write_text(json.dumps(toy.description | changes))
    return folder
