"""What does a trainer cost here? Step time, memory and inference time, as ratios to the first trainer.

Real trainers of nnU-Net run on random data in the shape of a dataset's plans: only the plans are needed, no
preprocessed image, and nothing is written to nnUNet_results. The trainers take turns step by step in one process
(A B A B ...), so that whatever else the machine does hits all of them alike; ratios are taken within each turn.

The table, in multiples of the first trainer's median step where no unit is given:
  step ms    a training step: median (lower - upper quartile) after a warm-up, which includes torch.compile
  ratio      step time to the first trainer: median (lower - upper quartile) of the turns
  teacher    forward pass of the teacher
  losses     all losses, forward and backward pass up to the network's outputs
  rest       forward and backward pass of the network, clipping, optimizer, transfer
  MiB        peak memory of a step: the trainer's own tensors. On CUDA by PyTorch's allocator; on the CPU by its
             profiler, the same in every run, but without what oneDNN takes for itself. The data loader is not in it
  img/s      training patches per second (2D), or Mvox/s, million voxels per second (3D)
  s/case     prediction of a case of the plans' median shape by nnUNetv2_predict's sliding window with mirroring;
             minutes for a 3D case on the CPU, so --cases 0 leaves it out

The same trainer twice (-tr nnUNetTrainer nnUNetTrainer) shows how far the ratios can be trusted. If only one trainer
is named, nnUNetTrainer comes first. With --losses, what the loss terms add to nnU-Net's Dice and cross-entropy is
measured at 2, 14 and 105 classes; no dataset is needed. On the CPU as many threads work as nnUNetv2_train
would use, unless OMP_NUM_THREADS is set.

examples:
  nnunet-skd bench -d 80 -c 2d -tr nnUNetTrainer nnUNetTrainerDSKD -device cuda -o bench_80
  nnunet-skd bench -d 81 -c 3d_fullres_cpu_demo -device cpu --steps 50 --cases 0
  nnunet-skd bench --losses -device cpu -o bench_losses
"""

import argparse
import io
import json
import os
import platform
import tempfile
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path

import torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_skd import __version__
from nnunet_skd.tools.bench.losses import BATCH_SIZE, bench_losses
from nnunet_skd.tools.bench.picture import draw_losses, draw_trainers
from nnunet_skd.tools.bench.trainers import PARTS, bench_trainers, borrowed_plans
from nnunet_skd.tools.compact.command import plans_file
from nnunet_skd.tools.compiling import nnunet_compiles
from nnunet_skd.tools.errors import BadInput

REFERENCE = "nnUNetTrainer"


def bench(
    dataset: int | str,
    configuration: str,
    trainers: list[str],
    plans_name: str = "nnUNetPlans",
    device: str = "cuda",
    steps: int = 20,
    cases: int = 3,
) -> dict:
    """Measure trainers on a dataset's plans.

    Args:
        dataset: id or name.
        configuration: of the plans, such as `2d`.
        trainers: names for nnU-Net's finder; ratios are to the first.
        plans_name: nnU-Net's plans identifier.
        device: `cpu` or `cuda`.
        steps: timed training steps of each trainer, at least 1.
        cases: timed predictions with each trainer; 0 leaves inference out.

    Returns:
        What ran where (`dataset`, `configuration`, `patch_size`, `device`, `torch`, ...) and `trainers`, see
        :func:`nnunet_skd.tools.bench.trainers.bench_trainers`.

    Raises:
        BadInput: before anything is measured for unknown names or an absent device; also where a trainer refuses the
            plans or the GPU is too small for all trainers at once.
    """
    if steps < 1 or cases < 0:
        raise BadInput(f"--steps {steps} and --cases {cases}: give at least 1 step and no negative number of cases")
    torch_device = _device(device)
    path = plans_file(dataset, plans_name)
    plans = PlansManager(str(path))
    if configuration not in plans.available_configurations:
        known = ", ".join(plans.available_configurations)
        raise BadInput(f"{path} has no configuration '{configuration}'. It has: {known}")
    config = plans.get_configuration(configuration)
    _check_trainers(trainers, path, configuration)
    try:
        results = bench_trainers(trainers, path, configuration, torch_device, steps, cases)
    except torch.cuda.OutOfMemoryError as error:
        raise BadInput(
            f"{_device_name(torch_device)} has too little memory for {len(trainers)} trainers at once. Compare fewer,"
            " or a smaller configuration (nnunet-skd compact)"
        ) from error
    except NotImplementedError as error:  # a trainer refuses the plans
        raise BadInput(str(error)) from error
    return {
        "dataset": path.parent.name,
        "plans": path.stem,
        "configuration": configuration,
        "patch_size": [int(n) for n in config.patch_size],
        "batch_size": config.batch_size,
        "steps": steps,
        "cases": cases,
        **_environment(torch_device),
        "trainers": results,
    }


