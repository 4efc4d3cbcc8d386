"""What nnU-Net's set-up must offer, checked before anything is computed, and what the terms may know of it.

Refusals are ``ValueError``: nnU-Net's benchmark trainers treat a ``RuntimeError``, ``NotImplementedError`` included, as
a training that crashed, and go on.
"""

from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss, SoftDiceLoss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from torch._dynamo import OptimizedModule

from nnunet_skd.compat import require_supported_nnunet
from nnunet_skd.step import Task

require_supported_nnunet()


def require_deep_supervision(trainer: nnUNetTrainer) -> None:
    """Refuse a training without side outputs.

    Raises:
        ValueError: deep supervision is switched off, or the plans give fewer than two outputs.
    """
    name = type(trainer).__name__
    if not trainer.enable_deep_supervision:
        raise ValueError(
            f"{name} distils from deep-supervision outputs, but deep supervision is switched off. "
            f"Do not combine it with a trainer that sets enable_deep_supervision = False."
        )
    outputs = len(trainer._get_deep_supervision_scales())
    if outputs < 2:
        raise ValueError(
            f"{name} needs at least two deep-supervision outputs, but configuration {trainer.configuration_name} of "
            f"{trainer.plans_manager.plans_name} gives {outputs}: its network has {outputs + 1} stages. Use plans "
            f"with three or more stages (larger patches, or a planner with more GPU memory)."
        )


def require_teacher(trainer: nnUNetTrainer) -> None:
    """Refuse terms that would wait for a teacher for ever.

    Raises:
        ValueError: a term needs a teacher, and the trainer declares none.
    """
    waiting = [type(term).__name__ for term in trainer.terms if term.needs_teacher]
    if waiting and trainer.teacher is None:
        raise ValueError(
            f"{type(trainer).__name__} has no teacher, and {', '.join(waiting)} would wait for one in vain. Declare "
            f"one: teacher = PreviousEpoch()."
        )


def require_side_outputs(trainer: nnUNetTrainer, network: nn.Module) -> None:
    """Refuse a network whose decoder has no deep-supervision outputs, and a loss that is not nnU-Net's of all of them.

    Raises:
        ValueError: the decoder has none, or the loss is of another kind.
    """
    decoder = getattr(network, "decoder", None)
    if not (hasattr(decoder, "deep_supervision") and hasattr(decoder, "seg_layers")):
        raise ValueError(
            f"{type(trainer).__name__} distils from deep-supervision outputs, and {type(network).__name__} has none. "
            f"Use a U-Net of nnU-Net's planners (plain or residual encoder)."
        )
    if not isinstance(trainer.loss, DeepSupervisionWrapper):
        raise ValueError(
            f"{type(trainer).__name__} adds its terms to a loss in nnU-Net's DeepSupervisionWrapper, and here is a "
            f"{type(trainer.loss).__name__}. Wrap your loss as nnUNetTrainer._build_loss does."
        )


def predict_command(trainer: nnUNetTrainer) -> str:
    """The command line that predicts with the trainer's model."""
    device = "" if trainer.device.type == "cuda" else f" -device {trainer.device.type}"
    previous_stage = " -prev_stage_predictions PREVIOUS_STAGE_FOLDER" if trainer.is_cascaded else ""
    return (
        f"nnUNetv2_predict -i INPUT_FOLDER -o OUTPUT_FOLDER -d {trainer.plans_manager.dataset_name} "
        f"-c {trainer.configuration_name} -tr {type(trainer).__name__} -p {trainer.plans_manager.plans_name} "
        f"-f {trainer.fold}{previous_stage}{device}"
    )


def task_of(trainer: nnUNetTrainer) -> Task:
    """What the terms may know of an initialised trainer whose loss is still nnU-Net's."""
    base = trainer.loss.loss
    return Task(
        trainer=type(trainer).__name__,
        configuration=trainer.configuration_name,
        segmentation_loss=base,
        head_weights=tuple(trainer.loss.weight_factors),
        has_regions=trainer.label_manager.has_regions,
        ignore_label=trainer.label_manager.ignore_label,
        cross_entropy_weight=_cross_entropy_weight(base),
        lowest_value=_lowest_value(base),
        segmentation_layer=trainer.plain_network().decoder.seg_layers[-1],
    )


def _cross_entropy_weight(loss: nn.Module) -> float | None:
    """Within nnU-Net's loss of one output; None where its cross-entropy is weighted, smoothed or absent."""
    if isinstance(loss, DC_and_CE_loss):
        plain = loss.ce.weight is None and loss.ce.label_smoothing == 0
    else:
        plain = isinstance(loss, DC_and_BCE_loss) and loss.ce.weight is None and loss.ce.pos_weight is None
    return float(loss.weight_ce) if plain else None


def _lowest_value(loss: nn.Module) -> float:
    """Of nnU-Net's loss of one output: its Dice loss is minus the Dice, the other parts are at least 0."""
    if isinstance(loss, OptimizedModule):
        loss = loss._orig_mod
    if isinstance(loss, (MemoryEfficientSoftDiceLoss, SoftDiceLoss)):
        return -1.0
    return -float(getattr(loss, "weight_dice", 0.0))
