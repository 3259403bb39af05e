"""Chinese-CLIP (arXiv 2211.01335): a TSV file of images with JSON lines of texts, and the LMDB that is made of both.

Chinese-CLIP publishes MUGE and Flickr30k-CN as `{split}_imgs.tsv` and `{split}_texts.jsonl`. MUGE's own release has
`MR_{split}_imgs.tsv` and `MR_{split}_queries.jsonl`, whose keys have other names.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText, Collector
from ernie_vil2.data.readers.layout import ImageFolders, Layout, Precedence, order_splits
from ernie_vil2.data.readers.locations import LocalFile, Location
from ernie_vil2.data.readers.source import Index, Lines, TextLines, decode_base64, load_or_scan_index
from ernie_vil2.data.readers.webdataset import choose_text_name
from ernie_vil2.data.samples import (
    MAX_BYTES,
    MAX_TEXT_BYTES,
    BadSample,
    Reason,
    Sample,
    check_size,
    check_text,
    is_id,
    parse_object,
)
from ernie_vil2.data.source_files import read_numbered_lines
from ernie_vil2.device.extras import require
from ernie_vil2.io import restricted_pickle

# ---- TSV and JSON lines ----


class TextKeys(NamedTuple):
    """Keys in the rows of a text file."""

    text_id: str
    text: str
    image_ids: str


IMAGES_SUFFIX = "_imgs.tsv"
TEXT_KEYS_BY_SUFFIX = {
    "_texts.jsonl": TextKeys("text_id", "text", "image_ids"),
    "_queries.jsonl": TextKeys("query_id", "query_text", "item_ids"),
}
MAX_ID_BYTES = 256  # beginning of a line of the image TSV that is read for the id, rather than megabytes of image
NO_IMAGE = -1  # row of an image that does not exist


class TextRow(NamedTuple):
    """A row of a text file; its image ids are distinct."""

    text_id: str
    text: str
    image_ids: list[str]


def find_text_file(images: Path) -> Path:
    """Return the text file next to an image TSV; raise FileNotFoundError if there is none."""
    stem = images.name.removesuffix(IMAGES_SUFFIX)
    paths = [images.with_name(stem + suffix) for suffix in TEXT_KEYS_BY_SUFFIX]
    for path in paths:
        if path.is_file():
            return path
    raise FileNotFoundError(f"{images}: the texts are missing; put {' or '.join(map(str, paths))} here")


def _get_keys(texts: Path) -> TextKeys:
    return next(keys for suffix, keys in TEXT_KEYS_BY_SUFFIX.items() if texts.name.endswith(suffix))


def _parse_text_row(row: Mapping, name: str, keys: TextKeys) -> TextRow:
    text_id, text, image_ids = row.get(keys.text_id), row.get(keys.text), row.get(keys.image_ids)
    if image_ids is None:
        image_ids = []  # a test split whose answers are not published
    if not is_id(text_id) or not isinstance(text, str) or not isinstance(image_ids, list):
        raise BadSample(Reason.MALFORMED_ROW, name)
    if not all(map(is_id, image_ids)):
        raise BadSample(Reason.MALFORMED_ROW, name)
    return TextRow(str(text_id), text.strip(), list(dict.fromkeys(map(str, image_ids))))


def _read_image_id(images: Lines, row: int) -> str:
    return images.read_columns(row, MAX_ID_BYTES)[0].decode("utf-8", "replace").strip()


def _read_tsv_image(images: Lines, row: int) -> bytes:
    columns = images.read_columns(row)
    if len(columns) != 2:
        raise BadSample(Reason.MALFORMED_ROW, images.describe_row(row))
    return decode_base64(columns[1], images.describe_row(row))


class ChineseClipSource:
    """Pairs of `{split}_imgs.tsv` and `{split}_texts.jsonl` (MUGE: `_queries.jsonl`): one for each image of a text.

    A text without image, or whose image does not exist, is a bad sample. Of several images with one id the first
    counts. Only the pairs of row numbers are in memory.

    Args:
        images: the `_imgs.tsv` file; the texts lie next to it.
        text_id: `text_id` names a text by its id, so that equal captions with different ids are different texts; None:
            the caption names it.

    Raises:
        FileNotFoundError: the texts are missing.
        ValueError: a file is empty.
    """

    def __init__(self, images: str | Path, text_id: str | None = None):
        texts = find_text_file(Path(images))
        self.name, self.files = str(images), [Path(images), texts]
        self._keys = _get_keys(texts)
        self._text_id = text_id
        self._images, self._texts = Lines(images), TextLines(texts)
        self._pairs: Index | None = None
        self._size = len(self.pairs["texts"])
        self.release()

    @property
    def pairs(self) -> Index:
        """Row numbers of `texts` and `images` that belong together."""
        if self._pairs is None:
            identity = f"{self._images.location.identity()} {self._texts.location.identity()}"
            self._pairs = load_or_scan_index("chinese-clip", identity, self._scan)
        return self._pairs

    def _scan(self) -> Index:
        # If several images have the same id, the first one counts.
        image_rows: dict[str, int] = {}
        for row in range(len(self._images)):
            image_rows.setdefault(_read_image_id(self._images, row), row)

        text_column: list[int] = []
        image_column: list[int] = []
        for row in range(len(self._texts)):
            try:
                if not self._texts.read_line(row).strip():
                    continue
                image_ids = self._read_text(row).image_ids
            except BadSample:
                image_ids = []  # the error is raised again when the row is read
            for image_id in image_ids:
                text_column.append(row)
                image_column.append(image_rows.get(image_id, NO_IMAGE))
            # A text without image is a pair too. Reading it raises BadSample, so that it is counted.
            if not image_ids:
                text_column.append(row)
                image_column.append(NO_IMAGE)
        return {"texts": np.array(text_column, np.int64), "images": np.array(image_column, np.int64)}

    def _read_text(self, row: int) -> TextRow:
        name = self._texts.describe_row(row)
        return _parse_text_row(parse_object(self._texts.read_line(row), name), name, self._keys)

    def release(self) -> None:
        """Free the indexes and close the files."""
        self._pairs = None
        self._images.release()
        self._texts.release()

    def __len__(self) -> int:
        return self._size

    def read_image_name(self, index: int) -> str:
        """Return the name of a row's image, see `Shard`."""
        image_row = int(self.pairs["images"][index])
        if image_row == NO_IMAGE:
            raise BadSample(Reason.UNMATCHED_IMAGE, f"{self.name}, pair {index + 1}")
        return _read_image_id(self._images, image_row)

    def __getitem__(self, index: int) -> Sample:
        text_row = int(self.pairs["texts"][index])
        image_row = int(self.pairs["images"][index])
        text = self._read_text(text_row)
        if image_row == NO_IMAGE:
            reason = Reason.UNMATCHED_IMAGE if text.image_ids else Reason.TEXT_WITHOUT_IMAGE
            raise BadSample(reason, ", ".join([self._texts.describe_row(text_row), *text.image_ids[:1]]))
        image_id = _read_image_id(self._images, image_row)
        image = _read_tsv_image(self._images, image_row)
        return _make_sample(image_id, text.text_id, text.text, image, self._text_id)


