"""Everything that may be wrong with a file, made from the file itself: name -> what to do to it."""

import gzip
import json
import math
import os
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np

Damage = Callable[[Path], None]
VALUES = (
    *(None, True, -1, 0, 1.5, 10**30, math.nan, math.inf, "", "text", "../../..", "\u00e9\ud800", "/etc/passwd"),
    *([], [[]], ["text"], [1, 2], [None], {}, {"a": {}}, {"0": 0}),
)
HEADER_FIELDS = {  # of NIfTI: offset and format -> values
    (40, "<h"): (0, 8, -1, 32767),
    (42, "<h"): (0, -1, 32767),
    (44, "<h"): (0, -3, 32767),
    (46, "<h"): (0, 32767),
    (70, "<h"): (0, 1, 32, 64, 128, 1792, 9999),
    (80, "<f"): (math.nan, 0.0, -1.0, 1e30),
    (108, "<f"): (math.nan, -1.0, 1e30),
    (112, "<f"): (math.nan, math.inf),
    (344, "<i"): (0, -1),
}


def damages(file: Path) -> Iterator[tuple[str, Damage, list[str]]]:
    """All damages of one file, each of which takes away what makes it usable, or may; and the JSON keys concerned."""
    for what, damage, *keys in _damages(file):
        yield what, damage, [key for key in (keys[0] if keys else ()) if isinstance(key, str)][-1:]


def _damages(file: Path) -> Iterator[tuple]:
    raw = file.read_bytes()
    yield "missing", Path.unlink
    yield "a folder", _folder
    yield "a dangling link", _dangling
    yield "a link to itself", lambda path: (path.unlink(), path.symlink_to(path))
    if os.getuid() != 0:
        yield "unreadable", lambda path: path.chmod(0)
    for size in sorted({0, 1, 10, 100, *(int(share * len(raw)) for share in (0.1, 0.3, 0.6, 0.9)), len(raw) - 1}):
        if 0 <= size < len(raw):
            yield f"cut at {size} of {len(raw)} bytes", _content(raw[:size])
    noise = random.Random(0).randbytes(len(raw))
    yield "noise", _content(noise)
    yield "zeros", _content(bytes(len(raw)))
    yield "noise in the middle", _content(raw[: len(raw) // 2] + noise[:16] + raw[len(raw) // 2 + 16 :])
    yield "another kind of file", _content(b"\x1f\x8b\x08\x00 no gzip")
    if file.suffix == ".json":
        yield from _of_json(json.loads(raw))
    elif file.name.endswith(".nii.gz"):
        whole = gzip.decompress(raw)
        for size in (0, 100, 348, 352, len(whole) // 2, len(whole) - 1):
            yield f"{size} of {len(whole)} bytes in sound gzip", _content(gzip.compress(whole[:size]))
        for (offset, form), values in HEADER_FIELDS.items():
            for value in values:
                changed = bytearray(whole)
                struct.pack_into(form, changed, offset, value)
                yield f"header at {offset} is {value}", _content(gzip.compress(bytes(changed)))
    elif file.suffix == ".npz":
        with np.load(file) as arrays:
            yield from _of_arrays(dict(arrays), lambda path, content: np.savez(path, **content))
    elif file.suffix == ".h5":
        import h5py

        with h5py.File(file) as arrays:
            yield from _of_arrays({name: values[()] for name, values in arrays.items()}, _write_h5)


def _of_arrays(arrays: dict[str, np.ndarray], write: Callable[[Path, dict], object]) -> Iterator[tuple]:
    for name, whole in arrays.items():
        lost = {key: values for key, values in arrays.items() if key != name}
        yield f"without {name}", partial(write, content=lost)
        others = {
            "a number": np.array(1.0),
            "text": np.array(b"text"),
            "texts": np.full(whole.shape, b"text"),
            "empty": whole[:0],
            "flat": whole.ravel(),
            "one row less": whole[1:],
            "an axis more": whole[None],
            "nan": np.full_like(whole, np.nan),
            "infinite": np.full_like(whole, np.inf),
            "1e30": np.full_like(whole, 1e30),
            "-1": np.full_like(whole, -1),
            "1.5": np.full_like(whole, 1.5),
            "complex": whole + 1j,
            "true": whole > 0,
        }
        for what, values in others.items():
            yield f"{name} is {what}", partial(write, content=arrays | {name: values})


def _write_h5(path: Path, content: dict[str, np.ndarray]) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        for name, values in content.items():
            file[name] = values


def _of_json(content: object) -> Iterator[tuple]:
    for value in (*VALUES, [[]] * 3):
        yield f"is {value!r}", _json(value)
    yield "nested too deep", _content(b"[" * 100000)
    yield "not UTF-8", _content(b'{"a": "\xff\xfe"}')
    for keys in _places(content):
        lost = deepcopy(content)
        del _at(lost, keys[:-1])[keys[-1]]
        yield f"{keys} is missing", _json(lost), keys
        for value in VALUES:
            changed = deepcopy(content)
            _at(changed, keys[:-1])[keys[-1]] = value
            if changed != content:
                yield f"{keys} is {value!r}", _json(changed), keys


def _places(content: object, above: tuple = ()) -> Iterator[tuple]:
    """Every key, and the first two entries of each list."""
    entries = content.items() if isinstance(content, dict) else enumerate(content[:2])
    for key, value in list(entries):
        yield (*above, key)
        if isinstance(value, (dict, list)):
            yield from _places(value, (*above, key))


def _at(content: object, keys: tuple) -> object:
    for key in keys:
        content = content[key]
    return content


def _content(data: bytes) -> Damage:
    return lambda path: path.write_bytes(data) and None


def _json(value: object) -> Damage:
    return lambda path: path.write_text(json.dumps(value)) and None


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


def remove(path: Path) -> None:
    """Whatever lies there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
