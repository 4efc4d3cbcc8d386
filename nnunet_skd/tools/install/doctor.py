"""Check whether a training could start on this machine, and say how to fix it if not.

It checks the versions, nnU-Net's folders, how nnU-Net finds the trainers of this package, what a trainer's name
resolves to, the device and torch.compile, and after an upgrade of nnU-Net whether the unfinished trainings in
nnUNet_results can go on. The exit status is 0 only if a training could start.

  nnunet-skd doctor
  nnunet-skd doctor -tr nnUNetTrainerDSKD_250epochs -device cpu
"""

import argparse
import contextlib
import importlib.metadata
import io
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import nnunetv2
import torch

from nnunet_skd import __version__
from nnunet_skd.catalogue import trainer_classes
from nnunet_skd.compat import (
    OLDEST,
    READS_EXT_TRAINER,
    TESTED,
    find_trainer,
    is_too_old,
    nnunet_folder,
    nnunet_version,
)
from nnunet_skd.messages import counted, first_line, listed
from nnunet_skd.tools.checkpoint_file import OLDEST_TORCH
from nnunet_skd.tools.commands import own_folders
from nnunet_skd.tools.compiling import nnunet_compiles
from nnunet_skd.tools.install.discovery import (
    entries_on_variable,
    folders_on_variable,
    is_registered,
    shim_folder,
    trainers_folder,
    ways_in,
    without_variable,
)
from nnunet_skd.tools.install.unfinished import unfinished_trainings

ENOUGH_SPACE = 2**30  # bytes: less than a checkpoint or two and a small preprocessed data set take, or a few batches


@dataclass
class Finding:
    """One line of the report: ``problem`` prevents a training, ``hint`` does not; ``remedy`` says how to fix it."""

    level: str  # "ok", "hint" or "problem"
    text: str
    remedy: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-tr", default="nnUNetTrainerDSKD", metavar="TRAINER", help="trainer to look up (default: %(default)s)"
    )
    parser.add_argument("-device", default=None, choices=("cuda", "cpu", "mps"), help="default: the machine's best")


def run(args: argparse.Namespace) -> int:
    findings = examine(args.tr, args.device)
    for finding in findings:
        print(f"[{finding.level:^7}] {finding.text}")
        if finding.remedy:
            print("\n".join(f"          {line}" for line in finding.remedy.splitlines()))
    problems = sum(finding.level == "problem" for finding in findings)
    print(f"\n{counted(problems, 'problem')}: a training would not start." if problems else "\nA training can start.")
    return 1 if problems else 0


def examine(trainer: str, device: str | None = None) -> list[Finding]:
    """All findings, for the trainer ``trainer`` on ``device`` (None: what this machine has)."""
    found = [*_versions(), *_commands(), *_folders(), *_shared_memory()]
    if is_too_old(nnunet_version()):
        return found  # nothing of this package can be imported that the rest would ask
    found += [*_discovery(), *_resolution(trainer), *_device(device)]
    return [*found, *_unfinished(can_start=all(finding.level != "problem" for finding in found))]


def _versions() -> list[Finding]:
    findings = [Finding("ok", f"nnunet_skd {__version__}, Python {platform.python_version()} at {sys.executable}")]
    for package in ("nnunetv2", "torch", "batchgenerators", "dynamic_network_architectures"):
        findings.append(Finding("ok", f"{package} {importlib.metadata.version(package)}"))
    nnunet, newest = nnunet_version(), TESTED[-1]
    if is_too_old(nnunet):
        text = f"nnunetv2 {nnunet} is too old: the trainers need {OLDEST} or later"
        findings.append(Finding("problem", text, f'pip install "nnunetv2=={newest}"'))
    elif nnunet not in TESTED:
        text = f"nnunetv2 {nnunet} was not tested with these trainers: {', '.join(TESTED)} were"
        findings.append(Finding("hint", text, f'if anything fails: pip install "nnunetv2=={newest}"'))
    if torch.__version__ < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        text = f"torch {torch.__version__} is too old for the commands that read checkpoints: they need {oldest}"
        findings.append(Finding("hint", text, f'pip install "torch>={oldest}"'))
    return findings


