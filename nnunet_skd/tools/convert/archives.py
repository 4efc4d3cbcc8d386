"""Unpack an archive without trusting it."""

import re
import shutil
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from tqdm import tqdm

from nnunet_skd.messages import listed
from nnunet_skd.tools.errors import BadInput


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive into a new ``folder``. All members are checked before the first one is written.

    Raises:
        BadInput: not an archive, damaged, too large for the disk, or with a member that is not a plain file or folder
            inside the archive: an absolute path, one with '..', a link, a device.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                _extract(archive, [_zip_member(info) for info in opened.infolist()], opened.open, folder)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as opened:
                members = [_tar_member(info) for info in opened]
                while opened.fileobj.read(2**20):  # tarfile takes a cut between two members for the end; gzip does not
                    pass
                _extract(archive, members, opened.extractfile, folder)
        else:
            raise BadInput(f"{archive} is not a zip or tar archive. Unpack it yourself, and give the folder")
    except (BadInput, MemoryError):
        raise
    except Exception as error:  # a damaged archive fails in as many ways as it can be damaged
        if isinstance(error, OSError) and error.errno is not None:  # the disk's, not gzip's
            raise
        raise BadInput(f"{archive} cannot be unpacked ({error}). Download it again, or give the folder") from error


class _Member(NamedTuple):
    name: str
    size: int
    kind: str  # "file", "folder" or "other"
    info: zipfile.ZipInfo | tarfile.TarInfo


def _zip_member(info: zipfile.ZipInfo) -> _Member:
    # the upper 16 bits hold the Unix file type; archives made on other systems have 0 there
    plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
    kind = "other" if not plain else "folder" if info.is_dir() else "file"
    return _Member(info.filename.replace("\\", "/"), info.file_size, kind, info)


def _tar_member(info: tarfile.TarInfo) -> _Member:
    kind = "file" if info.isfile() else "folder" if info.isdir() else "other"
    return _Member(info.name, info.size, kind, info)


def _extract(archive: Path, members: list[_Member], opener: Callable[[Any], BinaryIO], folder: Path) -> None:
    for member in members:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", member.name):
            raise BadInput(
                f"{archive}: the member {member.name!r} points outside the target. Do not trust this archive"
            )
        if member.kind == "other":
            raise BadInput(
                f"{archive}: the member {member.name!r} is a link or a device, which may point outside the target and "
                "is not unpacked here. If you trust the archive, unpack it yourself and give the folder"
            )
    names = Counter(PurePosixPath(member.name) for member in members if member.kind == "file")
    if twice := [str(name) for name, times in names.items() if times > 1]:
        raise BadInput(f"{archive} holds twice: {listed(twice)}. Unpack it yourself and give the folder")
    size, free = sum(member.size for member in members), shutil.disk_usage(folder.parent).free
    if size > free:
        raise BadInput(
            f"{archive} unpacks to {size / 2**30:.1f} GiB, but the disk of nnUNet_raw has {free / 2**30:.1f} GiB left. "
            "Make room there first"
        )
    folder.mkdir()
    with tqdm(total=size, unit="B", unit_scale=True, desc="unpacking") as bar:
        for member in members:
            if member.kind != "file":
                continue
            path = folder / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with opener(member.info) as source, open(path, "xb") as copy:
                shutil.copyfileobj(source, copy, 2**20)
            bar.update(member.size)
