"""What the command line turns into a message instead of a traceback."""


class BadInput(ValueError):
    """The user's input cannot be used. The message names the cause and the way out."""


def first_line(error: object) -> str:
    """The first line of an error's message, for a message of ours; its kind where it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
