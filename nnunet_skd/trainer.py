"""The trainer that attaches self-knowledge distillation to nnU-Net."""

from copy import deepcopy

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from torch._dynamo import OptimizedModule

from nnunet_skd import checks
from nnunet_skd.checkpoint import check_extra, extra_state, read_extra, restore_extra, written_aside
from nnunet_skd.compat import external_loggers
from nnunet_skd.epoch_log import DistillationLog, mean_over_ranks, plot_is_due
from nnunet_skd.loss import SelfDistillationLoss
from nnunet_skd.losses.precision import mixed_precision
from nnunet_skd.losses.term import Term
from nnunet_skd.own_parameters import OwnParameters
from nnunet_skd.second_stream import UnlabelledStream, gradients_of, open_stream, processes_shared
from nnunet_skd.stream_cases import stream_cases
from nnunet_skd.teachers import Teacher


class SelfDistillationTrainer(nnUNetTrainer):
    """nnU-Net's trainer with a teacher, and terms beside its loss.

    The network, its state dict, the validation loss and inference stay nnU-Net's. A trainer for ``-tr`` is a subclass
    that declares its terms and, where they need one, its teacher (see ``trainers/``).

    Attributes:
        terms: the summands beside nnU-Net's loss, see :class:`nnunet_skd.losses.term.Term`.
        teacher: see :class:`nnunet_skd.teachers.Teacher`.
        unlabelled_per_labelled: patches without labels beside each of nnU-Net's; 0: none.
        needs_unlabelled: refuse a training without images that nobody labelled, and without ignored voxels.
    """

    terms: tuple[Term, ...] = ()
    teacher: Teacher | None = None
    unlabelled_per_labelled = 0.0
    needs_unlabelled = False
    stream: UnlabelledStream | None = None
    unlabelled: list[str] | None = None  # the stream's cases; before it is opened, those that the checkpoint names

    def initialize(self) -> None:
        """nnU-Net's initialisation, then the loss.

        Raises:
            ValueError: where there is nothing to distil from, or a term or the teacher cannot work.
        """
        checks.require_deep_supervision(self)
        checks.require_teacher(self)
        self.teacher = deepcopy(self.teacher)
        super().initialize()
        checks.require_side_outputs(self, self.plain_network())
        self.loss = SelfDistillationLoss(self.loss, deepcopy(self.terms), checks.task_of(self)).to(self.device)
        groups = [group for term in self.loss.terms for group in term.parameter_groups()]
        self.own_parameters = None
        if groups:
            self.own_parameters = OwnParameters(groups, self.optimizer, self.grad_scaler, self.weight_decay)

    def plain_network(self) -> nn.Module:
        """The network without the wrappers of DDP and torch.compile."""
        network = self.network.module if self.is_ddp else self.network
        return network._orig_mod if isinstance(network, OptimizedModule) else network

    def on_train_start(self) -> None:
        if not self.was_initialized:
            self.initialize()
        goes_on = self.current_epoch < self.num_epochs  # else the final validation alone is missing
        if self.teacher is not None and goes_on:
            self.teacher.check(self)
        cases = stream_cases(self) if goes_on else None
        with processes_shared(cases is not None) as processes:
            super().on_train_start()
        if self.teacher is not None and goes_on:
            self.teacher.attach(self)
        if cases is not None:
            self.unlabelled, self.stream = cases.unlabelled, open_stream(self, cases, processes)
            self.stream.rehearse()
        if self.local_rank == 0:
            self.distillation_log = DistillationLog(
                self.output_folder, self.current_epoch, lambda text: self.print_to_log_file("WARNING:", text)
            )

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        if self.own_parameters is not None:
            self.own_parameters.follow(self.optimizer)
        self.loss.train()
        self.loss.start_epoch(self.current_epoch, self.num_epochs)
        if self.teacher is not None:
            self.teacher.start_epoch(self.current_epoch)

    def train_step(self, batch: dict) -> dict:
        if self.own_parameters is not None:
            self.own_parameters.zero_grad()
        with gradients_of(self.stream):
            if self.teacher is not None and self.loss.teaches_labelled:
                batch["data"] = batch["data"].to(self.device, non_blocking=True)
                with mixed_precision(self.device):
                    self.loss.teacher_outputs = self.teacher(batch["data"])
            result = super().train_step(batch)
        if self.teacher is not None:
            self.teacher.after_step()
        return result

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        super().on_train_epoch_end(train_outputs)
        means = mean_over_ranks(self.loss.means.pop())
        if self.local_rank != 0:
            return
        row = self.loss.row(means)
        self.print_to_log_file("Distillation", ", ".join(f"{name} {value:.4g}" for name, value in row.items()))
        self.distillation_log.append({"epoch": self.current_epoch, **row})
        for warning in self.loss.warnings(self.distillation_log.rows):
            self.print_to_log_file("WARNING:", warning)
        for logger in external_loggers(self.logger):
            for name, value in row.items():
                logger.log(f"distillation/{name}", value, self.current_epoch)

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.loss.eval()

    def on_epoch_end(self) -> None:
        super().on_epoch_end()
        if self.local_rank == 0 and plot_is_due(self.current_epoch, self.num_epochs):
            self.distillation_log.plot()

    def save_checkpoint(self, filename: str) -> None:
        with written_aside(extra_state(self)):
            super().save_checkpoint(filename)

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Continue from a checkpoint of this trainer, or from one without the state of this trainer's terms.

        Raises:
            ValueError: the checkpoint holds the state of other terms than this trainer has, or is damaged.
        """
        if not self.was_initialized:
            self.initialize()
        extra, writer, epoch = read_extra(filename_or_checkpoint)
        fits = check_extra(self, extra, filename_or_checkpoint, writer, epoch)
        super().load_checkpoint(filename_or_checkpoint)
        if fits:
            restore_extra(self, extra, filename_or_checkpoint, writer)

    def on_train_end(self) -> None:
        super().on_train_end()
        if self.stream is not None:
            self.stream.close()
        self.print_to_log_file(f"Predict with this model:\n{checks.predict_command(self)}", add_timestamp=False)
