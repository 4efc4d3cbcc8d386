"""DSKD: deep self-knowledge distillation (arXiv 2509.03173), for nnUNetv2_train -tr."""

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

from nnunet_skd.trainer import SelfDistillationTrainer


class nnUNetTrainerDSKD(SelfDistillationTrainer):
    """Deep distribution loss and pixel-wise self-distillation from the network at the end of the previous epoch."""

    ddl_weight = 1.0
    psdl_weight = 1.0


class nnUNetTrainerDSKD_noDDL(nnUNetTrainerDSKD):
    """Ablation: pixel-wise self-knowledge distillation only."""

    ddl_weight = 0.0


class nnUNetTrainerDSKD_noPSDL(nnUNetTrainerDSKD):
    """Ablation: deep distribution loss only."""

    psdl_weight = 0.0


class nnUNetTrainerDSKD_1epoch(nnUNetTrainerDSKD, nnUNetTrainer_1epoch):
    pass


class nnUNetTrainerDSKD_5epochs(nnUNetTrainerDSKD, nnUNetTrainer_5epochs):
    pass


class nnUNetTrainerDSKD_10epochs(nnUNetTrainerDSKD, nnUNetTrainer_10epochs):
    pass


class nnUNetTrainerDSKD_20epochs(nnUNetTrainerDSKD, nnUNetTrainer_20epochs):
    pass


class nnUNetTrainerDSKD_50epochs(nnUNetTrainerDSKD, nnUNetTrainer_50epochs):
    pass


class nnUNetTrainerDSKD_100epochs(nnUNetTrainerDSKD, nnUNetTrainer_100epochs):
    pass


class nnUNetTrainerDSKD_250epochs(nnUNetTrainerDSKD, nnUNetTrainer_250epochs):
    pass


class nnUNetTrainerDSKD_500epochs(nnUNetTrainerDSKD, nnUNetTrainer_500epochs):
    pass
