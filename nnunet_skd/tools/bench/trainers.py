"""What one trainer costs: real training steps and predictions on random data, without a preprocessed image."""

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor, nn
from tqdm import tqdm

from nnunet_skd.tools.bench.measure import Stopwatch, alternate, paired_ratio, summary, tensor_memory
from nnunet_skd.tools.install.discovery import trainers_folder

# The first steps compile, let cuDNN choose its algorithms and let the gradient scaler settle.
WARM_UP_STEPS = 4
PARTS = ("teacher", "losses", "rest")


@contextmanager
def borrowed_plans(plans_file: Path, configuration: str) -> Iterator[Path]:
    """nnU-Net's folders in a temporary place that holds the plans and no image; the user's results stay untouched.

    Yields:
        The temporary folder; results go to `nnUNet_results` in it.
    """
    with tempfile.TemporaryDirectory(prefix="nnunet_skd_bench_") as folder:
        folder = Path(folder)
        dataset = folder / "nnUNet_preprocessed" / plans_file.parent.name
        # nnU-Net infers the file format from the names in this folder; the file is never read.
        images = dataset / PlansManager(str(plans_file)).get_configuration(configuration).data_identifier
        images.mkdir(parents=True)
        (images / "none.b2nd").touch()
        for name in (plans_file.name, "dataset.json"):
            shutil.copyfile(plans_file.with_name(name), dataset / name)
        (dataset / "dataset_fingerprint.json").write_text("{}")
        external = [os.environ.get("nnUNet_extTrainer", ""), str(trainers_folder())]
        values = {
            "nnUNet_preprocessed": str(folder / "nnUNet_preprocessed"),
            "nnUNet_results": str(folder / "nnUNet_results"),
            "nnUNet_extTrainer": os.pathsep.join(filter(None, external)),
            "nnUNet_wandb_enabled": "0",
        }
        before = {name: os.environ.get(name) for name in values}
        os.environ.update(values)
        try:
            yield folder
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


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
        for i, name in enumerate(tqdm(names, desc="building and warming up", leave=False)):
            os.environ["nnUNet_results"] = str(folder / f"nnUNet_results_{i}")
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
            self.trainer = get_trainer_from_args(dataset, configuration, 0, name, plans_name, device=device)
            self.trainer.get_dataloaders = lambda: (None, None)
            self.trainer.on_train_start()
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
            trainer.save_checkpoint(os.path.join(trainer.output_folder, "checkpoint_final.pth"))
            predictor = nnUNetPredictor(
                perform_everything_on_device=self.device.type == "cuda", device=self.device, allow_tqdm=False
            )
            predictor.initialize_from_trained_model_folder(trainer.output_folder_base, (trainer.fold,))
        return predictor


class _Marked:
    """A callable with marks around each call; anything else goes through."""

    def __init__(self, call: Any, arm: _Arm):
        self._call, self._arm = call, arm

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        start = self._arm.watch.mark()
        result = self._call(*args, **kwargs)
        self._arm.intervals["teacher"].append([start, self._arm.watch.mark()])
        return result


def random_batch(trainer: nnUNetTrainer, seed: int = 0) -> dict[str, Any]:
    """A batch as nnU-Net's loader gives it: noise, and labels drawn anew for each voxel.

    The trainer's own validation transforms make regions, one-hot channels of a cascade and the lower resolutions.

    Returns:
        `data`: `B, C, spatial`, float32; `target`: a list over the resolutions, or one tensor without deep supervision.
    """
    manager = trainer.label_manager
    transforms = trainer.get_validation_transforms(
        trainer._get_deep_supervision_scales(),
        is_cascaded=trainer.is_cascaded,
        foreground_labels=manager.foreground_labels,
        regions=manager.foreground_regions if manager.has_regions else None,
        ignore_label=manager.ignore_label,
    )
    patch = tuple(trainer.configuration_manager.patch_size)
    labels = torch.tensor(sorted(_all_labels(manager)), dtype=torch.int16)
    images = trainer.num_input_channels
    if trainer.is_cascaded:
        images -= len(manager.foreground_labels)
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for _ in range(trainer.batch_size):
        drawn = torch.randint(len(labels), (1 + trainer.is_cascaded, *patch), generator=generator)
        image = torch.randn(images, *patch, generator=generator)
        samples.append(transforms(image=image, segmentation=labels[drawn]))
    data = torch.stack([sample["image"] for sample in samples])
    targets = [sample["segmentation"] for sample in samples]
    if isinstance(targets[0], list):
        target = [torch.stack(level) for level in zip(*targets, strict=True)]
    else:
        target = torch.stack(targets)
    if trainer.device.type == "cuda":
        data = data.pin_memory()
        target = [t.pin_memory() for t in target] if isinstance(target, list) else target.pin_memory()
    return {"data": data, "target": target}


def _all_labels(manager: Any) -> set[int]:
    return {0, *manager.foreground_labels} | ({manager.ignore_label} if manager.has_ignore_label else set())


def random_case(trainer: nnUNetTrainer, seed: int = 0) -> Tensor:
    """Noise in the shape of the plans' median case after preprocessing: `C, z, y, x` (2D: z slices)."""
    shape = [int(n) for n in trainer.configuration_manager.median_image_size_in_voxels]
    if len(shape) == 2:
        shape = [int(trainer.plans_manager.original_median_shape_after_transp[0]), *shape]
    return torch.randn(trainer.num_input_channels, *shape, generator=torch.Generator().manual_seed(seed))


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
        "step_ms": summary(step),
        **{f"{part}_ms": summary([t[part] for t in times]) for part in PARTS},
        "ratio": paired_ratio(step, [t["step"] for t in first_times]),
        "peak_memory": arm.peak_memory,
        "peak_memory_ratio": arm.peak_memory / first_arm.peak_memory,
        "patches_per_s": patches_per_s,
        "voxels_per_s": patches_per_s * float(np.prod(trainer.configuration_manager.patch_size)),
        "raw": {f"{part}_ms": [t[part] for t in times] for part in ("step", *PARTS)},
    }
    if predictions:
        result["inference_s"] = summary(predictions)
        result["inference_ratio"] = paired_ratio(predictions, first_predictions)
        result["raw"]["inference_s"] = predictions
    return result
