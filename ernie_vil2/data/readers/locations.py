"""Files by their address, which of them a person names at once, and what the index of prepared shards says of them."""

import glob
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import islice, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, NamedTuple, Protocol

from braceexpand import braceexpand

from ernie_vil2.data.readers.remote import WEB, FetchError, PipeOutput, RemoteFile, asked, fetch, file_system
from ernie_vil2.data.samples import MAX_BYTES
from ernie_vil2.data.source_files import read_json
from ernie_vil2.io.files import read_text

PIPE = "pipe:"
LIST = ".txt"
INDEX = "index.json"
MOST = 1_000_000  # files that a pattern or a list may name
MOST_CHARACTERS = 2**28  # of their names together
LONGEST = 4096  # characters of a pattern, as of a path
LETTERS = 52  # of a range such as {a..z}, at most
_RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?\}")
_RANGE_PIECES = re.compile(r"(\{-?\d+\.\.-?\d+(?:\.\.-?\d+)?\})")
_LETTERS = re.compile(r"\{[A-Za-z]\.\.[A-Za-z](?:\.\.-?\d+)?\}")
_INMOST, _COUNTED = re.compile(r"\{[^{}]*\}"), re.compile(r"\0(\d+)\0")


class Location(Protocol):
    """A file by its address.

    Attributes:
        name: the address as a person writes it.
        samples: how many samples it holds, if an index says so.
    """

    name: str
    samples: int | None

    def identity(self) -> str:
        """Changes when the file's content does; what was found out about the file is kept under it."""
        ...

    def open(self) -> BinaryIO:
        """The file, readable at any position; it may have to be fetched first."""
        ...


class LocalFile:
    """A file that is here already.

    OSError says that it cannot be read, or that it is not a file: a pipe, above all, which would be waited for.
    """

    def __init__(self, path: str | Path, samples: int | None = None):
        self.name, self.samples = str(path), samples

    def identity(self) -> str:
        with self._explained():
            found = Path(self.name).stat()
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{self.name}: not an ordinary file; rows are read at random, so write it to a disk first")
        return f"{os.path.abspath(self.name)} {found.st_size} {found.st_mtime_ns}"  # noqa: PTH100  -- resolve() would follow links

    def open(self) -> BinaryIO:
        with self._explained():
            return Path(self.name).open("rb")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise type(error)(
                f"{self.name}: {error.strerror}; check that it is there and may be read by this user"
            ) from error


def as_location(source: str | Path | Location) -> Location:
    """The location of a path; a location is returned unchanged."""
    return LocalFile(source) if isinstance(source, str | Path) else source


# In this process and those forked from it; another thread starts without the permission.
_runs_pipes: ContextVar[bool] = ContextVar("runs_pipes", default=False)


@contextmanager
def pipes_allowed() -> Iterator[None]:
    """Run the commands of `pipe:` entries that are named within the block.

    Whoever wrote a configuration or a list chose these commands, so that only the command line (`--allow-pipes`) or a
    program may allow them, never a file.
    """
    before = _runs_pipes.set(True)
    try:
        yield
    finally:
        _runs_pipes.reset(before)


