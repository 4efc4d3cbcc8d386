"""Package a trained model so that stock nnU-Net installs it and predicts with it."""

import contextlib
import io
import json
import re
import shutil
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.file_path_utilities import folds_tuple_to_string
from tqdm import tqdm

from nnunet_skd.model_folds import CHECKPOINT
from nnunet_skd.tools.checkpoint_file import weights_sha256
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.export.source import Fold, SelfCheckFailed, TrainedModel
from nnunet_skd.tools.export.target import new_target, provenance
from nnunet_skd.tools.export.temperature import at_temperature
from nnunet_skd.tools.files import scratch_folder, written_by_a_library
from nnunet_skd.tools.nnunet_folders import FINGERPRINT

STOCK_TRAINER = "nnUNetTrainer"
NAMES_CASES = ("dataset", "training", "test", "left_out")  # keys of dataset.json: nnU-Net's, the Decathlon's, convert's


@dataclass(frozen=True)
class Package:
    """What was written. Sizes in bytes: the source's checkpoints, and the whole package."""

    path: Path
    dataset_name: str
    plans_name: str
    configuration_name: str
    previous_stage: str | None
    trainer_name: str
    trainer_found: bool
    folds: list[str]
    weights_sha256: dict[str, str]
    has_postprocessing: bool
    bytes_before: int
    bytes_after: int

    @property
    def model_folder_name(self) -> str:
        return f"{STOCK_TRAINER}__{self.plans_name}__{self.configuration_name}"


def export_nnunet(
    model_folder: str | Path,
    output: str | Path,
    folds: Iterable[int | str] = (0, 1, 2, 3, 4),
    checkpoint_name: str = CHECKPOINT,
    *,
    plans_name: str | None = None,
    temperature: float = 1.0,
    allow_pickle: bool = False,
) -> Package:
    """Write a trained model as one of nnU-Net's own trainer ``nnUNetTrainer``, without what only training needs.

    Kept: weights, mirroring axes, plans, dataset.json without lists of cases, fingerprint, postprocessing. A key
    ``nnunet_skd`` in each checkpoint tells where it comes from; all in it and around it are plain types, so that
    ``torch.load(weights_only=True)`` reads it. The source is only read.

    Each fold is loaded back with nnU-Net's predictor and compared with its source: logits of a random patch must be
    equal bit for bit.

    Args:
        model_folder: ``TRAINER__PLANS__CONFIGURATION`` with its fold folders.
        output: a name that ends in ``.zip`` gives nnU-Net's installable archive, any other a model folder for
            ``nnUNetv2_predict_from_modelfolder``. Must not exist.
        folds: ``0``, ``"0"`` or ``"all"``, one or several.
        checkpoint_name: the file in each fold folder; it keeps this name.
        plans_name: another plans identifier inside the package, so that it installs beside a model of the same name.
        temperature: divide the logits by it, see `at_temperature`; the package is compared with the source after that.
        allow_pickle: see `read_checkpoint`.

    Raises:
        BadInput: the target exists, the source is incomplete, unreadable or not stock.
        SelfCheckFailed: nnU-Net computes something else from the package than from the source.
    """
    output = new_target(output, model_folder)
    model = TrainedModel(model_folder, folds, checkpoint_name, allow_pickle)
    dataset_name = _as_folder_name(model.plans["dataset_name"])
    if plans_name is not None and "__" in plans_name:
        raise BadInput(f"'{plans_name}' has two underscores in a row, where nnU-Net splits folder names: use one")
    plans = model.plans if plans_name is None else model.plans | {"plans_name": plans_name}
    plans_name = _as_folder_name(plans["plans_name"])
    dataset_json = {key: value for key, value in model.dataset_json.items() if key not in NAMES_CASES}

    with scratch_folder(output.parent) as scratch:
        package = scratch / "package"
        written = None
        hashes = {}
        for fold_name in tqdm(model.folds, desc="export and check", unit="fold"):
            fold = at_temperature(model.open_fold(fold_name), temperature, model)
            folder_name = f"{STOCK_TRAINER}__{plans_name}__{_as_folder_name(fold.configuration_name)}"
            if written is None:
                written = package / dataset_name / folder_name
                written.mkdir(parents=True)
                has_postprocessing = _copy_model_files(model, written, plans, dataset_json)
            elif written.name != folder_name:
                raise BadInput(
                    f"{fold.file} is of configuration {fold.configuration_name}, fold {model.folds[0]} is not"
                )
            hashes[fold_name] = weights_sha256(fold.weights)
            target = written / f"fold_{fold_name}" / checkpoint_name
            target.parent.mkdir()
            with written_by_a_library(target):
                torch.save(_stock_checkpoint(plans, dataset_json, fold, hashes[fold_name]), target)
            _check_against_source(written, checkpoint_name, fold, model)

        if output.suffix.lower() == ".zip":
            result = scratch / output.name
            _zip(package, result)
        else:
            result = written
        size = sum(p.stat().st_size for p in [result, *result.rglob("*")] if p.is_file())
        result.rename(output)

    return Package(
        path=output,
        dataset_name=dataset_name,
        plans_name=plans_name,
        configuration_name=fold.configuration_name,
        previous_stage=model.configuration(fold.configuration_name).previous_stage_name,
        trainer_name=fold.trainer_name,
        trainer_found=fold.trainer_found,
        folds=model.folds,
        weights_sha256=hashes,
        has_postprocessing=has_postprocessing,
        bytes_before=sum(model.checkpoint_path(name).stat().st_size for name in model.folds),
        bytes_after=size,
    )


