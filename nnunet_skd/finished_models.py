"""Finished nnU-Net models as a teacher: an ensemble, a bigger network, or the model that saw the labels only."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import Tensor, nn

from nnunet_skd.checkpoint import of_the_machine
from nnunet_skd.messages import in_one_line
from nnunet_skd.model_checks import VARIABLE, absolute, check_model
from nnunet_skd.model_folds import CHECKPOINT, teaching_folds, trained_with_deep_supervision
from nnunet_skd.teachers import Teacher

if TYPE_CHECKING:
    from nnunet_skd.trainer import SelfDistillationTrainer

SHARE_OF_THE_DEVICE = 0.1  # for the weights of all members


@dataclass
class Member:
    """One trained network: its weights on the device, or waiting on the CPU where all together are too large."""

    name: str
    network: nn.Module
    forward: Callable[[Tensor], Tensor | list[Tensor]]  # calls the network; compiled if the student is
    mirror_axes: tuple[int, ...]


class FinishedModels(Teacher):
    """Models that were trained before, frozen. Each batch draws one member at random.

    On average a member says what the ensemble's mean says, for one forward pass. A member is mirrored along the axes
    along which its own trainer mirrors at inference.

    The models are the folders that ``nnUNetv2_train`` writes, named by the environment variable
    ``nnUNet_skd_teacher=FOLDER[:FOLDER...]`` and recorded in the checkpoint, so that ``--c`` needs no variable. Any
    trainer, configuration and plans of the same dataset will do, as long as the images are preprocessed alike.

    A student of fold f may only be taught by what has not seen the validation cases of fold f: the models' own fold f.
    A student of ``all`` is taught by every fold there is.
    """

    def __init__(self, *, mirror: bool = True):
        super().__init__(mirror=mirror)
        self.folders: list[str] = []
        self._recorded: list[str] = []
        self._members: list[Member] = []

    def check(self, trainer: SelfDistillationTrainer) -> None:
        """
        Raises:
            ValueError: no models are named; one is missing, unfinished or damaged; it differs from the student in
                dataset, labels, channels or preprocessing; it has seen the student's validation cases; or the training
                would overwrite it.
        """
        named = [folder for folder in os.environ.get(VARIABLE, "").split(os.pathsep) if folder]
        self.folders = [str(absolute(folder)) for folder in named] or self._recorded
        if not self.folders:
            raise ValueError(
                f"{type(trainer).__name__} needs finished models as its teacher. Name their folders: {VARIABLE}="
                f"$nnUNet_results/{trainer.plans_manager.dataset_name}/nnUNetTrainer__"
                f"{trainer.plans_manager.plans_name}__{trainer.configuration_name} (several with {os.pathsep!r})."
            )
        for folder in map(Path, self.folders):
            check_model(folder, trainer)
        if self._recorded and self._recorded != self.folders:
            trainer.print_to_log_file(
                f"WARNING: this training was begun with other teachers.\nIt was: {', '.join(self._recorded)}\nIt is "
                f"now: {', '.join(self.folders)}\nIt continues with the new ones."
            )
        # here, not in attach: what is damaged is refused before any data is read
        self._members = [member for folder in self.folders for member in _load(Path(folder), trainer)]

    def attach(self, trainer: SelfDistillationTrainer) -> None:
        self._device = trainer.device
        scales = trainer._get_deep_supervision_scales()
        patch = trainer.configuration_manager.patch_size
        self._sizes = [tuple(round(n * s) for n, s in zip(patch, scale, strict=True)) for scale in scales]
        self._resident = fit_together([member.network for member in self._members], self._device)
        if self._resident:
            for member in self._members:
                member.network.to(self._device)
        else:
            trainer.print_to_log_file(
                f"The teachers' weights are more than {SHARE_OF_THE_DEVICE:.0%} of the GPU's memory. They wait on the "
                f"CPU and come to the GPU one at a time, which costs time in each step."
            )
        trainer.print_to_log_file(f"Teachers: {', '.join(member.name for member in self._members)}")
        ours = set(trainer.inference_allowed_mirroring_axes or ())
        if others := [member.name for member in self._members if ours - set(member.mirror_axes)]:
            trainer.print_to_log_file(
                f"WARNING: {', '.join(others)} never saw mirrored images, and this training mirrors. Where left and "
                f"right are different classes, train with a subclass of {type(trainer).__name__} and of nnU-Net's "
                f"nnUNetTrainerNoMirroring."
            )

    def state_dict(self) -> dict:
        return {"folders": self.folders or self._recorded}

    def load_state_dict(self, state: dict) -> None:
        self._recorded = state.get("folders", [])

    def __call__(self, data: Tensor) -> list[Tensor | None]:
        self._member = random.choice(self._members)
        self.mirror_axes = self._member.mirror_axes
        return super().__call__(data)

    def outputs(self, data: Tensor) -> list[Tensor | None]:
        network = self._member.network
        if not self._resident:
            network.to(self._device)
        outputs = self._member.forward(data)
        if not self._resident:
            network.to("cpu")
        # nnU-Net does not train the lowest output; of two of one size the higher one decides
        outputs = [outputs] if isinstance(outputs, Tensor) else outputs[:-1] or outputs
        by_size = {tuple(z.shape[2:]): z for z in reversed(outputs)}
        return [by_size.get(size) for size in self._sizes]


def _load(folder: Path, trainer: SelfDistillationTrainer) -> list[Member]:
    """The members of one folder, each by nnU-Net's own means, on the CPU; half precision where they run on CUDA."""
    members, compiled = [], trainer._do_i_compile()
    for fold in teaching_folds(folder, trainer):
        predictor = nnUNetPredictor(perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False)
        try:
            predictor.initialize_from_trained_model_folder(str(folder), (fold,), CHECKPOINT)
        except Exception as error:  # of unpickling, of building a network from the plans, of loading its weights
            if of_the_machine(error):
                raise
            raise ValueError(
                f"{folder}/fold_{fold}/{CHECKPOINT} cannot be loaded ({in_one_line(error)}). It is "
                f"damaged, its trainer is not known here, or its plans.json was changed since. Train it again."
            ) from error
        network = getattr(predictor.network, "_orig_mod", predictor.network)
        if hasattr(network, "decoder") and trained_with_deep_supervision(folder / f"fold_{fold}"):
            network.decoder.deep_supervision = True
        else:
            trainer.print_to_log_file(
                f"WARNING: nothing in {folder}/fold_{fold} says that its network has side outputs which were trained. "
                f"It teaches the highest resolution alone."
            )
        network.eval().requires_grad_(False)
        if trainer.device.type == "cuda":
            _halve(network)
        forward = torch.compile(network) if compiled else network
        axes = tuple(predictor.allowed_mirroring_axes or ())
        members.append(Member(f"{folder.name} fold {fold}", network, forward, axes))
    return members


def _halve(network: nn.Module) -> None:
    """Half precision, but for batch norms: the running variances of images that are not normalised would overflow."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    states = [deepcopy(norm.state_dict()) for norm in norms]
    network.half()
    for norm, state in zip(norms, states, strict=True):
        norm.float().load_state_dict(state)


def fit_together(networks: list[nn.Module], device: torch.device) -> bool:
    """Whether the networks' weights take at most a tenth of a CUDA device, so that the student keeps the rest.

    What the student needs is not known before its first step, and nnU-Net plans it for an almost full device.
    """
    if device.type != "cuda":
        return True
    # a state dict names what modules share several times, as nnU-Net's decoder holds the encoder
    tensors = [t for network in networks for t in (*network.parameters(), *network.buffers())]
    size = sum(t.numel() * t.element_size() for t in tensors)
    return size <= SHARE_OF_THE_DEVICE * torch.cuda.get_device_properties(device).total_memory