def _commands() -> list[Finding]:
    """The nnUNetv2 commands of this environment, not those of another one further up in PATH."""
    here = Path(sys.executable).parent
    found = shutil.which("nnUNetv2_train")
    if found is None:
        remedy = f'export PATH="{here}:$PATH"'
        return [Finding("problem", f"nnUNetv2_train is not on PATH (nnunetv2: {nnunetv2.__path__[0]})", remedy)]
    if Path(found).parent.resolve() not in [folder.resolve() for folder in own_folders()]:
        text = f"nnUNetv2_train on PATH is {found}, which belongs to another environment than this one ({here})"
        return [Finding("problem", text, f'Activate this environment, or: export PATH="{here}:$PATH"')]
    return [Finding("ok", f"{found} uses nnunetv2 in {nnunetv2.__path__[0]}")]


def _folders() -> list[Finding]:
    """A training reads nnUNet_preprocessed and writes nnUNet_results; the rest is needed before it."""
    findings = []
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        folder = os.environ.get(name)
        there = "hint" if name == "nnUNet_raw" else "problem"
        writable = "problem" if name == "nnUNet_results" else "hint"
        if not folder:
            findings.append(Finding(there, f"{name} is not set", f"export {name}=/path/to/{name}"))
        elif not os.path.isabs(folder):
            absolute = folder.replace("~", "$HOME", 1) if folder.startswith("~/") else f"$PWD/{folder}"
            text = f"{name}={folder} is another folder wherever you are"
            findings.append(Finding(there, text, f'export {name}="{absolute}"'))
        elif not os.path.isdir(folder):
            findings.append(Finding(there, f"{name}={folder} does not exist", f'mkdir -p "{folder}"'))
        elif name != "nnUNet_raw" and not os.access(folder, os.W_OK):
            text = f"{name}={folder} is not writable"
            findings.append(Finding(writable, text, f"export {name}=/a/folder/you/can/write/to"))
        elif name != "nnUNet_raw" and (free := shutil.disk_usage(folder).free) < ENOUGH_SPACE:
            text = f"{name}={folder} has {free / 2**20:.0f} MiB left"
            findings.append(Finding(writable, text, f"Make room there, or export {name}=/another/disk"))
        else:
            free = shutil.disk_usage(folder).free / 2**30
            findings.append(Finding("ok", f"{name}={folder} ({free:.0f} GiB free)"))
    return findings


def _shared_memory() -> list[Finding]:
    """Where nnU-Net's augmentation processes put their batches; Docker gives a container 64 MiB of it."""
    folder = "/dev/shm"  # noqa: S108 - Linux has it there
    if not os.path.isdir(folder) or (free := shutil.disk_usage(folder).free) >= ENOUGH_SPACE:
        return []
    text = f"{folder} has {free / 2**20:.0f} MiB left: nnU-Net's augmentation processes may fail there, and hang"
    return [Finding("hint", text, "docker run --ipc=host ..., or --shm-size=8g; or: export nnUNet_n_proc_DA=0")]


def _discovery() -> list[Finding]:
    on_variable = trainers_folder() in folders_on_variable()
    findings = []
    if is_registered():
        findings.append(Finding("ok", f"registered in {shim_folder()}"))
    elif shim_folder().exists():
        findings.append(Finding("problem", f"{shim_folder()} belongs to another version", "nnunet-skd register"))
    if on_variable:
        findings.append(Finding("ok", f"nnUNet_extTrainer names {trainers_folder()}"))
    if not findings:
        findings.append(Finding("problem", "nnU-Net cannot find the trainers", ways_in()))
    if not READS_EXT_TRAINER:
        return [*findings, *([Finding("hint", without_variable())] if entries_on_variable() else [])]
    for entry in entries_on_variable():
        if not os.path.exists(entry):
            text = f"nnUNet_extTrainer names {entry}, which does not exist; nnU-Net skips it silently"
            findings.append(Finding("hint", text))
    return findings


