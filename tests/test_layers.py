"""The house: imports run one way, from folder to folder, and files stay small."""

import subprocess
import sys
from pathlib import Path

import pytest
from imports import imports

import nnunet_skd
import nnunet_skd.trainers
from driver.fingerprint import training_path
from nnunet_skd.tools.convert.conversion import DATASETS

PACKAGE = Path(nnunet_skd.__path__[0])
TRAINERS = Path(nnunet_skd.trainers.__path__[0])

# losses, acw -> step, teachers -> loss -> trainer -> catalogue, trainers. A file of the package that is not named here
# stands with the loss: below the trainer, above what terms and teachers read.
TOP = ("catalogue", "trainers")
LEVELS = {"losses": 0, "acw": 1, "feature_tap": 1, "step": 2, "teachers": 2, "trainer": 4} | dict.fromkeys(TOP, 5)
LOSS = 3


def room(module: str) -> str:
    """The folder or file of the package that a dotted name lies in."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def room_of(file: Path) -> str:
    if file.parent == TRAINERS:
        return "trainers"
    first = file.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def level(name: str) -> int:
    return LEVELS.get(name, LOSS)


@pytest.mark.parametrize("file", training_path(), ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_imports_run_one_way(file):
    """No file imports from a room above its own, nor any of the tools."""
    here = room_of(file)
    for module in imports(file):
        assert not module.startswith("."), f"{file} imports {module}"
        if module.split(".")[0] != "nnunet_skd" or module == "nnunet_skd":
            continue
        there = room(module)
        assert there != "tools", f"{file} imports {module}"
        assert level(there) <= level(here), f"{file} imports {module}"


@pytest.mark.parametrize("folder", ["losses", "acw"])
def test_losses_and_acw_import_torch_alone(folder):
    """No nnU-Net, and nothing that is not in the standard library."""
    for file in (PACKAGE / folder).glob("*.py"):
        for module in imports(file):
            root = module.split(".")[0]
            assert root in ("torch", "nnunet_skd") or root in sys.stdlib_module_names, f"{file} imports {module}"


def test_no_room_imports_itself_in_a_circle():
    """Where files of one level import each other, one of them must come first."""
    edges = {}
    for file in training_path():
        name = ".".join(("nnunet_skd", "trainers", file.stem) if file.parent == TRAINERS
                        else ("nnunet_skd", *file.relative_to(PACKAGE).with_suffix("").parts))  # fmt: skip
        edges[name] = imports(file)
    edges = {
        name: {
            other for other in edges if other != name and any(m == other or m.startswith(f"{other}.") for m in found)
        }
        for name, found in edges.items()
    }
    while edges:
        free = {name for name, needs in edges.items() if not needs & edges.keys()}
        assert free, f"circle among {sorted(edges)}"
        edges = {name: needs for name, needs in edges.items() if name not in free}


@pytest.mark.parametrize("file", training_path(), ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_no_file_of_the_training_path_is_long(file):
    lines = len(file.read_text().splitlines())
    assert lines <= (150 if file == PACKAGE / "trainer.py" else 200)


def test_what_is_imported_for_types_alone_does_not_count(tmp_path):
    file = tmp_path / "example.py"
    file.write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a\nelse:\n    import b\n")
    assert imports(file) == {"typing.TYPE_CHECKING", "b"}
    file.write_text("def f():\n    from nnunet_skd.tools import errors\n")
    assert imports(file) == {"nnunet_skd.tools.errors"}
    file.write_text("from . import a\nfrom ..tools import errors\n")
    assert imports(file) == {"..a", "..tools.errors"}


def test_what_commands_share_imports_none_of_them():
    for file in (PACKAGE / "tools").glob("*.py"):
        for module in imports(file):
            room = PACKAGE.joinpath(*module.split(".")[1:3])
            assert not (module.startswith("nnunet_skd.tools.") and room.is_dir()), f"{file} imports {module}"


def test_no_converter_imports_another():
    converters = list((PACKAGE / "tools" / "convert" / "datasets").glob("*.py"))
    assert {file.stem for file in converters} - {"__init__"} == set(DATASETS)
    for file in converters:
        assert not {m for m in imports(file) if m.startswith("nnunet_skd.tools.convert.datasets")}, file


def test_no_file_of_the_tests_imports_a_test():
    """What two of them need lies in a file that is none."""
    files = list(Path(__file__).parent.rglob("*.py"))
    tests = {file.stem for file in files if file.stem.startswith("test_")}
    for file in files:
        assert not tests & {part for module in imports(file) for part in module.split(".")}, file


def test_the_command_line_imports_no_command():
    """In a process where neither nnunetv2 nor torch can be imported."""
    code = "import sys; sys.modules |= {'nnunetv2': None, 'torch': None}\nimport nnunet_skd.tools.cli"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_files_needs_nothing_but_the_standard_library():
    used = {m.split(".")[0] for m in imports(PACKAGE / "tools" / "files.py")}
    assert used <= {*sys.stdlib_module_names, "nnunet_skd"}
