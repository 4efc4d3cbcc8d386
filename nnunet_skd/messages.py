"""Pieces of messages that the training and the tools share."""

from collections.abc import Iterable


def first_line(error: object) -> str:
    """The first line of an error's message, for a message of ours; its kind where it has none."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def in_one_line(error: object, most: int = 200) -> str:
    """An error's whole message without its line breaks, cut where it is long; its kind where it has none."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def listed(names: Iterable[object], most: int = 8, between: str = ", ") -> str:
    """The first names, and how many more there are: "a, b and 3 more"."""
    names = [str(name) for name in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return between.join(names[:most]) + more


def counted(number: int, what: str) -> str:
    """ "1 case", "2 cases"."""
    return f"{number} {what}{'s' * (number != 1)}"


def differences(before: dict, now: dict) -> list[str]:
    """What differs between two settings (of plans, for example), one text for each value; nested keys are dotted."""
    before, now = _flat(before), _flat(now)
    return [
        f"{key} was {before.get(key)}, now is {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


def _flat(settings: dict, prefix: str = "") -> dict:
    """Nested dicts as one, with dotted keys."""
    flat = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
