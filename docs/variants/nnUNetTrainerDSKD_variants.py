"""The trainings behind docs/results.md: short protocols, what they measure, and variants that did not earn their place.

    export nnUNet_extTrainer="docs/variants:$(nnunet-skd path)"
    nnUNet_n_proc_DA=0 nnUNetv2_train 80 2d_cpu_small 0 -tr nnUNetTrainerDSKD_short -device cpu

Every protocol starts from a seed, and without background workers (nnUNet_n_proc_DA=0) gives all trainers the same
batches: they are the same training until the first teacher appears, after epoch 0.
"""

import math
import random
from copy import deepcopy

import numpy as np
import pandas as pd
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunet_skd.deep_distribution_loss import class_probabilities
from nnunet_skd.pixelwise_distillation import teacher_minus_truth
from nnunet_skd.self_distillation_loss import SelfDistillationLoss
from nnunet_skd.trainers.nnUNetTrainerACWSKD import nnUNetTrainerACWSKD, nnUNetTrainerACWSKD_noCW
from nnunet_skd.trainers.nnUNetTrainerDSKD import nnUNetTrainerDSKD, nnUNetTrainerDSKD_noDDL
from nnunet_skd.trainers.nnUNetTrainerDSKD_ACW import nnUNetTrainerDSKD_ACW


class Protocol(nnUNetTrainer):
    """A seeded training of a few epochs; validation without mirroring, which takes most of a CPU's time otherwise."""

    seed = 0
    epochs = 20
    iterations = 100
    validation_iterations = 20

    @staticmethod
    def build_network_architecture(plans_manager, configuration_manager, c_in, c_out, enable_deep_supervision=True):
        network = nnUNetTrainer.build_network_architecture(
            plans_manager, configuration_manager, c_in, c_out, enable_deep_supervision
        )
        if any(isinstance(module, nn.Conv3d) for module in network.modules()):
            network.to(memory_format=torch.channels_last_3d)  # measured: a quarter less time on the CPU
        return network

    def _seed(self):
        random.seed(self.seed)
        np.random.seed(self.seed)
        torch.manual_seed(self.seed)

    def initialize(self):
        if self.device.type != "cpu":
            raise NotImplementedError("these trainings measure gradients on the CPU: add -device cpu")
        self.num_epochs, self.num_iterations_per_epoch = self.epochs, self.iterations
        self.num_val_iterations_per_epoch = self.validation_iterations
        self._seed()
        super().initialize()

    def on_train_start(self):
        super().on_train_start()
        self._seed()  # the trainers' own modules have drawn from the generators
        self._measured = []

    def train_step(self, batch):
        self._last_batch = batch
        return super().train_step(batch)

    def on_train_epoch_end(self, train_outputs):
        super().on_train_epoch_end(train_outputs)
        if hasattr(self.loss, "terms"):
            self._measured.append({"epoch": self.current_epoch, **self._measure()})
            pd.DataFrame(self._measured).to_csv(f"{self.output_folder}/gradients.csv", index=False)

    def _measure(self) -> dict[str, float]:
        """On an epoch's last batch, after its last step.

        moved: ||student - teacher|| / ||student|| of the weights. differs: share of voxels in which their label maps
        differ. gradient_*: norm of the gradient of each term, weight included, in the network's parameters.
        """
        row = {}
        parameters = list(self.network.parameters())
        if self._has_teacher():
            self.loss.teacher_outputs = self.teacher(self._last_batch["data"])
            pairs = zip(parameters, self.teacher.parameters(), strict=True)
            moved = sum((a - b).square().sum() for a, b in pairs) / sum(a.square().sum() for a in parameters)
            row["moved"] = moved.sqrt().item()
        outputs = self.network(self._last_batch["data"])
        if self._has_teacher():
            row["differs"] = (outputs[0].argmax(1) != self.loss.teacher_outputs[0].argmax(1)).float().mean().item()
        for name, term in self.loss.terms(outputs, self._last_batch["target"]).items():
            gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
            row[f"gradient_{name}"] = math.sqrt(sum(g.square().sum().item() for g in gradients if g is not None))
        self.loss.pop_means()  # this was no training step
        return row

    def on_train_end(self):
        super().on_train_end()
        self.inference_allowed_mirroring_axes = None


class Long(Protocol):
    """20 of nnU-Net's epochs."""

    iterations = 250


