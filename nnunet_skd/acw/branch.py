"""ACW-SKD's modules beside the network, and what they make of a step."""

from dataclasses import dataclass

from torch import Tensor, nn

from nnunet_skd.acw.adversarial_temperature import AdversarialTemperature
from nnunet_skd.acw.class_wise_features import (
    class_wise_pooling,
    coarse_features,
    inter_class_similarity,
    masks_that_hit,
    prediction_masks,
    present_classes,
)
from nnunet_skd.acw.feature_reconstruction import ClassWiseReconstruction, PenultimateReconstruction
from nnunet_skd.losses.precision import without_autocast


@dataclass(frozen=True)
class ClassWise:
    """What the step says per class; ``taught``: the classes that are in the patch and whose mask hits them."""

    features: Tensor  # c: B, K', D
    teacher_features: Tensor  # cT, of detached c: B, K', D
    tokens: Tensor  # u = h'(c): B, K', K
    teacher_tokens: Tensor  # uT = hT(cT): B, K', K
    taught: Tensor  # B, K', 1 or 0
    context: Tensor | None  # for FRM_p: B, D, coarse


@dataclass(frozen=True)
class Reconstruction:
    """Everything that the rows of ACW-SKD's table read. A part that no row needs is None."""

    cells: Tensor | None  # F in the coarse head's cells, float32: B, D, coarse
    valid_per_cell: Tensor | None  # B, 1, coarse
    correction: Tensor | None  # FT - F: B, D, coarse
    teacher_logits: Tensor | None  # zT: B, K, spatial
    class_wise: ClassWise | None
    tau: Tensor | None
    log: dict[str, Tensor]  # tau, lambda, inter-class similarity


class ReconstructionBranch(nn.Module):
    """Rebuilds the network's own features into better ones, which teach.

    With F the input and z the output of the segmentation layer h, M the coarse head's masks, c the class-wise features:

        ``cT = FRM_c(c)``,  ``FT = F + up(FRM_p([F ; sum_k M_k cT_k]))``,
        ``zT = hT(FT)``,  ``uT = hT(cT)``,  ``u = h'(c)``

    hT starts as a copy of h; h' is hT without gradient. FRM_p works at the coarse head's resolution and hT is linear,
    so ``zT = hT(F) + up(W_T correction)`` and only K channels are up-sampled.

    Args:
        segmentation_layer: the network's last 1x1 convolution h; gives D, K and 2D or 3D.
        has_regions: whether the dataset trains on regions.
        pixel_wise: whether there is a teacher of the final output (FRM_p and zT).
        class_wise: whether there is a class-wise part (masks, c, FRM_c, context).
        reconstruction: False leaves FRM_p out: zT = hT(F), a second head alone.
        temperature: the module of tau, or None.

    Raises:
        ValueError: for a segmentation layer that is not a 1x1 convolution.
    """

    def __init__(
        self,
        segmentation_layer: nn.Conv2d | nn.Conv3d,
        *,
        has_regions: bool,
        pixel_wise: bool,
        class_wise: bool,
        reconstruction: bool,
        temperature: AdversarialTemperature | None,
    ):
        super().__init__()
        if type(segmentation_layer) not in (nn.Conv2d, nn.Conv3d) or set(segmentation_layer.kernel_size) != {1}:
            raise ValueError(f"the segmentation layer must be a 1x1 Conv2d or Conv3d, got {segmentation_layer}")
        self.has_regions = has_regions
        self.pixel_wise, self.class_wise = pixel_wise, class_wise
        conv, channels = type(segmentation_layer), segmentation_layer.in_channels
        self.num_outputs = segmentation_layer.out_channels
        self.penultimate_reconstruction = self.class_wise_reconstruction = None
        if reconstruction and pixel_wise:
            self.penultimate_reconstruction = PenultimateReconstruction(channels, conv, context=class_wise)
        if class_wise:
            self.class_wise_reconstruction = ClassWiseReconstruction(channels)
        self.teacher_head = conv(channels, self.num_outputs, 1, bias=segmentation_layer.bias is not None)
        self.copy_head(segmentation_layer)
        self.temperature = temperature

    def copy_head(self, segmentation_layer: nn.Conv2d | nn.Conv3d) -> None:
        """Make hT a copy of h: at the start, and where a trained h came without hT."""
        self.teacher_head.load_state_dict(segmentation_layer.state_dict())

    def forward(self, features: Tensor, coarse_logits: Tensor, labels: Tensor, valid: Tensor | None) -> Reconstruction:
        """One step.

        Args:
            features: F, ``B, D, spatial``.
            coarse_logits: the deep-supervision output of the next coarser decoder stage, ``B, K, coarse``.
            labels, valid: from :func:`nnunet_skd.losses.probabilities.split_target`.
        """
        tau, log = None, {}
        if self.temperature is not None:
            tau = self.temperature()
            log = {"tau": tau.detach(), "lambda": self.temperature.strength.clone()}
        cells = valid_per_cell = class_wise = correction = None
        if self.class_wise or self.penultimate_reconstruction is not None:
            cells, valid_per_cell = coarse_features(features, valid, tuple(coarse_logits.shape[2:]))
        if self.class_wise:
            # products of thousands of voxels overflow in half precision
            with without_autocast(features):
                class_wise = self._class_wise(cells, valid_per_cell, coarse_logits, labels, valid, log)
        if self.penultimate_reconstruction is not None:
            correction = self.penultimate_reconstruction(cells, None if class_wise is None else class_wise.context)
        return Reconstruction(
            cells=None if cells is None else cells.to(valid_per_cell.dtype),
            valid_per_cell=valid_per_cell,
            correction=correction,
            teacher_logits=self._teacher_logits(features, correction) if self.pixel_wise else None,
            class_wise=class_wise,
            tau=tau,
            log=log,
        )

    def _class_wise(
        self,
        cells: Tensor,
        valid_per_cell: Tensor,
        coarse_logits: Tensor,
        labels: Tensor,
        valid: Tensor | None,
        log: dict,
    ) -> ClassWise:
        masks = prediction_masks(coarse_logits, valid_per_cell, has_regions=self.has_regions)
        features = class_wise_pooling(cells.to(valid_per_cell.dtype), masks, valid_per_cell)
        present = present_classes(labels, valid, self.num_outputs, has_regions=self.has_regions)
        log["inter_class_similarity"] = inter_class_similarity(features, present)
        teacher_features = self.class_wise_reconstruction(features.detach())
        context = None
        if self.penultimate_reconstruction is not None:
            context = self.penultimate_reconstruction.context_map(self.class_wise_reconstruction(features), masks)
        return ClassWise(
            features=features,
            teacher_features=teacher_features,
            tokens=self._tokens(features, frozen=True),
            teacher_tokens=self._tokens(teacher_features, frozen=False),
            taught=present * masks_that_hit(masks, valid_per_cell, labels, valid, has_regions=self.has_regions),
            context=context,
        )

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
