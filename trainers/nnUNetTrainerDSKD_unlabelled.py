"""Learning from images that nobody labelled, taught by the network's own moving average, for nnUNetv2_train -tr."""

from nnunet_skd.catalogue import epoch_variants
from nnunet_skd.losses.unlabelled import Unlabelled
from nnunet_skd.teachers import MovingAverage
from nnunet_skd.trainer import SelfDistillationTrainer


class nnUNetTrainerDSKD_unlabelled(SelfDistillationTrainer):
    """The moving average of the network, mirrored, teaches images without labels and ignored voxels.

    No gain over training on the labels alone has been seen, in early training, or with an ignore label (one training
    each, docs/results.md).
    """

    teacher = MovingAverage(mirror=True)
    terms = (Unlabelled(weight=0.5, start=0.25, rise=0.2),)
    unlabelled_per_labelled = 1.0
    needs_unlabelled = True


globals().update(epoch_variants(nnUNetTrainerDSKD_unlabelled))
