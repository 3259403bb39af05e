"""What ends a command although nothing is wrong with the code."""


class RunError(RuntimeError):
    """A run cannot go on, for a reason that its message explains: a command line prints that, and no traceback."""


class LostRank(RunError):
    """A rank has died, or is stuck; the message says which."""


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key and what to do."""
