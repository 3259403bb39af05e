"""Chinese-CLIP's LMDB."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from ernie_vil2.data.readers.chinese_clip import pair_sample
from ernie_vil2.data.readers.indexed_file import decode_base64
from ernie_vil2.data.readers.layout import Layout, in_order
from ernie_vil2.data.samples import MAX_BYTES, MAX_TEXT_BYTES, BadSample, Reason, Sample, check_size, is_id
from ernie_vil2.device.extras import require
from ernie_vil2.io import restricted_pickle

PARTS = ("pairs", "imgs")
MAX_DIGITS = 18  # of a number of samples
# By path: LMDB opens a database only once in a process, and several sources may read it.
_OPEN: WeakValueDictionary[str, Any] = WeakValueDictionary()


class ChineseClipLmdb:
    """The LMDB that Chinese-CLIP's `build_lmdb_dataset.py` makes of the same files: a folder with `pairs` and `imgs`.

    Its pairs are pickles, which `restricted_pickle` reads: nothing in them can run.

    Args:
        folder: of one split, `lmdb/train` for example.
        text_id: as in `ChineseClipSource`.

    Raises:
        MissingPackage: `lmdb` is not installed.
        OSError: there is no such database, or it cannot be read.
        ValueError: it does not say how many pairs it has.
    """

    def __init__(self, folder: str | Path, text_id: str | None = None):
        self.name, self.files = str(folder), [Path(folder)]
        self._text_id = text_id
        self._open: dict[str, Any] = {}
        self._owner = os.getpid()
        count = self._get("pairs", b"num_samples", MAX_DIGITS)
        if count is None or not count.isdigit() or len(count) > MAX_DIGITS:
            raise ValueError(f"{folder}: pairs/ does not say its num_samples; was it built to the end?")
        self._size, entries = int(count), self._open["pairs"].stat()["entries"] - 1
        if not 0 < self._size <= entries:
            raise ValueError(f"{folder}: pairs/ names {self._size} samples and has {entries}; was it built to the end?")
        self.release()

    def _get(self, part: str, key: bytes, most: int) -> bytes | None:
        """The value of a key, and of one that is longer than `most` one byte more; None if there is none."""
        if self._owner != os.getpid():  # LMDB's handles do not survive a fork
            self._open, self._owner = {}, os.getpid()
        lmdb = _lmdb(self.name)
        try:
            if part not in self._open:
                self._open[part] = _opened(lmdb, os.path.join(self.name, part))
            with self._open[part].begin(buffers=True) as reading:
                value = reading.get(key)
                return None if value is None else bytes(value[: most + 1])
        except lmdb.Error as error:
            raise OSError(f"{self.name}/{part}: not an LMDB that can be read ({error})") from error

    def release(self) -> None:
        """Closes the database, unless another source reads it; the next sample opens it again."""
        self._open = {}

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Sample:
        where = f"{self.name}, pair {index}"
        content = self._get("pairs", str(index).encode(), MAX_TEXT_BYTES) or b""
        check_size(len(content), MAX_TEXT_BYTES, where)
        try:
            pair = restricted_pickle.load(content)
        except restricted_pickle.Refused as error:
            raise BadSample(Reason.MALFORMED_ROW, where) from error
        if not isinstance(pair, tuple) or len(pair) != 3:
            raise BadSample(Reason.MALFORMED_ROW, where)
        image_id, text_id, text = pair
        if not is_id(image_id) or not is_id(text_id) or not isinstance(text, str):
            raise BadSample(Reason.MALFORMED_ROW, where)
        encoded = self._get("imgs", str(image_id).encode(), MAX_BYTES)
        if encoded is None:
            raise BadSample(Reason.UNMATCHED_IMAGE, f"{where}, {image_id}")
        check_size(len(encoded), MAX_BYTES, f"{where}, {image_id}")
        image = decode_base64(encoded, f"{where}, {image_id}")
        return pair_sample(str(image_id), str(text_id), text.strip(), image, self._text_id)

    def __reduce__(self) -> tuple:
        return ChineseClipLmdb, (self.name, self._text_id)


def _opened(lmdb: Any, path: str) -> Any:
    """An environment of LMDB; OSError if it is cut off."""
    key = os.path.realpath(path)
    database = _OPEN.get(key)
    if database is None:
        database = lmdb.open(path, readonly=True, create=False, lock=False, readahead=False)
        if os.path.getsize(f"{path}/data.mdb") < database.info()["last_pgno"] * database.stat()["psize"]:
            # LMDB would read beyond the end, and the process would be killed.
            raise OSError(f"{path}: this LMDB is cut off; copy or build it again")
        _OPEN[key] = database
    return database


def _close_inherited() -> None:
    for database in list(_OPEN.values()):
        database.close()
    _OPEN.clear()


os.register_at_fork(after_in_child=_close_inherited)


def _lmdb(folder: str) -> Any:
    require(f"{folder}, an LMDB,", "lmdb")
    import lmdb

    return lmdb


def _find(folder: Path) -> dict[str, list[Path]]:
    """The folder of one split, that of all, or the one that holds `lmdb/`."""
    folders = [folder, *(entry for home in (folder, folder / "lmdb") if home.is_dir() for entry in home.iterdir())]
    return in_order({entry.name: entry for entry in folders if all((entry / part).is_dir() for part in PARTS)})


LMDB = Layout(
    name="lmdb",
    files="lmdb/{split}/ with pairs/ and imgs/",
    find=_find,
    open=lambda location, options: ChineseClipLmdb(location.name, options.text_id),
)
