"""What every converter shares: which files a data set consists of, and what is found in them.

A data set is one module in ``datasets``. Its ``find(files, **options)`` looks at file names only and returns a
``Found``; the pixels are read later, one case at a time, by each case's ``write``.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from nnunet_skd.messages import listed
from nnunet_skd.tools.errors import BadInput

Files = dict[str, Path]  # source and path inside it, "0:Database_134_Angiograms/1.pgm" -> where it is on this disk


class BadCase(Exception):
    """This case cannot be converted; the message says why, the caller adds the case's name."""


class Written(NamedTuple):
    """What ``Case.write`` did: the labels that are present, and how many pixels had to be resolved by a rule."""

    labels: set[int]
    resolved: int = 0


@dataclass
class Case:
    """One image with its reference. ``part`` is the publisher's: "train", "val" or "test"."""

    name: str
    part: str
    write: Callable[[Path, Path], Written]


@dataclass
class Found:
    """Everything about a data set except its pixels. ``problems`` names each missing, unpaired or doubled file.

    ``test_validates``: no validation part is published, so that the test part becomes fold 0's.
    """

    cases: list[Case]
    labels: dict[str, int]
    channel_names: dict[str, str]
    file_ending: str
    configuration: str
    reference: str
    licence: str
    description: str
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    test_validates: bool = False
    resolved: str = ""  # a sentence about the pixels counted in Written.resolved


def index(files: Files, pattern: str, problems: list[str]) -> dict:
    """Files whose path ends as ``pattern`` says, by the pattern's groups (a tuple, or a string if there is one group).

    Digits in a group are compared as numbers, so that 2 comes before 10. Two files with one key are a problem.
    """
    found = {}
    for path in sorted(files):
        match = re.search(f"(?:^|[:/]){pattern}$", path)
        if not match:
            continue
        key = match.groups() if len(match.groups()) > 1 else match.group(1)
        if key in found:
            problems.append(f"{path}: ignored, {found[key]} has the same name or number")
        else:
            found[key] = path
    return {key: files[found[key]] for key in sorted(found, key=natural)}


def natural(key: str | Iterable[str]) -> list:
    """Sorting key: "case10" after "case2"."""
    parts = [key] if isinstance(key, str) else list(key)
    return [[int(piece) if piece.isdigit() else piece for piece in re.split(r"(\d+)", str(part))] for part in parts]


def numbered(names: Iterable[str]) -> dict[str, int]:
    """The labels of a data set: the background is 0, and the names follow from 1 on."""
    return {name: label for label, name in enumerate(["background", *names])}


def paired(images: dict, references: dict, problems: list[str]) -> list:
    """Keys that have both an image and a reference; every other file is a problem, by name."""
    for key, path in (images | references).items():
        if key not in references:
            problems.append(f"{short(path)}: no reference for this image")
        elif key not in images:
            problems.append(f"{short(path)}: no image for this reference")
    return [key for key in images if key in references]


def short(path: Path) -> str:
    """The end of a path, with the folders that tell files of one name apart."""
    return "/".join(path.parts[-3:])


def require_any(cases: list, files: Files, layout: str) -> None:
    """Refuse a source in which nothing of the data set was found."""
    if not cases:
        raise BadInput(
            f"nothing of this data set was found. Expected {layout}, but the source holds "
            f"{listed(sorted(files), 5) or 'no files at all'}"
        )
