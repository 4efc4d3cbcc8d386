"""Learning from finished models, named by nnUNet_skd_teacher=FOLDER[:FOLDER...], for nnUNetv2_train -tr."""

from nnunet_skd.catalogue import epoch_variants
from nnunet_skd.finished_models import FinishedModels
from nnunet_skd.losses.deep_distribution import DeepDistribution
from nnunet_skd.losses.pixelwise import Pixelwise
from nnunet_skd.losses.unlabelled import Unlabelled
from nnunet_skd.trainer import SelfDistillationTrainer


class nnUNetTrainerDistill(SelfDistillationTrainer):
    """Finished models, mirrored, teach the labelled voxels, and images without labels and ignored voxels, if any.

    Images without labels were worth 0.9 Dice points (1.5 in predictions without mirroring) in a second training of
    models that had been trained for 8000 steps on 5 labelled ones, 0.9 to 1 less than pseudo-labels; on labelled images
    alone nothing was gained (docs/results.md).
    """

    teacher = FinishedModels()
    terms = (DeepDistribution(), Pixelwise(rising=False), Unlabelled(rise=0.05))
    unlabelled_per_labelled = 1.0


globals().update(epoch_variants(nnUNetTrainerDistill))
