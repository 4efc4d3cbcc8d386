"""DSKD: deep self-knowledge distillation (arXiv 2509.03173), for nnUNetv2_train -tr."""

from nnunet_skd.catalogue import epoch_variants
from nnunet_skd.losses.deep_distribution import DeepDistribution
from nnunet_skd.losses.pixelwise import Pixelwise
from nnunet_skd.teachers import PreviousEpoch
from nnunet_skd.trainer import SelfDistillationTrainer


class nnUNetTrainerDSKD(SelfDistillationTrainer):
    """Deep distribution loss and pixel-wise self-distillation from the network at the end of the previous epoch.

    Nowhere better than nnUNetTrainer: level with it in 2D and in 3D over three seeds, behind it in two single trainings
    on 3D CT (docs/results.md).
    """

    teacher = PreviousEpoch()
    terms = (DeepDistribution(), Pixelwise())


class nnUNetTrainerDSKD_noDDL(nnUNetTrainerDSKD):
    """Ablation: pixel-wise self-knowledge distillation only."""

    terms = (Pixelwise(),)


class nnUNetTrainerDSKD_noPSDL(nnUNetTrainerDSKD):
    """Ablation: deep distribution loss only."""

    terms = (DeepDistribution(),)


globals().update(epoch_variants(nnUNetTrainerDSKD))
