"""Terms of nnUNetTrainerDistill alone, without nnU-Net's mirroring."""

from distill_parts import nnUNetTrainerDistill_ddl, nnUNetTrainerDistill_psdl
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import nnUNetTrainerNoMirroring


class nnUNetTrainerDistill_psdl_NoMirroring(nnUNetTrainerDistill_psdl, nnUNetTrainerNoMirroring):
    pass


class nnUNetTrainerDistill_ddl_NoMirroring(nnUNetTrainerDistill_ddl, nnUNetTrainerNoMirroring):
    pass
