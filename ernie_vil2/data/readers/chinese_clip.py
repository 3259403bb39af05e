"""Chinese-CLIP (arXiv 2211.01335): TSV of images with JSON lines of texts, as MUGE's own release has it, and its LMDB.

Chinese-CLIP publishes MUGE and Flickr30k-CN as `{split}_imgs.tsv` and `{split}_texts.jsonl`; MUGE's own release has
`MR_{split}_imgs.tsv` and `MR_{split}_queries.jsonl`, which differ in the names of the keys.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
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

IMAGES_SUFFIX = "_imgs.tsv"
# The name of the text file and its keys: text id, text, image ids.
TEXTS = {"_texts.jsonl": ("text_id", "text", "image_ids"), "_queries.jsonl": ("query_id", "query_text", "item_ids")}
LONGEST_ID = 256  # bytes, in the image TSV
NO_IMAGE = -1


def find_text_file(images: Path) -> Path:
    """The text file of an image TSV; FileNotFoundError if there is none."""
    paths = [images.with_name(images.name.removesuffix(IMAGES_SUFFIX) + end) for end in TEXTS]
    if (found := next(filter(Path.is_file, paths), None)) is None:
        raise FileNotFoundError(f"{images}: the texts are missing; put {' or '.join(map(str, paths))} here")
    return found


def _is_here(location: Location) -> bool:
    """Whether the images of a split are a file that is here; ValueError for the texts, which are read with them."""
    if not location.name.endswith(IMAGES_SUFFIX):
        raise ValueError(
            f"{location.name}: name the images, {{split}}{IMAGES_SUFFIX}; the texts next to it are read with it"
        )
    return isinstance(location, LocalFile)


def text_keys(texts: str | Path) -> tuple[str, str, str]:
    """The keys of a text file's rows: text id, text, image ids."""
    return next(keys for end, keys in TEXTS.items() if str(texts).endswith(end))


def parse_text(row: Mapping, name: str, keys: tuple[str, str, str]) -> tuple[str, str, list[str]]:
    """Text id, text, and the distinct image ids of a row; BadSample if it has another form."""
    text_id, text, image_ids = (row.get(key) for key in keys)
    image_ids = [] if image_ids is None else image_ids
    if not is_id(text_id) or not isinstance(text, str) or not isinstance(image_ids, list):
        raise BadSample(Reason.MALFORMED_ROW, name)
    if not all(map(is_id, image_ids)):
        raise BadSample(Reason.MALFORMED_ROW, name)
    return str(text_id), text.strip(), list(dict.fromkeys(map(str, image_ids)))


def image_of_row(images: Lines, row: int) -> bytes:
    """The image of a row of the TSV; BadSample if it has another form."""
    columns = images.read_columns(row)
    if len(columns) != 2:
        raise BadSample(Reason.MALFORMED_ROW, images.describe_row(row))
    return decode_base64(columns[1], images.describe_row(row))


class ChineseClipSource:
    """Pairs of `{split}_imgs.tsv` and `{split}_texts.jsonl` (MUGE: `_queries.jsonl`): one for each image of a text.

    A text without image, or whose image is not there, is a bad sample. Of images with one id the first one is kept.

    Args:
        images: the `_imgs.tsv`; the texts lie next to it.
        text_id: `text_id` names a text by its id, so that equal captions with several ids are several texts; None:
            the caption names it.

    Raises:
        FileNotFoundError: there are no texts next to it.
        ValueError: a file is empty.
    """

    def __init__(self, images: str | Path, text_id: str | None = None):
        texts = find_text_file(Path(images))
        self.name, self.files = str(images), [Path(images), texts]
        self._keys = text_keys(texts)
        self._text_id = text_id
        self._images, self._texts = Lines(images), TextLines(texts)
        self._pairs: Index | None = None
        self._size = len(self.pairs["texts"])
        self.release()

    @property
    def pairs(self) -> Index:
        """Rows of `texts` and of `images` that belong together."""
        if self._pairs is None:
            identity = f"{self._images.location.identity()} {self._texts.location.identity()}"
            self._pairs = load_or_scan_index("chinese-clip", identity, self._scan)
        return self._pairs

    def _scan(self) -> Index:
        image_rows: dict[str, int] = {}
        for row in range(len(self._images)):
            image_rows.setdefault(self._image_id(row), row)
        texts, images = [], []
        for row in range(len(self._texts)):
            try:
                if not self._texts.read_line(row).strip():
                    continue
                _, _, image_ids = self._text(row)
            except BadSample:
                image_ids = []
            for image_row in [image_rows.get(image_id, NO_IMAGE) for image_id in image_ids] or [NO_IMAGE]:
                texts.append(row)
                images.append(image_row)
        return {"texts": np.array(texts, np.int64), "images": np.array(images, np.int64)}

    def _image_id(self, row: int) -> str:
        return self._images.read_columns(row, LONGEST_ID)[0].decode("utf-8", "replace").strip()

    def _text(self, row: int) -> tuple[str, str, list[str]]:
        name = self._texts.describe_row(row)
        return parse_text(parse_object(self._texts.read_line(row), name), name, self._keys)

    def release(self) -> None:
        """Gives indexes and open files back."""
        self._pairs = None
        self._images.release()
        self._texts.release()

    def __len__(self) -> int:
        return self._size

    def read_image_name(self, index: int) -> str:
        """What the image of a row is called, see `Shard`."""
        image_row = int(self.pairs["images"][index])
        if image_row == NO_IMAGE:
            raise BadSample(Reason.UNMATCHED_IMAGE, f"{self.name}, pair {index + 1}")
        return self._image_id(image_row)

    def __getitem__(self, index: int) -> Sample:
        text_row, image_row = int(self.pairs["texts"][index]), int(self.pairs["images"][index])
        text_id, text, image_ids = self._text(text_row)
        if image_row == NO_IMAGE:
            reason = Reason.UNMATCHED_IMAGE if image_ids else Reason.TEXT_WITHOUT_IMAGE
            raise BadSample(reason, ", ".join([self._texts.describe_row(text_row), *image_ids[:1]]))
        name = self._image_id(image_row)
        return pair_sample(name, text_id, text, image_of_row(self._images, image_row), self._text_id)


