"""What a folder holds."""

import hashlib
from pathlib import Path


def files_with_hashes(folder: Path) -> dict[str, str]:
    """Of all files but Python's bytecode, which an imported trainer leaves behind."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.suffix != ".pyc")
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