def _resolution(trainer: str) -> list[Finding]:
    """Ask nnU-Net's own finder."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            found = find_trainer(trainer)
    except Exception as error:  # whatever a module on the search path raises is what the user must see
        remedy = (
            "" if trainer in trainer_classes() else "Known to this package: " + ", ".join(sorted(trainer_classes()))
        )
        return [Finding("problem", f"-tr {trainer} is not found: {type(error).__name__}: {error}", remedy)]
    source = _source_file(found)
    way = ""
    if trainer in trainer_classes():
        way = ", found by the registration" if is_registered() else ", found by nnUNet_extTrainer"
    findings = [Finding("ok", f"-tr {trainer} is {source}{way}")]
    if trainer in trainer_classes() and source.parent != trainers_folder():
        text = f"-tr {trainer} is not the trainer of this package in {trainers_folder()}"
        findings.append(Finding("problem", text, f"Rename or remove the class in {source}"))
    return findings


def _unfinished(can_start: bool) -> list[Finding]:
    """One line for all that can go on, one for each that cannot."""
    results = nnunet_folder("nnUNet_results")
    if results is None or not results.is_dir():
        return []
    trainings = unfinished_trainings(results)
    findings = [Finding("hint", f"{fold} cannot go on: {obstacle}") for fold, obstacle in trainings.items() if obstacle]
    going = [fold.relative_to(results) for fold, obstacle in trainings.items() if not obstacle]
    if going and can_start:
        text = f"with nnunetv2 {nnunet_version()} these can go on (nnUNetv2_train ... --c): {listed(going)}"
        findings.append(Finding("ok", text))
    elif going:
        text = f"once the problems above are fixed these can go on (nnUNetv2_train ... --c): {listed(going)}"
        findings.append(Finding("hint", text))
    return findings


def _source_file(found: type) -> Path:
    """nnU-Net drops what it imported from nnUNet_extTrainer out of sys.modules, so Python cannot tell any more."""
    if found.__module__ in sys.modules:
        return Path(sys.modules[found.__module__].__file__).resolve()
    module = Path(*found.__module__.split("."))
    files = [folder / file for folder in folders_on_variable() for file in (f"{module}.py", module / "__init__.py")]
    return next(file for file in files if file.is_file())


def _gpu_at_work(name: str, compiled: bool) -> Finding:
    """A GPU that is seen may still be full, reserved or too old for this PyTorch, and torch.compile lack a compiler."""
    failure = _failure_on_gpu(compiled=False)
    if failure:
        remedy = (
            "nvidia-smi shows which programs use it\n"
            "'no kernel image': install a PyTorch for this GPU, https://pytorch.org/get-started\n"
            "or: nnUNetv2_train ... -device cpu"
        )
        return Finding("problem", f"device cuda ({name}) does not compute: {failure}", remedy)
    failure = compiled and _failure_on_gpu(compiled=True)
    if failure:
        remedy = "export nnUNet_compile=f\nor install a C compiler and Python's headers (Debian: gcc python3-dev)"
        return Finding("problem", f"device cuda ({name}): torch.compile fails: {failure}", remedy)
    return Finding("ok", f"device cuda: {name}; torch.compile {'on' if compiled else 'off'}")


def _failure_on_gpu(compiled: bool) -> str:
    """The first line of the error that a small computation ends with, empty if none: what follows is for developers."""

    def line(x: torch.Tensor) -> torch.Tensor:
        return 2 * x + 1

    try:
        (torch.compile(line) if compiled else line)(torch.ones(8, device="cuda")).cpu()
    except Exception as error:  # whatever a driver or a compiler says is what the user must see
        return first_line(error)
    return ""


def _device(device: str | None) -> list[Finding]:
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        return [
            Finding("problem", "no CUDA device", "nnUNetv2_train ... -device cpu, or install a CUDA build of torch")
        ]
    if device == "mps" and not torch.backends.mps.is_available():
        return [Finding("problem", "no MPS device", "nnUNetv2_train ... -device cpu")]
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        name = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        return [_gpu_at_work(name, nnunet_compiles(torch.device("cuda")))]
    text = f"device {device}, torch.compile off: use nnUNetv2_train ... -device {device}"
    findings = [
        Finding("ok", text),
        Finding("hint", "without CUDA, use a small configuration", "nnunet-skd compact --help"),
    ]
    if device == "mps" and os.environ.get("PYTORCH_ENABLE_MPS_FALLBACK") != "1":
        text = "in 3D, DDL averages over patches by an operation that PyTorch lacks on Apple GPUs"
        findings.append(Finding("hint", text, "export PYTORCH_ENABLE_MPS_FALLBACK=1"))
    return findings
