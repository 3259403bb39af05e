"""Locations of files, which users name by path, address, pattern, list or command, and the index next to shards."""

import glob
import math
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, NamedTuple, Protocol

from braceexpand import braceexpand

from ernie_vil2.data.readers.remote import (
    HTTP_PREFIXES,
    FetchError,
    PipeOutput,
    RemoteFile,
    ask_server,
    download,
    open_file_system,
)
from ernie_vil2.data.samples import MAX_BYTES
from ernie_vil2.data.source_files import read_json
from ernie_vil2.io.files import is_count, read_text

PIPE = "pipe:"
LIST_SUFFIX = ".txt"
INDEX = "index.json"
# A pattern of a few characters can name billions of files. These bounds keep a mistyped one from filling the memory.
MAX_FILES = 1_000_000
MAX_TOTAL_CHARACTERS = 2**28  # all names of a pattern together
MAX_PATTERN_CHARACTERS = 4096  # the longest path that Linux accepts
MAX_LETTERS = 52  # the most that a range such as {a..z} can name
MAX_SHARD_BYTES = 2**50  # of a shard in an index; a larger number is a mistake
_NUMBER_RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?\}")
_NUMBER_RANGE_AS_GROUP = re.compile(r"(\{-?\d+\.\.-?\d+(?:\.\.-?\d+)?\})")
_LETTER_RANGE = re.compile(r"\{[A-Za-z]\.\.[A-Za-z](?:\.\.-?\d+)?\}")
_INNERMOST_BRACES = re.compile(r"\{[^{}]*\}")
_COUNT = re.compile(r"\0(\d+)\0")


class Location(Protocol):
    """A file by its address.

    Attributes:
        name: the address as the user writes it.
        num_samples: number of samples in the file, if an index gives it.
    """

    name: str
    num_samples: int | None

    def identity(self) -> str:
        """Return a text that changes when the content of the file does; scans of the file are cached under it."""
        ...

    def open(self) -> BinaryIO:
        """Open the file for random access, fetching it first if necessary."""
        ...


class LocalFile:
    """A file on this machine.

    `identity` and `open` raise OSError if it cannot be read or is not an ordinary file. A pipe would be waited for.
    """

    def __init__(self, path: str | Path, num_samples: int | None = None):
        self.name = str(path)
        self.num_samples = num_samples

    def identity(self) -> str:
        with self._explain_errors():
            status = Path(self.name).stat()
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{self.name}: not an ordinary file; rows are read at random, so write it to a disk first")
        return f"{os.path.abspath(self.name)} {status.st_size} {status.st_mtime_ns}"  # noqa: PTH100  -- resolve() would follow links

    def open(self) -> BinaryIO:
        with self._explain_errors():
            return Path(self.name).open("rb")

    @contextmanager
    def _explain_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise type(error)(
                f"{self.name}: {error.strerror}; check that it is there and may be read by this user"
            ) from error


def to_location(source: str | Path | Location) -> Location:
    """Return the location of a path; return a location unchanged."""
    return LocalFile(source) if isinstance(source, str | Path) else source


# Holds for this process and those forked from it. A new thread starts without the permission.
_runs_pipes: ContextVar[bool] = ContextVar("runs_pipes", default=False)


@contextmanager
def pipes_allowed() -> Iterator[None]:
    """Allow the commands of `pipe:` entries that are named within the block.

    Such commands come from whoever wrote the configuration or the list of files. So only the command line
    (`--allow-pipes`) or a program may allow them, never a file.
    """
    token = _runs_pipes.set(True)
    try:
        yield
    finally:
        _runs_pipes.reset(token)


