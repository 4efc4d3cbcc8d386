"""What every test file may use."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import nnunetv2
import nnunetv2.training.nnUNetTrainer
import pytest
import torch

from nnunet_skd.compat import READS_EXT_TRAINER, set_variables
from nnunet_skd.tools.install.discovery import SHIM, SHIM_PACKAGE, trainers_folder


@pytest.fixture
def nnunet_env(tmp_path, monkeypatch):
    """Empty nnU-Net folders of this test's own; returns their parent.

    Code of this process and commands it starts both see them.
    """
    folders = {name: str(tmp_path / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    for name, folder in folders.items():
        os.mkdir(folder)
        monkeypatch.setenv(name, folder)
    set_variables(folders)
    monkeypatch.setenv("nnUNet_compile", "f")
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    return tmp_path


@pytest.fixture
def aot_eager(monkeypatch):
    """torch.compile without a compiler: Dynamo's graphs and autograd's, run as they are."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: real(module, backend="aot_eager"))
    yield
    torch._dynamo.reset()


@pytest.fixture
def clone_of_nnunet(tmp_path, monkeypatch) -> Path:
    """An nnunetv2 of the test's own for the commands that it starts, as an editable clone would be."""
    clone = tmp_path / "clone"
    shutil.copytree(nnunetv2.__path__[0], clone / "nnunetv2", ignore=shutil.ignore_patterns("__pycache__", "zz_*"))
    monkeypatch.setenv("PYTHONPATH", str(clone))
    return clone


@pytest.fixture
def make_known(request, monkeypatch) -> Callable[..., None]:
    """``make_known(folder, ...)``: nnU-Net finds the trainers in these folders, in this process and in commands.

    By its variable; before 2.8, which reads none, in a clone, where this package's trainers are registered.
    """
    if READS_EXT_TRAINER:
        yield lambda *folders: monkeypatch.setenv("nnUNet_extTrainer", os.pathsep.join(map(str, folders)))
        return
    clone = request.getfixturevalue("clone_of_nnunet") / "nnunetv2"
    trainers = clone / "training" / "nnUNetTrainer"

    def copy(*folders: Path) -> None:
        for folder in folders:
            if folder == trainers_folder():
                (trainers / SHIM_PACKAGE).mkdir()
                (trainers / SHIM_PACKAGE / "__init__.py").touch()
                (trainers / SHIM_PACKAGE / "nnunet_skd_trainers.py").write_text(SHIM)
            else:
                for file in folder.glob("*.py"):
                    shutil.copy(file, trainers)
        monkeypatch.setattr(nnunetv2, "__path__", [str(clone)])
        package = nnunetv2.training.nnUNetTrainer
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(trainers)])

    yield copy
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(clone)):
            del sys.modules[name]
