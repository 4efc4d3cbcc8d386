"""Trainers without nnU-Net's mirroring, for organs that are told apart by left and right."""

from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import nnUNetTrainerNoMirroring
from variants import nnUNetTrainer_full_resolution, nnUNetTrainerACWSKD_head

from nnunet_skd.trainers import nnUNetTrainerACWSKD as acw
from nnunet_skd.trainers.nnUNetTrainerDistill import nnUNetTrainerDistill
from nnunet_skd.trainers.nnUNetTrainerDSKD import nnUNetTrainerDSKD
from nnunet_skd.trainers.nnUNetTrainerDSKD_ACW import nnUNetTrainerDSKD_ACW


class nnUNetTrainerDSKD_NoMirroring(nnUNetTrainerDSKD, nnUNetTrainerNoMirroring):
    pass


class nnUNetTrainerACWSKD_NoMirroring(acw.nnUNetTrainerACWSKD, nnUNetTrainerNoMirroring):
    pass


class nnUNetTrainerDSKD_ACW_NoMirroring(nnUNetTrainerDSKD_ACW, nnUNetTrainerNoMirroring):
    pass


class nnUNetTrainerDistill_NoMirroring(nnUNetTrainerDistill, nnUNetTrainerNoMirroring):
    pass


# --- controls for the head start of ACW-SKD ---------------------------------------------------------------------------


class nnUNetTrainer_full_resolution_NoMirroring(nnUNetTrainer_full_resolution, nnUNetTrainerNoMirroring):
    pass


class nnUNetTrainerACWSKD_head_NoMirroring(nnUNetTrainerACWSKD_head, nnUNetTrainerNoMirroring):
    pass


class nnUNetTrainerACWSKD_noFRM_NoMirroring(acw.nnUNetTrainerACWSKD_noFRM, nnUNetTrainerNoMirroring):
    pass


class nnUNetTrainerACWSKD_noCW_NoMirroring(acw.nnUNetTrainerACWSKD_noCW, nnUNetTrainerNoMirroring):
    pass
