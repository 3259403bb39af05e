"""Fills an index from sources of samples, folders of images or lines of text, and keeps it up to date with these."""

import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Collection as Container
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from ernie_vil2.apps.search.collection import Changeable, Collection, Item
from ernie_vil2.apps.search.identity import Catalogue, FoundImage, Read, listed
from ernie_vil2.apps.search.index import Index
from ernie_vil2.apps.search.index_types import Exact
from ernie_vil2.apps.search.locations import content_digest, is_address, locations_of
from ernie_vil2.data.decoding import encode_thumbnail, to_rgb_array
from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.readers.source import ShardedSource
from ernie_vil2.data.samples import BadSample, BadSampleReport, Reason, check_text
from ernie_vil2.data.source_files import image_files, read_file, readable
from ernie_vil2.data.spec import TRAIN, DataLike, DataSpec
from ernie_vil2.io.files import read_text

CHUNK = 2048  # items that are added or removed together: what a killed process has to encode again at most
THUMBNAIL = 160
SMALL = 8192  # bytes of an image that is its own thumbnail
TUNING_QUERIES = 3000
FEWEST_QUERIES = 100
REBUILT_ABOVE = 0.1  # share of rows that are gone, or not covered by the index type, above which both are put right
THREADS = 4


class Rehearsal:
    """A rehearsal of changes, which leaves the real collection unchanged."""

    embeddings = np.empty([0, 0], np.float32)  # of what would be added: none are computed

    def __init__(self, collection: Collection):
        self._collection = collection
        self._changed: dict[str, Item] = {}

    def named(self, names: Container[str]) -> dict[str, list[Item]]:
        found = self._collection.named(names)
        for name, items in found.items():
            there = {item.id: item for item in items}
            there |= {one: item for one, item in self._changed.items() if one == name or one.startswith(f"{name} (")}
            found[name] = [self._changed.get(one, there[one]) for one in sorted(there)]
        return found

    def get(self, item: str) -> Item | None:
        return self._changed.get(item) or self._collection.get(item)

    def digests(self, ids: Sequence[str]) -> dict[str, bytes]:
        return self._collection.digests(ids) | {one: self._changed[one].digest for one in ids if one in self._changed}

    def add(self, items: Sequence[Item], embeddings: np.ndarray) -> None:
        self.update(items)

    def update(self, items: Sequence[Item]) -> None:
        self._changed |= {item.id: item for item in items}

    def remove(self, ids: Sequence[str]) -> int:
        return len(ids)


@dataclass
class Filled:
    """What came of it."""

    added: int = 0  # items that were encoded
    removed: int | None = None  # items that are gone from the sources; None if these were not compared
    replaced: int = 0  # items that are gone, as other images lie in all locations where theirs did
    refreshed: int = 0  # images that were there with other fields
    unchanged: int = 0  # images that were there with the same fields
    bad: BadSampleReport = field(default_factory=BadSampleReport)  # what could not be used
    seen: set[tuple[str, str]] = field(default_factory=set)  # ids of items, each with a path where it was found
    unreadable: set[str] = field(default_factory=set)  # paths where something is that could not be read

    @property
    def used(self) -> int:
        """How much could be used."""
        return self.added + self.refreshed + self.unchanged

    def usable(self, found: Iterable[Any]) -> list[Any]:
        """What is not a BadSample; those are counted."""
        good = []
        for one in found:
            if isinstance(one, BadSample):
                self.bad.add(0, [(one.reason, one.name)])
            else:
                good.append(one)
        return good

    def __str__(self) -> str:
        parts = [] if self.removed is None else [f"{self.removed:,} removed (gone from the sources)"]
        parts += [f"{self.added:,} added", f"{self.unchanged:,} unchanged"]
        parts += [f"{self.refreshed:,} refreshed (other fields)"] * bool(self.refreshed)
        parts += [f"{self.replaced:,} replaced (other images lie where theirs did)"] * bool(self.replaced)
        return f"{', '.join(parts)}; {self.bad}"


