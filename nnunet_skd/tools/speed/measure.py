"""Predict with nnU-Net's own predictor; count its networks' forward passes, and the seconds of each case."""

import copy
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from tqdm import tqdm

from nnunet_skd.messages import in_one_line, listed
from nnunet_skd.model_folds import compare_plans, folds_with
from nnunet_skd.tools.cases import Cases
from nnunet_skd.tools.errors import BadInput, as_bad_input
from nnunet_skd.tools.files import as_file_name
from nnunet_skd.tools.images import read_images, written_whole
from nnunet_skd.tools.model_arms import ModelArm
from nnunet_skd.tools.nnunet_json import channel_names


class CountedPredictor(nnUNetPredictor):
    """nnU-Net's predictor, with the number of its network's forward passes in ``passes``."""

    passes = 0

    def count(self) -> None:
        self.network.register_forward_hook(self._one_more)

    def _one_more(self, *_: object) -> None:
        self.passes += 1


@dataclass
class LoadedArm:
    """An arm, ready to predict: one predictor per folder, which arms that differ only in mirroring share."""

    name: str
    predictors: list[CountedPredictor]
    folds: list[str]
    mirror: bool

    @property
    def file_name(self) -> str:
        return as_file_name(self.name)

    @property
    def networks(self) -> int:
        return sum(len(predictor.list_of_parameters) for predictor in self.predictors)

    def predict(
        self, image: np.ndarray, properties: dict, *, probabilities: bool
    ) -> tuple[np.ndarray, np.ndarray | None, int]:
        """Segmentation, probabilities (if asked for) and the number of forward passes."""
        several = len(self.predictors) > 1
        total, passes = None, 0
        for predictor in self.predictors:
            predictor.use_mirroring, predictor.passes = self.mirror, 0
            with redirect_stdout(io.StringIO()):
                result = predictor.predict_single_npy_array(
                    image, copy.deepcopy(properties), save_or_return_probabilities=several or probabilities
                )
            segmentation, p = result if several or probabilities else (result, None)
            total = p if total is None else np.add(total, p, out=total)
            passes += predictor.passes
        if several:  # the mean, as nnUNetv2_ensemble
            total /= len(self.predictors)
            label_manager = self.predictors[0].label_manager
            segmentation = np.asarray(label_manager.convert_probabilities_to_segmentation(total))
        return segmentation, total, passes


def load_arm(arm: ModelArm, checkpoint: str, device: torch.device, predictors: dict) -> LoadedArm:
    """Load the networks of an arm.

    Args:
        arm: as the command line names it.
        checkpoint: file name, as nnU-Net's -chk.
        device: where to predict.
        predictors: those that are loaded already, by folder and folds; new ones are added.

    Raises:
        BadInput: a missing or damaged checkpoint, an unknown trainer, or a cascade.
    """
    keys = [(folder.resolve(), _folds(folder, arm.folds, checkpoint)) for folder in arm.folders]
    for folder, folds in keys:
        if (folder, folds) not in predictors:
            predictors[folder, folds] = _predictor(folder, folds, checkpoint, device)
    ours = [predictors[key] for key in keys]
    mirror = arm.mirror and any(predictor.allowed_mirroring_axes for predictor in ours)
    return LoadedArm(arm.name, ours, [",".join(folds) for _, folds in keys], mirror)


def _folds(folder: Path, folds: tuple[str, ...], checkpoint: str) -> tuple[str, ...]:
    present = folds_with(folder, checkpoint)
    missing = [fold for fold in folds if fold not in present]
    if missing or not present:
        has = f"it is there for fold {', '.join(present)}" if present else "no fold has it"
        raise BadInput(
            f"{folder} has no {checkpoint} for fold {', '.join(missing) or '0 to 4 or all'} ({has}). Finish the "
            "training, or name other folds (@0,1) or another checkpoint (-chk)"
        )
    return folds or tuple(fold for fold in present if fold != "all") or ("all",)


def _predictor(folder: Path, folds: tuple[str, ...], checkpoint: str, device: torch.device) -> CountedPredictor:
    try:
        with redirect_stdout(io.StringIO()):
            predictor = CountedPredictor(
                perform_everything_on_device=device.type == "cuda", device=device, allow_tqdm=False
            )
            predictor.initialize_from_trained_model_folder(str(folder), folds, checkpoint)
            predictor.plans_manager.image_reader_writer_class  # noqa: B018 - looked for here, where it has a message
    except Exception as error:  # damaged in as many ways as a file can be, or a trainer that is not installed
        raise BadInput(
            f"{folder}, fold {', '.join(folds)}: {checkpoint} cannot be loaded ({in_one_line(error)}). It is damaged, "
            "its plans.json was changed since the training, or its trainer is not known here ('nnunet-skd doctor')"
        ) from error
    if predictor.configuration_manager.previous_stage_name is not None:
        raise BadInput(f"{folder} is the second stage of a cascade, which cannot be measured alone. Leave it out")
    with as_bad_input():
        for fold in folds:
            compare_plans(folder / f"fold_{fold}", checkpoint)
    predictor.count()
    return predictor


@contextmanager
def _at_fault(arm: LoadedArm, image: Path) -> Iterator[None]:
    """Around a prediction: plans that name what is not there, or an image of impossible geometry.

    Raises:
        BadInput: instead of whatever nnU-Net raises then.
    """
    try:
        yield
    except (OSError, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        raise BadInput(
            f"{arm.name} cannot predict {image} ({in_one_line(error)}). Its plans.json was changed since the "
            f"training, or the image is not one of its dataset"
        ) from error


def measure(
    arms: Sequence[LoadedArm],
    cases: Cases,
    output: Path,
    dataset_json: dict,
    *,
    probabilities: bool,
) -> pd.DataFrame:
    """Predict each case with each arm, and write what was predicted.

    Args:
        arms: they take turns with every case.
        cases: their images.
        output: gets a folder per arm.
        dataset_json: for the file ending and the number of channels.
        probabilities: write those too, as nnU-Net's --save_probabilities does.

    Returns:
        One row per case and arm: ``arm``, ``case``, ``forward_passes``, ``seconds``.

    Raises:
        BadInput: an image that cannot be read or predicted.
    """
    reader = arms[0].predictors[0].plans_manager.image_reader_writer_class
    for arm in arms:
        (output / arm.file_name).mkdir(parents=True)
    rows = []
    # on CUDA the first case lets cuDNN choose its algorithms; the CPU would only lose time
    warm_up = list(cases)[:1] if arms[0].predictors[0].device.type == "cuda" else []
    for number, case in enumerate(tqdm([*warm_up, *cases], desc="predict", unit="case")):
        files = cases[case]
        image, properties = read_images(reader, files)
        if len(image) != (channels := len(channel_names(dataset_json))):
            raise BadInput(
                f"{case} has {len(image)} channels in {listed([file.name for file in files])}, but the models need "
                f"{channels}"
            )
        for arm in arms:
            start = perf_counter()
            with _at_fault(arm, files[0]):
                segmentation, p, passes = arm.predict(image, properties, probabilities=probabilities)
            seconds = perf_counter() - start
            if number < len(warm_up):
                continue
            rows.append({"arm": arm.name, "case": case, "forward_passes": passes, "seconds": seconds})
            path = output / arm.file_name / f"{case}{dataset_json['file_ending']}"
            with written_whole(path):
                reader().write_seg(segmentation, str(path), properties)
            if probabilities:
                np.savez_compressed(path.with_name(f"{case}.npz"), probabilities=p)
    return pd.DataFrame(rows)