def pair_sample(name: str, text_id: str, text: str, image: bytes, naming: str | None) -> Sample:
    """The sample of an image id with a text; `naming` is the `text_id` of the source."""
    check_text(text, f"{name}, {text_id}")
    fields = {"text_id": text_id}
    return Sample(name, choose_text_name({"": text}, fields, naming, name), image, {"": text}, fields=fields)


def _find(folder: Path) -> dict[str, list[Path]]:
    """A split whose first text names no image comes last: the answers of MUGE's test split are not published."""
    images = {
        path.name.removesuffix(IMAGES_SUFFIX).removeprefix("MR_"): path for path in folder.glob(f"*{IMAGES_SUFFIX}")
    }
    whole = {}
    for split, path in images.items():
        with suppress(FileNotFoundError):
            find_text_file(path)
            whole[split] = path
    return dict(sorted(order_splits(whole).items(), key=lambda item: not _names_images(item[1][0])))


def _names_images(images: Path) -> bool:
    texts = find_text_file(images)
    for name, line in read_numbered_lines(texts):
        try:
            return bool(parse_object(line, name).get(text_keys(texts)[2]))
        except BadSample:
            continue
    return False


def _read(images: Path, split: str, folders: ImageFolders) -> Benchmark:
    """Images and texts have their published ids. A text without image ids stays in the gallery and is not a query."""
    collector, texts = Collector(), find_text_file(images)
    _read_images(collector, Lines(images))
    for name, line in read_numbered_lines(texts):
        with collector.entry():
            text_id, content, image_ids = parse_text(parse_object(line, name), name, text_keys(texts))
            matched = [image_id for image_id in image_ids if collector.has_image(image_id)]
            if image_ids and not matched:
                raise BadSample(Reason.UNMATCHED_IMAGE, f"{name}, {image_ids[0]}")
            collector.add_text(BenchmarkText(text_id, content), must_be_new=True)
            for image_id in matched:
                collector.add_pair(image_id, text_id)
            for image_id in image_ids:
                if image_id not in matched:
                    with collector.entry():
                        raise BadSample(Reason.UNMATCHED_IMAGE, f"{name}, {image_id}")
    return collector.make_benchmark(f"{images.parent.name}-{split}", [images, texts])


def _read_images(collector: Collector, rows: Lines) -> None:
    first: dict[str, int] = {}
    for index in range(len(rows)):
        with collector.entry():
            columns = rows.read_columns(index, LONGEST_ID)
            image_id = columns[0].decode("utf-8", "replace").strip()
            if len(columns) != 2 or not image_id:
                raise BadSample(Reason.MALFORMED_ROW, rows.describe_row(index))
            if image_id in first:
                same = rows.read_columns(first[image_id]) == rows.read_columns(index)
                raise BadSample(
                    Reason.REPEATED_IMAGE if same else Reason.DIFFERENT_IMAGE, f"{rows.describe_row(index)}, {image_id}"
                )
            first[image_id] = index
            collector.add_image(BenchmarkImage(image_id, partial(image_of_row, rows, index)), index)


