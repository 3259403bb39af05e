"""Where the collections of an index lie: in a folder, or in Milvus."""

import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TextIO

from ernie_vil2.apps.search.collection import KINDS, VERSION, Collection, DamagedIndex
from ernie_vil2.apps.search.integrity import check_is_file, check_metadata, seal, unseal
from ernie_vil2.apps.search.local_collection import LocalCollection
from ernie_vil2.device.extras import require
from ernie_vil2.io import locks
from ernie_vil2.io.files import OtherVersion, check_version, load_json, write_json
from ernie_vil2.io.terminal import RunError

MAX_METADATA_LENGTH = 1 << 16  # characters of `index.json`, which has some hundred; bounds what a reader parses

FileIdentity = tuple[int, int]
"""Inode and time of modification: replacing `index.json` changes at least one of them."""


class BusyIndex(RunError):  # noqa: N818  -- named by what has happened
    """Another process writes to the index; the message names it."""


class Store(Protocol):
    """The collections of an index, and its description.

    Attributes:
        metadata: version, model, fingerprint, image_fingerprint, width and root; empty if the index is new.
    """

    metadata: dict[str, Any]

    @property
    def folder(self) -> Path | None:
        """Folder of the index; None if it has none."""

    def write_metadata(self, metadata: dict[str, Any]) -> None:
        """Set `metadata`; from then on a new index can have collections."""

    def discard(self) -> None:
        """Remove the index, because nothing was added to it."""

    def collection(self, kind: str) -> Collection | None:
        """Return the collection of `images` or `texts`; None if there is none and the store is read-only."""

    def compact(self, kind: str, collection: Any) -> AbstractContextManager[Collection]:
        """Yield a copy of a collection without the rows of removed items.

        The copy replaces the collection at the end of the block, unless the block raises.
        """

    def detect_replacement(self) -> bool:
        """Return whether another index has replaced the one that was opened, and load its `metadata`."""

    def close(self) -> None: ...


