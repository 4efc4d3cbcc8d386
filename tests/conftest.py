"""What every test file may use."""

import os

import pytest
import torch

from nnunet_skd.compat import set_variables


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
