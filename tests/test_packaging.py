"""What the package may import, what it declares, and what it ships."""

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nnunet_skd
import nnunet_skd.trainers
from nnunet_skd.tools.cli import COMMANDS

PACKAGE = Path(nnunet_skd.__path__[0])
TORCH_ONLY = (
    "acw_skd",
    "adversarial_temperature",
    "class_wise_features",
    "deep_distribution_loss",
    "distillation_terms",
    "feature_reconstruction",
    "feature_tap",
    "patches",
    "pixelwise_distillation",
    "precision",
    "self_distillation_loss",
    "shared_probabilities",
    "targets",
    "teacher",
)


def imports(file: Path) -> set[str]:
    """Dotted names of the modules that a file imports, at its top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return names


def test_losses_and_modules_work_without_nnunet():
    """In a process where nnunetv2 cannot be imported."""
    code = "import sys; sys.modules['nnunetv2'] = None\n" + "\n".join(f"import nnunet_skd.{m}" for m in TORCH_ONLY)
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_module_of_the_training_path_is_in_one_of_the_layers():
    modules = {file.stem for file in PACKAGE.glob("*.py")}
    assert modules == {*TORCH_ONLY, "__init__", "catalogue", "distillation_log", "trainer", "unlabelled_data"}


def test_imports_run_one_way():
    """Losses and modules -> trainer -> catalogue; the tools stand beside and are never inside the training path."""
    for name in TORCH_ONLY:
        assert not {m for m in imports(PACKAGE / f"{name}.py") if m.startswith(("nnunetv2", "nnunet_skd.t"))} - {
            "nnunet_skd.targets"
        }
    training_path = [*PACKAGE.glob("*.py"), *Path(nnunet_skd.trainers.__path__[0]).glob("*.py")]
    for file in training_path:
        assert not any(m.startswith("nnunet_skd.tools") for m in imports(file)), file


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