def bench_loss_terms(device: str = "cuda", rounds: int = 20) -> dict:
    """Measure the loss terms on random logits.

    Returns:
        What ran where and `losses`, see :func:`nnunet_skd.tools.bench.losses.bench_losses`.

    Raises:
        BadInput: no such device.
    """
    if rounds < 1:
        raise BadInput(f"--steps {rounds}: give at least 1")
    torch_device = _device(device)
    return {
        "steps": rounds,
        "batch_size": BATCH_SIZE,
        **_environment(torch_device),
        "losses": bench_losses(torch_device, rounds),
    }


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise BadInput("PyTorch finds no CUDA device. Use -device cpu, or mend the driver (nvidia-smi shows it)")
    return torch.device(name)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' if threads > 1 else ''}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")  # Linux, where platform.processor() only says x86_64
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _environment(device: torch.device) -> dict:
    return {
        "device": device.type,
        "device_name": _device_name(device),
        "torch_compile": nnunet_compiles(device),
        "torch": torch.__version__,
        "nnunetv2": version("nnunetv2"),
        "nnunet_skd": __version__,
    }


def _check_trainers(names: list[str], path: Path, configuration: str) -> None:
    with borrowed_plans(path, configuration):
        for name in names:
            try:
                with redirect_stdout(io.StringIO()):
                    recursive_find_trainer_class_by_name(name)
            except RuntimeError as error:
                raise BadInput(
                    f"nnU-Net finds no trainer '{name}'. Check the spelling; the folder of a trainer of your own"
                    " belongs in nnUNet_extTrainer ('nnunet-skd doctor' shows what is found)"
                ) from error


def trainer_table(results: dict) -> str:
    """The results of :func:`bench` as text."""
    trainers = results["trainers"]
    unit = trainers[0]["step_ms"]["median"]
    rate = ("img/s", "patches_per_s", 1) if len(results["patch_size"]) == 2 else ("Mvox/s", "voxels_per_s", 1e-6)
    header = ["trainer", "step ms", "ratio", *PARTS, "MiB", "ratio", rate[0]]
    if results["cases"]:
        header += ["s/case", "ratio"]
    rows = []
    for result in trainers:
        row = [result["name"], _spread(result["step_ms"], 1), _spread(result["ratio"], 2)]
        row += [f"{result[f'{part}_ms']['median'] / unit:.3f}" for part in PARTS]
        row += [f"{result['peak_memory'] / 2**20:.1f}", f"{result['peak_memory_ratio']:.3f}"]
        row += [f"{result[rate[1]] * rate[2]:.2f}"]
        if results["cases"]:
            row += [_spread(result["inference_s"], 2), _spread(result["inference_ratio"], 2)]
        rows.append(row)
    return f"{_title(results)}\n\n{_table(header, rows)}"


def loss_table(results: dict) -> str:
    """The results of :func:`bench_loss_terms` as text."""
    header = ["classes", "patch", "term", "ms", "ratio", "kept MiB", "full-size", "peak MiB"]
    rows = [
        [
            str(r["classes"]),
            f"{r['edge']}^3",
            r["term"],
            _spread(r["ms"], 1),
            _spread(r["ratio"], 2),
            f"{r['kept'] / 2**20:.1f}",
            f"{r['buffers']:.2f}",
            f"{r['peak'] / 2**20:.1f}",
        ]
        for r in results["losses"]
    ]
    legend = (
        "Forward and backward pass to the logits. DDL, PSDL: what they add to Dice + CE (where Dice is not compiled,\n"
        "they share its probabilities); mixed: with ddl_target = 'mixed'. L_AT: ACW-SKD's adversarial temperature\n"
        "loss, alone. kept: for the backward pass; full-size: the same in float32 tensors of the full-resolution\n"
        "logits' size; peak: above the logits, of DDL and PSDL above the peak of Dice + CE,\n"
        "the teacher's outputs counted in."
    )
    return f"{_title(results)}\n\n{_table(header, rows)}\n\n{legend}"


