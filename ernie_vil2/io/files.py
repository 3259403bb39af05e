"""Files and folders that are seen whole or not at all: written under a temporary name, then renamed.

The content is on the disk before it gets its name: otherwise a machine that fails leaves empty files. JSON files of the
package are read and written here, the versions that they name are checked, and so is the integrity file of a folder, by
which a change of its files is noticed.
"""

import errno
import hashlib
import json
import os
import re
import reprlib
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

MAX_CHARACTERS = 2**24  # of a text file that is read whole, such as a vocabulary or a list of files
MAX_NUMBER = 1e300  # of a number in JSON that is computed with, without becoming infinite at the first product
INTEGRITY = "integrity.json"  # what was written into a folder, see `Integrity`
INTEGRITY_VERSION = 1
_BRIEF = reprlib.Repr()  # a stranger's file may hold anything in place of a number
_BRIEF.maxstring = _BRIEF.maxlong = _BRIEF.maxother = 40


def check_ordinary(path: str | Path) -> os.stat_result:
    """The status of an ordinary file; OSError if it is none: a device has no end, and a pipe would be waited for."""
    found = Path(path).stat()
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not an ordinary file; write what the pipe or device gives to a disk", str(path))
    return found


def read_text(path: str | Path, most: int = MAX_CHARACTERS) -> str:
    """The text of a whole UTF-8 file, without byte order mark; line ends are `\n`.

    Raises:
        OSError: it cannot be read, or it is not an ordinary file.
        ValueError: it is not UTF-8, or it has more than `most` characters.
    """
    size = check_ordinary(path).st_size
    try:
        with system_errors_named(path), Path(path).open(encoding="utf-8-sig") as file:
            text = file.read(most + 1) if size <= 4 * most else ""  # a character has four bytes at most
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a UTF-8 text file ({error})") from None
    if len(text) > most or size > 4 * most:
        raise ValueError(f"{path}: more than {most:,} characters; is this the right file?")
    return text


class RepeatedKey(ValueError):  # noqa: N818  -- named by what has happened
    """A key that occurs twice in one object: the standard library would take the last, and drop what came first."""


def parse_json(text: str | bytes) -> Any:
    """The content of a JSON text.

    Raises:
        RepeatedKey: an object has a key twice.
        ValueError: it is not JSON, or its values are nested too deeply.
    """
    try:
        # A decoder is made once: making one takes longer than a short text.
        return _DECODER.decode(text) if isinstance(text, str) else json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("values are nested too deeply") from None


def load_json(path: str | Path, most: int = MAX_CHARACTERS) -> Any:
    """The content of a JSON file.

    Raises:
        OSError: it cannot be read, or it is not an ordinary file: a pipe is not waited for.
        ValueError: as of `parse_json`, or it is not UTF-8 or has more than `most` characters; the message names it.
    """
    text = read_text(path, most)
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from None


def is_number(value: Any, least: float, most: float) -> TypeGuard[float]:
    """Whether a value is a number in these bounds; JSON also gives truth values, NaN, and integers of any length."""
    return type(value) in (int, float) and least <= value <= most


