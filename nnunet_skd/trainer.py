"""The trainer that attaches self-knowledge distillation to nnU-Net."""

import math
import os

import pandas as pd
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.helpers import dummy_context, softmax_helper_dim1
from torch import distributed, nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from nnunet_skd.acw_skd import AdversarialClassWiseDistillation
from nnunet_skd.deep_distribution_loss import DeepDistributionLoss
from nnunet_skd.distillation_log import DistillationLog
from nnunet_skd.feature_tap import FeatureTap
from nnunet_skd.self_distillation_loss import SelfDistillationLoss
from nnunet_skd.teacher import Teacher

CHECKPOINT_KEY = "distillation"
DDL_TARGETS = ("teacher", "mixed")
# the terms that compare with a teacher, as opposed to those that supervise
DISTILLATION_TERMS = ("ddl", "adversarial", "class_wise", "class_wise_feature", "reconstruction")


class SelfDistillationTrainer(nnUNetTrainer):
    """nnU-Net's trainer with self-distillation terms around its loss; the weights, 0 here, make the method.

    The network, its state dict, the validation loss and inference stay nnU-Net's. The hyper-parameters are the class
    attributes below; a trainer for ``-tr`` is a subclass that sets some of them (see ``trainers/``).
    """

    # Deep distribution loss, see nnunet_skd.deep_distribution_loss; its target: the teacher's patch distribution, or
    # "mixed" with the truth's by PSDL's alpha (ours, tried in docs/results.md)
    ddl_weight = 0.0
    ddl_patches_per_axis = 4
    ddl_temperature = 3.0
    ddl_counts = "log"
    ddl_direction = "student_teacher"
    ddl_target = "teacher"
    # Pixel-wise self-knowledge distillation, see nnunet_skd.pixelwise_distillation; alpha rises linearly to psdl_alpha
    psdl_weight = 0.0
    psdl_alpha = 0.5
    # Adversarial class-wise self-knowledge distillation, see nnunet_skd.acw_skd
    teacher_weight = 0.0
    token_weight = 0.0
    adversarial_weight = 0.0
    class_wise_weight = 0.0
    class_wise_feature_weight = 0.0
    reconstruction_weight = 0.0
    feature_reconstruction = True
    tau_min = 1.0
    tau_range = 4.0

    def initialize(self):
        """nnU-Net's initialisation, then the loss and the teacher.

        Raises:
            NotImplementedError: where there is nothing to distil from: deep supervision off, fewer than two outputs, a
                network without deep-supervision outputs, or a loss without cross-entropy for the pixel-wise term.
        """
        self._refuse_what_cannot_work()
        super().initialize()
        network = self._plain_network()
        if not hasattr(getattr(network, "decoder", None), "deep_supervision"):
            raise NotImplementedError(
                f"{type(self).__name__} distils from deep-supervision outputs, and {type(network).__name__} "
                f"has none. Use a U-Net of nnU-Net's planners (plain or residual encoder)."
            )
        self.loss = self._build_self_distillation_loss()
        self.teacher = None
        if self.loss.needs_teacher:
            self.teacher = Teacher(network, compile_network=self._do_i_compile())
        if self._uses_acw():
            self._attach_acw(network)

    def _refuse_what_cannot_work(self):
        name = type(self).__name__
        if not self.enable_deep_supervision:
            raise NotImplementedError(
                f"{name} distils from deep-supervision outputs, but deep supervision is switched off. "
                f"Do not combine it with a trainer that sets enable_deep_supervision = False."
            )
        outputs = len(self._get_deep_supervision_scales())
        if outputs < 2:
            raise NotImplementedError(
                f"{name} needs at least two deep-supervision outputs, but configuration {self.configuration_name} of "
                f"{self.plans_manager.plans_name} gives {outputs}: its network has {outputs + 1} stages. Use plans "
                f"with three or more stages (larger patches, or a planner with more GPU memory)."
            )
        if self._uses_acw() and outputs < 3:
            raise NotImplementedError(
                f"{name} takes its coarse masks from the second deep-supervision output, and nnU-Net does not train "
                f"the lowest of the {outputs} outputs of configuration {self.configuration_name}. Use plans with four "
                f"or more stages."
            )

    def _build_self_distillation_loss(self) -> SelfDistillationLoss:
        base = self.loss.loss
        if self.ddl_target not in DDL_TARGETS:
            raise ValueError(f"ddl_target must be one of {DDL_TARGETS}, got {self.ddl_target!r}")
        if self.psdl_weight and not _has_plain_cross_entropy(base):
            raise NotImplementedError(
                f"{type(self).__name__} softens the targets of nnU-Net's cross-entropy, but the loss "
                f"{type(base).__name__} is not nnU-Net's Dice and cross-entropy, without class weights or label "
                f"smoothing. Set psdl_weight = 0 in your trainer."
            )
        loss = SelfDistillationLoss(
            self.loss,
            has_regions=self.label_manager.has_regions,
            ignore_label=self.label_manager.ignore_label,
            ddl=DeepDistributionLoss(
                has_regions=self.label_manager.has_regions,
                patches_per_axis=self.ddl_patches_per_axis,
                temperature=self.ddl_temperature,
                counts=self.ddl_counts,
                direction=self.ddl_direction,
            ),
            ddl_weight=self.ddl_weight,
            ddl_mixed=self.ddl_target == "mixed",
            psdl_weight=self.psdl_weight,
            cross_entropy_weight=getattr(base, "weight_ce", 0.0),
        )
        dice = getattr(base, "dc", None)
        nonlinearity = torch.sigmoid if self.label_manager.has_regions else softmax_helper_dim1
        if getattr(dice, "apply_nonlin", None) is nonlinearity:
            loss.share_probabilities(dice)
        return loss

    def _acw_weights(self) -> dict[str, float]:
        return {
            "teacher_weight": self.teacher_weight,
            "token_weight": self.token_weight,
            "adversarial_weight": self.adversarial_weight,
            "class_wise_weight": self.class_wise_weight,
            "class_wise_feature_weight": self.class_wise_feature_weight,
            "reconstruction_weight": self.reconstruction_weight,
        }

    def _uses_acw(self) -> bool:
        return any(self._acw_weights().values())

    def _attach_acw(self, network: nn.Module):
        """ACW-SKD's module beside the network: its own parameter groups, gradient clipping and DDP wrapper."""
        acw = AdversarialClassWiseDistillation(
            network.decoder.seg_layers[-1],
            has_regions=self.label_manager.has_regions,
            segmentation_loss=self.loss.segmentation_loss.loss,
            feature_reconstruction=self.feature_reconstruction,
            tau_min=self.tau_min,
            tau_range=self.tau_range,
            **self._acw_weights(),
        )
        adversary = [] if acw.temperature is None else list(acw.temperature.parameters())
        if adversary and not isinstance(self.optimizer, torch.optim.SGD):
            raise NotImplementedError(
                f"the adversarial temperature moves by plain gradient steps, and {type(self.optimizer).__name__} makes "
                f"others of them: it would run to its bound. Use a trainer with SGD, or set adversarial_weight = 0."
            )
        forward = acw
        parameters = list(acw.parameters())
        if parameters:
            for group in acw.parameter_groups():
                self.optimizer.add_param_group(group)
            self.optimizer.register_step_pre_hook(lambda *_: _clip(parameters))
            if self.is_ddp:
                forward = DistributedDataParallel(
                    acw, device_ids=[self.local_rank] if self.device.type == "cuda" else None
                )
        self.loss.attach_acw(acw, FeatureTap(network.decoder.seg_layers[-1]), forward)

    def _plain_network(self) -> nn.Module:
        """The network without the wrappers of DDP and torch.compile."""
        network = self.network.module if self.is_ddp else self.network
        return network._orig_mod if isinstance(network, OptimizedModule) else network

    def on_train_start(self):
        super().on_train_start()
        if self.local_rank == 0:
            self.distillation_log = DistillationLog(self.output_folder, self.current_epoch)

    def on_train_epoch_start(self):
        """The teacher becomes the network at the end of the previous epoch, which is also what a checkpoint holds."""
        super().on_train_epoch_start()
        self.loss.train()
        self.loss.alpha = self.psdl_alpha * self.current_epoch / self.num_epochs
        if self.loss.acw is not None:
            self.loss.acw.set_epoch(self.current_epoch, self.num_epochs)
        if self._has_teacher():
            self.teacher.update(self._plain_network())

    def _has_teacher(self) -> bool:
        """From the second epoch on, where a term needs one."""
        return self.teacher is not None and self.current_epoch > 0

    def train_step(self, batch: dict) -> dict:
        if self._has_teacher():
            batch["data"] = batch["data"].to(self.device, non_blocking=True)
            # as nnU-Net: mixed precision on CUDA only
            with torch.autocast(self.device.type) if self.device.type == "cuda" else dummy_context():
                self.loss.teacher_outputs = self.teacher(batch["data"])
        return super().train_step(batch)

    def on_train_epoch_end(self, train_outputs: list[dict]):
        super().on_train_epoch_end(train_outputs)
        row = self._distillation_row(self._gather(self.loss.pop_means()))
        if self.local_rank != 0:
            return
        self.print_to_log_file("Distillation", ", ".join(f"{name} {value:.4g}" for name, value in row.items()))
        self.distillation_log.append({"epoch": self.current_epoch, **row})
        for warning in self._warnings(row):
            self.print_to_log_file("WARNING:", warning)
        for logger in self.logger.loggers:  # nnU-Net's external loggers (W&B), when the user switched them on
            for name, value in row.items():
                logger.log(f"distillation/{name}", value, self.current_epoch)

    def _gather(self, means: dict[str, float]) -> dict[str, float]:
        """Mean over the ranks of DDP, of those where a value is defined."""
        if not self.is_ddp:
            return means
        ranks = [None] * distributed.get_world_size()
        distributed.all_gather_object(ranks, means)
        return pd.DataFrame(ranks).mean().to_dict()

    def _distillation_row(self, means: dict[str, float]) -> dict[str, float]:
        """The terms as added to the loss, their shares of it, and the schedules of this epoch.

        nnU-Net's Dice loss is minus the Dice, so what holds it is counted from its minimum for the shares.
        """
        terms = {name: means.pop(name, 0.0) for name in self._term_names()}
        dice_weight = getattr(self.loss.segmentation_loss.loss, "weight_dice", 0.0)
        dice = {"segmentation": dice_weight, "teacher": self.teacher_weight * dice_weight}
        sizes = {name: abs(value + dice.get(name, 0.0)) for name, value in terms.items()}
        total = sum(sizes.values()) or 1.0
        row = terms | {f"share_{name}": size / total for name, size in sizes.items()}
        if self.psdl_weight or self.loss.ddl_mixed:
            row["alpha"] = self.loss.alpha
        return row | means

    def _term_names(self) -> list[str]:
        names = ["segmentation"]
        names += [name for name, weight in (("ddl", self.ddl_weight), ("psdl", self.psdl_weight)) if weight]
        return names if self.loss.acw is None else [*names, *self.loss.acw.weights()]

    def _warnings(self, row: dict[str, float]) -> list[str]:
        """What a user should look at after this epoch."""
        segmentation = row["share_segmentation"] + row.get("share_psdl", 0.0)
        warnings = [
            f"the {name} term is larger than the segmentation loss; lower its weight or look at distillation.png"
            for name in DISTILLATION_TERMS
            if row.get(f"share_{name}", 0.0) > segmentation
        ]
        last = self.distillation_log.rows[-5:]
        margin = 0.02 * self.tau_range
        for bound in (self.tau_min, self.tau_min + self.tau_range):
            if (
                "tau" in row
                and len(last) == 5
                and all(abs(past.get("tau", math.nan) - bound) <= margin for past in last)
            ):
                warnings.append(
                    f"tau = {row['tau']:.3f} has been within 2 % of its bound {bound:g} for 5 epochs: the adversary "
                    f"has saturated, the temperature is as good as fixed"
                )
        return warnings

    def on_validation_epoch_start(self):
        super().on_validation_epoch_start()
        self.loss.eval()

    def on_epoch_end(self):
        if self.local_rank == 0:
            self.distillation_log.plot()
        super().on_epoch_end()

    def save_checkpoint(self, filename: str) -> None:
        """Write beside the target and move into place: a kill at any moment leaves a loadable checkpoint.

        ACW-SKD's tensors go under a key of their own, so that the rest stays an ordinary nnU-Net checkpoint.
        """
        temporary = f"{filename}.tmp"
        super().save_checkpoint(temporary)
        if self.local_rank != 0 or self.disable_checkpointing:
            return
        if self.loss.acw is not None:
            checkpoint = torch.load(temporary, map_location="cpu", weights_only=False)
            checkpoint[CHECKPOINT_KEY] = self.loss.acw.state_dict()
            torch.save(checkpoint, temporary)
        os.replace(temporary, filename)

    def load_checkpoint(self, filename: str) -> None:
        """Continue from a checkpoint; one without ACW-SKD's state (stock nnU-Net's, DSKD's) starts that part anew.

        Raises:
            RuntimeError: the checkpoint holds the state of other ACW-SKD modules than this trainer has.
        """
        if not self.was_initialized:
            self.initialize()
        acw = self.loss.acw
        checkpoint = torch.load(filename, map_location=self.device, weights_only=False)
        state, trainer_name = checkpoint.get(CHECKPOINT_KEY), checkpoint["trainer_name"]
        del checkpoint
        if state is None and acw is not None:
            self._load_without_acw_state(filename, trainer_name)
            return
        expected = {} if acw is None else {name: value.shape for name, value in acw.state_dict().items()}
        if {name: value.shape for name, value in (state or {}).items()} != expected:
            raise RuntimeError(
                f"{filename} was written by {trainer_name} and holds modules of ACW-SKD that {type(self).__name__} "
                f"does not have in this form. Continue it with {trainer_name} and its version, or start anew "
                f"from its network with -pretrained_weights."
            )
        super().load_checkpoint(filename)
        if acw is not None:
            acw.load_state_dict(state)

    def _load_without_acw_state(self, filename: str, trainer_name: str) -> None:
        added_groups = self.optimizer.param_groups[1:]
        del self.optimizer.param_groups[1:]  # the checkpoint's optimizer knows the network only
        super().load_checkpoint(filename)
        for group in added_groups:
            self.optimizer.add_param_group(group)
        self.loss.acw.copy_head(self._plain_network().decoder.seg_layers[-1])
        self.print_to_log_file(
            f"{filename} was written by {trainer_name} and holds no state of {type(self).__name__}'s reconstruction "
            f"modules, teacher head and temperature: these start anew. Network, optimizer and epoch continue."
        )

    def on_train_end(self):
        super().on_train_end()
        device = "" if self.device.type == "cuda" else f" -device {self.device.type}"
        previous_stage = " -prev_stage_predictions PREVIOUS_STAGE_FOLDER" if self.is_cascaded else ""
        self.print_to_log_file(
            "Predict with this model:\n"
            f"nnUNetv2_predict -i INPUT_FOLDER -o OUTPUT_FOLDER -d {self.plans_manager.dataset_name} "
            f"-c {self.configuration_name} -tr {type(self).__name__} -p {self.plans_manager.plans_name} "
            f"-f {self.fold}{previous_stage}{device}",
            add_timestamp=False,
        )


def _has_plain_cross_entropy(loss: nn.Module) -> bool:
    """PSDL completes an unweighted, unsmoothed cross-entropy."""
    if isinstance(loss, DC_and_CE_loss):
        return loss.ce.weight is None and loss.ce.label_smoothing == 0
    return isinstance(loss, DC_and_BCE_loss) and loss.ce.weight is None and loss.ce.pos_weight is None


def _clip(parameters: list[nn.Parameter]) -> None:
    """To the norm that nnU-Net clips the network's gradients to; called after mixed precision's unscaling."""
    nn.utils.clip_grad_norm_(parameters, 12)
