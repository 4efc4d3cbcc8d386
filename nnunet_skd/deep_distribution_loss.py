"""Deep distribution loss (DDL) of DSKD: patch-wise class proportions of a side output, student against teacher."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nnunet_skd.patches import Patches

COUNT_FORMS = ("log", "raw", "fraction")
DIRECTIONS = ("student_teacher", "teacher_student")


def class_probabilities(logits: Tensor, *, has_regions: bool) -> Tensor:
    """Softmax over the classes, or a sigmoid per region, in float32 (float64 stays): ``B, K, spatial``."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(dtype).sigmoid() if has_regions else logits.softmax(1, dtype=dtype)


def class_probabilities_(logits: Tensor, *, has_regions: bool) -> Tensor:
    """:func:`class_probabilities` without a gradient, in the memory of ``logits``; use what it returns.

    Half precision needs new memory anyway. For a teacher's outputs, which nobody else needs: on the CPU fresh memory of
    that size costs as much time as the arithmetic.
    """
    if logits.dtype not in (torch.float32, torch.float64):
        return class_probabilities(logits, has_regions=has_regions)
    if has_regions:
        return logits.sigmoid_()
    logits.sub_(logits.amax(1, keepdim=True)).exp_()
    return logits.div_(logits.sum(1, keepdim=True))


class DeepDistributionLoss(nn.Module):
    r"""``sum_i mean_{b,m} KL(q_S[m] || q_T[m])`` over the patches m of the side outputs i.

    A regular grid cuts an output into patches. The fractions ``f[m,k]`` of class k among the valid voxels of patch m
    become a distribution with temperature tau and ``N`` = full-resolution voxels per patch:

    ============  ==================================  =============================================================
    counts        q[m]                                evidence
    ============  ==================================  =============================================================
    ``log``       ``softmax_k(log(f + 1/N) / tau)``   ours: the patch size cancels, small classes stay visible
    ``raw``       ``softmax_k(f * N / tau)``          the paper's (arXiv 2509.03173, Eq. 2-3, as quoted by a review);
                                                      saturates for patches of more than some 100 voxels
    ``fraction``  ``softmax_k(f / tau)``              ours; nearly silent at tau = 3
    ============  ==================================  =============================================================

    Regions: each region is the paper's binary map, ``q`` is over [region, not region], mean over regions (ours).
    Each output is pooled at its own resolution: the same fractions as after up-sampling, up to interpolation (ours).
    ``teacher_student`` turns the divergence round. No tau^2 factor, as in the paper.

    Raises:
        ValueError: on an unknown ``counts`` or ``direction``, a temperature <= 0 or fewer than one patch per axis.
    """

    def __init__(
        self,
        *,
        has_regions: bool,
        patches_per_axis: int = 4,
        temperature: float = 3.0,
        counts: str = "log",
        direction: str = "student_teacher",
    ):
        super().__init__()
        if counts not in COUNT_FORMS:
            raise ValueError(f"counts must be one of {COUNT_FORMS}, got {counts!r}")
        if direction not in DIRECTIONS:
            raise ValueError(f"direction must be one of {DIRECTIONS}, got {direction!r}")
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        if patches_per_axis < 1:
            raise ValueError(f"patches_per_axis must be at least 1, got {patches_per_axis}")
        self.has_regions = has_regions
        self.patches_per_axis = patches_per_axis
        self.temperature = temperature
        self.counts = counts
        self.direction = direction

    def extra_repr(self) -> str:
        return (
            f"has_regions={self.has_regions}, patches_per_axis={self.patches_per_axis}, "
            f"temperature={self.temperature}, counts={self.counts!r}, direction={self.direction!r}"
        )

    def patches(self, full_size: tuple[int, ...], valid: Tensor | None, dtype: torch.dtype) -> Patches:
        """The patches of one output, see :class:`nnunet_skd.patches.Patches`."""
        return Patches(self.patches_per_axis, full_size, valid, dtype)

    def forward(
        self, fractions: Sequence[Tensor], target_fractions: Sequence[Tensor], patches: Sequence[Patches]
    ) -> Tensor:
        """The sum over side outputs of one full size.

        Args:
            fractions: the student's, from :meth:`Patches.fractions` of each output, ``B, K, grid``.
            target_fractions: of what the student is compared with, no gradient.
            patches: of each output, from :meth:`patches`.

        Returns:
            Scalar; an output without a valid voxel adds 0 to it, and stays connected to the graph.
        """
        voxels = patches[0].voxels
        student = self._log_distribution(fractions, voxels)
        teacher = self._log_distribution(target_fractions, voxels)
        if self.direction == "teacher_student":
            student, teacher = teacher, student
        divergence = (student.exp() * (student - teacher)).sum(1)
        weights = torch.cat([p.weights(f).flatten(2) for p, f in zip(patches, fractions, strict=True)], 2)
        return (divergence * weights).sum() / divergence.shape[1]

    def _log_distribution(self, fractions: Sequence[Tensor], voxels_per_patch: float) -> Tensor:
        """``B, K, grid`` of each output -> log q of all their patches: ``B, K, 1, M`` (labels), ``B, 2, R, M``."""
        # all outputs at once: of tensors so small what costs is the number of operations
        f = torch.cat([of_output.flatten(2) for of_output in fractions], 2)
        f = torch.stack((f, 1 - f), 1) if self.has_regions else f.unsqueeze(2)
        if self.counts == "log":
            energy = (f.clamp_min(0) + 1 / voxels_per_patch).log()
        elif self.counts == "raw":
            energy = f * voxels_per_patch
        else:
            energy = f
        return (energy / self.temperature).log_softmax(1)
