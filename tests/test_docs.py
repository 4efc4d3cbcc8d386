"""The pages refer to what exists: files, headings, trainers, commands; and their examples run."""

import importlib
import re
from pathlib import Path

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_skd.catalogue import trainer_classes
from nnunet_skd.tools.cli import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "experiments").rglob("*.md")]
# of today's users; the notebook also tells of trainers that are gone
CURRENT = [page for page in PAGES if page.name != "notebook.md"]
EXAMPLES = {
    "nnUNetTrainerMine",
    "nnUNetTrainerDSKD_finer",
    "nnUNetTrainerDSKD_finer_5epochs",
    "nnUNetTrainerDSKD_NoMirroring",
    "nnUNetTrainerNAME",
}  # made up, or nnU-Net's
STOCK = {
    "nnUNetTrainer",
    "nnUNetTrainer_100epochs",
    "nnUNetTrainer_250epochs",
    "nnUNetTrainer_250epochs_NoMirroring",
    "nnUNetTrainerDA5",
    "nnUNetTrainerNoMirroring",
}


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def headings(page: Path) -> set[str]:
    """The page's headings as GitHub makes anchors of them."""
    lines = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in headings(file), target


@pytest.mark.parametrize("page", CURRENT, ids=name_of)
def test_trainers_and_commands_exist(page):
    text = page.read_text()
    # a trained model's folder is named TRAINER__PLANS__CONFIGURATION
    named = {name.split("__")[0] for name in re.findall(r"\bnnUNetTrainer\w*(?<!_)", text)}
    assert named <= set(trainer_classes()) | STOCK | EXAMPLES
    assert set(re.findall(r"\bnnunet-skd ([a-z][a-z-]*[a-z])", text)) <= set(COMMANDS)


def test_what_the_gpu_scripts_import_exists():
    scripts = "".join(script.read_text() for script in (ROOT / "experiments" / "gpu").glob("*.sh"))
    imports = re.findall(r"^from (nnunet_skd[\w.]*) import (\w+)$", scripts, re.M)
    assert imports
    for module, name in imports:
        assert hasattr(importlib.import_module(module), name)


def test_the_example_of_a_variant_runs():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    namespace = {}
    exec(code, namespace)
    first, second = namespace["nnUNetTrainerDSKD_finer"].terms
    assert first.options["patches_per_axis"] == 8 and second.name == "psdl"
    assert namespace["nnUNetTrainerDSKD_finer_5epochs"].terms == namespace["nnUNetTrainerDSKD_finer"].terms
    assert issubclass(namespace["nnUNetTrainerDSKD_NoMirroring"], nnUNetTrainer)
