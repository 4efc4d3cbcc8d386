"""What every export starts from: a trained model, read without executing it, whose network is proven to be stock."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunet_skd.catalogue import trainer_classes
from nnunet_skd.compat import build_network
from nnunet_skd.messages import first_line
from nnunet_skd.model_folds import CHECKPOINT, folds_with, refuse_other_plans
from nnunet_skd.tools.checkpoint_file import NeedsCode, NotOfNnunet, read_checkpoint
from nnunet_skd.tools.errors import BadInput, Failed, as_bad_input, naming
from nnunet_skd.tools.networks import require_stock_network
from nnunet_skd.tools.nnunet_json import label_manager, read_dataset_json, read_plans
from nnunet_skd.tools.trainers import TrainerNotFound, look_up


class SelfCheckFailed(Failed):
    """What was written does not compute what the source computes; it has been removed."""

    def __init__(self, difference: str):
        super().__init__(f"the self-check failed: {difference}")


def downsampling(configuration: ConfigurationManager) -> list[int] | None:
    """Input voxels per bottleneck voxel and axis: the product of the strides. None if the network states no strides."""
    strides = configuration.network_arch_init_kwargs.get("strides")
    if strides is None:
        return None
    axes = len(configuration.patch_size)
    return np.prod([np.broadcast_to(stride, axes) for stride in strides], axis=0).tolist()


@dataclass(frozen=True)
class Fold:
    """One fold's checkpoint, checked."""

    name: str  # "0" ... or "all"
    file: Path
    weights: dict[str, torch.Tensor]
    network: nn.Module  # as its trainer builds it, with these weights, in eval mode, without deep supervision
    configuration_name: str
    trainer_name: str
    trainer_found: bool  # False: the trainer's class is not installed here, so its network is taken to be the stock one
    mirroring_axes: list[int] | None
    epochs: int | None
    temperature: float = 1.0  # by which its logits were divided, see temperature.py


