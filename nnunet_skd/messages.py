"""Pieces of messages that the training and the tools share."""

from collections.abc import Iterable


def first_line(error: object) -> str:
    """The first line of an error's message, for a message of ours; its kind where it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def in_one_line(error: object, most: int = 200) -> str:
    """An error's whole message without its line breaks, cut where it is long; its kind where it has none."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def listed(names: Iterable[object], most: int = 8, between: str = ", ") -> str:
    """The first names, and how many more there are: "a, b and 3 more"."""
    names = [str(name) for name in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return between.join(names[:most]) + more