def expand_braces(pattern: str, expand_lists: bool = True) -> list[str]:
    """Expand `{0000..0123}`, `{0..10..2}` and `{a,b}`, nested too, as bash does: same order, same leading zeros.

    Other braces are ordinary characters. If braces are unbalanced, all of them are.

    Args:
        pattern: a path, an address or a command.
        expand_lists: False expands number ranges only, so that `awk '{print $1, $2}'` stays as it is.

    Raises:
        ValueError: the pattern names more than a million files, or is longer than a path may be.
    """
    beginning = pattern[:100]
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise ValueError(
            f"{beginning}...: more than {MAX_PATTERN_CHARACTERS:,} characters; is this a path, address or command?"
        )
    if expand_lists:
        pieces = [pattern]
        braces = pattern
    else:
        pieces = _NUMBER_RANGE_AS_GROUP.split(pattern)  # text, range, text, range, ..., text
        braces = "".join(pieces[1::2])

    # Count first: braceexpand holds all the names of a pair of braces in memory.
    max_names = min(MAX_FILES, MAX_TOTAL_CHARACTERS // max(len(pattern), 1))
    if _count_names(braces) > max_names:
        raise ValueError(f"{beginning}: names more than {max_names:,} files; name fewer")

    options: list[list[str]] = []
    try:
        for number, piece in enumerate(pieces):
            is_expanded = expand_lists or number % 2 == 1
            options.append(list(braceexpand(piece, escape=False)) if is_expanded else [piece])
    except ValueError:  # unbalanced braces
        return [pattern]
    except RecursionError:
        raise ValueError(f"{beginning}...: hundreds of braces; name the files in a list") from None
    return ["".join(combination) for combination in product(*options)]


def _count_names(pattern: str) -> int:
    """Return an upper bound of the number of names that a pattern expands to.

    Braces are replaced from the inside out by the number of their options, between NUL characters.
    """

    def multiply_counts(text: str) -> int:
        return math.prod(map(int, _COUNT.findall(text)))

    def count_options(braces: re.Match[str]) -> str:
        bounds = _NUMBER_RANGE.fullmatch(braces[0])
        if bounds:
            first, last, step = int(bounds[1]), int(bounds[2]), int(bounds[3] or 1)
            return f"\0{abs(last - first) // max(abs(step), 1) + 1}\0"
        num_letters = MAX_LETTERS if _LETTER_RANGE.fullmatch(braces[0]) else 1
        options = braces[0][1:-1].split(",")
        return f"\0{num_letters * sum(map(multiply_counts, options))}\0"

    pattern = pattern.replace("\0", "")
    num_replaced = 1
    while num_replaced:
        pattern, num_replaced = _INNERMOST_BRACES.subn(count_options, pattern)
    return multiply_counts(pattern)


def find_locations(pattern: str, folder: Path | None = None) -> list[Location]:
    """Return the files that a pattern names, in its order; files that match `*`, `?` and `[...]` are sorted.

    Args:
        pattern: a path or an address that fsspec opens, which may have braces and wildcards; a `.txt` file with a
            pattern in each line, relative to its folder; or `pipe:` and a command, which may have number ranges in
            braces.
        folder: folder that relative paths begin at, whose name is no pattern; None: the current one.

    Raises:
        FileNotFoundError: no file matches.
        ValueError: the packages that open such an address are not installed, or a command is named and not allowed.
        FetchError: the server cannot list its files.
    """
    if pattern.startswith(PIPE):
        if not _runs_pipes.get():
            raise ValueError(f"{pattern[:1000]}: a command is run only with --allow-pipes; read it before you add that")
        return [PipeOutput(command) for command in expand_braces(pattern.removeprefix(PIPE), expand_lists=False)]
    # The name of an existing file is no pattern, whatever characters it has.
    path = str(folder / pattern) if folder else pattern
    if os.path.exists(path):  # noqa: PTH110  -- pathlib raises for names that are too long
        return _read_path_list(Path(path)) if path.endswith(LIST_SUFFIX) else [LocalFile(path)]
    locations: list[Location] = []
    for address in expand_braces(pattern):
        locations.extend(_match_wildcards(address, folder))
    return locations


def _match_wildcards(address: str, folder: Path | None) -> list[Location]:
    address = address.removeprefix("file://")
    if "://" not in address:
        # As in bash, what names a file after the braces are expanded is no pattern: the folder may be called `data[1]`.
        if os.path.exists(folder / address if folder else address):  # noqa: PTH110  -- pathlib raises for names that are too long
            paths = [address]
        else:
            paths = sorted(glob.glob(address, root_dir=folder))  # noqa: PTH207  -- Path.glob takes no absolute pattern
        if not paths:
            missing_path = folder / address if folder else address
            raise FileNotFoundError(f"no file matches {missing_path}; check Data.train, Data.val or --data")
        return [LocalFile(folder / path if folder else path) for path in paths]

    # HTTP has no listing of files, and "?" begins a query there.
    if not glob.has_magic(address) or address.startswith(HTTP_PREFIXES):
        return [RemoteFile(address)]
    system, path = open_file_system(address)
    paths = sorted(ask_server(address, lambda: system.glob(path)))
    if not paths:
        raise FileNotFoundError(f"no file matches {address}; check the address and your access to it")
    return [RemoteFile(system.unstrip_protocol(path)) for path in paths]


def _read_path_list(path: Path) -> list[Location]:
    """Return the files that a list names; its paths are relative to the folder of the list."""
    try:
        text = read_text(path)
    except ValueError as error:
        raise ValueError(f"{error}; a list holds a path or address a line") from error
    patterns: list[str] = []
    for line in text.split("\n"):
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        # Lists in lists could name each other in a circle.
        if pattern.endswith(LIST_SUFFIX) and os.path.exists(path.parent / pattern):  # noqa: PTH110  -- pathlib raises for names that are too long
            raise ValueError(f"{path}: names another list; name the files themselves, or both lists")
        patterns.append(pattern)
    if not patterns:
        raise FileNotFoundError(f"{path}: names no file; a list holds a path or address a line")

    locations: list[Location] = []
    for pattern in patterns:
        locations.extend(find_locations(pattern, path.parent))
        check_num_locations(locations)
    return locations


def check_num_locations(locations: Sequence[Location]) -> None:
    """Raise ValueError if there are more than a million locations."""
    if len(locations) > MAX_FILES:
        raise ValueError(f"{locations[0].name}, ...: more than {MAX_FILES:,} files; name fewer")


class _IndexEntry(NamedTuple):
    num_samples: int
    num_bytes: int
    checksum: str


class ShardIndexes:
    """The `index.json` files that `tools/prepare.py` writes next to its shards; each is read once."""

    def __init__(self) -> None:
        self._read_folder = cache(_read_index)
        self._entries_by_address: dict[str, dict[str, _IndexEntry]] = {}

    def look_up(self, location: Location) -> Location:
        """Return the location with what its index says: the number of samples; size and checksum too if it is remote.

        The number is None if there is no index, if the index does not have the shard, or if a local shard has another
        size than the index says.

        Raises:
            FetchError: a server does not answer whether it has an index.
        """
        if isinstance(location, LocalFile):
            path = Path(location.name)
            entry = self._read_folder(path.parent).get(path.name)
            if entry and path.stat().st_size == entry.num_bytes:
                return LocalFile(path, entry.num_samples)
        elif isinstance(location, RemoteFile):
            # The query of a signed address usually holds for the whole folder.
            address, *query = location.name.split("?", 1)
            folder, _, name = address.rpartition("/")
            index_address = "?".join([f"{folder}/{INDEX}", *query])
            if name.endswith(".tar") and index_address not in self._entries_by_address:
                self._entries_by_address[index_address] = _fetch_index(index_address, shard_address=location.name)
            entry = self._entries_by_address.get(index_address, {}).get(name)
            if entry:
                return RemoteFile(location.name, entry.num_bytes, entry.checksum, entry.num_samples)
        return location


def _read_index(folder: Path) -> dict[str, _IndexEntry]:
    """Return the shards in the index of a folder by name; empty if the folder has no such index: shards are scanned."""
    if not os.path.exists(folder / INDEX):  # noqa: PTH110  -- pathlib raises for names that are too long
        return {}
    entries: dict[str, _IndexEntry] = {}
    try:
        for shard in read_json(folder / INDEX, dict)["shards"]:
            entry = _IndexEntry(shard["samples"], shard["bytes"], str(shard["sha256"]))
            # A sample takes more than a byte. The numbers become lengths, which Python bounds.
            if not is_count(entry.num_bytes, 0, MAX_SHARD_BYTES) or not is_count(entry.num_samples, 0, entry.num_bytes):
                return {}
            # A later entry replaces an earlier one of the same name, also by saying that the shard is empty.
            entries[shard["name"]] = entry
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    return {name: entry for name, entry in entries.items() if entry.num_samples}


def _fetch_index(address: str, shard_address: str) -> dict[str, _IndexEntry]:
    """Read the index at an address as `_read_index`; errors name the shard, which is what the user asked for."""
    with TemporaryDirectory() as folder:
        try:
            ask_server(shard_address, lambda: download(address, Path(folder, INDEX), MAX_BYTES))
        except ValueError:
            pass  # such addresses cannot be opened, which opening the shard will explain
        except FetchError as error:
            if not error.is_permanent:
                raise
        return _read_index(Path(folder))