class TrainedModel:
    """One of nnU-Net's model folders (``TRAINER__PLANS__CONFIGURATION``), opened for reading only.

    Args:
        folder: holds plans.json, dataset.json and the fold_X folders.
        folds: ``0``, ``"0"`` or ``"all"``; each needs its checkpoint, nothing else.
        checkpoint_name: as nnU-Net's ``-chk``.
        allow_pickle: see `read_checkpoint`.

    Raises:
        BadInput: something is missing; found before any checkpoint is read.
    """

    def __init__(
        self,
        folder: str | Path,
        folds: Iterable[int | str],
        checkpoint_name: str = CHECKPOINT,
        allow_pickle: bool = False,
    ):
        self.folder = Path(folder)
        self.folds = list(dict.fromkeys(str(fold) for fold in folds))
        self.checkpoint_name = checkpoint_name
        self.allow_pickle = allow_pickle
        if not self.folder.is_dir():
            beside = sorted(p.name for p in self.folder.parent.glob("*__*__*"))
            raise BadInput(f"there is no trained model {self.folder}. Trained there: {', '.join(beside) or 'nothing'}")
        for name in ("plans.json", "dataset.json"):
            if not (self.folder / name).is_file():
                raise BadInput(f"{self.folder / name} is missing: nnU-Net writes it when a training starts; restore it")
        if Path(checkpoint_name).name != checkpoint_name:
            raise BadInput(f"-chk takes the name of a file in the fold folders, without folders: not {checkpoint_name}")
        unknown = [fold for fold in self.folds if not re.fullmatch("all|0|[1-9][0-9]*", fold)]
        if unknown or not self.folds:
            raise BadInput(f"-f takes numbers or 'all', at least one: not {' '.join(unknown) or 'none'}")
        missing = [fold for fold in self.folds if not self.checkpoint_path(fold).is_file()]
        if missing:
            present = folds_with(self.folder, checkpoint_name)
            raise BadInput(
                f"no {checkpoint_name} for fold {', '.join(missing)} in {self.folder}. "
                + (f"Folds that have it: -f {' '.join(present)}" if present else "No fold has it: see -chk")
            )
        self.plans = read_plans(self.folder / "plans.json")
        self.dataset_json = read_dataset_json(self.folder / "dataset.json", channels=True)
        self.plans_manager = PlansManager(self.plans)
        with naming(self.folder / "plans.json"):
            self.label_manager = label_manager(self.plans_manager, self.dataset_json)

    def checkpoint_path(self, fold: str) -> Path:
        return self.folder / f"fold_{fold}" / self.checkpoint_name

    def configuration(self, name: str) -> ConfigurationManager:
        if name not in self.plans["configurations"]:
            raise BadInput(
                f"the checkpoint's configuration '{name}' is not in {self.folder / 'plans.json'}: restore it"
            )
        return self.plans_manager.get_configuration(name)

    def num_input_channels(self, configuration: ConfigurationManager) -> int:
        """Image channels, plus the previous stage's one-hot foreground labels in a cascade."""
        return determine_num_input_channels(self.plans_manager, configuration, self.dataset_json)

    def random_patch(self, configuration: ConfigurationManager) -> torch.Tensor:
        """Standard normal noise, shape (1, C, spatial), no larger than a comparison of two networks needs."""
        size = configuration.patch_size
        factors = downsampling(configuration)
        if factors is not None:
            size = [min(patch, 2 * factor) for patch, factor in zip(size, factors, strict=True)]
        generator = torch.Generator().manual_seed(0)
        return torch.randn((1, self.num_input_channels(configuration), *size), generator=generator)

    def open_fold(self, fold: str) -> Fold:
        """Read one fold's checkpoint and prove that stock nnU-Net's network computes the same with these weights.

        The proof: the weights load strictly into the network that stock nnU-Net builds from the plans, and, where the
        trainer's class is installed, its own network gives bit for bit the same logits on a random patch. The second
        half finds what has no weights, such as another activation function.

        Raises:
            BadInput: unreadable, trained with other plans than those beside it, not stock, or not finite.
        """
        file = self.checkpoint_path(fold)
        checkpoint = self._read(file)
        with as_bad_input():
            refuse_other_plans(file.parent, checkpoint)
        configuration_name, trainer_name = checkpoint["init_args"]["configuration"], checkpoint["trainer_name"]
        configuration = self.configuration(configuration_name)
        with naming(self.folder / "plans.json"):
            require_stock_network(configuration, _NOT_STOCK)

        stock = self._load(nnUNetTrainer, configuration, checkpoint["network_weights"], file)
        trainer = _find_trainer(trainer_name)
        network = stock
        if trainer is not None and trainer.build_network_architecture is not nnUNetTrainer.build_network_architecture:
            network = self._load(trainer, configuration, checkpoint["network_weights"], file)
        with torch.inference_mode():
            try:
                patch = self.random_patch(configuration)
                logits, of_stock = network(patch), stock(patch)
            except Exception as error:  # numbers in the plans that a network can be built with, but not run
                raise BadInput(
                    f"the network of {self.folder / 'plans.json'} cannot be run ({first_line(error)}). Restore the "
                    f"plans that it was trained with"
                ) from error
            if not torch.equal(of_stock, logits):
                if not logits.isfinite().all():
                    raise BadInput(f"{file} gives logits that are not finite: the training diverged, train it again")
                raise BadInput(f"{trainer_name} computes something else than the stock network. {_NOT_STOCK}")

        mirroring_axes = checkpoint.get("inference_allowed_mirroring_axes")
        origin = checkpoint.get("nnunet_skd", {})  # an exported model that is exported again keeps its first origin
        epochs = origin.get("epochs", checkpoint.get("current_epoch"))
        return Fold(
            name=fold,
            file=file,
            weights=checkpoint["network_weights"],
            network=network,
            configuration_name=str(configuration_name),
            trainer_name=str(origin.get("trainer_name", trainer_name)),
            trainer_found=trainer is not None,
            mirroring_axes=None if mirroring_axes is None else [int(axis) for axis in mirroring_axes],
            epochs=None if epochs is None else int(epochs),
            temperature=float(origin.get("temperature", 1)),
        )

    def _read(self, file: Path) -> dict:
        try:
            return read_checkpoint(file, self.allow_pickle)
        except NeedsCode as error:
            raise BadInput(
                f"{error}. If you know why it is there and trust where the file comes from, add --allow_pickle"
            ) from error
        except NotOfNnunet as error:
            raise BadInput(f"{error}. Name one with -chk") from error

    def _load(self, trainer: type, configuration: ConfigurationManager, weights: dict, file: Path) -> nn.Module:
        channels = self.num_input_channels(configuration), self.label_manager.num_segmentation_heads
        try:
            network = build_network(
                trainer, self.plans_manager, configuration, *channels, enable_deep_supervision=False
            )
        except Exception as error:  # wrong numbers end in whatever the layers raise
            raise BadInput(
                f"{trainer.__name__} cannot build the network of {self.folder / 'plans.json'} ({first_line(error)}). "
                f"Restore the plans that it was trained with"
            ) from error
        try:
            network.load_state_dict(weights)
        except (RuntimeError, TypeError, AttributeError) as error:
            reason = "\n".join(str(error)[:600].splitlines()[:4])
            raise BadInput(
                f"the weights in {file} do not fit the network that {trainer.__name__} builds. {_NOT_STOCK}\n{reason}"
            ) from error
        return network.eval()


_NOT_STOCK = (
    "Only a network that stock nnU-Net builds from plans.json can be used without its trainer; install the trainer on "
    "the other machine and take nnUNetv2_export_model_to_zip instead"
)


def _find_trainer(name: str) -> type[nnUNetTrainer] | None:
    """The trainer's class as nnU-Net finds it, or from this package's catalogue. None if it is not installed here."""
    try:
        return look_up(name)
    except TrainerNotFound:
        return trainer_classes().get(name)
