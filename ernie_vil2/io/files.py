"""Files and folders that appear whole or not at all; JSON, versions of formats, and integrity files.

A file is written under a temporary name, flushed to the disk and then renamed: without the flush, a machine that fails
leaves empty files. JSON files of the package are read and written here. Their versions are checked, and so is the
integrity file of a folder, which reveals whether one of its files has changed.
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
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

# Of a text file that is read whole, such as a vocabulary or a list of files. It bounds the memory that a wrong or
# hostile file can take.
MAX_CHARACTERS = 2**24
# Numbers in JSON are computed with: a larger one might become infinite at the first product.
MAX_NUMBER = 1e300
INTEGRITY = "integrity.json"
INTEGRITY_VERSION = 1
_MAX_NAME_BYTES = 255  # of a file's name in the file systems of Linux
# A UTF-8 character takes up to four bytes.
_MAX_BYTES_PER_CHARACTER = 4
# A stranger's file may hold anything in place of a version; a message quotes 40 characters of it.
_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxlong = _BRIEF.maxother = 40


def stat_regular_file(path: str | Path) -> os.stat_result:
    """Return the status of a regular file.

    Raises:
        OSError: there is no such file, or it is not a regular one. A device has no end, and reading a pipe would wait
            for its writer.
    """
    status = Path(path).stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not an ordinary file; write what the pipe or device gives to a disk", str(path))
    return status


def read_text(path: str | Path, max_characters: int = MAX_CHARACTERS) -> str:
    """Return the text of a whole UTF-8 file without byte order mark; line ends become line feeds.

    Raises:
        OSError: the file cannot be read, or it is not a regular file.
        ValueError: the file is not UTF-8, or it has more than `max_characters` characters.
    """
    size = stat_regular_file(path).st_size
    is_too_large = size > _MAX_BYTES_PER_CHARACTER * max_characters
    if not is_too_large:
        try:
            with add_path_to_errors(path), Path(path).open(encoding="utf-8-sig") as file:
                text = file.read(max_characters + 1)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not a UTF-8 text file ({error})") from None
        is_too_large = len(text) > max_characters
    if is_too_large:
        raise ValueError(f"{path}: more than {max_characters:,} characters; is this the right file?")
    return text


class RepeatedKey(ValueError):  # noqa: N818  -- named by what has happened
    """A key occurs twice in one object; the standard library would take the last value and drop the first."""


def parse_json(text: str | bytes) -> Any:
    """Return the content of a JSON text.

    Raises:
        RepeatedKey: an object has a key twice.
        ValueError: the text is not JSON, or its values are nested too deeply.
    """
    try:
        if isinstance(text, str):
            return _DECODER.decode(text)
        return json.loads(text, object_pairs_hook=_make_object)
    except RecursionError:
        raise ValueError("values are nested too deeply") from None


def load_json(path: str | Path, max_characters: int = MAX_CHARACTERS) -> Any:
    """Return the content of a JSON file.

    Raises:
        OSError: the file cannot be read, or it is not a regular file; a pipe is not waited for.
        ValueError: the file is not UTF-8, has more than `max_characters` characters, or does not parse (see
            `parse_json`); the message names the file.
    """
    text = read_text(path, max_characters)
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from None


def is_number(value: Any, minimum: float, maximum: float) -> TypeGuard[float]:
    """Return whether a value is a number within bounds; JSON also has truth values, NaN and integers of any length."""
    return type(value) in (int, float) and minimum <= value <= maximum


def is_count(value: Any, minimum: int = 1, maximum: int = 2**31 - 1) -> TypeGuard[int]:
    """Return whether a value is a whole number within bounds."""
    return type(value) is int and minimum <= value <= maximum


def _make_object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        key_counts = Counter(key for key, _ in pairs)
        repeated_key = next(key for key, count in key_counts.items() if count > 1)
        raise RepeatedKey(f"the key {repeated_key[:100]!r} occurs twice in one object")
    return content


# Made once, because making a decoder takes longer than decoding a short text.
_DECODER = json.JSONDecoder(object_pairs_hook=_make_object)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path; the file written there is renamed to `path` at the end of the block.

    If the block raises, the temporary file is removed and `path` is unchanged. A symbolic link stays, and its target is
    replaced. A pipe or a device such as /dev/null stays, too, and receives the content at the end. Of several threads
    and processes that write the same file, the last one to end its block wins.

    Raises:
        IsADirectoryError: `path` is a folder.
        OSError: the file cannot be written; the error names `path`.
    """
    path = Path(path)
    file_type = _file_type(path)
    if file_type == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, "is a folder; name a file", str(path))

    # A pipe or device cannot be replaced by a file: the content goes through a temporary one.
    if file_type not in (None, stat.S_IFREG):
        with tempfile.TemporaryDirectory() as folder, add_path_to_errors(path):
            temporary_path = Path(folder, path.name)
            yield temporary_path
            with temporary_path.open("rb") as content, path.open("wb") as device:
                shutil.copyfileobj(content, device)
        return

    # The temporary file lies next to its target, because files can only be renamed within a file system.
    target = Path(os.path.realpath(path))
    # The number of the thread is unique among all processes; that of a process' first thread is the process'.
    temporary_path = _temporary_path(target, f".{threading.get_native_id()}.partial")
    try:
        with add_path_to_errors(path, temporary_path):
            yield temporary_path
            _flush_to_disk(temporary_path)
            temporary_path.replace(target)
    finally:
        with suppress(OSError):  # a disk that is read-only refuses this even for a file that is not there
            temporary_path.unlink()


