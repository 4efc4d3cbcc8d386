"""Run the measurements of ``nnunet-skd bench``, and note where they ran."""

from importlib.metadata import version

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_skd import __version__
from nnunet_skd.tools.bench.losses import BATCH_SIZE, bench_losses
from nnunet_skd.tools.bench.trainers import bench_trainers
from nnunet_skd.tools.compiling import nnunet_compiles
from nnunet_skd.tools.dataset_plans import configuration_of, read_dataset_plans
from nnunet_skd.tools.devices import device_name, find_device
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.nnunet_json import read_dataset_json


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
    torch_device = find_device(device)
    path, content = read_dataset_plans(dataset, plans_name)
    plans = PlansManager(content)
    read_dataset_json(path.parent / "dataset.json")
    config = configuration_of(path, plans, configuration)
    try:
        results = bench_trainers(trainers, path, configuration, torch_device, steps, cases)
    except torch.cuda.OutOfMemoryError as error:
        raise BadInput(
            f"{device_name(torch_device)} has too little memory for {len(trainers)} trainers at once. Compare fewer,"
            " or a smaller configuration (nnunet-skd compact)"
        ) from error
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


def bench_loss_terms(device: str, rounds: int) -> dict:
    """Measure the loss terms on random logits.

    Returns:
        What ran where and `losses`, see :func:`nnunet_skd.tools.bench.losses.bench_losses`.

    Raises:
        BadInput: no such device.
    """
    if rounds < 1:
        raise BadInput(f"--steps {rounds}: give at least 1")
    torch_device = find_device(device)
    return {
        "steps": rounds,
        "batch_size": BATCH_SIZE,
        **_environment(torch_device),
        "losses": bench_losses(torch_device, rounds),
    }


def _environment(device: torch.device) -> dict:
    return {
        "device": device.type,
        "device_name": device_name(device),
        "torch_compile": nnunet_compiles(device),
        "torch": torch.__version__,
        "nnunetv2": version("nnunetv2"),
        "nnunet_skd": __version__,
    }
