"""What the tools may import, and who may import them; held by folder, not by a list of names."""

import ast
import subprocess
import sys
from pathlib import Path

import nnunet_skd
import nnunet_skd.trainers
from nnunet_skd.tools.convert.conversion import DATASETS

PACKAGE = Path(nnunet_skd.__path__[0])


def imports(file: Path) -> set[str]:
    """Dotted names of the modules that a file imports, at its top or inside functions; of ``from a import b`` both."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_the_tools_are_never_inside_the_training_path():
    """Held by folder: whatever lies outside tools."""
    trainers = Path(nnunet_skd.trainers.__path__[0])
    training_path = [file for file in PACKAGE.rglob("*.py") if file.relative_to(PACKAGE).parts[0] != "tools"]
    for file in [*training_path, *trainers.glob("*.py")]:
        assert not {m for m in imports(file) if m.startswith("nnunet_skd.tools")}, file


def test_no_converter_imports_another():
    converters = list((PACKAGE / "tools" / "convert" / "datasets").glob("*.py"))
    assert {file.stem for file in converters} - {"__init__"} == set(DATASETS)
    for file in converters:
        assert not {m for m in imports(file) if m.startswith("nnunet_skd.tools.convert.datasets")}, file


def test_the_command_line_imports_no_command():
    """In a process where neither nnunetv2 nor torch can be imported."""
    code = "import sys; sys.modules |= {'nnunetv2': None, 'torch': None}\nimport nnunet_skd.tools.cli"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_files_needs_nothing_but_the_standard_library():
    used = {m.split(".")[0] for m in imports(PACKAGE / "tools" / "files.py")}
    assert used <= {*sys.stdlib_module_names, "nnunet_skd"}


def test_every_package_is_declared():
    """setup.py finds them; a folder without __init__.py would be left out of the wheel."""
    folders = {file.parent for file in PACKAGE.rglob("*.py")}
    assert {folder for folder in folders if not (folder / "__init__.py").is_file()} == set()
