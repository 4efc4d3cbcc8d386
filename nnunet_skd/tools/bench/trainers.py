"""What one trainer costs: real training steps and predictions on random data, without a preprocessed image."""

import io
import os
from contextlib import redirect_stdout
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import get_trainer_from_args
from torch import Tensor, nn
from tqdm import tqdm

from nnunet_skd.compat import set_variables
from nnunet_skd.messages import first_line
from nnunet_skd.model_folds import CHECKPOINT
from nnunet_skd.second_stream import UnlabelledStream, batch_size_of
from nnunet_skd.tools.bench.borrowed_plans import borrowed_plans
from nnunet_skd.tools.bench.measure import Stopwatch, alternate, paired_ratio, tensor_memory
from nnunet_skd.tools.bench.random_data import random_batch, random_case
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.evaluate.statistics import quartiles
from nnunet_skd.tools.trainers import look_up

# The first steps compile, let cuDNN choose its algorithms and let the gradient scaler settle.
WARM_UP_STEPS = 4
PARTS = ("teacher", "losses", "rest")


def bench_trainers(
    names: list[str], plans_file: Path, configuration: str, device: torch.device, steps: int, cases: int
) -> list[dict]:
    """Measure trainers against the first one.

    Args:
        names: trainers that nnU-Net finds; one may come twice, which shows the noise.
        plans_file: the dataset's plans, beside its dataset.json.
        configuration: a configuration of these plans.
        device: `cpu` or `cuda`.
        steps: timed training steps of each trainer.
        cases: timed predictions with each trainer; 0 leaves them out.

    Returns:
        One dict per trainer: `name`; `step_ms`, `teacher_ms`, `losses_ms`, `rest_ms`, `ratio`, and if asked for
        `inference_s`, `inference_ratio`: each with median, q1, q3; `peak_memory` in bytes and its ratio;
        `patches_per_s`, `voxels_per_s`; `network_parameters`; the raw times under `raw`.
    """
    arms = []
    if device.type == "cuda":
        _allocate_cublas(device)
    with (
        borrowed_plans(plans_file, configuration) as folder,
        # or one trainer's network would run the graph of another's, without the hooks that read its features
        torch._dynamo.config.patch(skip_nnmodule_hook_guards=False),
    ):
        for name in names:
            look_up(name)
        for i, name in enumerate(tqdm(names, desc="building and warming up", leave=False)):
            set_variables({"nnUNet_results": str(folder / f"nnUNet_results_{i}")})
            arm, memory = tensor_memory(partial(_Arm, name, plans_file, configuration, device), _Arm.step, device)
            arm.peak_memory = memory.peak
            arms.append(arm)
        times = alternate([arm.step for arm in arms], steps, "training steps")
        predictions = _predict(arms, cases) if cases else [[]] * len(arms)
    measured = list(zip(arms, times, predictions, strict=True))
    return [_result(*one, reference=measured[0]) for one in measured]


def _allocate_cublas(device: torch.device) -> None:
    """Its workspace stays, and would be counted as the first trainer's that needs it."""
    matrix = torch.ones(8, 8, device=device, requires_grad=True)
    (matrix @ matrix).sum().backward()


