"""Controls of nnUNetTrainerDistill on labelled images: one of its terms alone, or channel-wise distillation alone."""

from nnunet_skd.losses.channel_wise import ChannelWise
from nnunet_skd.losses.deep_distribution import DeepDistribution
from nnunet_skd.losses.pixelwise import Pixelwise
from nnunet_skd.trainers.nnUNetTrainerDistill import nnUNetTrainerDistill


class nnUNetTrainerDistill_psdl(nnUNetTrainerDistill):
    terms = (Pixelwise(rising=False),)


class nnUNetTrainerDistill_ddl(nnUNetTrainerDistill):
    terms = (DeepDistribution(),)


class nnUNetTrainerDistill_cw(nnUNetTrainerDistill):
    """At its authors' weight."""

    terms = (ChannelWise(),)
