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
from commands import clone_nnunet, make_known_to_commands, plan_and_preprocess, shrink_plans

from nnunet_skd.compat import READS_EXT_TRAINER, set_variables
from nnunet_skd.tools.demo.phantoms import write_phantom_dataset


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


@pytest.fixture(scope="session")
def planned_phantoms(tmp_path_factory) -> Path:
    """nnU-Net's folders with one dataset: images in 2D, five with labels and three to predict, and a small network."""
    root = tmp_path_factory.mktemp("phantoms")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            patch.setenv(name, str(root / name))
            (root / name).mkdir()
        dataset = write_phantom_dataset(root / "nnUNet_raw", 900, dim=2, num_train=5, num_test=3, size=(64, 64))
        plan_and_preprocess("2d")
        shrink_plans(dataset)
    return root


@pytest.fixture
def phantoms(nnunet_env, planned_phantoms) -> Path:
    """A copy of this dataset in the test's own folders; returns the raw one."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        shutil.copytree(planned_phantoms / name, nnunet_env / name, dirs_exist_ok=True)
    (dataset,) = (nnunet_env / "nnUNet_raw").iterdir()
    return dataset


@pytest.fixture
def aot_eager(monkeypatch):
    """torch.compile without a compiler: Dynamo's graphs and autograd's, run as they are."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: real(module, backend="aot_eager"))
    yield
    torch._dynamo.reset()


@pytest.fixture
def clone_of_nnunet(tmp_path, monkeypatch) -> Path:
    """An nnunetv2 of the test's own, so that registering leaves yours alone."""
    return clone_nnunet(tmp_path, monkeypatch)


@pytest.fixture
def make_known(tmp_path, monkeypatch) -> Callable[..., None]:
    """``make_known(folder, ...)``: nnU-Net finds the trainers in these folders, in this process and in commands."""
    clone = tmp_path / "clone" / "nnunetv2"

    def known(*folders: Path) -> None:
        make_known_to_commands(tmp_path, monkeypatch, *folders)
        if not READS_EXT_TRAINER:
            package = nnunetv2.training.nnUNetTrainer
            trainers = str(clone / "training" / "nnUNetTrainer")
            monkeypatch.setattr(nnunetv2, "__path__", [str(clone)])
            monkeypatch.setattr(package, "__path__", [*package.__path__, trainers])

    yield known
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(clone)):
            del sys.modules[name]