def _spread(values: dict, digits: int) -> str:
    return f"{values['median']:.{digits}f} ({values['q1']:.{digits}f} - {values['q3']:.{digits}f})"


def _title(results: dict) -> str:
    if "losses" in results:
        what = f"Loss terms, batch size {results['batch_size']}, {results['steps']} calls each"
    else:
        patch = " x ".join(map(str, results["patch_size"]))
        what = (
            f"{results['dataset']}, {results['configuration']}, {results['plans']}: batch of {results['batch_size']}"
            f" patches of {patch}, {results['steps']} steps each"
        )
    compiled = ", torch.compile" if results["torch_compile"] else ""
    return f"{what}\n{results['device_name']}{compiled}, PyTorch {results['torch']}, nnU-Net {results['nnunetv2']}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    """Text left, numbers right."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    text = {i for i, name in enumerate(header) if name in ("trainer", "term")}
    aligned = (
        [cell.ljust(w) if i in text else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))]
        for line in lines
    )
    return "\n".join("  ".join(line).rstrip() for line in aligned)


def save(results: dict, folder: Path) -> None:
    """Write bench.json, bench.txt and bench.png into a folder, all or none.

    Raises:
        BadInput: one of them is there already.
    """
    _refuse_to_overwrite(folder)
    table, draw = (loss_table, draw_losses) if "losses" in results else (trainer_table, draw_trainers)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".bench_") as temporary:
        temporary = Path(temporary)
        (temporary / "bench.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
        (temporary / "bench.txt").write_text(table(results) + "\n", encoding="utf-8")
        draw(results["losses" if "losses" in results else "trainers"], _title(results), temporary / "bench.png")
        for file in sorted(temporary.iterdir()):
            os.replace(file, folder / file.name)


def _refuse_to_overwrite(folder: Path) -> None:
    if taken := [name for name in ("bench.json", "bench.txt", "bench.png") if (folder / name).exists()]:
        raise BadInput(f"{folder} has {taken[0]} already; choose another folder for -o")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", metavar="DATASET", help="dataset id or name, planned (nnUNetv2_plan_experiment)")
    parser.add_argument("-c", metavar="CONFIGURATION", help="configuration, such as 2d")
    parser.add_argument(
        "-tr", nargs="+", default=[REFERENCE, "nnUNetTrainerDSKD"], metavar="TRAINER", help="default: %(default)s"
    )
    parser.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="plans identifier (default: %(default)s)")
    parser.add_argument("-device", choices=("cuda", "cpu"), default="cuda", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each trainer (default: %(default)s)")
    parser.add_argument(
        "--cases", type=int, default=3, help="timed predictions of each trainer, 0: none (default: %(default)s)"
    )
    parser.add_argument(
        "--losses", action="store_true", help="measure the loss terms instead; -d, -c, -tr are not used"
    )
    parser.add_argument("-o", metavar="DIR", type=Path, help="write bench.json, bench.txt and bench.png there")


def run(args: argparse.Namespace) -> int:
    if args.o:
        _refuse_to_overwrite(args.o)
    if args.device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(os.cpu_count())
    if args.device == "cuda":
        torch.backends.cudnn.benchmark = True  # as nnUNetv2_train
    if args.losses:
        results = bench_loss_terms(args.device, args.steps)
        print(loss_table(results))
    else:
        if args.d is None or args.c is None:
            raise BadInput("give a dataset and a configuration, such as -d 80 -c 2d; or --losses, which needs none")
        trainers = args.tr if len(args.tr) > 1 or args.tr == [REFERENCE] else [REFERENCE, *args.tr]
        results = bench(args.d, args.c, trainers, args.p, args.device, args.steps, args.cases)
        print(trainer_table(results))
    if args.o:
        save(results, args.o)
        print(f"\nbench.json, bench.txt and bench.png are in {args.o}")
    return 0
