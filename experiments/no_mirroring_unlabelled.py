"""One more trainer without mirroring, in a file of its own: another class in no_mirroring.py would change its hash."""

from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import nnUNetTrainerNoMirroring

from nnunet_skd.trainers.nnUNetTrainerDSKD_unlabelled import nnUNetTrainerDSKD_unlabelled


class nnUNetTrainerDSKD_unlabelled_NoMirroring(nnUNetTrainerDSKD_unlabelled, nnUNetTrainerNoMirroring):
    pass
