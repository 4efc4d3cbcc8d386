"""What the package may import, what it declares, and what it ships."""

import importlib.metadata
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
from imports import imports

import nnunet_skd
import nnunet_skd.trainers
from nnunet_skd.tools.checkpoint_file import OLDEST_TORCH
from nnunet_skd.tools.cli import COMMANDS

PACKAGE = Path(nnunet_skd.__path__[0])


def test_losses_and_modules_work_without_nnunet():
    """In a process where nnunetv2 cannot be imported: for those who want the losses in another framework."""
    files = [*(PACKAGE / "losses").glob("*.py"), *(PACKAGE / "acw").glob("*.py")]
    modules = [f"nnunet_skd.{file.parent.name}.{file.stem}" for file in files] + ["nnunet_skd.step"]
    code = "import sys; sys.modules['nnunetv2'] = None\n" + "\n".join(f"import {m}" for m in modules)
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 does not know which package has a module")
def test_every_third_party_import_is_declared():
    requirements = importlib.metadata.requires("nnunet_skd")
    declared = {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in requirements}
    owners = importlib.metadata.packages_distributions()
    missing = {}
    for file in [*PACKAGE.rglob("*.py"), *Path(nnunet_skd.trainers.__path__[0]).glob("*.py")]:
        for module in {name.split(".")[0] for name in imports(file)} - {"nnunet_skd"} - set(sys.stdlib_module_names):
            names = {name.lower().replace("_", "-") for name in owners.get(module, [module])}
            if not names & declared:
                missing.setdefault(module, []).append(file.name)
    assert missing == {}


def test_pip_installs_a_torch_that_reads_checkpoints_without_executing_them():
    """With an earlier one the beginning of a training counts as a training."""
    declared = ConfigParser()
    declared.read(Path(__file__).parents[1] / "setup.cfg")
    assert f"torch>={'.'.join(map(str, OLDEST_TORCH))}" in declared["options"]["install_requires"].split()


def test_trainers_folder_holds_nothing_but_trainers():
    """nnU-Net imports every module it finds there, by its bare name."""
    for file in Path(nnunet_skd.trainers.__path__[0]).glob("*.py"):
        assert file.stem == "__init__" or file.stem.startswith("nnUNetTrainer")
        assert not any(m.startswith(".") for m in imports(file))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    from nnunet_skd.tools.cli import main

    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert len(capsys.readouterr().out) > 200
