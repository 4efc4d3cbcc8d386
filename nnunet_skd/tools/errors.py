"""The one exception that the command line turns into a message instead of a traceback."""


class BadInput(ValueError):
    """The user's input cannot be used. The message names the cause and the way out."""