class _Arm:
    """A trainer in the middle of its training, with a batch and marks around its parts."""

    def __init__(self, name: str, plans_file: Path, configuration: str, device: torch.device):
        self.name, self.device = name, device
        self.watch = Stopwatch(device)
        self.intervals: dict[str, list[list[Any]]] = {}
        dataset, plans_name = plans_file.parent.name, plans_file.stem
        with redirect_stdout(io.StringIO()):
            try:
                self.trainer = get_trainer_from_args(dataset, configuration, "all", name, plans_name, device=device)
                self.trainer.get_dataloaders = lambda: (None, None)
                self._start_training()
            except (torch.cuda.OutOfMemoryError, MemoryError, OSError):
                raise
            except Exception as error:  # the trainer refuses the plans, or fails with them
                raise BadInput(
                    f"{name} cannot start with configuration {configuration} of {plans_name} ({first_line(error)}). "
                    "Choose another trainer or configuration"
                ) from error
            self.batch = random_batch(self.trainer)
            # nnU-Net's order of calls: a first epoch, after which a teacher exists, then one half way, where every
            # term is at work.
            for epoch in (0, self.trainer.num_epochs // 2):
                self.trainer.current_epoch = epoch
                self.trainer.on_epoch_start()
                self.trainer.on_train_epoch_start()
                if epoch == 0:
                    self.trainer.on_train_epoch_end([self.trainer.train_step(dict(self.batch))])
        self._mark_parts()
        for _ in range(WARM_UP_STEPS):
            self.step()

    def _start_training(self) -> None:
        """With random patches instead of images without labels, where the trainer learns from such."""
        trainer = self.trainer
        # nnU-Net does this with its data loaders; it also decides on the axes that inference mirrors
        *_, mirror_axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        per_labelled = getattr(trainer, "unlabelled_per_labelled", 0.0)
        if not per_labelled:
            trainer.on_train_start()
            return
        trainer.unlabelled_per_labelled = 0.0
        trainer.on_train_start()
        trainer.unlabelled_per_labelled = per_labelled
        batches = repeat(random_batch(trainer, batch_size=batch_size_of(trainer)))
        trainer.stream = UnlabelledStream(
            trainer, batches, tuple(mirror_axes or ()), trainer.label_manager.has_ignore_label
        )

    def _mark_parts(self) -> None:
        trainer = self.trainer
        if getattr(trainer, "teacher", None) is not None:
            trainer.teacher = _Marked(trainer.teacher, self)
        if isinstance(trainer.loss, nn.Module):
            trainer.loss.register_forward_pre_hook(self._loss_begins)

    def _loss_begins(self, module: nn.Module, arguments: tuple) -> None:
        """The losses end, backward pass included, where the first gradient enters the network.

        Autograd runs the youngest nodes first, so that all of the loss comes before any of the network.
        """
        interval = [self.watch.mark(), None]
        self.intervals["losses"].append(interval)

        def network_begins(gradient: Tensor) -> None:
            if interval[1] is None:
                interval[1] = self.watch.mark()

        outputs = arguments[0] if isinstance(arguments[0], (list, tuple)) else [arguments[0]]
        for output in outputs:
            if output.requires_grad:
                output.register_hook(network_begins)

    def step(self) -> dict[str, float]:
        """One training step: milliseconds in all and of each part."""
        self.intervals = {"teacher": [], "losses": []}
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        start = self.watch.mark()
        self.trainer.train_step(dict(self.batch))
        end = self.watch.mark()
        times = {
            part: sum(self.watch.milliseconds(*interval) for interval in intervals if interval[1] is not None)
            for part, intervals in self.intervals.items()
        }
        times["step"] = self.watch.milliseconds(start, end)
        times["rest"] = times["step"] - times["teacher"] - times["losses"]
        return times

    def predictor(self) -> nnUNetPredictor:
        """What nnUNetv2_predict makes of this trainer's checkpoint."""
        trainer = self.trainer
        with redirect_stdout(io.StringIO()):
            trainer.save_checkpoint(os.path.join(trainer.output_folder, CHECKPOINT))
            predictor = nnUNetPredictor(
                perform_everything_on_device=self.device.type == "cuda", device=self.device, allow_tqdm=False
            )
            predictor.initialize_from_trained_model_folder(trainer.output_folder_base, (trainer.fold,))
        return predictor


class _Marked:
    """A teacher, with marks around each call; anything else goes through."""

    def __init__(self, call: Any, arm: _Arm):
        self._call, self._arm = call, arm

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        start = self._arm.watch.mark()
        result = self._call(*args, **kwargs)
        self._arm.intervals["teacher"].append([start, self._arm.watch.mark()])
        return result


def _predict(arms: list[_Arm], cases: int) -> list[list[float]]:
    """Seconds per case, by nnU-Net's sliding window with mirroring as nnUNetv2_predict runs it."""
    predictors = [arm.predictor() for arm in arms]
    case = random_case(arms[0].trainer)

    def predict(arm: _Arm, predictor: nnUNetPredictor) -> float:
        start = arm.watch.mark()
        with redirect_stdout(io.StringIO()):
            predictor.predict_logits_from_preprocessed_data(case)
        return arm.watch.milliseconds(start, arm.watch.mark()) / 1000

    calls = [partial(predict, arm, predictor) for arm, predictor in zip(arms, predictors, strict=True)]
    # the first case lets cuDNN choose its algorithms; the CPU would only lose time, minutes with large 3D cases
    warm_up = int(arms[0].device.type == "cuda")
    return [times[warm_up:] for times in alternate(calls, warm_up + cases, "predictions")]


def _result(arm: _Arm, times: list[dict], predictions: list[float], reference: tuple) -> dict:
    first_arm, first_times, first_predictions = reference
    step = [t["step"] for t in times]
    trainer = arm.trainer
    patches_per_s = 1000 * trainer.batch_size / float(np.median(step))
    result = {
        "name": arm.name,
        "network_parameters": sum(p.numel() for p in trainer.network.parameters()),
        "step_ms": quartiles(step),
        **{f"{part}_ms": quartiles([t[part] for t in times]) for part in PARTS},
        "ratio": paired_ratio(step, [t["step"] for t in first_times]),
        "peak_memory": arm.peak_memory,
        "peak_memory_ratio": arm.peak_memory / first_arm.peak_memory,
        "patches_per_s": patches_per_s,
        "voxels_per_s": patches_per_s * float(np.prod(trainer.configuration_manager.patch_size)),
        "raw": {f"{part}_ms": [t[part] for t in times] for part in ("step", *PARTS)},
    }
    if predictions:
        result["inference_s"] = quartiles(predictions)
        result["inference_ratio"] = paired_ratio(predictions, first_predictions)
        result["raw"]["inference_s"] = predictions
    return result