def is_count(value: Any, least: int = 1, most: int = 2**31 - 1) -> TypeGuard[int]:
    """Whether a value is a whole number in these bounds."""
    return type(value) is int and least <= value <= most


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise RepeatedKey(f"the key {twice[:100]!r} occurs twice in one object")
    return made


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path; when the block ends well, the file there takes the name `path`.

    When it ends in an exception, whatever was written is removed and `path` is as before. A symbolic link stays, and
    its target is replaced. What is neither a file nor a folder, such as /dev/null or a pipe, stays too and gets the
    content at the end.

    Raises:
        IsADirectoryError: `path` is a folder.
        OSError: it cannot be written; the error names `path`.
    """
    path = Path(path)
    kind = _kind(path)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, "is a folder; name a file", str(path))
    if kind not in (None, stat.S_IFREG):
        with tempfile.TemporaryDirectory() as folder, system_errors_named(path):
            aside = Path(folder, path.name)
            yield aside
            with aside.open("rb") as content, path.open("wb") as opened:
                shutil.copyfileobj(content, opened)
        return
    target = Path(os.path.realpath(path))
    aside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with system_errors_named(path, aside):
            yield aside
            _write_through(aside)
            aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def _kind(path: Path) -> int | None:
    """The kind of file at the end of all links, as in `stat`; None if there is none."""
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except FileNotFoundError:
        return None


def write_text(path: str | Path, text: str) -> None:
    """Writes a UTF-8 text file."""
    with atomic_write(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any, indent: int | None = 1) -> None:
    """Writes a JSON file in UTF-8; what is not Unicode, as in a path of other bytes, is written as JSON's escapes."""
    with atomic_write(path) as aside:
        aside.write_bytes(json.dumps(value, ensure_ascii=False, indent=indent).encode("utf-8", "backslashreplace"))


