"""ACW-SKD: adversarial class-wise self-knowledge distillation (Sci Rep 2025;15:13231), for nnUNetv2_train -tr."""

from nnunet_skd.acw.method import AdversarialClassWise
from nnunet_skd.catalogue import epoch_variants
from nnunet_skd.trainer import SelfDistillationTrainer


class nnUNetTrainerACWSKD(SelfDistillationTrainer):
    """Class-wise features, feature reconstruction and an adversarial temperature; re-created from the abstract.

    Ahead of nnUNetTrainer in early training in 3D, where its feature reconstruction finds classes earlier; no longer in
    longer schedules, on CT and MRI; level in early training in 2D; worse on CT slices, from a network that was trained
    before.
    The class-wise part has not been seen to add anything in 3D; in 2D the whole is better with it than without
    (docs/results.md). What each term is: :class:`nnunet_skd.acw.method.AdversarialClassWise`.
    """

    terms = (AdversarialClassWise(),)


class nnUNetTrainerACWSKD_noFRM(nnUNetTrainerACWSKD):
    """Ablation: without the feature reconstruction modules, the teacher is a second segmentation head."""

    terms = (AdversarialClassWise(feature_reconstruction=False),)


class nnUNetTrainerACWSKD_noCW(nnUNetTrainerACWSKD):
    """Ablation: without class-wise features and their distillation. As early in 3D as the whole, in 2D behind it."""

    terms = (AdversarialClassWise(token=0.0, class_wise=0.0, class_wise_feature=0.0),)


class nnUNetTrainerACWSKD_noAT(nnUNetTrainerACWSKD):
    """Ablation: without the adversarial temperature loss; the temperature stays where it starts."""

    terms = (AdversarialClassWise(adversarial=0.0),)


globals().update(epoch_variants(nnUNetTrainerACWSKD))