class FolderStore:
    """An index in a folder, see `search.index`: one process at a time may write, any number may read meanwhile."""

    def __init__(self, folder: Path, writable: bool):
        require("an index in a folder", "faiss")
        logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # it logs the features of the processor
        self.folder, self.writable = folder, writable
        self._lock: TextIO | None = None
        self._is_new_folder = not folder.exists()
        self._metadata_path = folder / "index.json"
        self._metadata_identity: FileIdentity = (0, 0)
        self.metadata: dict[str, Any] = {}
        if not self._is_new_folder and not folder.is_dir():
            raise NotADirectoryError(f"{folder} is a file; name the folder of an index")
        if not writable:
            try:
                self.metadata, self._metadata_identity = self._read_metadata()
            except FileNotFoundError:
                raise FileNotFoundError(f"{folder}: no index here; build one with ernie-vil2 search build") from None
            return

        folder.mkdir(parents=True, exist_ok=True)
        lock_path = folder / ".lock"
        if not lock_path.exists():  # a writer creates it first, so files without it are not those of a new index
            self._check_is_index_or_empty()
        try:
            self._lock = locks.open_lock_file(lock_path)
        except locks.Locked as error:
            raise BusyIndex(f"{folder} is being changed by {error.owner}; wait until it ends") from None
        try:
            self._check_is_index_or_empty()
            with suppress(FileNotFoundError):  # a new index has no description yet
                self.metadata, self._metadata_identity = self._read_metadata()
            self._remove_unused_folders()
        except BaseException:
            self.close()
            raise

    def __str__(self) -> str:
        return str(self.folder)

    def _check_is_index_or_empty(self) -> None:
        """Raise ValueError if the folder holds other files than those of an index."""
        other_files = sorted(entry.name for entry in self.folder.iterdir() if entry.name != ".lock")
        if other_files and self._metadata_path.name not in other_files:
            names = ", ".join(other_files[:3])
            raise ValueError(f"{self.folder} is not an index and holds other files ({names})")

    def _read_metadata(self) -> tuple[dict[str, Any], FileIdentity]:
        """Return the content of `index.json` and the identity of the file."""
        try:
            # Before reading: if the file is replaced in between, the next check sees another identity.
            identity = self._get_identity()
            check_is_file(self._metadata_path)
            metadata = load_json(self._metadata_path, MAX_METADATA_LENGTH)
            if not isinstance(metadata, dict):
                raise DamagedIndex(f"{self._metadata_path.name} is not a JSON object")
            check_version(
                metadata.get("version"), VERSION, self._metadata_path, f"remove {self} and build the index again"
            )
            metadata = check_metadata(unseal(metadata, self._metadata_path.name), KINDS, self._metadata_path.name)
        except OtherVersion as error:
            raise DamagedIndex(str(error)) from None
        except ValueError as error:
            message = f"{self._metadata_path} cannot be read ({error}); remove {self} and build the index again"
            raise DamagedIndex(message) from error
        return metadata, identity

    def _get_identity(self) -> FileIdentity:
        status = self._metadata_path.stat()
        return status.st_ino, status.st_mtime_ns

    def write_metadata(self, metadata: dict[str, Any]) -> None:
        write_json(self._metadata_path, seal(metadata))
        self.metadata, self._metadata_identity = self._read_metadata()

    def discard(self) -> None:
        self._metadata_path.unlink(missing_ok=True)
        for kind in KINDS:
            shutil.rmtree(self.collection_folder(kind), ignore_errors=True)
        (self.folder / ".lock").unlink()  # still locked, so no other process has begun to write
        if self._is_new_folder:
            with suppress(OSError):  # another process may create files right now
                self.folder.rmdir()

    def detect_replacement(self) -> bool:
        replacement = self._read_replacement(self._metadata_identity)
        if replacement is None:
            return False
        self.metadata, self._metadata_identity = replacement
        return True

    def _read_replacement(self, identity: FileIdentity) -> tuple[dict[str, Any], FileIdentity] | None:
        """Return `_read_metadata` if `index.json` is not the file with this identity any more, else None.

        None too while there is no such file: the index that was opened goes on answering.
        """
        with suppress(FileNotFoundError):
            if self._get_identity() != identity:
                return self._read_metadata()
        return None

    def collection_folder(self, kind: str) -> Path:
        """Return the folder of a collection: its kind, or the name that it got when it was compacted."""
        return self.folder / self.metadata.get(kind, kind)

    def find_folder(self, kind: str, metadata: dict[str, Any]) -> Path:
        """Return the folder of a collection by a description; DamagedIndex if it was compacted and is missing."""
        folder = self.folder / metadata.get(kind, kind)
        if kind in metadata and not folder.is_dir():
            raise DamagedIndex(f"{folder} is missing; remove {self} and build the index again")
        return folder

    def collection(self, kind: str) -> LocalCollection | None:
        # Local copies: the description that was opened changes only when `detect_replacement` is called.
        metadata, identity = self.metadata, self._metadata_identity
        while True:
            damage = None
            try:
                folder = self.find_folder(kind, metadata)
                if self.writable or folder.is_dir():
                    return LocalCollection(folder, metadata["width"], self.writable)
            except DamagedIndex as error:
                damage = error
            # It may have been compacted just now: then its folder has another name.
            replacement = self._read_replacement(identity)
            if replacement is None and damage is not None:
                raise damage
            if replacement is None:
                return None
            metadata, identity = replacement

    @contextmanager
    def compact(self, kind: str, collection: LocalCollection) -> Iterator[LocalCollection]:
        folder = self.folder / f"{kind}-{secrets.token_hex(4)}"
        copy = LocalCollection(folder, self.metadata["width"], writable=True)
        try:
            with closing(copy):
                collection.copy_to(copy)
                yield copy
            # From here on the copy is the collection. Readers keep the old files open until their next query.
            self.write_metadata(self.metadata | {kind: copy.folder.name})
        finally:
            self._remove_unused_folders()

    def _remove_unused_folders(self) -> None:
        """Remove collections that a compacted copy has replaced, and copies that were not finished."""
        # Only folders whose names this store gives are removed.
        for kind in KINDS:
            copies = self.folder.glob(f"{kind}-{8 * '[0-9a-f]'}")
            for folder in (self.folder / kind, *copies):
                if folder != self.collection_folder(kind):
                    shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        if self._lock:
            self._lock.close()


def is_folder(path: str | os.PathLike) -> bool:
    """Return whether the path of an index means a folder, and not Milvus."""
    return not (str(path).startswith(("http://", "https://")) or str(path).endswith(".db"))


def open_store(path: str | os.PathLike, writable: bool) -> Store:
    """Open the store in a folder, at an address of Milvus, or in a `.db` of milvus-lite."""
    if is_folder(path):
        return FolderStore(Path(path), writable)
    # Imported here because pymilvus is optional.
    from ernie_vil2.apps.search.milvus import MilvusStore

    return MilvusStore(str(path), writable)
