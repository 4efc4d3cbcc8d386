"""The terms of ACW-SKD, one row each: what it computes from a step and the teacher's reconstruction of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from nnunet_skd.acw.branch import Reconstruction
from nnunet_skd.acw.class_wise_features import region_overlaps
from nnunet_skd.acw.losses import class_wise_feature_loss, feature_reconstruction_loss, token_loss
from nnunet_skd.losses.lean_temperature_divergence import lean_temperature_divergence
from nnunet_skd.losses.precision import without_autocast
from nnunet_skd.losses.temperature_divergence import temperature_divergence

if TYPE_CHECKING:
    from nnunet_skd.step import Step


@dataclass(frozen=True)
class Row:
    """One term: what it computes from a step and its reconstruction, and what it needs and is."""

    loss: Callable[[Step, Reconstruction], Tensor]
    class_wise: bool  # about class-wise features
    distils: bool  # follows the teacher, with the weight ramped; otherwise it trains the teacher
    compares_features: bool = False  # meaningless without feature reconstruction: teacher and student are one tensor


def _teacher(step: Step, teacher: Reconstruction) -> Tensor:
    return step.task.segmentation_loss(teacher.teacher_logits, step.target[0])


def _token(step: Step, teacher: Reconstruction) -> Tensor:
    part, overlaps = teacher.class_wise, None
    if step.task.has_regions:
        with without_autocast(step.outputs[0]):  # products of thousands of voxels overflow in half precision
            overlaps = region_overlaps(step.labels(0), step.valid(0))
    return token_loss(part.teacher_tokens, part.taught, overlaps)


def _adversarial(step: Step, teacher: Reconstruction) -> Tensor:
    return lean_temperature_divergence(
        step.outputs[0], teacher.teacher_logits, teacher.tau, step.valid(0), has_regions=step.task.has_regions
    )


def _class_wise(step: Step, teacher: Reconstruction) -> Tensor:
    part = teacher.class_wise
    return temperature_divergence(
        part.tokens.transpose(1, 2),
        part.teacher_tokens.transpose(1, 2),
        teacher.tau,
        part.taught.unsqueeze(1),
        has_regions=step.task.has_regions,
    )


def _class_wise_feature(step: Step, teacher: Reconstruction) -> Tensor:
    part = teacher.class_wise
    return class_wise_feature_loss(part.features, part.teacher_features, part.taught)


def _reconstruction(step: Step, teacher: Reconstruction) -> Tensor:
    rebuilt = teacher.cells + teacher.correction.detach()
    return feature_reconstruction_loss(teacher.cells, rebuilt, teacher.valid_per_cell)


ROWS = {
    "teacher": Row(_teacher, class_wise=False, distils=False),
    "token": Row(_token, class_wise=True, distils=False, compares_features=True),
    "adversarial": Row(_adversarial, class_wise=False, distils=True),
    "class_wise": Row(_class_wise, class_wise=True, distils=True, compares_features=True),
    "class_wise_feature": Row(_class_wise_feature, class_wise=True, distils=True, compares_features=True),
    "reconstruction": Row(_reconstruction, class_wise=False, distils=True, compares_features=True),
}
