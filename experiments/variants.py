"""Variants of the trainers that were tried and did not earn a place in the catalogue: subclasses, terms and a teacher.

A study names one as ``variants:nnUNetTrainerDSKD_mixed``; the protocol (epochs, seed, batches) is the study's.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from nnunet_skd.acw.method import AdversarialClassWise
from nnunet_skd.losses.channel_wise import ChannelWise
from nnunet_skd.losses.deep_distribution import DeepDistribution
from nnunet_skd.losses.pixelwise import Pixelwise, soft_minus_hard_cross_entropy
from nnunet_skd.losses.unlabelled import Unlabelled
from nnunet_skd.step import Step, Task
from nnunet_skd.teachers import MovingAverage
from nnunet_skd.trainers.nnUNetTrainerACWSKD import nnUNetTrainerACWSKD
from nnunet_skd.trainers.nnUNetTrainerDistill import nnUNetTrainerDistill
from nnunet_skd.trainers.nnUNetTrainerDSKD import nnUNetTrainerDSKD


class MixedDeepDistribution(DeepDistribution):
    """DDL towards ``alpha * teacher + (1 - alpha) * truth`` per patch, as PSDL per voxel.

    DSKD's teacher is the network of an epoch ago. Where it does not know a class yet, DDL pulls the student's first
    finds of that class down again (PSDL only lowers their target to 1 - alpha). With the truth in the target both pull
    up. As alpha starts at 0, this DDL begins as a supervised loss of patch proportions, and at least half of its target
    stays the truth.
    """

    def __init__(self, *, alpha: float = 0.5, **options: Any):
        super().__init__(**options)
        self.alpha = alpha

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, alpha={self.alpha:g}"

    def teacher(self, step: Step, head: int) -> Tensor:
        alpha = self.alpha * step.epoch / step.num_epochs
        teacher, labels = step.teacher_probabilities(head), step.labels(head)
        if not step.task.has_regions:
            labels = nn.functional.one_hot(labels[:, 0].long(), teacher.shape[1]).movedim(-1, 1)
        return alpha * teacher + (1 - alpha) * labels


class PixelwiseOfEveryHead(Pixelwise):
    """PSDL on every supervised output, by its weight in nnU-Net's loss: the coarse heads learn soft targets as well."""

    def attach(self, task: Task) -> None:
        super().attach(task)
        self.relative_weights = {head: task.head_weights[head] / task.head_weights[0] for head in task.supervised}

    def forward(self, step: Step) -> Tensor:
        return sum(
            weight
            * soft_minus_hard_cross_entropy(
                step.outputs[head],
                step.teacher_probabilities(head),
                step.labels(head),
                step.valid(head),
                has_regions=step.task.has_regions,
            )
            for head, weight in self.relative_weights.items()
        )


class PyramidDeepDistribution(DeepDistribution):
    """DDL as the mean over 4, 8 and 16 patches per axis: a vessel is thin, a patch of a quarter of the image is not."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.levels = nn.ModuleList(DeepDistribution(patches_per_axis=n, **options) for n in (4, 8, 16))

    def forward(self, step: Step) -> Tensor:
        return sum(level(step) for level in self.levels) / len(self.levels)


class nnUNetTrainerDSKD_mixed(nnUNetTrainerDSKD):
    terms = (MixedDeepDistribution(), Pixelwise())


class nnUNetTrainerDSKD_pyramid(nnUNetTrainerDSKD):
    terms = (PyramidDeepDistribution(), Pixelwise())


class nnUNetTrainerDSKD_heads(nnUNetTrainerDSKD):
    terms = (DeepDistribution(), PixelwiseOfEveryHead())


class nnUNetTrainerDSKD_ema(nnUNetTrainerDSKD):
    teacher = MovingAverage(decay=0.999)


class nnUNetTrainerACWSKD_head(nnUNetTrainerACWSKD):
    """A second head at full resolution, trained by nnU-Net's loss, and nothing that distils from it."""

    terms = (
        AdversarialClassWise(
            adversarial=0.0, token=0.0, class_wise=0.0, class_wise_feature=0.0, feature_reconstruction=False
        ),
    )


class nnUNetTrainer_full_resolution(nnUNetTrainer):
    """nnU-Net with a full resolution that weighs 1 more, as much as ACW-SKD's second head adds there."""

    def _build_loss(self) -> nn.Module:
        loss = super()._build_loss()
        first, *others = loss.weight_factors
        return DeepSupervisionWrapper(loss.loss, (first + 1, *others))


class nnUNetTrainerACWSKD_cw01(nnUNetTrainerACWSKD):
    """The class-wise distillation at its first weight: up to 2.5 times the segmentation loss's gradient."""

    terms = (AdversarialClassWise(class_wise=0.1, class_wise_feature=0.1),)


class nnUNetTrainerDistill_cwd(nnUNetTrainerDistill):
    """Channel-wise distillation too, at its authors' weight: three quarters of the loss, on images without labels."""

    terms = (*nnUNetTrainerDistill.terms, ChannelWise())


class nnUNetTrainerDistill_alone(nnUNetTrainerDistill):
    """The images without labels alone: on labelled voxels the loss stays nnU-Net's."""

    terms = nnUNetTrainerDistill.terms[-1:]


class nnUNetTrainerDistill_alone_hard(nnUNetTrainerDistill):
    terms = (Unlabelled(rise=0.05, target="hard"),)


class Gradients:
    """Mixed into a trainer on the CPU: ``gradients.csv``, measured on each epoch's last batch, after its last step.

    differs: share of voxels in which the label maps of student and teacher differ.
    gradient_*: norm of the gradient of each summand, weight included, in the network's parameters.
    """

    def train_step(self, batch: dict) -> dict:
        self._last_batch = batch
        return super().train_step(batch)

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        super().on_train_epoch_end(train_outputs)
        self.measured = [*getattr(self, "measured", []), {"epoch": self.current_epoch, **self._measure()}]
        pd.DataFrame(self.measured).to_csv(f"{self.output_folder}/gradients.csv", index=False)

    def _measure(self) -> dict[str, float]:
        row, parameters = {}, list(self.network.parameters())
        teacher_outputs = None if self.teacher is None else self.teacher(self._last_batch["data"])
        outputs = self.network(self._last_batch["data"])
        if teacher_outputs is not None:
            row["differs"] = (outputs[0].argmax(1) != teacher_outputs[0].argmax(1)).float().mean().item()
        self.loss.teacher_outputs = teacher_outputs
        for name, value in self.loss.values(outputs, self._last_batch["target"]).items():
            gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
            row[f"gradient_{name}"] = math.sqrt(sum(g.square().sum().item() for g in gradients if g is not None))
        self.loss.means.pop()  # this was no training step
        return row


class nnUNetTrainerDSKD_gradients(Gradients, nnUNetTrainerDSKD):
    pass


class nnUNetTrainerACWSKD_gradients(Gradients, nnUNetTrainerACWSKD):
    pass
