"""ACW-SKD: adversarial class-wise self-knowledge distillation (Sci Rep 2025;15:13231), for nnUNetv2_train -tr."""

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


class nnUNetTrainerACWSKD(SelfDistillationTrainer):
    """Class-wise features, feature reconstruction and an adversarial temperature; re-created from the abstract.

    What each weight is for: :class:`nnunet_skd.acw_skd.AdversarialClassWiseDistillation`; what it was worth:
    docs/results.md.
    """

    teacher_weight = 1.0
    token_weight = 0.5
    adversarial_weight = 0.1
    class_wise_weight = 0.01
    class_wise_feature_weight = 0.01
    reconstruction_weight = 0.1


class nnUNetTrainerACWSKD_noFRM(nnUNetTrainerACWSKD):
    """Ablation: without the feature reconstruction modules, the teacher is a second segmentation head."""

    feature_reconstruction = False


class nnUNetTrainerACWSKD_noCW(nnUNetTrainerACWSKD):
    """Ablation: without class-wise features and their distillation."""

    token_weight = 0.0
    class_wise_weight = 0.0
    class_wise_feature_weight = 0.0


class nnUNetTrainerACWSKD_noAT(nnUNetTrainerACWSKD):
    """Ablation: without the adversarial temperature loss; the temperature stays where it starts."""

    adversarial_weight = 0.0


class nnUNetTrainerACWSKD_1epoch(nnUNetTrainerACWSKD, nnUNetTrainer_1epoch):
    pass


class nnUNetTrainerACWSKD_5epochs(nnUNetTrainerACWSKD, nnUNetTrainer_5epochs):
    pass


class nnUNetTrainerACWSKD_10epochs(nnUNetTrainerACWSKD, nnUNetTrainer_10epochs):
    pass


class nnUNetTrainerACWSKD_20epochs(nnUNetTrainerACWSKD, nnUNetTrainer_20epochs):
    pass


class nnUNetTrainerACWSKD_50epochs(nnUNetTrainerACWSKD, nnUNetTrainer_50epochs):
    pass


class nnUNetTrainerACWSKD_100epochs(nnUNetTrainerACWSKD, nnUNetTrainer_100epochs):
    pass


class nnUNetTrainerACWSKD_250epochs(nnUNetTrainerACWSKD, nnUNetTrainer_250epochs):
    pass


class nnUNetTrainerACWSKD_500epochs(nnUNetTrainerACWSKD, nnUNetTrainer_500epochs):
    pass
