"""How a person names many files at once."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

from ernie_vil2.data.sources.locations import LocalFile, Location, PipeOutput, RemoteFile, file_system
from ernie_vil2.files import read_text

PIPE = "pipe:"
LIST = ".txt"
MOST = 10_000_000  # files that a pattern may name
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?")


def expand_braces(pattern: str, lists: bool = True) -> list[str]:
    """`{0000..0123}`, `{0..10..2}` and `{a,b}`, nested too, in the order and with the leading zeros of bash.

    Other braces stand for themselves.

    Args:
        lists: False: only number ranges are expanded, so that `awk '{print $1, $2}'` stays as it is.

    Raises:
        ValueError: the pattern names more than ten million files.
    """
    start = pattern.find("{")
    while start >= 0:
        end, commas = _closing(pattern, start)
        if end is not None:
            options = _options(pattern[start + 1 : end], [comma - start - 1 for comma in commas], lists)
            if options is not None:
                rest = expand_braces(pattern[end + 1 :], lists)
                if len(options) * len(rest) > MOST:
                    raise ValueError(f"{pattern}: names more than {MOST:,} files")
                return [pattern[:start] + option + tail for option in options for tail in rest]
        start = pattern.find("{", start + 1)
    return [pattern]


def _closing(pattern: str, start: int) -> tuple[int | None, list[int]]:
    """The brace that closes the one at `start`, and the commas between them that belong to no inner pair."""
    depth, commas = 0, []
    for place in range(start, len(pattern)):
        character = pattern[place]
        if character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return place, commas
        elif character == "," and depth == 1:
            commas.append(place)
    return None, []


def _options(inside: str, commas: list[int], lists: bool) -> list[str] | None:
    if commas and lists:
        bounds = [-1, *commas, len(inside)]
        parts = [inside[a + 1 : b] for a, b in zip(bounds, bounds[1:], strict=False)]
        return [option for part in parts for option in expand_braces(part)]
    match = _RANGE.fullmatch(inside)
    if not match:
        return None
    first, last, step = int(match[1]), int(match[2]), abs(int(match[3] or 1)) or 1
    if abs(last - first) // step >= MOST:
        raise ValueError(f"{{{inside}}}: names more than {MOST:,} files")
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
        ValueError: the address cannot be opened with what is installed.
    """
    if pattern.startswith(PIPE):
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
    if not glob.has_magic(address) or address.startswith(("http://", "https://")):
        return [RemoteFile(address)]
    system, path = file_system(address)
    paths = sorted(system.glob(path))
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
    return [location for pattern in here for location in find(pattern)]