def expand_braces(pattern: str, lists: bool = True) -> list[str]:
    """`{0000..0123}`, `{0..10..2}` and `{a,b}`, nested too, in the order and with the leading zeros of bash.

    Other braces are ordinary characters, and so are all of a pattern in which they are not in pairs.

    Args:
        lists: False: only number ranges are expanded, so that `awk '{print $1, $2}'` stays as it is.

    Raises:
        ValueError: the pattern names more than a million files, or is longer than a path may be.
    """
    shown = pattern[:100]
    if len(pattern) > LONGEST:
        raise ValueError(f"{shown}...: more than {LONGEST:,} characters; is this a path, address or command?")
    pieces = [pattern] if lists else _RANGE_PIECES.split(pattern)  # every second one is a range
    most = min(MOST, MOST_CHARACTERS // max(len(pattern), 1))
    if _count("".join(pieces if lists else pieces[1::2])) > most:  # braceexpand holds all that is in a pair of braces
        raise ValueError(f"{shown}: names more than {most:,} files; name fewer")
    try:
        options = [
            list(braceexpand(piece, escape=False)) if lists or number % 2 else [piece]
            for number, piece in enumerate(pieces)
        ]
    except ValueError:  # they are not in pairs
        return [pattern]
    except RecursionError:
        raise ValueError(f"{shown}...: hundreds of braces; name the files in a list") from None
    return ["".join(names) for names in product(*options)]


def _count(pattern: str) -> int:
    """At most how many names a pattern means: from inside out, braces are replaced by their number of options."""

    def names(text: str) -> int:
        return math.prod(map(int, _COUNTED.findall(text)))

    def options(braces: re.Match[str]) -> str:
        if bounds := _RANGE.fullmatch(braces[0]):
            first, last, step = (int(number or 1) for number in bounds.groups())
            return f"\0{abs(last - first) // max(abs(step), 1) + 1}\0"
        letters = LETTERS if _LETTERS.fullmatch(braces[0]) else 1
        return f"\0{letters * sum(map(names, braces[0][1:-1].split(',')))}\0"

    pattern, found = pattern.replace("\0", ""), 1
    while found:
        pattern, found = _INMOST.subn(options, pattern)
    return names(pattern)


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
        if not _runs_pipes.get():
            raise ValueError(f"{pattern[:1000]}: a command is run only with --allow-pipes; read it before you add that")
        return [PipeOutput(command) for command in expand_braces(pattern.removeprefix(PIPE), lists=False)]
    if os.path.exists(pattern):  # noqa: PTH110  -- Path raises where this says no
        return _listed(Path(pattern)) if pattern.endswith(LIST) else [LocalFile(pattern)]
    return [location for address in expand_braces(pattern) for location in _matches(address)]


def _matches(address: str) -> list[Location]:
    address = address.removeprefix("file://")
    if "://" not in address:
        paths = sorted(glob.glob(address))  # noqa: PTH207  -- Path.glob takes no absolute pattern
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
    if any(pattern.endswith(LIST) and os.path.exists(pattern) for pattern in here):  # noqa: PTH110  -- Path raises where this says no
        raise ValueError(f"{path}: names another list; name the files themselves, or both lists")
    return at_most(location for pattern in here for location in find(pattern))


def at_most(locations: Iterable[Location]) -> list[Location]:
    """The locations; ValueError if they are more than a million."""
    found = list(islice(locations, MOST + 1))
    if len(found) > MOST:
        raise ValueError(f"{found[0].name}, ...: more than {MOST:,} files; name fewer")
    return found


class _Entry(NamedTuple):
    samples: int
    bytes: int
    checksum: str


class PreparedShards:
    """What the index next to a shard says of it; each index is read once, also one at an address."""

    def __init__(self) -> None:
        self._of_folder = cache(_in_folder)
        self._of_address: dict[str, dict[str, _Entry]] = {}

    def __call__(self, location: Location) -> Location:
        """Return the shard with the number of its samples, one at an address with size and checksum as well.

        The number is None where there is no index, it does not name the shard, or a shard that is here is of another
        size than it says.

        Raises:
            FetchError: a server does not say whether there is an index.
        """
        if isinstance(location, LocalFile):
            path = Path(location.name)
            entry = self._of_folder(path.parent).get(path.name)
            if entry and path.stat().st_size == entry.bytes:
                return LocalFile(path, entry.samples)
            return location
        if isinstance(location, RemoteFile):
            address, *query = location.name.split("?", 1)
            folder, _, name = address.rpartition("/")
            index = "?".join([f"{folder}/{INDEX}", *query])
            if name.endswith(".tar") and index not in self._of_address:
                self._of_address[index] = _at_address(index, asked_for=location.name)
            if entry := self._of_address.get(index, {}).get(name):
                return RemoteFile(location.name, entry.bytes, entry.checksum, entry.samples)
        return location


def _in_folder(folder: Path) -> dict[str, _Entry]:
    """The shards by name; nothing where there is no such index: then the shards are scanned."""
    if not os.path.exists(folder / INDEX):  # noqa: PTH110  -- Path raises where this says no
        return {}
    try:
        index = read_json(folder / INDEX, dict)
        found = {
            shard["name"]: _Entry(int(shard["samples"]), int(shard["bytes"]), str(shard["sha256"]))
            for shard in index["shards"]
        }
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    return {name: entry for name, entry in found.items() if entry.samples}


def _at_address(address: str, asked_for: str) -> dict[str, _Entry]:
    """As `_in_folder`; errors name the address that a person has `asked_for`."""
    with TemporaryDirectory() as folder:
        try:
            asked(asked_for, lambda: fetch(address, Path(folder, INDEX), MAX_BYTES))
        except ValueError:
            pass  # no such address can be opened, as whoever opens the shard will say
        except FetchError as error:
            if not error.lasting:
                raise
        return _in_folder(Path(folder))
