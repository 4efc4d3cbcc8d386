"""DSKD with the ground truth in the deep distribution loss's target, for nnUNetv2_train -tr."""

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

from nnunet_skd.trainers.nnUNetTrainerDSKD import nnUNetTrainerDSKD


class nnUNetTrainerDSKD_mixed(nnUNetTrainerDSKD):
    """DDL towards ``alpha * teacher + (1 - alpha) * truth`` per patch, as PSDL per voxel (ours).

    DSKD's teacher is the network of an epoch ago. Where it does not know a class yet, DDL pulls the student's first
    finds of that class down again (PSDL only lowers their target to 1 - alpha). With the truth in the target both pull
    up. As alpha starts at 0, this DDL begins as a supervised loss of patch proportions, and at least half of its target
    stays the truth. See docs/results.md for what that was worth.
    """

    ddl_target = "mixed"


class nnUNetTrainerDSKD_mixed_1epoch(nnUNetTrainerDSKD_mixed, nnUNetTrainer_1epoch):
    pass


class nnUNetTrainerDSKD_mixed_5epochs(nnUNetTrainerDSKD_mixed, nnUNetTrainer_5epochs):
    pass


class nnUNetTrainerDSKD_mixed_10epochs(nnUNetTrainerDSKD_mixed, nnUNetTrainer_10epochs):
    pass


class nnUNetTrainerDSKD_mixed_20epochs(nnUNetTrainerDSKD_mixed, nnUNetTrainer_20epochs):
    pass


class nnUNetTrainerDSKD_mixed_50epochs(nnUNetTrainerDSKD_mixed, nnUNetTrainer_50epochs):
    pass


class nnUNetTrainerDSKD_mixed_100epochs(nnUNetTrainerDSKD_mixed, nnUNetTrainer_100epochs):
    pass


class nnUNetTrainerDSKD_mixed_250epochs(nnUNetTrainerDSKD_mixed, nnUNetTrainer_250epochs):
    pass


class nnUNetTrainerDSKD_mixed_500epochs(nnUNetTrainerDSKD_mixed, nnUNetTrainer_500epochs):
    pass
