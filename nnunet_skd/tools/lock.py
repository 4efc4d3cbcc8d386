"""One run at a time: each reads early what is there, and writes late."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.files import remove_empty

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None

LOCK = ".lock"


@contextmanager
def one_run_at_a_time(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made if missing and goes if nothing was put into it. Whatever ends a run lets it go.

    Raises:
        BadInput: another run holds it.
    """
    if fcntl is None:
        yield
        return
    file = folder / LOCK
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _held(file):
            try:
                yield
            finally:
                file.unlink(missing_ok=True)  # while it is held: nobody else's
    finally:
        remove_empty([folder])


def _held(file: Path) -> IO[str]:
    """The open file, locked. One that its holder has removed since it was opened locks nothing."""
    for _ in range(100):
        opened = file.open("a")
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            opened.close()
            raise BadInput(
                f"another run works in {file.parent}. Wait until it has ended, then run the command again"
            ) from error
        except OSError:
            opened.close()
            break
        if file.exists() and os.path.samestat(os.fstat(opened.fileno()), file.stat()):
            return opened
        opened.close()
    print(f"The file system of {file.parent} has no locks: make sure that no other run works there.", file=sys.stderr)
    return file.open("a")