def _make_sample(image_id: str, text_id: str, text: str, image: bytes, text_id_field: str | None) -> Sample:
    check_text(text, f"{image_id}, {text_id}")
    fields = {"text_id": text_id}
    text_name = choose_text_name({"": text}, fields, text_id_field, image_id)
    return Sample(image_id, text_name, image, {"": text}, fields=fields)


def _is_local_images(location: Location) -> bool:
    """Return whether a location is a local image TSV; raise ValueError for a text file, which is read along with it."""
    if not location.name.endswith(IMAGES_SUFFIX):
        raise ValueError(
            f"{location.name}: name the images, {{split}}{IMAGES_SUFFIX}; the texts next to it are read with it"
        )
    return isinstance(location, LocalFile)


def _find(folder: Path) -> dict[str, list[Path]]:
    """Return the image TSV of each split that has texts.

    A split whose texts have no images comes last: the answers of MUGE's test split are not published.
    """
    images: dict[str, Path] = {}
    for path in folder.glob(f"*{IMAGES_SUFFIX}"):
        with suppress(FileNotFoundError):
            find_text_file(path)
            images[path.name.removesuffix(IMAGES_SUFFIX).removeprefix("MR_")] = path
    splits = order_splits(images)
    return dict(sorted(splits.items(), key=lambda split: not _has_answers(split[1][0])))


