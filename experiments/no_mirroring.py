"""The trainers without nnU-Net's mirroring, for organs that are told apart by left and right."""

from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import nnUNetTrainerNoMirroring

from nnunet_skd.trainers.nnUNetTrainerACWSKD import nnUNetTrainerACWSKD
from nnunet_skd.trainers.nnUNetTrainerDistill import nnUNetTrainerDistill
from nnunet_skd.trainers.nnUNetTrainerDSKD import nnUNetTrainerDSKD
from nnunet_skd.trainers.nnUNetTrainerDSKD_ACW import nnUNetTrainerDSKD_ACW


class nnUNetTrainerDSKD_NoMirroring(nnUNetTrainerDSKD, nnUNetTrainerNoMirroring):
    pass


class nnUNetTrainerACWSKD_NoMirroring(nnUNetTrainerACWSKD, nnUNetTrainerNoMirroring):
    pass


class nnUNetTrainerDSKD_ACW_NoMirroring(nnUNetTrainerDSKD_ACW, nnUNetTrainerNoMirroring):
    pass


class nnUNetTrainerDistill_NoMirroring(nnUNetTrainerDistill, nnUNetTrainerNoMirroring):
    pass
