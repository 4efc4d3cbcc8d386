"""The loss of a training step: nnU-Net's own, and the self-distillation terms around it."""

import torch
from torch import Tensor, nn

from nnunet_skd.deep_distribution_loss import DeepDistributionLoss, class_probabilities
from nnunet_skd.pixelwise_distillation import PixelwiseDistillationLoss
from nnunet_skd.targets import split_target

# nnU-Net gives the lowest output the weight 0, or 1e-6 under DDP: its head learns nothing, so it teaches nothing.
UNSUPERVISED = 1e-5


class SelfDistillationLoss(nn.Module):
    r"""``L = L_nnU-Net + w_DDL * sum_i DDL_i + w_PSDL * w_CE * alpha * [CE(z_1, p_T) - CE(z_1, y)]``.

    i runs over the supervised outputs, 1 is the full resolution and ``w_CE`` the weight of its cross-entropy in
    nnU-Net's loss, so with ``psdl_weight = 1`` that cross-entropy is replaced by the paper's ``L_PSDL``
    (arXiv 2509.03173; total loss with all weights 1; METHODS: deep supervision with hard labels stays, ours).
    In evaluation mode, and before there is a teacher, it is nnU-Net's loss and nothing else.

    Args:
        segmentation_loss: nnU-Net's deep-supervision loss; any callable with ``weight_factors``.
        has_regions, ignore_label: as in :func:`nnunet_skd.targets.split_target`.
        ddl, ddl_weight: the deep distribution loss; weight 0 switches it off.
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
        psdl_weight: float,
        cross_entropy_weight: float,
    ):
        super().__init__()
        self.segmentation_loss = segmentation_loss
        self.has_regions = has_regions
        self.ignore_label = ignore_label
        self.ddl = ddl
        self.ddl_weight = ddl_weight
        self.psdl = PixelwiseDistillationLoss(has_regions=has_regions)
        self.psdl_weight = psdl_weight
        self.cross_entropy_weight = segmentation_loss.weight_factors[0] * cross_entropy_weight
        self.supervised = [i for i, weight in enumerate(segmentation_loss.weight_factors) if weight > UNSUPERVISED]
        self.alpha = 0.0
        self.teacher_outputs: list[Tensor] | None = None
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._cross_entropies: list[Tensor] = []
        if psdl_weight:
            segmentation_loss.loss.ce.register_forward_hook(self._keep_cross_entropy)

    def extra_repr(self) -> str:
        return (
            f"has_regions={self.has_regions}, ignore_label={self.ignore_label}, ddl_weight={self.ddl_weight}, "
            f"psdl_weight={self.psdl_weight}, supervised={self.supervised}"
        )

    @property
    def needs_teacher(self) -> bool:
        return self.ddl_weight != 0 or self.psdl_weight != 0

    def forward(self, outputs: list[Tensor], target: list[Tensor]) -> Tensor:
        """One step.

        Args:
            outputs: logits, highest resolution first, each ``B, K, spatial``.
            target: nnU-Net's targets at the same resolutions.

        Returns:
            Scalar.
        """
        self._cross_entropies.clear()
        segmentation = self.segmentation_loss(outputs, target)
        if not self.training:
            return segmentation
        terms = {"segmentation": segmentation}
        teacher_outputs, self.teacher_outputs = self.teacher_outputs, None
        if teacher_outputs is not None:
            with torch.autocast(outputs[0].device.type, enabled=False):
                terms |= self._dskd_terms(outputs, target, teacher_outputs)
        self._record(terms, target[0])
        return sum(terms.values())

    def _dskd_terms(self, outputs: list[Tensor], target: list[Tensor], teacher_outputs: list[Tensor]) -> dict:
        full_size = tuple(outputs[0].shape[2:])
        ddl, psdl = [], []
        for i in self.supervised if self.ddl_weight else [0]:
            labels, valid = split_target(target[i], has_regions=self.has_regions, ignore_label=self.ignore_label)
            teacher = class_probabilities(teacher_outputs[i], has_regions=self.has_regions)
            if self.ddl_weight:
                ddl.append(self.ddl_weight * self.ddl(outputs[i], teacher, valid, full_size))
            if i == 0 and self.psdl_weight and self.alpha:
                weight = self.psdl_weight * self.cross_entropy_weight * self.alpha
                psdl.append(weight * self.psdl(outputs[0], teacher, labels, valid))
        return {name: sum(values) for name, values in (("ddl", ddl), ("psdl", psdl)) if values}

    def _keep_cross_entropy(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        self._cross_entropies.append(output.detach())

    def _record(self, terms: dict[str, Tensor], target: Tensor) -> None:
        """Add to the running sums, with the full-resolution cross-entropy counted as PSDL's, where it belongs.

        The sums stay on the device: a step must not wait for them.
        """
        values = {name: value.detach().float() for name, value in terms.items()}
        if self._cross_entropies:
            cross_entropy = self._cross_entropies[0].float()
            if cross_entropy.ndim:  # regions with an ignore label: nnU-Net reduces outside its criterion
                _, valid = split_target(target, has_regions=True, ignore_label=self.ignore_label)
                cross_entropy = (cross_entropy * valid).sum() / valid.sum().clamp_min(1)
            cross_entropy = self.cross_entropy_weight * cross_entropy
            values["segmentation"] = values["segmentation"] - cross_entropy
            values["psdl"] = values.get("psdl", 0) + cross_entropy
        self._steps += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0) + value

    def pop_means(self) -> dict[str, float]:
        """Mean per step since the last call of each term, weight included, so that they add up to the loss.

        ``psdl`` is the whole ``L_PSDL`` at full resolution, ``segmentation`` the rest of nnU-Net's loss. Synchronises.
        """
        names = list(self._sums)
        means = (torch.stack([self._sums[name] for name in names]) / self._steps).tolist() if names else []
        self._sums, self._steps = {}, 0
        return dict(zip(names, means, strict=True))
