"""What lies below a folder, and putting back what did."""

import hashlib
import os
import shutil
from pathlib import Path

from damages import remove


def tree(folder: Path) -> dict[str, str]:
    """Every file and folder below one, with a hash of what it holds. nnU-Net's own folders may be made."""
    found = {}
    for path in sorted(folder.rglob("*")):
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
        content = content if isinstance(content, bytes) else os.fsencode(content)
        found[str(path.relative_to(folder))] = hashlib.sha1(content, usedforsecurity=False).hexdigest()
    return found


def restore(env: Path, before: dict[str, str], copy: Path) -> None:
    """Remove what a command that took its input has made, and put back what it changed."""
    now = tree(env)
    for name in sorted(set(now) - set(before), reverse=True):
        remove(env / name)
    for name in before:
        if now.get(name) != before[name] and (copy / name).is_file():
            (env / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(copy / name, env / name)
