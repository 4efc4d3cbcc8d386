"""DSKD and ACW-SKD together, for nnUNetv2_train -tr."""

from nnunet_skd.catalogue import epoch_variants
from nnunet_skd.trainers.nnUNetTrainerACWSKD import nnUNetTrainerACWSKD
from nnunet_skd.trainers.nnUNetTrainerDSKD import nnUNetTrainerDSKD


class nnUNetTrainerDSKD_ACW(nnUNetTrainerDSKD):
    """The terms of both methods, with both sets of weights (ours: neither paper combines them).

    It behaves as ACW-SKD does: ahead of nnUNetTrainer in early training in 3D (two starts, one training each), worse
    than it on CT slices, from a network that was trained before (docs/results.md).
    """

    terms = nnUNetTrainerDSKD.terms + nnUNetTrainerACWSKD.terms


globals().update(epoch_variants(nnUNetTrainerDSKD_ACW))
