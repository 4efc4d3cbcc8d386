"""Read a JSON file whose shape is known: what is missing or of another kind is named before anything uses it."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_skd.tools.errors import BadInput


class Kind(NamedTuple):
    """A kind of value: what it is called in a message, and whether a value is one."""

    text: str
    holds: Callable[[Any], bool]


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_int(value) or isinstance(value, float)


ANYTHING = Kind("any value", lambda value: True)
TEXT = Kind("a text", lambda value: isinstance(value, str))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
INTEGER = Kind("a whole number", _is_int)
POSITIVE_INTEGER = Kind("a whole number from 1 to 2147483647", lambda value: _is_int(value) and 0 < value < 2**31)
NUMBER = Kind("a number", _is_number)
POSITIVE_NUMBER = Kind("a finite number above 0", lambda v: _is_number(v) and math.isfinite(v) and v > 0)
FOLDER_NAME = Kind(
    "the name of a folder",
    lambda v: isinstance(v, str) and v not in ("", ".", "..") and v.isprintable() and not set(v) & set("/\\"),
)


def or_null(kind: Kind) -> Kind:
    """The kind, or null in its place."""
    return Kind(f"{kind.text}, or null", lambda value: value is None or kind.holds(value))


def list_of(kind: Kind, text: str) -> Kind:
    """A list of such values, as a kind of its own; ``text`` says what it is."""
    return Kind(text, lambda value: isinstance(value, (list, tuple)) and all(map(kind.holds, value)))


# What a JSON value has to look like: a Kind; [Shape], a list of such; {str: Shape}, an object with any keys;
# {"key": Shape, "other?": Shape}, an object that has "key", and may lack "other".
Shape = Kind | list | dict


def read_json(file: str | Path, shape: Shape, remedy: str) -> Any:
    """The content of a JSON file.

    Args:
        file: where it is.
        shape: what the content has to look like, see `Shape`. Keys that it does not name are left as they are.
        remedy: the sentence that tells the user what to do if it does not.

    Raises:
        BadInput: the file is missing, cannot be read, is not JSON, or has another shape.
    """
    try:
        # bytes, because json itself tells UTF-8 from UTF-16
        content = json.loads(Path(file).read_bytes())
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror or error}. {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{file} is not JSON ({error}). {remedy}") from error
    check_shape(content, shape, file, remedy)
    return content


def check_shape(content: Any, shape: Shape, file: str | Path, remedy: str, key: str = "") -> None:
    """Refuse content of another shape.

    Raises:
        BadInput: naming the file, the key and what is expected there.
    """

    def refuse(expected: str) -> None:
        shown = json.dumps(content, default=str)
        shown = shown if len(shown) <= 60 else f"{shown[:60]} ..."
        raise BadInput(f"{file}: {key or 'its content'} is {shown}, but it must be {expected}. {remedy}")

    if isinstance(shape, Kind):
        if not shape.holds(content):
            refuse(shape.text)
    elif isinstance(shape, list):
        if not isinstance(content, (list, tuple)):
            refuse("a list")
        for index, value in enumerate(content):
            check_shape(value, shape[0], file, remedy, f"{key}[{index}]")
    elif not isinstance(content, dict):
        refuse("an object with keys")
    elif str in shape:
        for name, value in content.items():
            check_shape(value, shape[str], file, remedy, _below(key, name))
    else:
        required = [name for name in shape if not name.endswith("?")]
        if missing := [_below(key, name) for name in required if name not in content]:
            raise BadInput(f"{file} lacks {', '.join(missing)}. {remedy}")
        for name, below in shape.items():
            if (name := name.removesuffix("?")) in content:
                check_shape(content[name], below, file, remedy, _below(key, name))


def _below(key: str, name: str) -> str:
    return f"{key}.{name}" if key else str(name)
