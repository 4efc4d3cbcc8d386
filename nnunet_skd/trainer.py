"""The trainer that attaches self-knowledge distillation to nnU-Net."""

import os

import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.helpers import dummy_context
from torch import distributed, nn
from torch._dynamo import OptimizedModule

from nnunet_skd.deep_distribution_loss import DeepDistributionLoss
from nnunet_skd.distillation_log import DistillationLog
from nnunet_skd.self_distillation_loss import SelfDistillationLoss
from nnunet_skd.teacher import Teacher


class SelfDistillationTrainer(nnUNetTrainer):
    """nnU-Net's trainer with self-distillation terms around its loss; the weights, 0 here, make the method.

    The network, its state dict, the validation loss and inference stay nnU-Net's. The hyper-parameters are the class
    attributes below; a trainer for ``-tr`` is a subclass that sets some of them (see ``trainers/``).
    """

    # Deep distribution loss, see nnunet_skd.deep_distribution_loss
    ddl_weight = 0.0
    ddl_patches_per_axis = 4
    ddl_temperature = 3.0
    ddl_counts = "log"
    ddl_direction = "student_teacher"
    # Pixel-wise self-knowledge distillation, see nnunet_skd.pixelwise_distillation; alpha rises linearly to psdl_alpha
    psdl_weight = 0.0
    psdl_alpha = 0.5

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
        self.loss = self._build_self_distillation_loss().to(self.device)
        self.teacher = None
        if self.loss.needs_teacher:
            self.teacher = Teacher(network, compile_network=self._do_i_compile())

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

    def _build_self_distillation_loss(self) -> SelfDistillationLoss:
        base = self.loss.loss
        if self.psdl_weight and not isinstance(base, (DC_and_CE_loss, DC_and_BCE_loss)):
            raise NotImplementedError(
                f"{type(self).__name__} softens the targets of nnU-Net's cross-entropy, but the loss "
                f"{type(base).__name__} is not nnU-Net's Dice and cross-entropy. Set psdl_weight = 0 in your trainer."
            )
        return SelfDistillationLoss(
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
            psdl_weight=self.psdl_weight,
            cross_entropy_weight=getattr(base, "weight_ce", 0.0),
        )

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
        if self.teacher is not None and self.current_epoch > 0:
            self.teacher.update(self._plain_network())

    def train_step(self, batch: dict) -> dict:
        if self.teacher is not None and self.current_epoch > 0:
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
        for logger in self.logger.loggers:  # nnU-Net's external loggers (W&B), when the user switched them on
            for name, value in row.items():
                logger.log(f"distillation/{name}", value, self.current_epoch)

    def _gather(self, means: dict[str, float]) -> dict[str, float]:
        """Mean over the ranks of DDP."""
        if not self.is_ddp:
            return means
        ranks = [None] * distributed.get_world_size()
        distributed.all_gather_object(ranks, means)
        return {name: sum(rank[name] for rank in ranks) / len(ranks) for name in means}

    def _distillation_row(self, terms: dict[str, float]) -> dict[str, float]:
        """The terms as added to the loss, their shares and the schedules of this epoch.

        nnU-Net's Dice loss is minus the Dice, so its segmentation loss is counted from its minimum -1 for the shares.
        """
        row = {name: terms.get(name, 0.0) for name in ("segmentation", *self._term_names())}
        sizes = {name: abs(value + 1 if name == "segmentation" else value) for name, value in row.items()}
        total = sum(sizes.values()) or 1.0
        row |= {f"share_{name}": size / total for name, size in sizes.items()}
        if self.psdl_weight:
            row["alpha"] = self.loss.alpha
        return row

    def _term_names(self) -> list[str]:
        return [name for name, weight in (("ddl", self.ddl_weight), ("psdl", self.psdl_weight)) if weight]

    def on_validation_epoch_start(self):
        super().on_validation_epoch_start()
        self.loss.eval()

    def on_epoch_end(self):
        if self.local_rank == 0:
            self.distillation_log.plot()
        super().on_epoch_end()

    def save_checkpoint(self, filename: str) -> None:
        """Write beside the target and move into place: a kill at any moment leaves a loadable checkpoint."""
        temporary = f"{filename}.tmp"
        super().save_checkpoint(temporary)
        if self.local_rank == 0 and not self.disable_checkpointing:
            os.replace(temporary, filename)

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
