"""Run the real commands of this environment, and shrink plans so that they take seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent


def run(*command, **env: str) -> str:
    """Run ``nnUNetv2_...`` or ``nnunet-skd`` and return what it printed; its output becomes the failure's message."""
    done = subprocess.run(
        [BIN / command[0], *map(str, command[1:])],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))} -> {done.returncode}\n{done.stdout[-6000:]}"
    return done.stdout


def shrink_plans(dataset: Path, plans_name: str = "nnUNetPlans", *, stages: int = 4, patch: int = 32) -> None:
    """Make every configuration of the preprocessed dataset a network of a few channels on small patches."""
    file = Path(os.environ["nnUNet_preprocessed"], dataset.name, f"{plans_name}.json")
    plans = json.loads(file.read_text())
    for configuration in plans["configurations"].values():
        if "architecture" not in configuration:
            continue
        dim = len(configuration["patch_size"])
        configuration["patch_size"], configuration["batch_size"] = [patch] * dim, 2
        arguments = configuration["architecture"]["arch_kwargs"]
        arguments["n_stages"] = stages
        arguments["features_per_stage"] = [4, 8, 8, 8, 8][:stages]
        arguments["kernel_sizes"] = [[3] * dim] * stages
        arguments["strides"] = [[1] * dim] + [[2] * dim] * (stages - 1)
        for name in ("n_conv_per_stage", "n_blocks_per_stage"):
            if name in arguments:
                arguments[name] = [1] * stages
        arguments["n_conv_per_stage_decoder"] = [1] * (stages - 1)
    file.write_text(json.dumps(plans))