def _temporary_path(path: Path, suffix: str) -> Path:
    """Return a hidden path next to `path`, named after it; by a digest of its name if it would be too long."""
    name = path.name
    if len(os.fsencode(f".{name}{suffix}")) > _MAX_NAME_BYTES:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return path.with_name(f".{name}{suffix}")


def _file_type(path: Path) -> int | None:
    """Return the type of a file as in the module `stat`, following links; None if there is no file."""
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except FileNotFoundError:
        return None


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file."""
    with atomic_write(path) as temporary_path:
        temporary_path.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any, indent: int | None = 1) -> None:
    """Write a JSON file in UTF-8; lone surrogates, as in a path that is not UTF-8, are written as JSON's escapes."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    with atomic_write(path) as temporary_path:
        temporary_path.write_bytes(text.encode("utf-8", "backslashreplace"))


def save_arrays(path: str | Path, arrays: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    """Write a `.safetensors` file.

    Raises:
        OSError: the file cannot be written, for example because the disk is full.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(dict(arrays), path, metadata)
    except SafetensorError as error:
        # The library gives an error of the system only in words.
        match = re.search(r"\(os error (\d+)\)", str(error))
        if match is None:
            raise
        number = int(match[1])
        raise OSError(number, os.strerror(number), str(path)) from error


@contextmanager
def add_path_to_errors(path: str | Path, temporary_path: Path | None = None) -> Iterator[None]:
    """Add the path to system errors in the block that name no file, such as a full disk during a write.

    Errors that name `temporary_path`, or a file in it, are raised with the path that it stands for.
    """
    try:
        yield
    except OSError as error:
        final_path = Path(path)
        if (
            temporary_path is not None
            and error.filename is not None
            and Path(error.filename).is_relative_to(temporary_path)
        ):
            final_path /= Path(error.filename).relative_to(temporary_path)
        elif error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(final_path)) from error


@contextmanager
def atomic_files(folder: str | Path) -> Iterator[Path]:
    """Yield a temporary folder; the files written there are moved into `folder` at the end of the block.

    If the block raises, `folder` is unchanged, or still does not exist.

    Raises:
        OSError: a file cannot be written; the error names it.
    """
    folder = Path(folder)
    temporary_folder = folder / f".{threading.get_native_id()}.partial"
    # A killed process may have had the number of this thread, as the first process of a container always has.
    shutil.rmtree(temporary_folder, ignore_errors=True)
    with _create_folder(folder), add_path_to_errors(folder, temporary_folder):
        try:
            temporary_folder.mkdir()
            yield temporary_folder
            for source in sorted(temporary_folder.iterdir()):
                with atomic_write(folder / source.name) as temporary_path:
                    shutil.move(source, temporary_path)
        finally:
            shutil.rmtree(temporary_folder, ignore_errors=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path`, which is flushed to the disk and renamed to `path` at the end.

    If the block raises, the temporary folder is removed. A killed process leaves it behind; the next writer of the same
    folder and `remove_partial` remove it.

    Raises:
        OSError: there is a folder of that name with something in it, or a file cannot be written.
    """
    path = Path(os.path.realpath(path))
    temporary_folder = _temporary_path(path, ".partial")
    shutil.rmtree(temporary_folder, ignore_errors=True)
    with _create_folder(path.parent), add_path_to_errors(path, temporary_folder):
        try:
            temporary_folder.mkdir()
            yield temporary_folder
            # Contents first, then the name, then the list of names in which it stands: the name is on the disk only
            # if everything below it is.
            for temporary_path in (*sorted(temporary_folder.rglob("*"), reverse=True), temporary_folder):
                _flush_to_disk(temporary_path)
            temporary_folder.rename(path)
            _flush_to_disk(path.parent)
        except BaseException:
            shutil.rmtree(temporary_folder, ignore_errors=True)
            raise


@contextmanager
def _create_folder(folder: Path) -> Iterator[None]:
    """Create a folder and its parents; if the block raises, remove those that did not exist before."""
    new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with suppress(OSError):  # somebody else has put a file there
            for path in new_folders:
                path.rmdir()
        raise


def remove_folder(path: Path) -> None:
    """Remove a folder, or a link to one, so that it is never seen incomplete under its name."""
    if path.is_symlink():
        path.unlink()
        return
    temporary_path = path.with_name(f".{path.name}.partial")
    path.rename(temporary_path)
    shutil.rmtree(temporary_path)


def remove_partial(folder: Path, name_pattern: str) -> None:
    """Remove the temporary files and folders that killed processes have left in a folder.

    Args:
        folder: folder to clean up.
        name_pattern: regular expression of the final names. Nobody may be writing files of these names.
    """
    temporary_name = re.compile(rf"\.(?:{name_pattern})(?:\.\d+)?\.partial")
    for path in folder.glob(".*.partial"):
        if not temporary_name.fullmatch(path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _flush_to_disk(path: Path) -> None:
    """Wait until the content of a file, or the list of names of a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cache_folder() -> Path:
    """Return `$ERNIE_VIL2_CACHE`, or `~/.cache/ernie_vil2` if it is not set."""
    return Path(os.environ.get("ERNIE_VIL2_CACHE") or "~/.cache/ernie_vil2").expanduser()


class OtherVersion(ValueError):  # noqa: N818  -- named by what has happened
    """A file names no version of its format, or another one than this release reads."""


def check_version(version: Any, expected: int, path: str | os.PathLike, remedy: str) -> None:
    """Raise OtherVersion unless a file names the version that this release reads.

    Args:
        version: content of the key `version` of the file; None if it has none.
        expected: version that this release reads.
        path: path of the file, for the message.
        remedy: what to do with a file of another version.
    """
    if type(version) is int and version == expected:
        return
    if version is None:
        actual = "no version"
    else:
        actual = f"version {_BRIEF.repr(version)}"
    raise OtherVersion(f"{path} names {actual} of its format, and version {expected} is read here; {remedy}")


class DamagedFile(ValueError):  # noqa: N818  -- named by what has happened
    """A file is not the one that was written; the message names it and says how it differs."""


def sha256(path: Path) -> str:
    """Return the checksum of a file as `sha256sum` prints it, in about a second for each gigabyte."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Integrity:
    """Content of the integrity file of a folder, which reveals changes of the folder.

    Attributes:
        files: size in bytes and SHA-256 of each file, by name.
        conventions: settings besides the weights that affect a model's embeddings; None if they are not recorded.
        golden: a few texts and images with their token ids and embeddings, and the device that computed them; None if
            none were computed.
    """

    files: Mapping[str, tuple[Any, Any]]
    conventions: dict[str, Any] | None
    golden: dict[str, Any] | None

    def check_files(self, folder: Path, names: Iterable[str]) -> None:
        """Raise DamagedFile if one of these files is missing, not listed, or not the one that was written."""
        for name in names:
            if name not in self.files:
                raise DamagedFile(f"{INTEGRITY} does not list {name}")
            size, checksum = self.files[name]
            path = folder / name
            if not path.is_file():
                raise DamagedFile(f"{name} is missing")
            if path.stat().st_size != size:
                if is_count(size, 0, 2**63):
                    expected = f"{size:,}"
                else:
                    expected = f"what {INTEGRITY} says"
                raise DamagedFile(f"{name} has {path.stat().st_size:,} bytes instead of {expected}")
            if sha256(path) != checksum:
                raise DamagedFile(f"{name} differs from its SHA-256 checksum")


def write_integrity(
    folder: Path,
    names: Iterable[str],
    conventions: Mapping[str, Any] | None = None,
    golden: Mapping[str, Any] | None = None,
) -> None:
    """Write the integrity file for the files `names` of a folder; see `Integrity`."""
    files = {}
    for name in names:
        path = folder / name
        files[name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    content = {"version": INTEGRITY_VERSION, "files": files, "conventions": conventions, "golden": golden}
    write_json(folder / INTEGRITY, content)


def read_integrity(folder: Path) -> Integrity:
    """Read the integrity file of a folder.

    Raises:
        DamagedFile: the file is missing, cannot be read, or names files outside of the folder.
        OtherVersion: the file has another version of its format.
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