class Fine(Protocol):
    """10 short epochs from -pretrained_weights that know some of the classes, so that the rest must be found anew."""

    epochs = 10


class Brief(Protocol):
    """Half as long, for a network of the plan's own width."""

    epochs = 10


class Overfit(Protocol):
    """250 short epochs, some 600 patches of each of 32 images: where soft targets should pay."""

    epochs = 250
    iterations = 20
    validation_iterations = 4


class nnUNetTrainerDSKD_mixed(nnUNetTrainerDSKD):
    """DDL towards ``alpha * teacher + (1 - alpha) * truth`` per patch, as PSDL per voxel.

    DSKD's teacher is the network of an epoch ago. Where it does not know a class yet, DDL pulls the student's first
    finds of that class down again (PSDL only lowers their target to 1 - alpha). With the truth in the target both pull
    up. As alpha starts at 0, this DDL begins as a supervised loss of patch proportions, and at least half of its target
    stays the truth.
    """

    ddl_target = "mixed"


class nnUNetTrainerDSKD_pyramid(nnUNetTrainerDSKD):
    """DDL as the mean over 4, 8 and 16 patches per axis: a vessel is thin, a patch of a quarter of the image is not."""

    def _build_self_distillation_loss(self):
        loss = super()._build_self_distillation_loss()
        grids = [deepcopy(loss.ddl) for _ in range(3)]
        for grid, patches in zip(grids, (4, 8, 16), strict=True):
            grid.patches_per_axis = patches
        loss.ddl = _MeanOverGrids(grids)
        return loss


class _MeanOverGrids(nn.Module):
    def __init__(self, grids):
        super().__init__()
        self.grids = nn.ModuleList(grids)

    def patches(self, full_size, valid, dtype):
        return _PatchesOfGrids([grid.patches(full_size, valid, dtype) for grid in self.grids])

    def forward(self, fractions, target_fractions, patches):
        losses = [
            grid([f[g] for f in fractions], [f[g] for f in target_fractions], [p.grids[g] for p in patches])
            for g, grid in enumerate(self.grids)
        ]
        return sum(losses) / len(losses)


class _PatchesOfGrids:
    def __init__(self, grids):
        self.grids = grids

    def fractions(self, values):
        return [grid.fractions(values) for grid in self.grids]


class nnUNetTrainerDSKD_heads(nnUNetTrainerDSKD):
    """PSDL on every supervised output, by its weight in nnU-Net's loss: the coarse heads learn soft targets as well."""

    def _build_self_distillation_loss(self):
        loss = super()._build_self_distillation_loss()
        loss.__class__ = _PixelsOfEveryHead
        return loss


class _PixelsOfEveryHead(SelfDistillationLoss):
    def _dskd_terms(self, outputs, target, teacher_outputs, labels, valid):
        coarse = self.supervised[1:]
        # before the other terms use them up
        probabilities = [class_probabilities(teacher_outputs[i], has_regions=self.has_regions) for i in coarse]
        terms = super()._dskd_terms(outputs, target, teacher_outputs, labels, valid)
        if self.alpha == 0:
            return terms
        factors = self.segmentation_loss.weight_factors
        for i, teacher in zip(coarse, probabilities, strict=True):
            labels, valid = self._split(target[i])
            difference = teacher_minus_truth(teacher, labels, valid, has_regions=self.has_regions)
            weight = self.psdl_weight * self.cross_entropy_weight * factors[i] / factors[0] * self.alpha
            terms["psdl"] = terms["psdl"] + weight * self.psdl(outputs[i], difference, valid)
        return terms


class nnUNetTrainerDSKD_ema(nnUNetTrainerDSKD):
    """Teacher as the exponential moving average of the weights, 0.999 per step: a last-epoch teacher jumps, and becomes
    the student as the learning rate decays. Not kept in the checkpoint: a training cannot be continued."""

    teacher_decay = 0.999

    def on_train_epoch_start(self):
        update, self.teacher.update = self.teacher.update, lambda network: None
        super().on_train_epoch_start()
        self.teacher.update = update
        if self.current_epoch == 1:
            self.teacher.update(self._plain_network())

    @torch.no_grad()
    def _follow(self):
        for mean, value in zip(self.teacher.parameters(), self._plain_network().parameters(), strict=True):
            mean.lerp_(value, 1 - self.teacher_decay)

    def train_step(self, batch):
        result = super().train_step(batch)
        if self._has_teacher():
            self._follow()
        return result