def _as_folder_name(name: str) -> str:
    """Names from plans.json and the command line become folders, which must not lead out of the package."""
    if not re.fullmatch(r"[^\s./\\:][^/\\:]*", name):
        raise BadInput(f"'{name}' cannot be part of a model's folder name: use letters, digits and _")
    return name


def _copy_model_files(model: TrainedModel, target: Path, plans: dict, dataset_json: dict) -> bool:
    """Bring what lies beside the folds; returns whether there was postprocessing for exactly these folds."""
    (target / "plans.json").write_text(json.dumps(plans, indent=4))
    (target / "dataset.json").write_text(json.dumps(dataset_json, indent=4))
    # summary.json, debug.json and progress.png stay: prediction needs none, and they name cases, paths and the trainer.
    postprocessing = f"crossval_results_folds_{folds_tuple_to_string(model.folds)}/postprocessing.pkl"
    for name in (FINGERPRINT, postprocessing):
        if (model.folder / name).is_file():
            (target / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(model.folder / name, target / name)
    return (target / postprocessing).is_file()


def _stock_checkpoint(plans: dict, dataset_json: dict, fold: Fold, sha256: str) -> dict:
    return {
        "network_weights": fold.weights,
        "trainer_name": STOCK_TRAINER,
        "init_args": {
            "plans": plans,
            "configuration": fold.configuration_name,
            "fold": fold.name if fold.name == "all" else int(fold.name),
            "dataset_json": dataset_json,
        },
        "inference_allowed_mirroring_axes": None if fold.mirroring_axes is None else tuple(fold.mirroring_axes),
        "nnunet_skd": provenance(fold, sha256),
    }


def _check_against_source(written: Path, checkpoint_name: str, fold: Fold, model: TrainedModel) -> None:
    # nnU-Net's predictor would also load what is not plain
    torch.load(written / f"fold_{fold.name}" / checkpoint_name, map_location="cpu", weights_only=True)
    with contextlib.redirect_stdout(io.StringIO()):  # remarks about GPUs
        predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(written), (fold.name,), checkpoint_name)
    network = getattr(predictor.network, "_orig_mod", predictor.network).eval()  # compiled where nnUNet_compile says so
    patch = model.random_patch(predictor.configuration_manager)
    with torch.inference_mode():
        if not torch.equal(network(patch), fold.network(patch)):
            raise SelfCheckFailed(
                f"fold {fold.name}: nnU-Net's predictor computes other logits from the package than from {fold.file}. "
                "Nothing was written. Please report this"
            )


def _zip(package: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "w") as archive:  # stored: a checkpoint is an archive of float32, which hardly shrinks
        for file in sorted(p for p in package.rglob("*") if p.is_file()):
            archive.write(file, file.relative_to(package))
    with zipfile.ZipFile(target) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise SelfCheckFailed(f"{damaged} is damaged in the archive that was written: is the disk in order?")
