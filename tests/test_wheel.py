"""What pip installs is the whole package, and it works where no clone of the repository lies."""

import configparser
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import nnunet_skd
import nnunet_skd.trainers
from nnunet_skd.compat import READS_EXT_TRAINER

ROOT = Path(__file__).parents[1]
# folder in the repository -> package
FOLDERS = {"nnunet_skd": "nnunet_skd", "trainers": "nnunet_skd.trainers", "plans": "nnunet_skd.plans"}


def packages() -> list[str]:
    """Of the repository's folders that hold Python files."""
    found = set()
    for folder, package in FOLDERS.items():
        for file in (ROOT / folder).rglob("*.py"):
            found.add(".".join([package, *file.parent.relative_to(ROOT / folder).parts]))
    return sorted(found)


def test_setup_cfg_lists_every_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert sorted(config["options"]["packages"].split()) == packages()


def test_public_names_come_when_they_are_used():
    """The command line must not wait for torch, and a loss must not need nnunetv2."""
    code = (
        "import sys; sys.modules['nnunetv2'] = None\n"
        "import nnunet_skd.tools.cli\n"
        "assert 'torch' not in sys.modules\n"
        "from nnunet_skd import *\n"
        "assert issubclass(DeepDistribution, Term) and issubclass(PreviousEpoch, Teacher)\n"
        "import nnunet_skd\n"
        "assert set(nnunet_skd.__all__) <= set(dir(nnunet_skd))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'Terms'"):
        nnunet_skd.Terms  # noqa: B018


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from the source distribution, and that from a copy of the repository: building writes beside the source."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    _build("sdist", source, folder)
    (archive,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(archive, folder)
    _build("wheel", folder / archive.name.removesuffix(".tar.gz"), folder)
    (file,) = folder.glob("*.whl")
    return file


def _build(kind: str, source: Path, target: Path) -> None:
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(target)!r})"
    _run(sys.executable, "-c", code, cwd=source)


def _run(*command: str | Path, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
    )
    assert done.returncode == 0, f"{command} -> {done.returncode}\n{done.stdout[-6000:]}"
    return done.stdout


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_preset(wheel):
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = set()
    for folder, package in FOLDERS.items():
        for file in [*(ROOT / folder).rglob("*.py"), *(ROOT / folder).glob("*.json")]:
            expected.add(f"{package.replace('.', '/')}/{file.relative_to(ROOT / folder).as_posix()}")
    assert inside == expected


@pytest.mark.slow
@pytest.mark.skipif(not READS_EXT_TRAINER, reason="nnU-Net reads nnUNet_extTrainer since 2.8")
def test_the_wheel_works_in_a_fresh_environment(wheel, tmp_path, nnunet_env):
    """One that sees the packages of this environment, but not its nnunet_skd."""
    venv.create(tmp_path / "venv", with_pip=True)
    bin_folder = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python = bin_folder / "python"
    site = _run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    _run(python, "-m", "pip", "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    Path(site, "this_environment.pth").write_text(sysconfig.get_path("purelib"))

    folder = _run(bin_folder / "nnunet-skd", "path", cwd=tmp_path).strip()
    assert Path(folder) == Path(site, "nnunet_skd", "trainers").resolve()
    assert sorted(p.name for p in Path(folder).glob("nnUNetTrainer*.py")) == sorted(
        p.name for p in (ROOT / "trainers").glob("nnUNetTrainer*.py")
    )
    assert "nnunet_skd " in _run(bin_folder / "nnunet-skd", "--version", cwd=tmp_path)
    look_up = (
        "import nnunet_skd\n"
        "from nnunet_skd.tools.compact.presets import load_preset\n"
        "from nnunet_skd.compat import find_trainer as find\n"
        "load_preset('cpu_demo')\n"
        "print(find('nnUNetTrainerDSKD').__mro__[1].__module__, nnunet_skd.__file__)\n"
    )
    said = _run(python, "-c", look_up, cwd=tmp_path, nnUNet_extTrainer=folder)
    assert said.strip().splitlines()[-1] == f"nnunet_skd.trainer {Path(site, 'nnunet_skd', '__init__.py')}"
