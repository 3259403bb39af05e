"""What ends a command although nothing is wrong with the code."""


class RunError(RuntimeError):
    """A run cannot go on, for a reason that its message explains: a command line prints that, and no traceback."""
