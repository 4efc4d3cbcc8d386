"""ACW-SKD: adversarial class-wise self-knowledge distillation, everything that the network itself does not own."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from nnunet_skd.adversarial_temperature import AdversarialTemperature
from nnunet_skd.class_wise_features import (
    class_wise_pooling,
    coarse_features,
    inter_class_similarity,
    masks_that_hit,
    prediction_masks,
    present_classes,
    region_overlaps,
)
from nnunet_skd.distillation_terms import (
    class_wise_feature_loss,
    feature_reconstruction_loss,
    temperature_divergence,
    token_loss,
)
from nnunet_skd.feature_reconstruction import ClassWiseReconstruction, PenultimateReconstruction
from nnunet_skd.precision import without_autocast

RAMPED_TERMS = ("adversarial", "class_wise", "class_wise_feature", "reconstruction")


def distillation_ramp(epoch: int, num_epochs: int) -> float:
    """r: 0 in the first 5 % of the training, then ``exp(-5 (1 - x)^2)`` with x from 0 to 1 over the next 20 %.

    The shape is FRSKD's (closest published), the times are ours.
    """
    if epoch < 0.05 * num_epochs:
        return 0.0
    return math.exp(-5 * (1 - min(1.0, (epoch - 0.05 * num_epochs) / (0.2 * num_epochs))) ** 2)


class AdversarialClassWiseDistillation(nn.Module):
    r"""The teacher that reconstructs the network's own features, and the terms that distil it back.

    Paper (Yu et al., Sci Rep 2025, doi 10.1038/s41598-025-98116-7, its abstract): an auxiliary head's coarse
    segmentation as prediction masks, class-wise feature distillation, feature reconstruction modules (FRM) at the
    penultimate and at the class-wise features, adversarial temperature loss with a learnable temperature. Its formulas
    are not known; those below are the closest published ones or ours, as each function says.

    With F the input and z the output of the segmentation layer h, M the coarse head's masks, c the class-wise features:

        ``cT = FRM_c(c)``,  ``FT = F + up(FRM_p([F ; sum_k M_k cT_k]))``,
        ``zT = hT(FT)``,  ``uT = hT(cT)``,  ``u = h'(c)``

    hT starts as a copy of h; h' is hT without gradient. FRM_p works at the coarse head's resolution and hT is linear,
    so ``zT = hT(F) + up(W_T correction)`` and only K channels are up-sampled. L_FR compares at that resolution too.

    ======================  =====================================  ======  =========================================
    term                    formula                                weight  gradient goes to
    ======================  =====================================  ======  =========================================
    ``teacher``             nnU-Net's loss of (zT, target)         1       FRM_p, FRM_c, hT, network
    ``token``               CE(uT of detached c, k)                0.5     FRM_c, hT
    ``adversarial``         tau^2 <KL(zT / tau || z / tau)>        0.1 r   network (down), theta (up)
    ``class_wise``          tau^2 <KL(uT / tau || u / tau)>        0.01 r  network (down), theta (up)
    ``class_wise_feature``  <1 - cos(c, cT)>                       0.01 r  network
    ``reconstruction``      \|\| A(F) - A(FT) \|\|^2               0.1 r   network
    ======================  =====================================  ======  =========================================

    The three class-wise terms are about the classes that are in the patch and whose mask hits them, see
    :func:`nnunet_skd.class_wise_features.masks_that_hit` (ours). Two of them weigh a tenth of the others: means over a
    few classes, not over voxels, they pull a small organ as hard as its Dice does. At 0.1 ``class_wise`` had up to 2.5
    times the gradient of the segmentation loss, and an organ was lost (docs/results.md).

    r is :func:`distillation_ramp`. A weight of 0 removes its term, and with the last term that needs it each part:
    FRM_p without ``teacher``; masks, class-wise features, FRM_c and context without ``token``, ``class_wise`` and
    ``class_wise_feature``; hT without ``teacher`` and ``token``; the temperature without ``adversarial`` and
    ``class_wise``. The ablations (the paper has some; what they remove is not known, this is ours):

    * noCW: the three class-wise weights 0. No class-wise part at all; FRM_p reconstructs from F alone.
    * noAT: ``adversarial_weight`` 0. No term, no theta: tau stays at its start for ``class_wise``.
    * noFRM: ``feature_reconstruction=False``. FT = F and cT = c: the teacher is a second head hT alone. ``teacher``
      and ``adversarial`` stay; ``class_wise``, ``class_wise_feature`` and ``reconstruction`` would compare a tensor
      with itself, ``token`` would train what nothing distils: they are removed, whatever their weights.

    Args:
        segmentation_layer: the network's last 1x1 convolution h; gives D, K and 2D or 3D.
        has_regions: whether the dataset trains on regions.
        segmentation_loss: nnU-Net's loss of one output, ``(logits, target) -> scalar``. Not registered here: its
            state, if any, belongs to its owner.
        tau_min, tau_range: see :class:`nnunet_skd.adversarial_temperature.AdversarialTemperature`.

    Raises:
        ValueError: for a segmentation layer that is no 1x1 convolution; negative weights; distillation from a teacher
            that no weight trains.
    """

    def __init__(
        self,
        segmentation_layer: nn.Conv2d | nn.Conv3d,
        *,
        has_regions: bool,
        segmentation_loss: Callable[[Tensor, Tensor], Tensor],
        teacher_weight: float = 1.0,
        token_weight: float = 0.5,
        adversarial_weight: float = 0.1,
        class_wise_weight: float = 0.01,
        class_wise_feature_weight: float = 0.01,
        reconstruction_weight: float = 0.1,
        feature_reconstruction: bool = True,
        tau_min: float = 1.0,
        tau_range: float = 4.0,
    ):
        super().__init__()
        if type(segmentation_layer) not in (nn.Conv2d, nn.Conv3d) or set(segmentation_layer.kernel_size) != {1}:
            raise ValueError(f"the segmentation layer must be a 1x1 Conv2d or Conv3d, got {segmentation_layer}")
        weights = {
            "teacher": teacher_weight,
            "token": token_weight,
            "adversarial": adversarial_weight,
            "class_wise": class_wise_weight,
            "class_wise_feature": class_wise_feature_weight,
            "reconstruction": reconstruction_weight,
        }
        negative = {name: weight for name, weight in weights.items() if weight < 0}
        if negative:
            raise ValueError(f"weights must not be negative, got {negative}")
        if not feature_reconstruction:
            weights = {name: weights[name] for name in ("teacher", "adversarial")}
        self._weights = {name: float(weight) for name, weight in weights.items() if weight}
        if not self._uses("teacher") and self._uses("adversarial", "reconstruction"):
            raise ValueError(
                "adversarial_weight and reconstruction_weight need teacher_weight above 0: nothing would train the "
                "teacher that they distil; set them to 0 too"
            )
        if not self._uses("teacher", "token") and self._uses("class_wise", "class_wise_feature"):
            raise ValueError(
                "class_wise_weight and class_wise_feature_weight need teacher_weight or token_weight above 0: nothing "
                "would train the teacher that they distil; set them to 0 too"
            )

        self.has_regions = has_regions
        self.num_outputs = segmentation_layer.out_channels
        # each of these needs FRM_c, so the class-wise part and FRM_c come and go together
        self.class_wise = self._uses("token", "class_wise", "class_wise_feature")
        self.ramp = 0.0
        self._segmentation_loss = (segmentation_loss,)
        self._diagnostics: dict[str, Tensor] = {}

        conv, channels = type(segmentation_layer), segmentation_layer.in_channels
        self.penultimate_reconstruction = self.class_wise_reconstruction = None
        if feature_reconstruction and self._uses("teacher"):
            self.penultimate_reconstruction = PenultimateReconstruction(channels, conv, context=self.class_wise)
        if self.class_wise:
            self.class_wise_reconstruction = ClassWiseReconstruction(channels)
        self.teacher_head = None
        if self._uses("teacher", "token"):
            self.teacher_head = conv(channels, self.num_outputs, 1, bias=segmentation_layer.bias is not None)
            self.copy_head(segmentation_layer)
        self.temperature = None
        if self._uses("adversarial", "class_wise"):
            self.temperature = AdversarialTemperature(
                tau_min=tau_min, tau_range=tau_range, adversarial=self._uses("adversarial")
            )
        self.to(segmentation_layer.weight.device)

    def _uses(self, *terms: str) -> bool:
        return any(term in self._weights for term in terms)

    def extra_repr(self) -> str:
        weights = ", ".join(f"{name}={weight:g}" for name, weight in self._weights.items())
        return f"has_regions={self.has_regions}, weights: {weights}"

    def copy_head(self, segmentation_layer: nn.Conv2d | nn.Conv3d) -> None:
        """Make hT a copy of h: at the start, and where a checkpoint brings a trained h but no hT."""
        if self.teacher_head is not None:
            self.teacher_head.load_state_dict(segmentation_layer.state_dict())

    def set_epoch(self, epoch: int, num_epochs: int) -> None:
        """Move the ramp of the weights and the adversary's strength to this epoch."""
        self.ramp = distillation_ramp(epoch, num_epochs)
        if self.temperature is not None:
            self.temperature.set_epoch(epoch, num_epochs)

    def weights(self) -> dict[str, float]:
        """The current weight of each term that :meth:`forward` returns, ramp included."""
        return {name: weight * self.ramp if name in RAMPED_TERMS else weight for name, weight in self._weights.items()}

    def parameter_groups(self) -> list[dict]:
        """Optimizer groups: theta by plain steps (see :class:`AdversarialTemperature`), the rest like the network."""
        theta = [] if self.temperature is None else list(self.temperature.parameters())
        others = [p for p in self.parameters() if all(p is not t for t in theta)]
        groups = [{"params": others}, {"params": theta, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}]
        return [group for group in groups if group["params"]]

    def diagnostics(self) -> dict[str, Tensor]:
        """Of the last forward pass, detached scalars on its device: ramp, tau, lambda, inter-class similarity."""
        return self._diagnostics

    def forward(
        self,
        features: Tensor,
        logits: Tensor,
        coarse_logits: Tensor,
        target: Tensor,
        labels: Tensor,
        valid: Tensor | None,
    ) -> dict[str, Tensor]:
        """The unweighted terms.

        Args:
            features: F, ``B, D, spatial``.
            logits: z, ``B, K, spatial``.
            coarse_logits: the deep-supervision output of the next coarser decoder stage, ``B, K, coarse``.
            target: nnU-Net's full-resolution target, the ignore label still in it.
            labels, valid: from :func:`nnunet_skd.targets.split_target`.

        Returns:
            One scalar per term with a weight. What must not depend on ignored voxels does not; where every voxel is
            ignored, ``teacher`` is what nnU-Net's loss makes of it and the others are zeros connected to the graph.
        """
        self._diagnostics = {"ramp": torch.full((), self.ramp, device=features.device)}
        terms = {}
        tau = None
        if self.temperature is not None:
            tau = self.temperature()
            self._diagnostics |= {"tau": tau.detach(), "lambda": self.temperature.strength.clone()}

        cells = context = None
        if self.class_wise or self.penultimate_reconstruction is not None:
            cells, voxels = coarse_features(features, valid, tuple(coarse_logits.shape[2:]))
        if self.class_wise:
            # products of thousands of voxels overflow in half precision
            with without_autocast(features):
                masks = prediction_masks(coarse_logits, voxels, has_regions=self.has_regions)
                class_features = class_wise_pooling(cells.to(voxels.dtype), masks, voxels)
                present = present_classes(labels, valid, self.num_outputs, has_regions=self.has_regions)
                self._diagnostics["inter_class_similarity"] = inter_class_similarity(class_features, present)
                taught = present * masks_that_hit(masks, voxels, labels, valid, has_regions=self.has_regions)
                overlaps = region_overlaps(labels, valid) if self.has_regions and self._uses("token") else None
                context = self._class_wise_terms(terms, class_features, masks, taught, overlaps, tau)

        correction = None
        if self.penultimate_reconstruction is not None:
            correction = self.penultimate_reconstruction(cells, context)
        if self._uses("reconstruction"):
            student = cells.to(voxels.dtype)
            terms["reconstruction"] = feature_reconstruction_loss(student, student + correction.detach(), voxels)
        if self._uses("teacher"):
            teacher_logits = self._teacher_logits(features, correction)
            terms["teacher"] = self._segmentation_loss[0](teacher_logits, target)
            if self._uses("adversarial"):
                terms["adversarial"] = temperature_divergence(
                    logits, teacher_logits, tau, valid, has_regions=self.has_regions
                )
        return {name: terms[name] for name in self._weights}

    def _class_wise_terms(
        self,
        terms: dict[str, Tensor],
        class_features: Tensor,
        masks: Tensor,
        taught: Tensor,
        overlaps: Tensor | None,
        tau: Tensor | None,
    ) -> Tensor | None:
        """Add the terms of the classes that are taught; return the context map of FRM_p, if there is one."""
        teacher_features = self.class_wise_reconstruction(class_features.detach())
        tokens = self._tokens(teacher_features, frozen=False) if self._uses("token", "class_wise") else None
        if self._uses("token"):
            terms["token"] = token_loss(tokens, taught, overlaps)
        if self._uses("class_wise"):
            terms["class_wise"] = temperature_divergence(
                self._tokens(class_features, frozen=True).transpose(1, 2),
                tokens.transpose(1, 2),
                tau,
                taught.unsqueeze(1),
                has_regions=self.has_regions,
            )
        if self._uses("class_wise_feature"):
            terms["class_wise_feature"] = class_wise_feature_loss(class_features, teacher_features, taught)
        if self.penultimate_reconstruction is None:
            return None
        return self.penultimate_reconstruction.context_map(self.class_wise_reconstruction(class_features), masks)

    def _tokens(self, class_features: Tensor, *, frozen: bool) -> Tensor:
        """hT on class-wise features instead of voxels: ``B, K', D`` -> ``B, K', K``."""
        weight, bias = self.teacher_head.weight.flatten(1), self.teacher_head.bias
        if frozen:
            weight, bias = weight.detach(), None if bias is None else bias.detach()
        return nn.functional.linear(class_features, weight, bias)

    def _teacher_logits(self, features: Tensor, correction: Tensor | None) -> Tensor:
        """``zT = hT(F + up(correction))``, by linearity without the up-sampled correction: ``B, K, spatial``."""
        logits = self.teacher_head(features)
        if correction is None:
            return logits
        is_2d = features.dim() == 4
        convolve = nn.functional.conv2d if is_2d else nn.functional.conv3d
        raised = nn.functional.interpolate(
            convolve(correction, self.teacher_head.weight),
            size=features.shape[2:],
            mode="bilinear" if is_2d else "trilinear",
        )
        return logits + raised
