"""What a terminal shows: errors without a traceback, text of strangers, and whether progress is shown at all."""

import json
import multiprocessing
import os
import sys
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, TextIO

from ernie_vil2.device.launch import launched_rank

_IMPORTED_BY = os.getpid()


class RunError(RuntimeError):
    """A run cannot continue; a command line prints the message instead of a traceback."""


class LostRank(RunError):  # noqa: N818  -- named by what has happened
    """A rank has died or hangs; the message names it."""


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key and what to do."""


class PrintableStream:
    """A stream that passes on as `printable` what is written to it: whatever a command prints, draws or warns of."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(printable(text, keep="\n\r\t"))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def printable(text: str, keep: str = "", longest: int | None = None) -> str:
    """A text whose characters a terminal only shows: control characters and the like are written as escapes.

    An id, the name of a weight or a key of a configuration may hold a sequence that clears the screen, sets its title
    or turns the direction of writing; whatever shows such text passes it through here. The escapes are those of JSON,
    so that JSON stays what it is.

    Args:
        keep: characters that stay as they are, as the line ends of a text of several lines.
        longest: characters that are shown; a longer text ends in "...".
    """
    if longest is not None and len(text) > longest:
        text = f"{text[:longest]}..."
    return "".join(letter if _harmless(letter) or letter in keep else json.dumps(letter)[1:-1] for letter in text)


def _harmless(letter: str) -> bool:
    return letter.isprintable() or unicodedata.category(letter) == "Zs"


@contextmanager
def silenced() -> Iterator[None]:
    """Keeps from the terminal what libraries in C++ write there; their errors are exceptions."""
    sys.stdout.flush()
    kept = [(stream, os.dup(stream)) for stream in (1, 2)]
    try:
        with tempfile.TemporaryFile() as file:
            for stream, _ in kept:
                os.dup2(file.fileno(), stream)
            yield
    finally:
        for stream, copy in kept:
            os.dup2(copy, stream)
            os.close(copy)


def listed(names: Sequence[str], most: int = 5, separator: str = ", ") -> str:
    """The first of some names, as `printable`, and "..." for the others."""
    shown = [printable(name, longest=200) for name in names[:most]]
    return separator.join([*shown, *["..."] * (len(names) > most)])


def pluralize(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: `1 shard`, `2 shards`, `1,555 queries`; the plural is the noun with an s unless given."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


@cache
def print_once(line: str) -> None:
    """Prints a line on standard error, once in a process."""
    print(line, file=sys.stderr)


def shows_progress() -> bool:
    """Whether this is the process that a person looks at: not a loader's, and not a rank but the first."""
    rank, _ = launched_rank()
    return rank == 0 and os.getpid() == _IMPORTED_BY and multiprocessing.parent_process() is None