def _has_answers(images: Path) -> bool:
    """Return whether the first text that can be read names images."""
    texts = find_text_file(images)
    for name, line in read_numbered_lines(texts):
        with suppress(BadSample):
            return bool(parse_object(line, name).get(_get_keys(texts).image_ids))
    return False


def _read(images: Path, split: str, folders: ImageFolders) -> Benchmark:
    """Read a split with its published ids. A text without image ids stays in the gallery and is no query."""
    collector = Collector()
    texts = find_text_file(images)
    _collect_images(collector, Lines(images))
    for name, line in read_numbered_lines(texts):
        with collector.entry():
            text = _parse_text_row(parse_object(line, name), name, _get_keys(texts))
            matched_ids = [image_id for image_id in text.image_ids if collector.has_image(image_id)]
            if text.image_ids and not matched_ids:
                raise BadSample(Reason.UNMATCHED_IMAGE, f"{name}, {text.image_ids[0]}")
            collector.add_text(BenchmarkText(text.text_id, text.text), must_be_new=True)
            for image_id in matched_ids:
                collector.add_pair(image_id, text.text_id)
            # The text is used, so an id without image is an entry of its own in the report.
            for image_id in text.image_ids:
                if image_id not in matched_ids:
                    with collector.entry():
                        raise BadSample(Reason.UNMATCHED_IMAGE, f"{name}, {image_id}")
    return collector.make_benchmark(f"{images.parent.name}-{split}", [images, texts])


def _collect_images(collector: Collector, images: Lines) -> None:
    first_rows: dict[str, int] = {}
    for row in range(len(images)):
        with collector.entry():
            columns = images.read_columns(row, MAX_ID_BYTES)
            image_id = columns[0].decode("utf-8", "replace").strip()
            name = images.describe_row(row)
            if len(columns) != 2 or not image_id:
                raise BadSample(Reason.MALFORMED_ROW, name)
            # An equal image is harmless, so the report distinguishes it from a different one.
            if image_id in first_rows:
                is_equal = images.read_columns(first_rows[image_id]) == images.read_columns(row)
                reason = Reason.REPEATED_IMAGE if is_equal else Reason.DIFFERENT_IMAGE
                raise BadSample(reason, f"{name}, {image_id}")
            first_rows[image_id] = row
            collector.add_image(BenchmarkImage(image_id, partial(_read_tsv_image, images, row)), row)


CHINESE_CLIP = Layout(
    name="chinese-clip",
    file_description=(
        "{split}_imgs.tsv and {split}_texts.jsonl, or MUGE's MR_{split}_imgs.tsv and MR_{split}_queries.jsonl"
    ),
    find=_find,
    accepts=_is_local_images,
    suffixes=(IMAGES_SUFFIX, *TEXT_KEYS_BY_SUFFIX),
    # Training reads the pairs one by one, rather than holding a whole benchmark in memory.
    open=lambda location, data: ChineseClipSource(location.name, data.text_id),
    read=_read,
    precedence=Precedence.BENCHMARK,
)


# ---- LMDB ----

DATABASES = ("pairs", "imgs")
MAX_DIGITS = 18  # of the number of samples, so that it fits into 64 bits
# Open databases by path: LMDB opens a database only once in a process, and several sources may read it.
_OPEN_DATABASES: WeakValueDictionary[str, Any] = WeakValueDictionary()


