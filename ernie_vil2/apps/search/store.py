"""Where the collections of an index lie: in a folder, or in a Milvus."""

import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TextIO

from ernie_vil2.apps.search.collection import SIDES, VERSION, Collection, DamagedIndex
from ernie_vil2.apps.search.integrity import check_about, check_is_file, sealed, unsealed
from ernie_vil2.apps.search.local import LocalCollection
from ernie_vil2.device.extras import require
from ernie_vil2.io import locks
from ernie_vil2.io.files import OtherVersion, check_version, load_json, write_json
from ernie_vil2.io.terminal import RunError

LONGEST_ABOUT = 1 << 16  # characters of `index.json`


class BusyIndex(RunError):  # noqa: N818  -- named by what has happened
    """Another process writes to the index; the message says which."""


class Store(Protocol):
    """The collections of an index, and its description."""

    about: dict[str, Any]  # version, model, fingerprint, image_fingerprint, width and root; empty if it is new

    @property
    def folder(self) -> Path | None:
        """The index's own; None of one that has none."""

    def describe(self, about: dict[str, Any]) -> None:
        """Sets `about`; a new index then has collections."""

    def discard(self) -> None:
        """Removes an index into which nothing came."""

    def collection(self, kind: str) -> Collection | None:
        """The collection of `images` or `texts`; None where a reader finds none."""

    def compacted(self, kind: str, collection: Any) -> AbstractContextManager[Collection]:
        """A copy of a collection without rows of removed items; it replaces the collection when the block succeeds."""

    def replaced(self) -> bool:
        """Whether another index has come to lie where the one that was opened was; `about` is then its own."""

    def close(self) -> None: ...


class FolderStore:
    """An index in a folder, see `search.index`: one process at a time may write; any number may read meanwhile."""

    def __init__(self, folder: Path, writable: bool):
        require("an index in a folder", "faiss")
        logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # it lists the processor's features
        self.folder, self.writable = folder, writable
        self._lock: TextIO | None = None
        self._made = not folder.exists()
        if writable:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                self._lock = locks.owned(folder / ".lock")
            except locks.Locked as error:
                raise BusyIndex(f"{folder} is being changed by {error.owner}; wait for its end") from None
        self._path, self._opened = folder / "index.json", (0, 0)
        self.about: dict[str, Any] = {}
        try:
            self.about, self._opened = self._written()
        except FileNotFoundError:
            if not writable:
                raise FileNotFoundError(f"{folder}: no index here; build one with ernie-vil2 search build") from None
            if others := sorted(entry.name for entry in folder.iterdir() if entry.name != ".lock"):
                raise ValueError(f"{folder} is not an index and holds other files ({', '.join(others[:3])})") from None
        if writable:
            self._remove_copies()

    def __str__(self) -> str:
        return str(self.folder)

    def _written(self) -> tuple[dict[str, Any], tuple[int, int]]:
        """What `index.json` says, and the identity of that file."""
        try:
            identity = self._identity()
            check_is_file(self._path)
            about = load_json(self._path, LONGEST_ABOUT)
            if not isinstance(about, dict):
                raise DamagedIndex(f"{self._path.name} is not a JSON object")
            check_version(about.get("version"), VERSION, self._path, f"remove {self} and build the index again")
            about = check_about(unsealed(about, self._path.name), SIDES, self._path.name)
        except OtherVersion as error:
            raise DamagedIndex(str(error)) from None
        except ValueError as error:
            wrong = f"{self._path} cannot be read ({error}); remove {self} and build the index again"
            raise DamagedIndex(wrong) from error
        return about, identity

    def _identity(self) -> tuple[int, int]:
        found = self._path.stat()
        return found.st_ino, found.st_mtime_ns

    def describe(self, about: dict[str, Any]) -> None:
        write_json(self._path, sealed(about))
        self.about, self._opened = self._written()

    def discard(self) -> None:
        self._path.unlink(missing_ok=True)
        for kind in SIDES:
            shutil.rmtree(self.folder_of(kind), ignore_errors=True)
        (self.folder / ".lock").unlink()  # locked, so that no other process has begun to write
        if self._made:
            with suppress(OSError):  # somebody else may begin to write just now
                self.folder.rmdir()

    def replaced(self) -> bool:
        newer = self._newer(self._opened)
        if newer is not None:
            self.about, self._opened = newer
        return newer is not None

    def _newer(self, opened: tuple[int, int]) -> tuple[dict[str, Any], tuple[int, int]] | None:
        """As `_written`, where that is another file; None also while there is none: what was opened answers then."""
        with suppress(FileNotFoundError):
            if self._identity() != opened:
                return self._written()
        return None

    def folder_of(self, kind: str) -> Path:
        """The folder of a collection: its kind, or what it was called when it was compacted."""
        return self.folder / self.about.get(kind, kind)

    def collection(self, kind: str) -> LocalCollection | None:
        about, opened = self.about, self._opened
        while True:
            folder, failure = self.folder / about.get(kind, kind), None
            try:
                if self.writable or folder.is_dir():
                    return LocalCollection(folder, about["width"], self.writable)
            except DamagedIndex as error:
                failure = error
            newer = self._newer(opened)  # it may have been compacted just now
            if newer is None and failure is not None:
                raise failure
            if newer is None:
                return None
            about, opened = newer

    @contextmanager
    def compacted(self, kind: str, collection: LocalCollection) -> Iterator[LocalCollection]:
        """As of `Store`; who reads goes on with the files of before until the next question."""
        copy = LocalCollection(self.folder / f"{kind}-{secrets.token_hex(4)}", self.about["width"], writable=True)
        try:
            with closing(copy):
                collection.copy_to(copy)
                yield copy
            self.describe(self.about | {kind: copy.folder.name})
        finally:
            self._remove_copies()

    def _remove_copies(self) -> None:
        """Removes the folders of collections that others have replaced, and copies that were not finished."""
        for kind in SIDES:
            for folder in (self.folder / kind, *self.folder.glob(f"{kind}-{8 * '[0-9a-f]'}")):
                if folder != self.folder_of(kind):
                    shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        if self._lock:
            self._lock.close()


def is_folder(path: str | os.PathLike) -> bool:
    """Whether an index lies in a folder, and not in a Milvus."""
    return not (str(path).startswith(("http://", "https://")) or str(path).endswith(".db"))


def open_store(path: str | os.PathLike, writable: bool) -> Store:
    """The store of a folder, of an address of Milvus, or of a `.db` of milvus-lite."""
    if not is_folder(path):
        from ernie_vil2.apps.search.milvus import MilvusStore

        return MilvusStore(str(path), writable)
    return FolderStore(Path(path), writable)