def images_in(data: DataLike) -> list[FoundImage]:
    """Return the images of folders and of sources, in their order.

    Errors are those of `open_sources`; a folder without an image is an error, too.
    """
    spec = DataSpec.of(data, default_split=TRAIN)
    found: list[FoundImage] = []
    for entry in spec.paths:
        entry_spec = replace(spec, paths=[entry])
        files = image_files(Path(entry)) if os.path.isdir(entry) else []  # noqa: PTH112  -- Path raises where this says no
        if files and not _is_source(entry_spec):
            found += [FoundImage(str(file), partial(_of_file, Path(entry), file), _named(file)) for file in files]
        else:
            source = open_sources(entry_spec)
            found += [
                FoundImage(f"{entry}, sample {row}", partial(_of_sample, source, row), _shard(source, row))
                for row in range(len(source))
            ]
    return found


def texts_in(file: str) -> list[str]:
    """The lines of a `.txt`, or the tags of a source of samples; errors as of `open_sources` and `read_text`."""
    if file.endswith(".txt"):
        return read_text(file).splitlines()
    found: dict[str, None] = {}
    source = open_sources([file])
    for row in range(len(source)):
        try:
            for tags in source[row].tags.values():
                found.update(dict.fromkeys(tags))
        except BadSample:
            continue  # of images that are indexed, it is counted there
    return list(found)


def add_images(
    index: Index, found: Sequence[FoundImage], thumbnails: int = THUMBNAIL, rehearsal: Rehearsal | None = None
) -> Filled:
    """Encodes images and adds them, as `search.identity` has it.

    Of what is there already with the same content only fields and locations are taken over.

    Args:
        thumbnails: longer side of the small images that are kept for the page; 0: none are kept.
        rehearsal: takes what would be added, which is not encoded then; None: the collection itself.
    """
    collection: Changeable = rehearsal or index.collection("images")
    catalogue = Catalogue(collection, index.kept_path)
    filled, later = Filled(), list[FoundImage]()
    filled.bad.read = len(found)
    with ThreadPoolExecutor(THREADS) as threads, _bar("encoding", len(found), "image") as bar:
        for part in (found, later):
            for start in range(0, len(part), CHUNK):
                chunk = part[start : start + CHUNK]
                attempts = list(threads.map(_read, chunk))
                filled.unreadable |= {
                    index.kept_path(one.path)
                    for one, result in zip(chunk, attempts, strict=True)
                    if isinstance(result, BadSample) and result.reason != Reason.MISSING_IMAGE
                }
                read = filled.usable(attempts)
                work = catalogue.sort(read, last=part is later)
                later += work.later
                collection.update(list(work.changed.values()))
                good = filled.usable(threads.map(partial(_prepared, index, thumbnails), work.new.values()))
                if good:
                    items, pixels = zip(*good, strict=True)
                    collection.add(items, rehearsal.embeddings if rehearsal else index.model.encode_pixels(pixels))
                    filled.added += len(good)
                    filled.replaced += sum(item.id in work.replacing for item in items)
                filled.refreshed += work.refreshed
                filled.unchanged += work.unchanged
                bar.update(len(chunk) - len(work.later))
    changed, gone = catalogue.finish()
    collection.update(changed)
    if gone:
        filled.replaced += collection.remove(gone)
    filled.seen = catalogue.seen
    return filled


def add_texts(index: Index, lines: Iterable[str], rehearsal: Rehearsal | None = None) -> Filled:
    """Encodes texts, such as tags, and adds them, each under itself as its id; blank ones are left out.

    `rehearsal` as for `add_images`.
    """
    collection: Changeable = rehearsal or index.collection("texts")
    filled = Filled()
    texts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    with _bar("encoding", len(texts), "text") as bar:
        for start in range(0, len(texts), CHUNK):
            chunk = texts[start : start + CHUNK]
            items = filled.usable(map(_text_item, chunk))
            there = collection.digests([item.id for item in items])
            new = [item for item in items if there.get(item.id) != item.digest]
            filled.unchanged += len(items) - len(new)
            filled.seen |= {(item.id, "") for item in items}
            if new:
                collection.add(
                    new, rehearsal.embeddings if rehearsal else index.encode_texts([item.id for item in new])
                )
                filled.added += len(new)
            filled.bad.read += len(chunk)
            bar.update(len(chunk))
    return filled


