"""The second stream: patches of images without labels, on top of nnU-Net's own batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from torch import Tensor

from nnunet_skd.compat import with_variables
from nnunet_skd.losses.precision import mixed_precision
from nnunet_skd.partly_labelled import stream_dataset
from nnunet_skd.stream_cases import StreamCases
from nnunet_skd.stronger_view import StrongerView

if TYPE_CHECKING:
    from nnunet_skd.trainer import SelfDistillationTrainer


def open_stream(trainer: SelfDistillationTrainer, cases: StreamCases, processes: int) -> UnlabelledStream:
    """A stream of patches drawn uniformly by nnU-Net's data loader, with the trainer's own augmentation.

    Args:
        trainer: initialised.
        cases: from :func:`nnunet_skd.stream_cases.stream_cases`.
        processes: for augmentation; 0 runs it in the training's own process.
    """
    configuration, labels = trainer.configuration_manager, trainer.label_manager
    rotation, dummy_2d, initial_patch_size, mirror_axes = (
        trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    )
    partly = bool(cases.partly)
    transforms = trainer.get_training_transforms(
        configuration.patch_size,
        rotation,
        trainer._get_deep_supervision_scales() if partly else None,
        mirror_axes,
        dummy_2d,
        use_mask_for_norm=configuration.use_mask_for_norm,
        is_cascaded=False,
        foreground_labels=labels.foreground_labels,
        regions=labels.foreground_regions if labels.has_regions and partly else None,
        ignore_label=labels.ignore_label,
    )
    dataset = stream_dataset(trainer, cases)
    sources = [f"{len(cases.unlabelled)} images without labels"] if cases.unlabelled else []
    if partly:
        sources.append(f"the ignored voxels of {len(cases.partly)} training cases")
    trainer.print_to_log_file(f"Per step {batch_size_of(trainer)} patches more, from {' and '.join(sources)}")
    loader = nnUNetDataLoader(
        dataset, batch_size_of(trainer), initial_patch_size, configuration.patch_size, labels, transforms=transforms
    )
    loader.has_ignore = False  # or patches would be centred on annotated voxels
    if processes == 0:
        batches = SingleThreadedAugmenter(loader, None)
    else:
        batches = NonDetMultiThreadedAugmenter(
            loader,
            None,
            processes,
            num_cached=max(6, processes // 2),
            pin_memory=trainer.device.type == "cuda",
            wait_time=0.002,
        )
        next(batches)  # as nnU-Net: what cannot be read is found now, and no process starts later
    return UnlabelledStream(trainer, batches, tuple(mirror_axes or ()), partly)


def batch_size_of(trainer: SelfDistillationTrainer) -> int:
    """Patches of the second stream per step."""
    return max(1, round(trainer.batch_size * trainer.unlabelled_per_labelled))


class UnlabelledStream:
    """Batches of patches without labels, and what a trainer does with them.

    Args:
        trainer: initialised.
        batches: as nnU-Net's data loader gives them.
        mirror_axes: the spatial axes that the trainer mirrors.
        partly: whether ``target`` says which voxels have a label; else none has.
    """

    def __init__(
        self,
        trainer: SelfDistillationTrainer,
        batches: Iterator[dict],
        mirror_axes: tuple[int, ...],
        partly: bool,
    ):
        self.trainer, self._batches, self._partly = trainer, batches, partly
        configuration = trainer.configuration_manager
        spacing = tuple(configuration.spacing)[-len(configuration.patch_size) :]
        self._view = StrongerView(mirror_axes, spacing, tuple(configuration.use_mask_for_norm))

    def backward(self) -> None:
        """One pass over a batch: the terms' gradients join those of the network's parameters."""
        trainer = self.trainer
        batch = next(self._batches)
        data = batch["data"].to(trainer.device, non_blocking=True)
        target = [t.to(trainer.device, non_blocking=True) for t in batch["target"]] if self._partly else None
        # the processes of a distributed training exchange the sum of both passes, after nnU-Net's
        with trainer.network.no_sync() if trainer.is_ddp else nullcontext():
            with mixed_precision(trainer.device):
                outputs = trainer.teacher(data)
                if outputs is None:
                    return
                with torch.no_grad():
                    data, outputs, target = self._view(data, outputs, target)
                loss = trainer.loss.unlabelled(trainer.network(data), target, outputs)
            self._backward(loss)

    def _backward(self, loss: Tensor) -> None:
        scaler = self.trainer.grad_scaler
        (loss if scaler is None else scaler.scale(loss)).backward()

    def rehearse(self) -> None:
        """A step as in the training's last epoch, without the optimizer: what memory or compilation forbids fails now.

        Gradients, buffers of the network and of the terms, and the log are as before.
        """
        trainer = self.trainer
        network, loss, last = trainer.plain_network(), trainer.loss, trainer.num_epochs - 1
        of_network = [(buffer, buffer.clone()) for buffer in network.buffers()]
        of_terms = [(m, k, deepcopy(b)) for m in loss.terms.modules() for k, b in m._buffers.items()]
        trainer.network.train()
        loss.train()
        loss.start_epoch(last, trainer.num_epochs)
        trainer.teacher.start_epoch(last)
        if loss.teaches_unlabelled:
            # a new optimizer makes its momentum, as large as the weights, after its first step
            momentum = [torch.empty_like(p) for p in network.parameters() if p not in trainer.optimizer.state]
            self.backward()
            self._labelled_pass()
            del momentum
        network.zero_grad(set_to_none=True)
        loss.zero_grad(set_to_none=True)
        loss.means.pop()
        for buffer, before in of_network:
            buffer.copy_(before)
        for module, name, before in of_terms:
            setattr(module, name, before)

    def _labelled_pass(self) -> None:
        """As in nnU-Net's step, of a batch of zeros."""
        trainer, labels = self.trainer, self.trainer.label_manager
        channels = len(labels.foreground_regions) + labels.has_ignore_label if labels.has_regions else 1
        patch = trainer.configuration_manager.patch_size
        data = torch.zeros(trainer.batch_size, trainer.num_input_channels, *patch, device=trainer.device)
        with mixed_precision(trainer.device):
            if trainer.loss.teaches_labelled:
                trainer.loss.teacher_outputs = trainer.teacher(data)
            outputs = trainer.network(data)
            target = [z.new_zeros(trainer.batch_size, channels, *z.shape[2:], dtype=torch.int16) for z in outputs]
            loss = trainer.loss(outputs, target)
        self._backward(loss)

    def close(self) -> None:
        if isinstance(self._batches, NonDetMultiThreadedAugmenter):
            self._batches._finish()


@contextmanager
def gradients_of(stream: UnlabelledStream | None) -> Iterator[None]:
    """While nnU-Net's step runs: its gradients are added to those of a batch of the stream, if it teaches now.

    nnU-Net's step begins with ``zero_grad`` and cannot be asked not to, so that function does nothing meanwhile. Two
    passes one after the other need little more memory than the larger one, and the sum is scaled and clipped as one
    gradient.
    """
    if stream is None or not stream.trainer.loss.teaches_unlabelled:
        yield
        return
    optimizer = stream.trainer.optimizer
    optimizer.zero_grad(set_to_none=True)
    stream.backward()
    optimizer.zero_grad = lambda *_, **__: None
    try:
        yield
    finally:
        del optimizer.zero_grad


@contextmanager
def processes_shared(with_stream: bool) -> Iterator[int]:
    """While nnU-Net starts its augmentation processes: half of them are the stream's; gives their number."""
    allowed = get_allowed_n_proc_DA()
    if not with_stream or allowed == 0:
        yield 0
        return
    share = max(1, allowed // 2)
    with with_variables({"nnUNet_n_proc_DA": str(max(1, allowed - share))}):
        yield share
