"""Trainers that studies compare and that have no place in the catalogue: controls, and one term more or less.

A study names one as ``variants:nnUNetTrainerDistill_alone``; the protocol (epochs, seed, batches) is the study's.
"""

from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunet_skd.acw.method import AdversarialClassWise
from nnunet_skd.losses.channel_wise import ChannelWise
from nnunet_skd.losses.unlabelled import Unlabelled
from nnunet_skd.trainers.nnUNetTrainerACWSKD import nnUNetTrainerACWSKD
from nnunet_skd.trainers.nnUNetTrainerDistill import nnUNetTrainerDistill


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


class nnUNetTrainerDistill_cwd(nnUNetTrainerDistill):
    """Channel-wise distillation too, at its authors' weight: three quarters of the loss, on images without labels."""

    terms = (*nnUNetTrainerDistill.terms, ChannelWise())


class nnUNetTrainerDistill_alone(nnUNetTrainerDistill):
    """The images without labels alone: on labelled voxels the loss stays nnU-Net's."""

    terms = nnUNetTrainerDistill.terms[-1:]


class nnUNetTrainerDistill_alone_hard(nnUNetTrainerDistill):
    terms = (Unlabelled(rise=0.05, target="hard"),)
