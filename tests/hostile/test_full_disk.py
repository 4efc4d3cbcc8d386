"""A disk that is really full, at every place where a command may notice it: exit status 1, one line, nothing left.

A small tmpfs holds all of nnU-Net's folders; before each run a ballast file leaves so many pages of it. Skipped where
mounting is not allowed; test_inputs.py limits the sizes of files everywhere.
"""

import hashlib
import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from scenes import SCENES
from trees import restore, tree

from nnunet_skd.tools.cli import main
from nnunet_skd.tools.export import to_onnx

pytestmark = pytest.mark.slow
SECONDS = ("cases.csv", "speed.csv", "speed.png")  # hold measured times
PAGE = 4096
FREE = (0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377)  # pages
WRITE = (
    *("evaluate", "compare_predictions", "speed", "export", "export_onnx_really", "compact", "unlabelled", "register"),
    *("convert_arcade", "convert_zip", "convert_synapse", "convert_btcv", "convert_m2caiseg", "demo_folders"),
    "pseudo_labels",
)

GO_ON = ("unlabelled", "demo_folders", "pseudo_labels")  # keep what is complete: each run continues the one before


@pytest.fixture
def disk(nnunet_env) -> Iterator[Path]:
    """A file system of 16 MiB in place of the folder that holds nnU-Net's."""
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "none", str(nnunet_env)], capture_output=True
    )
    if not mounted or mounted.returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (nnunet_env / name).mkdir(exist_ok=True)
        yield nnunet_env
    finally:
        subprocess.run(["umount", "-l", str(nnunet_env)], check=True)


@pytest.mark.parametrize("name", WRITE)
def test_a_full_disk(disk, tmp_path_factory, monkeypatch, capsys, name):
    write_onnx = to_onnx.write_onnx
    scene = SCENES[name.removesuffix("_really")](disk, monkeypatch)
    monkeypatch.setattr(to_onnx, "write_onnx", write_onnx)
    before, copy = tree(disk), tmp_path_factory.mktemp("copy") / "copy"
    shutil.copytree(disk, copy, symlinks=True)
    whole = run_to_its_end(scene.arguments, capsys, disk)
    restore(disk, before, copy)
    wrong, refused = [], 0
    for pages in FREE:
        ballast = disk / "ballast"
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - pages * PAGE)
        capsys.readouterr()
        status = main([str(argument) for argument in scene.arguments])
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("nnunet-skd")]
        ballast.unlink()
        left = sorted(tree(disk).items() ^ before.items())
        if enough := status == 0 or "REACHED" in str(said):
            break
        refused += 1
        if (status != 1 and "Make room" not in str(said)) or len(said) != 1 or "bug of nnunet-skd" in said[0]:
            wrong.append(f"{pages} pages: exit status {status}: {said}")
        elif str(disk) not in said[0]:
            wrong.append(f"{pages} pages: does not name the disk: {said[0]}")
        if name in GO_ON:
            continue
        if left:
            wrong.append(f"{pages} pages: left behind: {left[:4]}")
        restore(disk, before, copy)
    with capsys.disabled():
        print(f"\n{name}: refused {refused} times, then {pages} pages were enough: {enough}")
    assert not wrong, "\n".join(wrong)
    assert enough and refused
    assert contents_of(disk) == whole


def run_to_its_end(arguments: list, capsys, disk: Path) -> dict[str, bytes]:
    """What a command makes where the disk has room."""
    assert main([str(argument) for argument in arguments]) == 0 or "REACHED" in capsys.readouterr().err
    return contents_of(disk)


def contents_of(disk: Path) -> dict[str, bytes]:
    """Of every image and archive; the other bytes of b2nd files and archives differ from run to run."""
    import blosc2

    found = {file: file.read_bytes() for ending in (".nii.gz", ".png", ".csv") for file in disk.rglob(f"*{ending}")}
    found = {file: content for file, content in found.items() if file.name not in SECONDS}
    found |= {file: blosc2.open(str(file))[:].tobytes() for file in disk.rglob("unlabelled/*/*.b2nd")}
    found |= {file: repr(checked_names(file)).encode() for file in disk.rglob("*.zip")}
    return {str(file): hashlib.sha1(content, usedforsecurity=False).digest() for file, content in found.items()}


def checked_names(archive: Path) -> list[str]:
    """What an archive holds, read to its end."""
    with zipfile.ZipFile(archive) as file:
        assert file.testzip() is None
        return sorted(file.namelist())
