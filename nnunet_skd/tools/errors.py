"""What the command line turns into a message instead of a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager


class BadInput(ValueError):
    """The user's input cannot be used. The message names the cause and the way out."""


class Failed(RuntimeError):
    """The input could be used, and the work failed. The message names what failed and what to do."""


@contextmanager
def as_bad_input() -> Iterator[None]:
    """Around a refusal of the training path, which is a ``ValueError``: for a command it is unusable input."""
    try:
        yield
    except ValueError as error:
        raise BadInput(str(error)) from error


@contextmanager
def naming(file: object) -> Iterator[None]:
    """Put a file's name before the messages of what is found wrong with its content, where they do not name it."""
    try:
        yield
    except BadInput as error:
        if str(file) in str(error):
            raise
        raise BadInput(f"{file}: {error}") from error
