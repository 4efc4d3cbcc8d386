"""Options that were renamed: what a user may have typed before is still accepted."""

import argparse
from typing import Any


def accept_old_name(parser: argparse._ActionsContainer, old: str, *, dest: str, **like: Any) -> None:
    """Accept an option's former name; ``--help`` does not show it.

    Args:
        parser: the parser or group that has the new option.
        old: the former name.
        dest: where the new option stores its value.
        like: the new option's ``action``, ``nargs``, ``type`` and ``choices``, where it has them.
    """
    parser.add_argument(old, dest=dest, help=argparse.SUPPRESS, default=argparse.SUPPRESS, **like)