def build(
    index: Index,
    kind: str,
    index_type: str | None,
    recall: float,
    log: Callable[[str], None] = print,
    compact_above: float = REBUILT_ABOVE,
) -> None:
    """Makes searching a collection fast, tuned on texts: on captions of its own, or on the index's texts.

    Embeddings of texts lie off the distribution of images: an index type that was tuned on images misses their
    closest rows. A collection of which a larger share of the rows than `compact_above` is gone is compacted as well.
    """
    collection = index.collection(kind)

    def queries() -> np.ndarray:
        texts = collection.texts(TUNING_QUERIES)
        if len(texts) < FEWEST_QUERIES and kind == "images" and index.has("texts"):
            texts = index.collection("texts").texts(TUNING_QUERIES)
        found = index.encode_texts(texts)
        if len(texts) < FEWEST_QUERIES:
            log("there are too few captions to tune on: images of the index are used too, and sentences may find less")
            found = np.concatenate([found, collection.sample(TUNING_QUERIES)])
        return found

    if (gone := collection.gone()) <= compact_above:
        collection.build(index_type, queries, recall, log)
        return
    log(f"{kind}: {100 * gone:.1f} % of the rows are of items that are gone, and are dropped")
    with index.compacted(kind) as copy:
        copy.build(index_type, queries, recall, log)


def sync_images(
    index: Index,
    data: DataLike,
    thumbnails: int = THUMBNAIL,
    dry_run: bool = False,
) -> Filled:
    """Brings the images of sources up to date.

    Removed are items that were in these sources only, and are there no more. An item whose file or shard can at present
    not be read stays, as do items of other sources and those that were added without one.

    Args:
        data: folders and sources, as for `images_in`; a folder must hold at least one image. A folder of the images
            of a table belongs to the sources.
        thumbnails: as for `add_images`.
        dry_run: whether only to find out what would be done.
    """
    spec = DataSpec.of(data)
    found = images_in(spec)
    collection = index.collection("images")
    rehearsal = Rehearsal(collection) if dry_run else None
    filled = add_images(index, found, thumbnails, rehearsal)
    scope = [_named(source) for source in [*spec.paths, spec.image_folder] if source]
    gone: list[str] = []
    moved: list[Item] = []
    for item in collection.every():
        locations = locations_of(item)
        left = [
            one
            for one in locations
            if (item.id, one.path) in filled.seen
            or one.path in filled.unreadable
            or not _within(index.absolute_path(one.path), scope)
        ]
        if len(left) < len(locations):
            if left:
                moved.append(replace(item, location=listed(left)))
            else:
                gone.append(item.id)
    if not dry_run:
        collection.update(moved)
    return _removed(filled, rehearsal or collection, gone)


def sync_texts(index: Index, files: Iterable[str], dry_run: bool = False) -> Filled:
    """Makes the texts of an index those of files."""
    collection = index.collection("texts")
    lines = [line for file in files for line in texts_in(file)]
    rehearsal = Rehearsal(collection) if dry_run else None
    filled = add_texts(index, lines, rehearsal)
    gone = [item.id for item in collection.every() if (item.id, "") not in filled.seen]
    return _removed(filled, rehearsal or collection, gone)


def rebuild_if_needed(index: Index, kind: str, above: float, log: Callable[[str], None] = print) -> bool:
    """Reports the share of rows that the index type does not cover, and builds it again where that, or the share of
    rows that are gone, is above a bound.
    """
    collection = index.collection(kind)
    share, facts = collection.uncovered(), collection.index_type
    if share:
        log(f"{kind}: {100 * share:.1f} % of the rows are not covered by the index type and searched one by one")
    if max(share, collection.gone()) <= above:
        return False
    name = facts["name"]
    build(index, kind, None if name == Exact.name else name, facts.get("wanted_recall", 0.98), log, above)
    return True