class ChineseClipLmdb:
    """The LMDB that Chinese-CLIP's `build_lmdb_dataset.py` makes: a folder with the databases `pairs` and `imgs`.

    The pairs are pickles. `restricted_pickle` reads them, so that nothing in them can run.

    Args:
        folder: folder of one split, for example `lmdb/train`.
        text_id: as for `ChineseClipSource`.

    Raises:
        MissingPackage: `lmdb` is not installed.
        OSError: there is no such database, or it cannot be read.
        ValueError: it does not have the number of pairs that it names.
    """

    def __init__(self, folder: str | Path, text_id: str | None = None):
        require(f"{folder}, an LMDB,", "lmdb")
        self.name, self.files = str(folder), [Path(folder)]
        self._text_id = text_id
        self._databases: dict[str, Any] = {}
        self._owner = os.getpid()
        count = self._read_value("pairs", b"num_samples", MAX_TEXT_BYTES, self.name)
        if count is None or not count.isdigit() or len(count) > MAX_DIGITS:
            raise ValueError(f"{folder}: pairs/ does not say its num_samples; was it built to the end?")
        self._size = int(count)
        num_pairs = self._databases["pairs"].stat()["entries"] - 1  # all entries but num_samples
        if not 0 < self._size <= num_pairs:
            raise ValueError(
                f"{folder}: pairs/ names {self._size} samples and has {num_pairs}; was it built to the end?"
            )
        self.release()

    def _read_value(self, database: str, key: bytes, max_bytes: int, name: str) -> bytes | None:
        """Return the value of a key, or None; raise BadSample with this name if it is longer than `max_bytes`."""
        import lmdb

        if self._owner != os.getpid():  # LMDB's handles do not survive a fork
            self._databases, self._owner = {}, os.getpid()
        try:
            if database not in self._databases:
                self._databases[database] = _open_database(str(Path(self.name, database)))
            with self._databases[database].begin(buffers=True) as transaction:
                value = transaction.get(key)
                check_size(len(value or b""), max_bytes, name)
                return None if value is None else bytes(value)
        except lmdb.Error as error:
            raise OSError(f"{self.name}/{database}: not an LMDB that can be read ({error})") from error

    def release(self) -> None:
        """Close the databases, unless another source reads them; reading the next sample opens them again."""
        self._databases = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_databases": {}}  # the receiving process opens them again

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Sample:
        name = f"{self.name}, pair {index}"
        try:
            pair = restricted_pickle.load_plain_data(
                self._read_value("pairs", str(index).encode(), MAX_TEXT_BYTES, name) or b""
            )
        except restricted_pickle.NotPlainData as error:
            raise BadSample(Reason.MALFORMED_ROW, name) from error
        if not isinstance(pair, tuple) or len(pair) != 3:
            raise BadSample(Reason.MALFORMED_ROW, name)
        image_id, text_id, text = pair
        if not is_id(image_id) or not is_id(text_id) or not isinstance(text, str):
            raise BadSample(Reason.MALFORMED_ROW, name)
        name = f"{name}, {image_id}"
        encoded_image = self._read_value("imgs", str(image_id).encode(), MAX_BYTES, name)
        if encoded_image is None:
            raise BadSample(Reason.UNMATCHED_IMAGE, name)
        image = decode_base64(encoded_image, name)
        return _make_sample(str(image_id), str(text_id), text.strip(), image, self._text_id)


def _open_database(path: str) -> Any:
    """Return an LMDB environment, the same one for equal paths; raise OSError if the file is cut off."""
    import lmdb

    key = os.path.realpath(path)
    database = _OPEN_DATABASES.get(key)
    if database is None:
        database = lmdb.open(path, readonly=True, create=False, lock=False, readahead=False)
        # LMDB maps the file into memory. Reading beyond its end would kill the process. Pages are counted from 0.
        num_pages = database.info()["last_pgno"] + 1
        if Path(path, "data.mdb").stat().st_size < num_pages * database.stat()["psize"]:
            raise OSError(f"{path}: this LMDB is cut off; copy or build it again")
        _OPEN_DATABASES[key] = database
    return database


def _close_inherited_databases() -> None:
    for database in list(_OPEN_DATABASES.values()):
        database.close()
    _OPEN_DATABASES.clear()


os.register_at_fork(after_in_child=_close_inherited_databases)


def _find_lmdb(folder: Path) -> dict[str, list[Path]]:
    """Return the folders of splits: the folder itself, those in it, or those in `lmdb/` in it."""
    candidates = [folder]
    for parent in (folder, folder / "lmdb"):
        if parent.is_dir():
            candidates += parent.iterdir()
    splits: dict[str, Path] = {}
    for candidate in candidates:
        # pathlib would raise for a folder of another user, such as lost+found.
        if all(os.path.isdir(candidate / database) for database in DATABASES):  # noqa: PTH112
            splits[candidate.name] = candidate
    return order_splits(splits)


LMDB = Layout(
    name="lmdb",
    file_description="lmdb/{split}/ with pairs/ and imgs/",
    find=_find_lmdb,
    open=lambda location, data: ChineseClipLmdb(location.name, data.text_id),
    precedence=Precedence.DATABASE,
)
