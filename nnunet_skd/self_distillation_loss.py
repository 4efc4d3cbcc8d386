"""The loss of a training step: nnU-Net's own, and the self-distillation terms around it."""

import torch
from torch import Tensor, nn
from torch._dynamo import OptimizedModule

from nnunet_skd.acw_skd import AdversarialClassWiseDistillation
from nnunet_skd.deep_distribution_loss import DeepDistributionLoss, class_probabilities, class_probabilities_
from nnunet_skd.feature_tap import FeatureTap
from nnunet_skd.pixelwise_distillation import PixelwiseDistillationLoss, teacher_minus_truth
from nnunet_skd.precision import without_autocast
from nnunet_skd.shared_probabilities import SharedProbabilities
from nnunet_skd.targets import split_target

# nnU-Net gives the lowest output the weight 0, or 1e-6 under DDP: its head learns nothing, so it teaches nothing.
UNSUPERVISED = 1e-5


class SelfDistillationLoss(nn.Module):
    r"""``L = L_nnU-Net + w_DDL * sum_i DDL_i + w_PSDL * w_CE * alpha * [CE(z_1, p_T) - CE(z_1, y)] + L_ACW``.

    i runs over the supervised outputs, 1 is the full resolution and ``w_CE`` the weight of its cross-entropy in
    nnU-Net's loss, so with ``psdl_weight = 1`` that cross-entropy is replaced by DSKD's ``L_PSDL``
    (arXiv 2509.03173; total loss with all weights 1; that deep supervision with hard labels stays is ours).

    DDL's target are the teacher's patch fractions ``f_T``, or with ``ddl_mixed`` those of PSDL's soft labels,
    ``alpha * f_T + (1 - alpha) * f_y`` (ours): a class that the teacher does not know yet is not held back.

    ``L_ACW`` is the weighted sum of :class:`nnunet_skd.acw_skd.AdversarialClassWiseDistillation`'s terms, with z_2 as
    the coarse auxiliary prediction. In evaluation mode it is nnU-Net's loss and nothing else.

    Args:
        segmentation_loss: nnU-Net's deep-supervision loss: ``weight_factors``, and ``loss`` for one output.
        has_regions, ignore_label: as in :func:`nnunet_skd.targets.split_target`.
        ddl, ddl_weight, ddl_mixed: the deep distribution loss; weight 0 switches it off.
        psdl_weight: of the pixel-wise self-knowledge distillation; 0 switches it off.
        cross_entropy_weight: weight of the cross-entropy within nnU-Net's loss of one output.
    """

    def __init__(
        self,
        segmentation_loss: nn.Module,
        *,
        has_regions: bool,
        ignore_label: int | None,
        ddl: DeepDistributionLoss,
        ddl_weight: float,
        ddl_mixed: bool,
        psdl_weight: float,
        cross_entropy_weight: float,
    ):
        super().__init__()
        self.segmentation_loss = segmentation_loss
        self.has_regions = has_regions
        self.ignore_label = ignore_label
        self.ddl = ddl
        self.ddl_weight = ddl_weight
        self.ddl_mixed = ddl_mixed
        self.psdl = PixelwiseDistillationLoss(has_regions=has_regions)
        self.psdl_weight = psdl_weight
        self.cross_entropy_weight = segmentation_loss.weight_factors[0] * cross_entropy_weight
        self.supervised = [i for i, weight in enumerate(segmentation_loss.weight_factors) if weight > UNSUPERVISED]
        self.alpha = 0.0
        self.teacher_outputs: list[Tensor] | None = None  # for one step, which may overwrite them
        self.acw: AdversarialClassWiseDistillation | None = None
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int | Tensor] = {}
        self._cross_entropy: Tensor | None = None
        if psdl_weight:
            segmentation_loss.loss.ce.register_forward_hook(self._keep_cross_entropy)
        self._shared: SharedProbabilities | None = None

    def share_probabilities(self, dice: nn.Module) -> None:
        """Take the student's probabilities from nnU-Net's Dice instead of computing them a second time.

        ``dice``: its ``apply_nonlin`` is the softmax, or for regions the sigmoid, that the terms stand on. A compiled
        one fuses it away and is left alone.
        """
        if not isinstance(dice, OptimizedModule):
            dice.apply_nonlin = self._shared = SharedProbabilities(dice.apply_nonlin)

    def attach_acw(self, acw: AdversarialClassWiseDistillation, tap: FeatureTap, forward: nn.Module) -> None:
        """Add ACW-SKD's terms. ``forward``: ``acw`` itself, or its wrapper for distributed training."""
        self.acw = acw
        self._tap = tap
        self._acw_forward = (forward,)  # a tuple: the wrapper must not be registered a second time

    def extra_repr(self) -> str:
        return (
            f"has_regions={self.has_regions}, ignore_label={self.ignore_label}, ddl_weight={self.ddl_weight}, "
            f"psdl_weight={self.psdl_weight}, supervised={self.supervised}"
        )

    @property
    def needs_teacher(self) -> bool:
        """Whether a term compares with the network's earlier state."""
        return self.ddl_weight != 0 or self.psdl_weight != 0

    def forward(self, outputs: list[Tensor], target: list[Tensor]) -> Tensor:
        """One step.

        Args:
            outputs: logits, highest resolution first, each ``B, K, spatial``.
            target: nnU-Net's targets at the same resolutions.

        Returns:
            Scalar.
        """
        if not self.training:
            return self.segmentation_loss(outputs, target)
        return sum(self.terms(outputs, target).values())

    def terms(self, outputs: list[Tensor], target: list[Tensor]) -> dict[str, Tensor]:
        """The summands of a training step's loss, weights included, of which the means are kept for the log."""
        teacher_outputs, self.teacher_outputs = self.teacher_outputs, None
        self._cross_entropy = None
        if self._shared is not None:
            self._shared.keep = teacher_outputs is not None and self.ddl_weight != 0
        try:
            terms = {"segmentation": self.segmentation_loss(outputs, target)}
            labels, valid = self._split(target[0])
            if teacher_outputs is not None:
                with without_autocast(outputs[0]):
                    terms |= self._dskd_terms(outputs, target, teacher_outputs, labels, valid)
        finally:  # also where a step runs out of memory and its caller goes on
            if self._shared is not None:
                self._shared.clear()
        self._record_terms(terms, valid)
        if self.acw is not None:
            acw_terms = self._acw_terms(outputs, target[0], labels, valid)
            self._record(acw_terms)
            self._record(self.acw.diagnostics(), skip_undefined=True)
            terms |= acw_terms
        return terms

    def _split(self, target: Tensor) -> tuple[Tensor, Tensor | None]:
        return split_target(target, has_regions=self.has_regions, ignore_label=self.ignore_label)

    def _dskd_terms(
        self,
        outputs: list[Tensor],
        target: list[Tensor],
        teacher_outputs: list[Tensor],
        labels: Tensor,
        valid: Tensor | None,
    ) -> dict[str, Tensor]:
        """``labels`` and ``valid``: of the full resolution; the other outputs' are split here.

        ``teacher_outputs`` are used up: their memory serves the probabilities, and PSDL's difference.
        """
        full_size = tuple(outputs[0].shape[2:])
        patches, fractions, target_fractions, terms = [], [], [], {}
        for i in self.supervised if self.ddl_weight else [0]:
            if i > 0:
                labels, valid = self._split(target[i])
            teacher = class_probabilities_(teacher_outputs[i], has_regions=self.has_regions)
            teacher_outputs[i] = None  # in half precision it has memory of its own
            distils_pixels = i == 0 and self.psdl_weight != 0 and self.alpha > 0
            if self.ddl_weight:
                patches.append(self.ddl.patches(full_size, valid, teacher.dtype))
                fractions.append(patches[-1].fractions(self._student_probabilities(outputs[i])))
                target_fractions.append(patches[-1].fractions(teacher))
            if distils_pixels or (self.ddl_weight and self.ddl_mixed):
                difference = teacher_minus_truth(teacher, labels, valid, has_regions=self.has_regions)
            if self.ddl_weight and self.ddl_mixed:
                # f_T - (1 - alpha) * (f_T - f_y), from a buffer that is there anyway
                target_fractions[-1] = target_fractions[-1] - (1 - self.alpha) * patches[-1].fractions(difference)
            if distils_pixels:
                weight = self.psdl_weight * self.cross_entropy_weight * self.alpha
                terms["psdl"] = weight * self.psdl(outputs[0], difference, valid)
        if self.ddl_weight:
            terms = {"ddl": self.ddl_weight * self.ddl(fractions, target_fractions, patches)} | terms
        return terms

    def _student_probabilities(self, logits: Tensor) -> Tensor:
        shared = None if self._shared is None else self._shared.of(logits)
        # autocast leaves a sigmoid in half precision
        if shared is not None and shared.dtype == torch.promote_types(shared.dtype, torch.float32):
            return shared
        return class_probabilities(logits, has_regions=self.has_regions)

    def _acw_terms(
        self, outputs: list[Tensor], target: Tensor, labels: Tensor, valid: Tensor | None
    ) -> dict[str, Tensor]:
        terms = self._acw_forward[0](self._tap.pop(), outputs[0], outputs[1], target, labels, valid)
        weights = self.acw.weights()
        return {name: weights[name] * value for name, value in terms.items()}

    def _keep_cross_entropy(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        """Of a step's first call only, which is the full resolution's."""
        if self.training and self._cross_entropy is None:
            self._cross_entropy = output.detach()

    def _record_terms(self, terms: dict[str, Tensor], valid: Tensor | None) -> None:
        """Count the full-resolution cross-entropy as PSDL's, where it belongs."""
        values = {name: value.detach() for name, value in terms.items()}
        if self._cross_entropy is not None:
            cross_entropy = self._cross_entropy.float()
            if cross_entropy.ndim:  # regions with an ignore label: nnU-Net reduces outside its criterion
                cross_entropy = (cross_entropy * valid).sum() / valid.sum().clamp_min(1)
            cross_entropy = self.cross_entropy_weight * cross_entropy
            values["segmentation"] = values["segmentation"] - cross_entropy
            values["psdl"] = values.get("psdl", 0) + cross_entropy
        self._record(values)

    def _record(self, values: dict[str, Tensor], *, skip_undefined: bool = False) -> None:
        """Running sums stay on the device, as do counts of what may be undefined: no step waits for them.

        A nan of a term must be seen.
        """
        for name, value in values.items():
            value, counted = value.detach().float(), 1
            if skip_undefined:
                counted = ~value.isnan()
                value = torch.where(counted, value, 0)
            self._sums[name] = self._sums.get(name, 0) + value
            self._counts[name] = self._counts.get(name, 0) + counted

    def pop_means(self) -> dict[str, float]:
        """Mean per step since the last call of each term, weight included, and of ACW-SKD's diagnostics. Synchronises.

        The terms add up to the loss: ``psdl`` is the whole ``L_PSDL`` at full resolution, ``segmentation`` the rest of
        nnU-Net's loss. nan: never defined.
        """
        names = list(self._sums)
        means = [self._sums[name] / self._counts[name] for name in names]
        self._sums, self._counts = {}, {}
        return dict(zip(names, torch.stack(means).tolist(), strict=True)) if names else {}