def _text_item(text: str) -> Item | BadSample:
    try:
        check_text(text)
    except BadSample as bad:
        return bad
    return Item(text, content_digest(text.encode()), {"caption": text})


def _of_file(folder: Path, file: Path) -> Read:
    name = readable(str(file.relative_to(folder)))
    try:
        content = read_file(file)
    except FileNotFoundError as error:
        raise BadSample(Reason.MISSING_IMAGE, str(file)) from error
    return Read(name, content, {"file": readable(file.name)}, os.path.abspath(file), bare=True)  # noqa: PTH100  -- resolve() would follow links


def _of_sample(source: ShardedSource, row: int) -> Read:
    sample = source[row]
    shard, own_row = source.locate(row)
    fields: dict[str, Any] = {
        _text(name): _text(value) if isinstance(value, str) else value
        for name, value in sample.fields.items()
        if isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))  # JSON knows no others
    }
    fields |= {f"caption_{language}".rstrip("_"): text for language, text in sample.captions.items()}
    fields |= {f"tags_{language}".rstrip("_"): list(tags) for language, tags in sample.tags.items()}
    path, in_shard = (sample.image_file, None) if sample.image_file else (source.shards[shard].name, own_row)
    return Read(sample.image_name, sample.image, fields, _named(path), in_shard)


def _shard(source: ShardedSource, row: int) -> str:
    return _named(source.shards[source.locate(row)[0]].name)


def _named(path: str | Path) -> str:
    """A path that is the same from wherever it is named; an address as it is."""
    return str(path) if is_address(str(path)) else os.path.abspath(path)  # noqa: PTH100  -- resolve() would follow links


def _text(text: str) -> str:
    """Half a character, as the JSON escape `\\ud800`, is shown as it was written: no database takes it."""
    return text.encode("utf-8", "backslashreplace").decode()


def _read(image: FoundImage) -> tuple[FoundImage, Read] | BadSample:
    try:
        return image, image.read()
    except BadSample as bad:
        return bad


def _prepared(index: Index, side: int, one: tuple[Item, bytes]) -> tuple[Item, np.ndarray] | BadSample:
    """The item with its thumbnail, and what the model sees."""
    item, content = one
    try:
        decoded = index.model.preprocessing.decode(content, item.id)
        pixels = index.model.preprocessing.view(decoded)
    except BadSample as bad:
        return bad
    return replace(item, thumbnail=thumbnail(content, to_rgb_array(decoded), side) if side else None), pixels


def thumbnail(content: bytes, pixels: np.ndarray, side: int) -> bytes:
    """A file of an image, with its pixels `[H, W, 3]`, as a WebP of at most `side`; a PNG as small as that as it is."""
    if max(pixels.shape[:2]) <= side and len(content) <= SMALL and content.startswith(b"\x89PNG"):
        return content
    return encode_thumbnail(pixels, side, ".webp", [cv2.IMWRITE_WEBP_QUALITY, 82])


def _is_source(data: DataSpec) -> bool:
    """Return whether a folder is one of docs/data.md, which knows more of its images than their files do."""
    try:
        open_sources(data)
    except (ValueError, FileNotFoundError):
        return False
    return True


def _bar(what: str, total: int, unit: str) -> tqdm:
    return tqdm(total=total, desc=what, unit=unit, file=sys.stdout, dynamic_ncols=True, mininterval=1.0)


def _within(path: str, scope: Iterable[str]) -> bool:
    return any(path == one or path.startswith(f"{one.rstrip('/')}/") or fnmatchcase(path, one) for one in scope)


def _removed(filled: Filled, collection: Changeable, gone: Sequence[str]) -> Filled:
    """What came of filling, and of removing the items of these ids."""
    filled.removed = sum(collection.remove(gone[start : start + CHUNK]) for start in range(0, len(gone), CHUNK))
    return filled
