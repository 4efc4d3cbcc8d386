"""Which code made a number: versions, and hashes of the sources that a training runs through.

Comments, docstrings and formatting do not count, so that a docstring may say what a study has found. Not hashed:
making.py, prediction.py and the package's tools. Who changes what they do to labels or predictions trains anew with
--restart.
"""

import ast
import hashlib
import sys
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from driver.definition import EXPERIMENTS
from driver.finding import find_trainer

PROTOCOL = EXPERIMENTS / "protocol.py"
DATASETS = EXPERIMENTS / "driver" / "datasets.py"


def fingerprint(recipe: dict) -> str:
    """The versions that a training depends on, such as ``nnunetv2=2.8.1 torch=2.14.1 protocol=1a2b3c4d``.

    Trainers of this package add ``package=``, those of a file in experiments/ also ``file=``, and datasets that the
    driver makes, such as those of a draw, ``datasets=``.

    Raises:
        LookupError: there is no such trainer.
    """
    parts = [f"nnunetv2={version('nnunetv2')}", f"torch={version('torch')}", f"protocol={hash_sources([PROTOCOL])}"]
    if " of draw " in recipe["cases"] or recipe["annotated_slices"] or recipe["prepare"]:
        parts.append(f"datasets={hash_sources([DATASETS])}")
    modules = {cls.__module__ for cls in find_trainer(recipe["trainer"]).__mro__}
    if any(module.split(".")[0] == "nnunet_skd" for module in modules):
        parts.append(f"package={hash_sources(training_path())}")
    files = [Path(sys.modules[m].__file__) for m in modules if getattr(sys.modules.get(m), "__file__", None)]
    own = sorted(file for file in files if EXPERIMENTS in file.resolve().parents)
    if own:
        parts.append(f"file={hash_sources(own)}")
    return " ".join(parts)


def training_path() -> list[Path]:
    """The package's sources but its tools, which stand beside the training path."""
    import nnunet_skd
    import nnunet_skd.trainers

    package = Path(nnunet_skd.__file__).parent
    elsewhere = ("tools", "trainers", "plans")  # an installed package has the last two inside
    inside = [file for file in package.rglob("*.py") if file.relative_to(package).parts[0] not in elsewhere]
    return sorted(inside) + sorted(Path(nnunet_skd.trainers.__path__[0]).glob("*.py"))


def hash_sources(files: Iterable[Path]) -> str:
    """Eight hexadecimal digits for what these Python files do; their folders do not count."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\n{_code(file, file.stat().st_mtime_ns)}\n".encode())
    return digest.hexdigest()[:8]


@lru_cache
def _code(file: Path, changed: int) -> str:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and body:
            if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                node.body = body[1:] or [ast.Pass()]
    return ast.unparse(tree)
