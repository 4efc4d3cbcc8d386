"""The example in each loss's docstring shows what the loss does, and is run here."""

import ast
import doctest
import importlib
from pathlib import Path

import pytest

import nnunet_skd

PACKAGE = Path(nnunet_skd.__path__[0])
FILES = [*(PACKAGE / "losses").glob("*.py"), *(PACKAGE / "acw").glob("*.py")]
MODULES = [f"nnunet_skd.{file.parent.name}.{file.stem}" for file in FILES if file.stem != "__init__"]
LOSSES = ("loss", "divergence", "cross_entropy")


def test_every_loss_has_an_example():
    """What is public and says by its name that it is a loss; the lean form of a loss refers to the plain one."""
    without, found = [], []
    for file in FILES:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.endswith(LOSSES) and node.name[0] != "_":
                found.append(node.name)
                if ">>>" not in (ast.get_docstring(node) or "") and not node.name.startswith("lean_"):
                    without.append(node.name)
    assert len(found) >= 7 and without == []


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_right(name):
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert results.failed == 0


def test_the_examples_are_run():
    results = [doctest.testmod(importlib.import_module(name)) for name in MODULES]
    assert sum(result.attempted for result in results) >= 12
