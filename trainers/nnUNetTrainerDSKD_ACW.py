"""DSKD and ACW-SKD together, for nnUNetv2_train -tr."""

from nnunetv2.training.nnUNetTrainer.variants.training_length.nnUNetTrainer_Xepochs import (
    nnUNetTrainer_1epoch,
    nnUNetTrainer_5epochs,
    nnUNetTrainer_10epochs,
    nnUNetTrainer_20epochs,
    nnUNetTrainer_50epochs,
    nnUNetTrainer_100epochs,
    nnUNetTrainer_250epochs,
    nnUNetTrainer_500epochs,
)

from nnunet_skd.trainers.nnUNetTrainerACWSKD import nnUNetTrainerACWSKD
from nnunet_skd.trainers.nnUNetTrainerDSKD import nnUNetTrainerDSKD


class nnUNetTrainerDSKD_ACW(nnUNetTrainerDSKD, nnUNetTrainerACWSKD):
    """The terms of both methods, with both sets of weights (ours: neither paper combines them)."""


class nnUNetTrainerDSKD_ACW_1epoch(nnUNetTrainerDSKD_ACW, nnUNetTrainer_1epoch):
    pass


class nnUNetTrainerDSKD_ACW_5epochs(nnUNetTrainerDSKD_ACW, nnUNetTrainer_5epochs):
    pass


class nnUNetTrainerDSKD_ACW_10epochs(nnUNetTrainerDSKD_ACW, nnUNetTrainer_10epochs):
    pass


class nnUNetTrainerDSKD_ACW_20epochs(nnUNetTrainerDSKD_ACW, nnUNetTrainer_20epochs):
    pass


class nnUNetTrainerDSKD_ACW_50epochs(nnUNetTrainerDSKD_ACW, nnUNetTrainer_50epochs):
    pass


class nnUNetTrainerDSKD_ACW_100epochs(nnUNetTrainerDSKD_ACW, nnUNetTrainer_100epochs):
    pass


class nnUNetTrainerDSKD_ACW_250epochs(nnUNetTrainerDSKD_ACW, nnUNetTrainer_250epochs):
    pass


class nnUNetTrainerDSKD_ACW_500epochs(nnUNetTrainerDSKD_ACW, nnUNetTrainer_500epochs):
    pass
