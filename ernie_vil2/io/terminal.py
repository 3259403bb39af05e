"""Terminal output: errors that are printed without a traceback, safe text from strangers, and progress."""

import json
import multiprocessing
import os
import sys
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, TextIO

from ernie_vil2.device.launch import launched_rank

# Process that imported this module. A process that is forked from it has another id, and shows no progress.
_IMPORTING_PROCESS = os.getpid()
# Characters of a name in a list of names: the names of arrays are shorter, and a hostile one does not fill the screen.
_MAX_NAME_LENGTH = 200


class RunError(RuntimeError):
    """A run cannot continue; a command line prints the message instead of a traceback."""


class LostRank(RunError):  # noqa: N818  -- named by what has happened
    """A rank has died or hangs; the message names it."""


class ConfigError(ValueError):
    """A configuration cannot be used; the message names the key and says what to do."""


class EscapingStream:
    """Stream that passes text through `make_printable`, whatever a command prints, draws or warns about."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._is_in_line = False

    def write(self, text: str) -> int:
        self._stream.write(make_printable(text, kept_characters="\n\r\t"))
        if text:
            self._is_in_line = not text.endswith(("\n", "\r"))
        return len(text)

    def end_line(self) -> None:
        """Write a line end, unless the stream is at the beginning of a line."""
        if self._is_in_line:
            self.write("\n")
            self.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def print_error(message: str) -> None:
    """Print `error: ...` on standard error, on a line of its own even where a progress bar has not ended its line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, EscapingStream):
            with suppress(OSError):  # the error may be that standard output has failed
                stream.end_line()
    print(f"error: {message}", file=sys.stderr, flush=True)


def make_printable(text: str, kept_characters: str = "", max_length: int | None = None) -> str:
    """Replace control characters and the like by escapes, so that a terminal only shows the text.

    An id, the name of a weight or a key of a configuration may hold a sequence that clears the screen, sets its title
    or reverses the direction of writing. Whatever shows such text calls this function first. The escapes are those of
    JSON, so that JSON remains JSON.

    Args:
        text: text that may come from a stranger.
        kept_characters: characters that are not escaped, such as the line ends of a text with several lines.
        max_length: number of characters to show; a longer text is cut and ends in "...". None: no limit.
    """
    if max_length is not None and len(text) > max_length:
        text = f"{text[:max_length]}..."

    characters = []
    for character in text:
        # Python calls only the usual space printable; the other spaces, such as the ideographic one, do no harm either.
        is_harmless = character.isprintable() or unicodedata.category(character) == "Zs"
        if is_harmless or character in kept_characters:
            characters.append(character)
        else:
            characters.append(json.dumps(character)[1:-1])  # without the quotation marks
    return "".join(characters)


@contextmanager
def suppress_output() -> Iterator[None]:
    """Suppress what is printed in the block, also by libraries in C++, whose errors are raised as exceptions."""
    sys.stdout.flush()
    # Libraries in C++ write to the descriptors and not to sys.stdout, so the descriptors are redirected.
    copies = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    try:
        with tempfile.TemporaryFile() as file:
            for descriptor in copies:
                os.dup2(file.fileno(), descriptor)
            try:
                yield
            finally:
                sys.stdout.flush()  # what the block has printed may still be in the buffer
    finally:
        for descriptor, copy in copies.items():
            os.dup2(copy, descriptor)
            os.close(copy)


def join_names(names: Sequence[str], max_names: int = 5, separator: str = ", ") -> str:
    """Join the first names, made printable, and add "..." if there are more."""
    printable_names = [make_printable(name, max_length=_MAX_NAME_LENGTH) for name in names[:max_names]]
    if len(names) > max_names:
        printable_names.append("...")
    return separator.join(printable_names)


def pluralize(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: `1 shard`, `2 shards`, `1,555 queries`; the default plural is the noun plus s."""
    if number != 1:
        noun = plural or f"{noun}s"
    return f"{number:,} {noun}"


@cache
def print_once(line: str) -> None:
    """Print a line on standard error, once in a process."""
    print(line, file=sys.stderr)


def should_show_progress() -> bool:
    """Return whether this process shows progress: only rank 0 does, and none of its child processes."""
    rank, _ = launched_rank()
    is_main_process = os.getpid() == _IMPORTING_PROCESS and multiprocessing.parent_process() is None
    return rank == 0 and is_main_process