CHINESE_CLIP = Layout(
    name="chinese-clip",
    file_description=(
        "{split}_imgs.tsv and {split}_texts.jsonl, or MUGE's MR_{split}_imgs.tsv and MR_{split}_queries.jsonl"
    ),
    find=_find,
    accepts=_is_here,
    suffixes=(IMAGES_SUFFIX, *TEXTS),
    # The pairs alone, of which only an index is in memory.
    open=lambda location, data: ChineseClipSource(location.name, data.text_id),
    read=_read,
    precedence=Precedence.BENCHMARK,
)


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
        require(f"{folder}, an LMDB,", "lmdb")
        self.name, self.files = str(folder), [Path(folder)]
        self._text_id = text_id
        self._open: dict[str, Any] = {}
        self._owner = os.getpid()
        count = self._get("pairs", b"num_samples", MAX_TEXT_BYTES, self.name)
        if count is None or not count.isdigit() or len(count) > MAX_DIGITS:
            raise ValueError(f"{folder}: pairs/ does not say its num_samples; was it built to the end?")
        self._size, entries = int(count), self._open["pairs"].stat()["entries"] - 1
        if not 0 < self._size <= entries:
            raise ValueError(f"{folder}: pairs/ names {self._size} samples and has {entries}; was it built to the end?")
        self.release()

    def _get(self, part: str, key: bytes, most: int, where: str) -> bytes | None:
        """The value of a key, None if there is none; BadSample `where` it is longer than `most`."""
        import lmdb

        if self._owner != os.getpid():  # LMDB's handles do not survive a fork
            self._open, self._owner = {}, os.getpid()
        try:
            if part not in self._open:
                self._open[part] = _opened(str(Path(self.name, part)))
            with self._open[part].begin(buffers=True) as reading:
                value = reading.get(key)
                check_size(len(value or b""), most, where)
                return None if value is None else bytes(value)
        except lmdb.Error as error:
            raise OSError(f"{self.name}/{part}: not an LMDB that can be read ({error})") from error

    def release(self) -> None:
        """Closes the database, unless another source reads it; the next sample opens it again."""
        self._open = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}  # opened again where it is sent to

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Sample:
        where = f"{self.name}, pair {index}"
        try:
            pair = restricted_pickle.load(self._get("pairs", str(index).encode(), MAX_TEXT_BYTES, where) or b"")
        except restricted_pickle.Refused as error:
            raise BadSample(Reason.MALFORMED_ROW, where) from error
        image_id, text_id, text = pair if isinstance(pair, tuple) and len(pair) == 3 else (None, None, None)
        if not is_id(image_id) or not is_id(text_id) or not isinstance(text, str):
            raise BadSample(Reason.MALFORMED_ROW, where)
        where = f"{where}, {image_id}"
        encoded = self._get("imgs", str(image_id).encode(), MAX_BYTES, where)
        if encoded is None:
            raise BadSample(Reason.UNMATCHED_IMAGE, where)
        image = decode_base64(encoded, where)
        return pair_sample(str(image_id), str(text_id), text.strip(), image, self._text_id)


def _opened(path: str) -> Any:
    """An environment of LMDB; OSError if it is cut off."""
    import lmdb

    key = os.path.realpath(path)
    database = _OPEN.get(key)
    if database is None:
        database = lmdb.open(path, readonly=True, create=False, lock=False, readahead=False)
        if Path(path, "data.mdb").stat().st_size < database.info()["last_pgno"] * database.stat()["psize"]:
            # LMDB would read beyond the end, and the process would be killed.
            raise OSError(f"{path}: this LMDB is cut off; copy or build it again")
        _OPEN[key] = database
    return database


def _close_inherited() -> None:
    for database in list(_OPEN.values()):
        database.close()
    _OPEN.clear()


os.register_at_fork(after_in_child=_close_inherited)


def _find_lmdb(folder: Path) -> dict[str, list[Path]]:
    """The folder of one split, that of all, or the one that holds `lmdb/`."""
    folders = [folder, *(entry for home in (folder, folder / "lmdb") if home.is_dir() for entry in home.iterdir())]
    return order_splits({entry.name: entry for entry in folders if all((entry / part).is_dir() for part in PARTS)})


LMDB = Layout(
    name="lmdb",
    file_description="lmdb/{split}/ with pairs/ and imgs/",
    find=_find_lmdb,
    open=lambda location, data: ChineseClipLmdb(location.name, data.text_id),
    precedence=Precedence.DATABASE,
)
