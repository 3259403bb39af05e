"""How a person names many files at once."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from ernie_vil2.data.readers.locations import WEB, LocalFile, Location, PipeOutput, RemoteFile, asked, file_system
from ernie_vil2.io.files import read_text

PIPE = "pipe:"
LIST = ".txt"
MOST = 1_000_000  # files that a pattern or a list may name
MOST_CHARACTERS = 2**28  # of their names together
LONGEST = 4096  # characters of a pattern, as of a path
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?")


_allowed = False


def allow_pipes() -> None:
    """Lets this process run the commands of `pipe:` entries, which whoever wrote a configuration or a list has chosen.

    It is for the command line to say (`--allow-pipes`), never for a file.
    """
    global _allowed
    _allowed = True


def expand_braces(pattern: str, lists: bool = True) -> list[str]:
    """`{0000..0123}`, `{0..10..2}` and `{a,b}`, nested too, in the order and with the leading zeros of bash.

    Other braces stand for themselves.

    Args:
        lists: False: only number ranges are expanded, so that `awk '{print $1, $2}'` stays as it is.

    Raises:
        ValueError: the pattern names more than a million files, or is longer than a path may be.
    """
    shown = pattern[:100]
    if len(pattern) > LONGEST:
        raise ValueError(f"{shown}...: more than {LONGEST:,} characters; is this a path, address or command?")
    try:
        return _expanded(pattern, lists)
    except RecursionError:
        raise ValueError(f"{shown}...: hundreds of braces; name the files in a list") from None


def _expanded(pattern: str, lists: bool) -> list[str]:
    start = pattern.find("{", 1 if pattern.startswith("{}") else 0)  # which bash leaves alone at the beginning
    while start >= 0:
        end, commas = _closing(pattern, start)
        if end is not None:
            options = _options(pattern[start + 1 : end], [comma - start - 1 for comma in commas], lists)
            if options is not None:
                rest = _expanded(pattern[end + 1 :], lists)
                _check_count(len(options) * len(rest), pattern)
                return [pattern[:start] + option + tail for option in options for tail in rest]
        start = pattern.find("{", start + 1)
    return [pattern]


def _check_count(count: int, pattern: str) -> None:
    most = min(MOST, MOST_CHARACTERS // len(pattern))
    if count > most:
        raise ValueError(f"{pattern[:100]}: names more than {most:,} files; name fewer")


def _closing(pattern: str, start: int) -> tuple[int | None, list[int]]:
    """The brace that closes the one at `start`, and the commas between them that belong to no inner pair.

    As in bash, only a brace behind a comma or two dots closes: `{a},b}` is `a}` and `b`.
    """
    depth, commas, dots = 0, [], False
    for position in range(start, len(pattern)):
        character = pattern[position]
        if character == "{":
            depth += 1
        elif character == "}" and depth > 1:
            depth -= 1
        elif character == "}" and (commas or dots):
            return position, commas
        elif character == "," and depth == 1:
            commas.append(position)
        elif depth == 1 and pattern.startswith("..", position):
            dots = True
    return None, []


def _options(inside: str, commas: list[int], lists: bool) -> list[str] | None:
    if commas and lists:
        bounds = [-1, *commas, len(inside)]
        parts = [inside[a + 1 : b] for a, b in zip(bounds, bounds[1:], strict=False)]
        return [option for part in parts for option in _expanded(part, lists)]
    match = _RANGE.fullmatch(inside)
    if not match:
        return None
    first, last, step = int(match[1]), int(match[2]), abs(int(match[3] or 1)) or 1
    _check_count(abs(last - first) // step + 1, inside)
    padded = any(re.match(r"-?0\d", end) for end in match.group(1, 2))
    width = max(len(match[1]), len(match[2])) if padded else 0
    numbers = range(first, last + 1, step) if first <= last else range(first, last - 1, -step)
    return [f"{number:0{width}d}" for number in numbers]


def find(pattern: str) -> list[Location]:
    """The files that a pattern names, in its order; what `*`, `?` and `[...]` find is sorted.

    A path, an address that fsspec opens, both with braces and glob patterns; a `.txt` file with such patterns, one a
    line, relative to its folder; or `pipe:` and a command, with number ranges in braces.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the address cannot be opened with what is installed, or it is a command and these are not allowed.
        FetchError: the server does not say what it has.
    """
    if pattern.startswith(PIPE):
        if not _allowed:
            raise ValueError(f"{pattern[:1000]}: a command is run only with --allow-pipes; read it before you add that")
        return [PipeOutput(command) for command in expand_braces(pattern.removeprefix(PIPE), lists=False)]
    if os.path.exists(pattern):
        return _listed(Path(pattern)) if pattern.endswith(LIST) else [LocalFile(pattern)]
    return [location for address in expand_braces(pattern) for location in _matches(address)]


def _matches(address: str) -> list[Location]:
    address = address.removeprefix("file://")
    if "://" not in address:
        paths = sorted(glob.glob(address))
        if not paths:
            raise FileNotFoundError(f"no file matches {address}; check Data.train, Data.val or --data")
        return [LocalFile(path) for path in paths]
    if not glob.has_magic(address) or address.startswith(WEB):
        return [RemoteFile(address)]
    system, path = file_system(address)
    paths = sorted(asked(address, lambda: system.glob(path)))
    if not paths:
        raise FileNotFoundError(f"no file matches {address}; check the address and your access to it")
    return [RemoteFile(system.unstrip_protocol(path)) for path in paths]


def _listed(path: Path) -> list[Location]:
    try:
        text = read_text(path)
    except ValueError as error:
        raise ValueError(f"{error}; a list holds a path or address a line") from error
    lines = [line.strip() for line in text.split("\n")]
    patterns = [line for line in lines if line and not line.startswith("#")]
    if not patterns:
        raise FileNotFoundError(f"{path}: names no file; a list holds a path or address a line")
    here = [line if line.startswith(PIPE) or "://" in line else str(path.parent / line) for line in patterns]
    if any(pattern.endswith(LIST) and os.path.exists(pattern) for pattern in here):
        raise ValueError(f"{path}: names another list; name the files themselves, or both lists")
    return at_most(location for pattern in here for location in find(pattern))


def at_most(locations: Iterable[Location]) -> list[Location]:
    """The locations; ValueError if they are more than a million."""
    found = list(islice(locations, MOST + 1))
    if len(found) > MOST:
        raise ValueError(f"{found[0].name}, ...: more than {MOST:,} files; name fewer")
    return found