class nnUNetTrainerACWSKD_head(nnUNetTrainerACWSKD_noCW):
    """ACW-SKD without class-wise part and FRM: a second head, and the temperature."""

    feature_reconstruction = False


class nnUNetTrainerACWSKD_cw01(nnUNetTrainerACWSKD):
    """The class-wise distillation at its first weight: up to 2.5 times the segmentation loss's gradient."""

    class_wise_weight = 0.1
    class_wise_feature_weight = 0.1


class TwiceTheRate(Fine):
    """A control: ACW-SKD's second segmentation loss doubles the network's gradient, nearly."""

    def initialize(self):
        self.initial_lr = 2e-2
        super().initialize()


# ruff: noqa: E701
# fmt: off
class nnUNetTrainer_short(Protocol): pass
class nnUNetTrainerDSKD_short(Protocol, nnUNetTrainerDSKD): pass
class nnUNetTrainerDSKD_mixed_short(Protocol, nnUNetTrainerDSKD_mixed): pass
class nnUNetTrainerDSKD_pyramid_short(Protocol, nnUNetTrainerDSKD_pyramid): pass
class nnUNetTrainerDSKD_ema_short(Protocol, nnUNetTrainerDSKD_ema): pass
class nnUNetTrainerDSKD_heads_short(Protocol, nnUNetTrainerDSKD_heads): pass
class nnUNetTrainerACWSKD_short(Protocol, nnUNetTrainerACWSKD): pass
class nnUNetTrainerACWSKD_cw01_short(Protocol, nnUNetTrainerACWSKD_cw01): pass
class nnUNetTrainerDSKD_ACW_short(Protocol, nnUNetTrainerDSKD_ACW): pass

class nnUNetTrainer_brief(Brief): pass
class nnUNetTrainerDSKD_brief(Brief, nnUNetTrainerDSKD): pass
class nnUNetTrainerACWSKD_brief(Brief, nnUNetTrainerACWSKD): pass
class nnUNetTrainerDSKD_ACW_brief(Brief, nnUNetTrainerDSKD_ACW): pass

class nnUNetTrainer_overfit(Overfit): pass
class nnUNetTrainerDSKD_mixed_overfit(Overfit, nnUNetTrainerDSKD_mixed): pass

class nnUNetTrainer_fine0(Fine): pass
class nnUNetTrainerDSKD_fine0(Fine, nnUNetTrainerDSKD): pass
class nnUNetTrainerDSKD_noDDL_fine0(Fine, nnUNetTrainerDSKD_noDDL): pass
class nnUNetTrainerDSKD_mixed_fine0(Fine, nnUNetTrainerDSKD_mixed): pass
class nnUNetTrainerDSKD_pyramid_fine0(Fine, nnUNetTrainerDSKD_pyramid): pass
class nnUNetTrainerDSKD_ema_fine0(Fine, nnUNetTrainerDSKD_ema): pass
class nnUNetTrainerDSKD_heads_fine0(Fine, nnUNetTrainerDSKD_heads): pass
class nnUNetTrainerACWSKD_fine0(Fine, nnUNetTrainerACWSKD): pass
class nnUNetTrainerACWSKD_cw01_fine0(Fine, nnUNetTrainerACWSKD_cw01): pass
class nnUNetTrainerACWSKD_noCW_fine0(Fine, nnUNetTrainerACWSKD_noCW): pass
class nnUNetTrainerACWSKD_head_fine0(Fine, nnUNetTrainerACWSKD_head): pass
class nnUNetTrainerDSKD_ACW_fine0(Fine, nnUNetTrainerDSKD_ACW): pass
class nnUNetTrainer_lr2_fine0(TwiceTheRate): pass

class nnUNetTrainer_fine1(nnUNetTrainer_fine0): seed = 1
class nnUNetTrainerDSKD_mixed_fine1(nnUNetTrainerDSKD_mixed_fine0): seed = 1
class nnUNetTrainerACWSKD_noCW_fine1(nnUNetTrainerACWSKD_noCW_fine0): seed = 1

class nnUNetTrainer_long(Long): pass
class nnUNetTrainer_start(Long): epochs = 10
class nnUNetTrainerACWSKD_long(Long, nnUNetTrainerACWSKD): pass
class nnUNetTrainerDSKD_ACW_long(Long, nnUNetTrainerDSKD_ACW): pass
# fmt: on