def save_arrays(path: str | Path, arrays: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    """Writes a `.safetensors` file; OSError where the library itself gives the system's error only in words."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(dict(arrays), path, metadata)
    except SafetensorError as error:
        if (found := re.search(r"\(os error (\d+)\)", str(error))) is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error


@contextmanager
def system_errors_named(path: str | Path, aside: Path | None = None) -> Iterator[None]:
    """Names the file in errors of the system that name none, as those of writing to an open file: the disk is full.

    Errors that name the temporary `aside`, or a file in it, name what it was to become.
    """
    try:
        yield
    except OSError as error:
        named = Path(path)
        if aside is not None and error.filename is not None and Path(error.filename).is_relative_to(aside):
            named /= Path(error.filename).relative_to(aside)
        elif error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(named)) from error


@contextmanager
def atomic_files(folder: str | Path) -> Iterator[Path]:
    """Yields a temporary folder; when the block ends well, the files in it get their names in `folder`, which otherwise
    is as before, or does not exist. OSError, which names it, if a file cannot be written."""
    folder = Path(folder)
    aside = folder / f".{os.getpid()}.partial"
    with _made(folder), system_errors_named(folder, aside):
        try:
            aside.mkdir()
            yield aside
            for written in sorted(aside.iterdir()):
                with atomic_write(folder / written.name) as named:
                    shutil.move(written, named)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yields a temporary folder next to `path`, which gets that name when the block ends well and all is on the disk.

    When the block ends in an exception, what was written is removed; what a killed process leaves behind,
    `remove_partial` removes. OSError if there is a folder of that name already, with something in it.
    """
    path = Path(os.path.realpath(path))
    aside = path.with_name(f".{path.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    with _made(path.parent), system_errors_named(path, aside):
        try:
            aside.mkdir()
            yield aside
            for written in (*aside.iterdir(), aside):
                _write_through(written)
            aside.rename(path)
            _write_through(path.parent)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Makes a folder and those above it; if the block ends in an exception, those that it made go again."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with suppress(OSError):  # something else has been put there
            for path in missing:
                path.rmdir()
        raise


def remove_folder(path: Path) -> None:
    """Removes a folder, or a link to one, so that at no time a part of it is seen under its name."""
    if path.is_symlink():
        path.unlink()
        return
    aside = path.with_name(f".{path.name}.partial")
    path.rename(aside)
    shutil.rmtree(aside)


def remove_partial(folder: Path, names: str) -> None:
    """Removes what killed processes have left in a folder of what was to get one of these names, a regular expression;
    nobody may be writing that."""
    temporary = re.compile(rf"\.(?:{names})(?:\.\d+)?\.partial")
    for left in folder.glob(".*.partial"):
        if temporary.fullmatch(left.name) is None:
            continue
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()


def _write_through(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cache_folder() -> Path:
    """`$ERNIE_VIL2_CACHE`, or `~/.cache/ernie_vil2`."""
    return Path(os.environ.get("ERNIE_VIL2_CACHE") or "~/.cache/ernie_vil2").expanduser()


class OtherVersion(ValueError):  # noqa: N818  -- named by what has happened
    """A file names another version of its format than the one that is read, or none."""


def check_version(found: Any, expected: int, path: str | os.PathLike, remedy: str) -> None:
    """Raise OtherVersion unless a file names the version that is read.

    Args:
        found: what the file says under `version`; None if it says nothing.
        path: of the file, for the message.
        remedy: what to do with a file of another version.
    """
    if isinstance(found, int) and not isinstance(found, bool) and found == expected:
        return
    named = "no version" if found is None else f"version {_BRIEF.repr(found)}"
    raise OtherVersion(f"{path} names {named} of its format, and version {expected} is read here; {remedy}")


class DamagedFile(ValueError):  # noqa: N818  -- named by what has happened
    """A file is not the one that was written; the message says which, and how it differs."""


def sha256(path: Path) -> str:
    """The checksum of a file, as `sha256sum` prints it: about a second for a gigabyte."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Integrity:
    """Content of the integrity file of a folder, by which a change of the folder is noticed.

    Attributes:
        files: bytes and SHA-256 of the files, by name.
        conventions: settings that decide a model's embeddings besides its weights; None where they are not kept.
        golden: a few texts and images with their token ids and embeddings, and the device that computed them; None
            where none were computed.
    """

    files: Mapping[str, tuple[Any, Any]]
    conventions: dict[str, Any] | None
    golden: dict[str, Any] | None

    def check_files(self, folder: Path, names: Iterable[str]) -> None:
        """Raise DamagedFile if one of these files is missing, not listed, or another one than was written."""
        for name in names:
            if name not in self.files:
                raise DamagedFile(f"{INTEGRITY} does not list {name}")
            size, checksum = self.files[name]
            path = folder / name
            if not path.is_file():
                raise DamagedFile(f"{name} is missing")
            if path.stat().st_size != size:
                expected = f"{size:,}" if is_count(size, 0, 2**63) else f"what {INTEGRITY} says"
                raise DamagedFile(f"{name} has {path.stat().st_size:,} bytes instead of {expected}")
            if sha256(path) != checksum:
                raise DamagedFile(f"{name} differs from its SHA-256 checksum")


def write_integrity(
    folder: Path,
    names: Iterable[str],
    conventions: Mapping[str, Any] | None = None,
    golden: Mapping[str, Any] | None = None,
) -> None:
    """Write the integrity file of these files of a folder; see `Integrity`."""
    files = {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)} for name in names}
    content = {"version": INTEGRITY_VERSION, "files": files, "conventions": conventions, "golden": golden}
    write_json(folder / INTEGRITY, content)


def read_integrity(folder: Path) -> Integrity:
    """Read the integrity file of a folder.

    Raises:
        DamagedFile: it is missing, cannot be read, or names files outside of the folder.
        OtherVersion: it is of another version of its format.
    """
    try:
        content = load_json(folder / INTEGRITY)
        version = content["version"]
    except FileNotFoundError:
        raise DamagedFile(f"{INTEGRITY} is missing") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise DamagedFile(f"{INTEGRITY} cannot be read") from None
    check_version(version, INTEGRITY_VERSION, folder / INTEGRITY, "put back the one that was written with the folder")

    try:
        files = {name: (entry["bytes"], entry["sha256"]) for name, entry in content["files"].items()}
        conventions, golden = content["conventions"], content["golden"]
        if not isinstance(conventions, dict | None) or not isinstance(golden, dict | None):
            raise TypeError
    except (KeyError, TypeError, AttributeError):
        raise DamagedFile(f"{INTEGRITY} cannot be read") from None
    if any(Path(name).name != name for name in files):
        raise DamagedFile(f"{INTEGRITY} names files outside of the folder")
    return Integrity(files, conventions, golden)
