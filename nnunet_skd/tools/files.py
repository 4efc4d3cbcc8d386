"""Files and folders that appear complete or not at all."""

import errno
import hashlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nnunet_skd.messages import first_line
from nnunet_skd.tools.errors import BadInput

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def naming_what_is_full(place: str | Path) -> Iterator[None]:
    """Where writing ends at a full disk, the error names the place: Python's names none, or the file copied from.

    Raises:
        OSError: the same, with ``place`` as its file name.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise OSError(error.errno, error.strerror, str(place)) from error
        raise


def write_file(path: Path, content: str | bytes | Callable[[Path], object]) -> None:
    """Write aside, then move into place: nobody ever sees half a file, and a failure leaves the old one as it was.

    Args:
        path: the file to make or replace. A link stays, what it points to is replaced; permissions are kept.
        content: text (UTF-8), bytes, or a function that writes to the path it is given, which ends like ``path``.
    """
    path = Path(path).resolve()
    unfinished = path.with_name(f".{secrets.token_hex(4)}.{path.name}")  # machines that share a disk have equal pids
    try:
        with naming_what_is_full(path):
            if isinstance(content, str):
                unfinished.write_text(content, encoding="utf-8")
            elif isinstance(content, bytes):
                unfinished.write_bytes(content)
            else:
                content(unfinished)
        if path.exists():
            shutil.copymode(path, unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def scratch_folder(parent: Path, prefix: str = ".nnunet_skd_") -> Iterator[Path]:
    """A folder inside ``parent`` (made if missing) that is gone afterwards, whatever happens.

    ``parent`` goes too where it was made here and nothing was put into it.

    Raises:
        BadInput: ``parent`` cannot be written to.
    """
    parent = Path(parent)
    made = missing_folders(parent)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True)
    except OSError as error:
        remove_empty(made)
        raise BadInput(f"cannot write to {parent}: {error.strerror}. Choose a folder that you may write to") from error
    try:
        with folder as name, naming_what_is_full(parent):
            yield Path(name)
    finally:
        remove_empty(made)


def remove_scratch(parent: Path, prefix: str) -> None:
    """What killed runs left of their scratch folders; call it where no other run can be at work."""
    for left in parent.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)


def missing_folders(folder: Path) -> list[Path]:
    """The folder and those above it that are not there, from the lowest up."""
    return [place for place in (folder, *folder.parents) if not place.exists()]


def remove_empty(folders: list[Path]) -> None:
    """Remove these folders as far as they are empty."""
    with suppress(OSError):  # not empty, or never made
        for folder in folders:
            folder.rmdir()


def require_writable(folder: str | Path) -> None:
    """Find out before the work whether something can be written into a folder, which may still have to be made.

    Raises:
        BadInput: it cannot.
    """
    with scratch_folder(Path(folder)):
        pass


@contextmanager
def written_by_a_library(file: Path) -> Iterator[None]:
    """Around a library that has an error of its own for a full disk.

    Raises:
        OSError: instead of it.
    """
    try:
        yield
    except RuntimeError as error:
        raise OSError(errno.EIO, f"it cannot be written: {first_line(error)}", str(file)) from error


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill that takes the name ``target`` when all is well, and vanishes otherwise.

    Raises:
        BadInput: ``target`` exists and is not an empty folder, before or after the work; it is left as it is.
    """
    target = Path(target).resolve()
    require_free(target)
    with scratch_folder(target.parent, prefix=f".{target.name}.") as scratch:
        folder = scratch / target.name  # inside scratch, whose permissions are for its owner only
        folder.mkdir()
        yield folder
        require_free(target)
        if target.exists():
            target.rmdir()
        folder.rename(target)


@contextmanager
def new_files(folder: Path) -> Iterator[Path]:
    """A folder to write files into that move to ``folder`` together when all is well; none of them does otherwise."""
    with scratch_folder(folder) as scratch:
        yield scratch
        for file in sorted(scratch.iterdir()):
            os.replace(file, Path(folder) / file.name)


def link(source: str | Path, target: Path) -> None:
    """Link a file, or copy it where links are not allowed. The folder is made if missing, and what is there stays."""
    if _make_way(target):
        try:
            target.symlink_to(Path(source).resolve())
        except OSError:  # Windows without the right to link
            copy(source, target)


def copy(source: str | Path, target: Path) -> None:
    """Copy a file's content. The folder is made if missing, and what is there stays."""
    if _make_way(target):
        write_file(target, lambda path: shutil.copyfile(source, path))


def _make_way(target: Path) -> bool:
    """Make the folder, remove a link to nowhere, and say whether the file is still to be brought."""
    target.parent.mkdir(exist_ok=True)
    if target.is_file():
        return False
    target.unlink(missing_ok=True)  # a link to where the file was before
    return True


def file_hash(file: Path) -> str:
    """SHA-256 of what is in a file, whatever its name and times are."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:  # hashlib.file_digest needs Python 3.11
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def as_file_name(text: str) -> str:
    """A name that a file or folder can have."""
    return re.sub(r"[^\w.-]+", "_", text)


def left_behind(name: str) -> bool:
    """Whether a name is one of those that operating systems leave behind: ._x, .DS_Store, __MACOSX, Thumbs.db, ..."""
    return name.startswith((".", "__MACOSX")) or name.lower() in ("thumbs.db", "desktop.ini")


def require_folder(folder: str | Path) -> Path:
    """The folder as a path.

    Raises:
        BadInput: it does not exist, or is a file.
    """
    if not Path(folder).is_dir():
        raise BadInput(f"{folder} is not a folder. Check the path")
    return Path(folder)


def require_absent(folder: str | Path, names: Iterable[str], way_out: str = "") -> None:
    """Refuse a folder that holds one of these files already, before any work is done.

    Raises:
        BadInput: it does.
    """
    if taken := [name for name in names if (Path(folder) / name).exists()]:
        raise BadInput(f"{Path(folder) / taken[0]} exists already. Name another folder with -o{way_out}")


def require_new(target: str | Path) -> Path:
    """The folder to make, where nothing would be overwritten and something can be written: known before the work.

    Raises:
        BadInput: it exists and is not empty, or cannot be written.
    """
    target = Path(target)
    require_free(target)
    require_writable(target)
    return target


def require_free(target: Path) -> None:
    """Refuse a path where something would be overwritten.

    Raises:
        BadInput: ``target`` exists and is not an empty folder; a link to nowhere exists too.
    """
    target = Path(target)
    if os.path.lexists(target) and (not target.is_dir() or any(target.iterdir())):
        raise BadInput(f"{target} exists and is not empty. Choose another name, or remove it first")
