"""Add images and texts of sources to an index, and keep the index up to date with its sources."""

import collections.abc
import glob
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from ernie_vil2.apps.search.collection import Collection, EditableItems, Item
from ernie_vil2.apps.search.index import Index
from ernie_vil2.apps.search.index_types import Exact
from ernie_vil2.apps.search.item_identity import Catalogue, ImageRecord, SourceImage
from ernie_vil2.apps.search.locations import compute_digest, is_address, pack_locations, parse_locations
from ernie_vil2.apps.search.ocr_results import RecognizedTexts
from ernie_vil2.apps.serving.text_length import MAX_TEXT_LENGTH
from ernie_vil2.data.decoding import encode_thumbnail, to_rgb_array
from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.readers.source import ShardedSource
from ernie_vil2.data.samples import BadSample, BadSampleReport, Reason, check_text
from ernie_vil2.data.source_files import decode_path, list_image_files, read_file
from ernie_vil2.data.spec import TRAIN, DataLike, DataSpec
from ernie_vil2.io.files import read_text
from ernie_vil2.io.progress import progress_bar

# Items that are added or removed in one commit. A process that is killed has to encode at most so many again; larger
# chunks need more memory, since the decoded images of a chunk are held together.
CHUNK_SIZE = 2048
# Threads that read and decode the images of a chunk. Decoding and encoding alternate, so they do not compete for cores.
NUM_READERS = 4
THUMBNAIL_SIDE = 160  # pixels; a thumbnail takes some KiB of the database then
MAX_PNG_SIZE = 8192  # bytes of a PNG that is its own thumbnail if its pixels are few, as those of an icon
WEBP_QUALITY = 82  # of 100; larger makes larger thumbnails
MAX_TUNING_QUERIES = 3000  # each costs an encoding and an exact search
MIN_TUNING_QUERIES = 100  # with fewer captions than this, recall is measured too roughly to tune on them alone
# A collection is compacted when more than this share of its rows belongs to removed items, and its index type is built
# again when more than this share of the rows was added since. A smaller share does both more often; a larger one makes
# searches slower.
MAX_STALE_SHARE = 0.1
DEFAULT_RECALL = 0.98
TEXT_FIELD = "text_in_image"  # what was recognised in an image


class DryRun:
    """A stand-in for a collection that records changes and leaves the collection as it is."""

    embeddings = np.empty([0, 0], np.float32)  # nothing is encoded

    def __init__(self, collection: Collection):
        self._collection = collection
        self._changed_items: dict[str, Item] = {}
        self._changed_ids_by_name: dict[str, list[str]] = {}
        self._removed_ids: set[str] = set()

    def find_by_name(self, names: collections.abc.Collection[str]) -> dict[str, list[Item]]:
        items_of_names = self._collection.find_by_name(names)
        for name, stored_items in items_of_names.items():
            items = {item.id: item for item in stored_items}
            for item_id in self._changed_ids_by_name.get(name, ()):
                items[item_id] = self._changed_items[item_id]
            items_of_names[name] = [items[item_id] for item_id in sorted(items)]
        return items_of_names

    def get(self, item_id: str) -> Item | None:
        return self._changed_items.get(item_id) or self._collection.get(item_id)

    def get_digests(self, ids: Sequence[str]) -> dict[str, bytes]:
        digests = self._collection.get_digests(ids)
        for item_id in ids:
            if item_id in self._changed_items:
                digests[item_id] = self._changed_items[item_id].digest
        return digests

    def add(self, items: Sequence[Item], embeddings: np.ndarray) -> None:
        self.update(items)

    def update(self, items: Sequence[Item]) -> None:
        for item in items:
            if item.id not in self._changed_items:
                # Its names are its id, and what precedes a " (" in that: "cat.jpg" finds "cat.jpg (1a2b3c4d)".
                end = len(item.id)
                while end >= 0:
                    self._changed_ids_by_name.setdefault(item.id[:end], []).append(item.id)
                    end = item.id.rfind(" (", 0, end)
            self._changed_items[item.id] = item

    def remove(self, ids: Sequence[str]) -> int:
        self._removed_ids.update(ids)
        return len(ids)

    def iterate_items(self) -> Iterator[Item]:
        """Yield the items of the collection as the recorded changes would leave them, without new ones."""
        for item in self._collection.iterate_items():
            if item.id not in self._removed_ids:
                yield self._changed_items.get(item.id, item)


@dataclass
class UpdateResult:
    """Counts of a run that adds or updates items, and what it has seen in the sources."""

    num_added: int = 0  # encoded items
    num_removed: int | None = None  # items that are not in the sources any more; None if these were not compared
    num_replaced: int = 0  # items that are gone because other images have taken all of their locations
    num_refreshed: int = 0  # images that the index had already, but with other fields
    num_unchanged: int = 0  # images that the index had already, with the same fields
    bad_samples: BadSampleReport = field(default_factory=BadSampleReport)
    # Paths are in the form that the index stores, see `Index.stored_path`.
    seen_locations: set[tuple[str, str]] = field(default_factory=set)  # ids of items, each with a path of its image
    unreadable_paths: set[str] = field(default_factory=set)  # existing files that cannot be read

    @property
    def num_used(self) -> int:
        """Number of images or texts that are in the index now."""
        return self.num_added + self.num_refreshed + self.num_unchanged

    def drop_bad_samples(self, results: Iterable[Any]) -> list[Any]:
        """Return the results without BadSamples, which are added to the report."""
        good_results = []
        for result in results:
            if isinstance(result, BadSample):
                # The caller counts what it has read, good or bad.
                self.bad_samples.add(num_read=0, bad=[(result.reason, result.name)])
            else:
                good_results.append(result)
        return good_results

    def __str__(self) -> str:
        counts = []
        if self.num_removed is not None:
            counts.append(f"{self.num_removed:,} removed (gone from the sources)")
        counts += [f"{self.num_added:,} added", f"{self.num_unchanged:,} unchanged"]
        if self.num_refreshed:
            counts.append(f"{self.num_refreshed:,} refreshed (other fields)")
        if self.num_replaced:
            counts.append(f"{self.num_replaced:,} replaced (their files hold other images now)")
        return f"{', '.join(counts)}; {self.bad_samples}"


def list_images(data: DataLike) -> list[SourceImage]:
    """Return the images of folders and sources in their order, without reading them.

    Raises:
        ValueError, FileNotFoundError: as `open_sources`; also for a folder without images.
    """
    spec = DataSpec.from_data(data, default_split=TRAIN)
    images: list[SourceImage] = []
    for entry in spec.paths:
        entry_spec = replace(spec, paths=[entry])
        files = list_image_files(Path(entry)) if os.path.isdir(entry) else []  # noqa: PTH112  -- pathlib raises for names that are too long
        # A folder of images can also be a source with captions of the images; then it is read as a source.
        if files and not _is_source(entry_spec):
            for file in files:
                images.append(SourceImage(str(file), partial(_load_file, Path(entry), file), _absolute_path(file)))
        else:
            source = open_sources(entry_spec)
            for row in range(len(source)):
                shard, _ = source.locate(row)
                path = _absolute_path(source.shards[shard].name)
                images.append(SourceImage(f"{entry}, sample {row}", partial(_load_sample, source, row), path))
    return images


def add_recognized_texts(images: Iterable[SourceImage], texts: RecognizedTexts) -> list[SourceImage]:
    """Return the images so that loading one adds the text that was recognised in it as a field."""
    return [image._replace(load=partial(_load_with_text, image, texts)) for image in images]


def read_texts(file: str) -> list[str]:
    """Return the lines of a `.txt`, or the distinct tags of a source; errors as `read_text` and `open_sources`."""
    if file.endswith(".txt"):
        return read_text(file).split("\n")  # splitlines() also splits at characters within a text, such as U+2028
    texts: dict[str, None] = {}  # an ordered set
    source = open_sources([file])
    for row in range(len(source)):
        try:
            sample = source[row]
        except BadSample:
            continue  # reported when the images of the source are indexed
        for tags in sample.tags.values():
            texts |= dict.fromkeys(tags)
    return list(texts)


def add_images(
    index: Index, images: Sequence[SourceImage], thumbnail_side: int = THUMBNAIL_SIDE, dry_run: DryRun | None = None
) -> UpdateResult:
    """Add images to an index, and update the items of images that it has already.

    `search.item_identity` decides which images it has already. These are not encoded again; only their fields and
    locations are updated.

    Args:
        index: a writable index.
        images: in the order of their sources.
        thumbnail_side: longer side of the thumbnails in pixels; 0: no thumbnails.
        dry_run: records the changes, so that the collection stays as it is and nothing is encoded.
    """
    collection: EditableItems = dry_run or index.collection("images")
    catalogue = Catalogue(collection, index.stored_path)
    result = UpdateResult()
    result.bad_samples.num_read = len(images)
    deferred_images: list[SourceImage] = []

    with ThreadPoolExecutor(NUM_READERS) as readers, _progress_bar("encoding", len(images), "image") as bar:
        # A new image may lie where an item has had its image of the same name. It takes over the item's id only if the
        # item's own image is nowhere else, which is known once all images have been read. The first pass therefore
        # puts such new images into `deferred_images`, which the second pass reads.
        for images_of_pass, is_last_pass in ((images, False), (deferred_images, True)):
            for start in range(0, len(images_of_pass), CHUNK_SIZE):
                chunk = images_of_pass[start : start + CHUNK_SIZE]
                outcomes = list(readers.map(_load_image, chunk))
                for image, outcome in zip(chunk, outcomes, strict=True):
                    if isinstance(outcome, BadSample) and outcome.reason != Reason.MISSING_IMAGE:
                        result.unreadable_paths.add(index.stored_path(image.path))
                loaded_images = result.drop_bad_samples(outcomes)

                # Images that the index has already update their items, and are not encoded.
                changes = catalogue.compare(loaded_images, is_last_pass)
                deferred_images += changes.deferred
                collection.update(list(changes.updated_items.values()))

                # New images are decoded and encoded. A dry run only decodes them, and keeps no thumbnails in memory.
                prepare = partial(_prepare_image, index, 0 if dry_run else thumbnail_side)
                prepared_images = result.drop_bad_samples(readers.map(prepare, changes.new_items.values()))
                if prepared_images:
                    items = [item for item, _ in prepared_images]
                    pixels = [image_pixels for _, image_pixels in prepared_images]
                    embeddings = dry_run.embeddings if dry_run else index.model.encode_pixels(pixels)
                    collection.add(items, embeddings)
                    result.num_added += len(items)
                    # These have taken over the ids of replaced items. Further replaced items are removed at the end.
                    result.num_replaced += sum(item.id in changes.replacing_ids for item in items)

                result.num_refreshed += changes.num_refreshed
                result.num_unchanged += changes.num_unchanged
                bar.update(len(chunk) - len(changes.deferred))  # deferred images are counted in the second pass

    # An item loses each location where another image lies now; without any location it is removed.
    updated_items, vanished_ids = catalogue.finish()
    collection.update(updated_items)
    if vanished_ids:
        result.num_replaced += collection.remove(vanished_ids)
    result.seen_locations = catalogue.seen_locations
    return result


def add_texts(index: Index, lines: Iterable[str], dry_run: DryRun | None = None) -> UpdateResult:
    """Add texts such as tags to an index, each with itself as its id.

    Args:
        index: a writable index.
        lines: the texts. Blank ones are skipped; those of more than `MAX_TEXT_LENGTH` characters are bad samples.
        dry_run: as in `add_images`.
    """
    collection: EditableItems = dry_run or index.collection("texts")
    result = UpdateResult()
    distinct_lines = dict.fromkeys(line.strip() for line in lines)
    distinct_lines.pop("", None)
    texts = list(distinct_lines)
    with _progress_bar("encoding", len(texts), "text") as bar:
        for start in range(0, len(texts), CHUNK_SIZE):
            chunk = texts[start : start + CHUNK_SIZE]
            items = result.drop_bad_samples(map(_make_text_item, chunk))
            stored_digests = collection.get_digests([item.id for item in items])
            new_items = [item for item in items if stored_digests.get(item.id) != item.digest]
            result.num_unchanged += len(items) - len(new_items)
            result.seen_locations.update((item.id, "") for item in items)  # a text has no location
            if new_items:
                new_texts = [item.id for item in new_items]
                embeddings = dry_run.embeddings if dry_run else index.encode_texts(new_texts)
                collection.add(new_items, embeddings)
                result.num_added += len(new_items)
            result.bad_samples.num_read += len(chunk)
            bar.update(len(chunk))
    return result


def optimize_collection(
    index: Index,
    kind: str,
    index_type: str | None,
    recall: float,
    log: Callable[[str], None] = print,
    max_removed_share: float = MAX_STALE_SHARE,
) -> None:
    """Make a collection fast to search: drop the rows of removed items and build an index type.

    The index type is tuned on texts: captions of the collection, or the texts of the index. Embeddings of texts have
    another distribution than those of images, so an index type that was tuned on images would miss the rows closest to
    a text.

    Args:
        index: a writable index.
        kind: `images` or `texts`.
        index_type: its name; None chooses one by the number of rows.
        recall: share of the ten closest items that the index type must find.
        log: prints a line.
        max_removed_share: the collection is compacted if a larger share of its rows belongs to removed items.
    """
    collection = index.collection(kind)

    def encode_queries() -> np.ndarray:
        texts = collection.sample_captions(MAX_TUNING_QUERIES)
        if len(texts) < MIN_TUNING_QUERIES and kind == "images" and index.has("texts"):
            texts = index.collection("texts").sample_captions(MAX_TUNING_QUERIES)
        # A longer caption would be refused; the model reads only its beginning anyway.
        queries = index.encode_texts([text[:MAX_TEXT_LENGTH] for text in texts])
        if len(texts) < MIN_TUNING_QUERIES:
            log(
                "there are too few captions to tune the index type on, so it is tuned on images as well: searches by "
                "sentences may miss more of the closest items"
            )
            queries = np.concatenate([queries, collection.sample_embeddings(MAX_TUNING_QUERIES)])
        return queries

    # Compacting copies all rows that are in use, so it pays only if it drops enough rows of removed items.
    removed_share = collection.removed_share()
    if removed_share <= max_removed_share:
        collection.build_index_type(index_type, encode_queries, recall, log)
    else:
        log(f"{kind}: {100 * removed_share:.1f} % of the rows belong to deleted items, and are dropped")
        with index.compact(kind) as copy:
            copy.build_index_type(index_type, encode_queries, recall, log)


def rebuild_if_needed(index: Index, kind: str, max_share: float, log: Callable[[str], None] = print) -> bool:
    """Optimize a collection again if the share of its uncovered rows, or of removed ones, exceeds `max_share`.

    Returns:
        Whether the collection was optimized.
    """
    collection = index.collection(kind)
    uncovered_share = collection.uncovered_share()
    if uncovered_share:
        percentage = f"{100 * uncovered_share:.1f} %"
        log(f"{kind}: {percentage} of the rows are not covered by the index type, and are searched one by one")
    if max(uncovered_share, collection.removed_share()) <= max_share:
        return False
    # A collection that is searched exactly may have grown too large for that: its index type is chosen anew.
    facts = collection.index_type
    index_type = None if facts["name"] == Exact.name else facts["name"]
    optimize_collection(index, kind, index_type, facts.get("target_recall", DEFAULT_RECALL), log, max_share)
    return True


def sync_images(
    index: Index,
    data: DataLike,
    thumbnail_side: int = THUMBNAIL_SIDE,
    is_dry_run: bool = False,
    texts: RecognizedTexts | None = None,
) -> UpdateResult:
    """Bring the images of an index up to date with sources: add, update and remove items.

    An item is removed if all of its locations are in these sources and its image is at none of them any more. An item
    stays if its file or shard exists but cannot be read, if it belongs to another source, or if it has no location.

    Args:
        index: a writable index.
        data: folders and sources as in `list_images`. Images in the folder that `DataSpec.images` names for a table
            belong to the table's source.
        thumbnail_side: as in `add_images`.
        is_dry_run: only count what would be done.
        texts: texts that were recognised in the images.
    """
    spec = DataSpec.from_data(data)
    images = list_images(spec)
    if texts is not None:
        images = add_recognized_texts(images, texts)
    collection = index.collection("images")
    dry_run = DryRun(collection) if is_dry_run else None
    result = add_images(index, images, thumbnail_side, dry_run)

    source_paths = {_absolute_path(source).rstrip("/") for source in [*spec.paths, spec.image_folder] if source}
    # The name of an existing file or folder is no pattern, whatever characters it has.
    patterns = [path for path in source_paths if glob.has_magic(path) and not os.path.exists(path)]  # noqa: PTH110  -- pathlib raises for names that are too long
    # A source may also be a pattern in braces, or a list of paths: the files that these stand for are known by now.
    source_paths.update(image.path for image in images)

    def is_in_sources(path: str) -> bool:
        """Return whether the path, or a folder above it, is one of the sources or matches the pattern of one."""
        while True:
            if path in source_paths or any(_matches_pattern(path, pattern) for pattern in patterns):
                return True
            if not path:
                return False
            path = path.rpartition("/")[0]

    # An item keeps a location if the image was seen there, if the file cannot be read at present, or if the location is
    # outside these sources, so that nothing is known about it.
    vanished_ids: list[str] = []
    updated_items: list[Item] = []
    for item in (dry_run or collection).iterate_items():
        locations = parse_locations(item)
        remaining = []
        for location in locations:
            path = index.absolute_path(location.path)
            is_seen = (item.id, location.path) in result.seen_locations
            if is_seen or not is_in_sources(path):
                remaining.append(location)
                continue
            is_unreadable = location.path in result.unreadable_paths
            # A row of a table that cannot be read is known by the path of the table, so the image file itself is tried.
            if is_unreadable or (location.row is None and _exists_unreadable(path)):
                remaining.append(location)
        if locations and not remaining:
            vanished_ids.append(item.id)
        elif len(remaining) < len(locations):
            updated_items.append(replace(item, location=pack_locations(remaining)))

    if not is_dry_run:
        collection.update(updated_items)
    result.num_removed = _remove_in_chunks(dry_run or collection, vanished_ids)
    return result


def sync_texts(index: Index, files: Iterable[str], is_dry_run: bool = False) -> UpdateResult:
    """Replace the texts of an index by those of `files`; with `is_dry_run` only count what would be done."""
    collection = index.collection("texts")
    lines: list[str] = []
    for file in files:
        lines += read_texts(file)
    dry_run = DryRun(collection) if is_dry_run else None
    result = add_texts(index, lines, dry_run)
    vanished_ids = [item.id for item in collection.iterate_items() if (item.id, "") not in result.seen_locations]
    result.num_removed = _remove_in_chunks(dry_run or collection, vanished_ids)
    return result


def make_thumbnail(content: bytes, pixels: np.ndarray, side: int) -> bytes:
    """Return a WebP of at most `side` pixels, or the image file itself if it is a small PNG of at most that size.

    Args:
        content: the image file.
        pixels: `[H, W, 3]` of the image.
        side: longer side in pixels.
    """
    is_small_png = len(content) <= MAX_PNG_SIZE and content.startswith(b"\x89PNG")
    if is_small_png and max(pixels.shape[:2]) <= side:
        return content
    return encode_thumbnail(pixels, side, ".webp", [cv2.IMWRITE_WEBP_QUALITY, WEBP_QUALITY])


def _make_text_item(text: str) -> Item | BadSample:
    # An index refuses to encode a longer text.
    if len(text) > MAX_TEXT_LENGTH:
        return BadSample(Reason.TEXT_TOO_LONG, text)
    try:
        check_text(text)
    except BadSample as error:
        return error
    return Item(text, compute_digest(text.encode()), {"caption": text})


def _load_image(image: SourceImage) -> tuple[SourceImage, ImageRecord] | BadSample:
    try:
        return image, image.load()
    except BadSample as error:
        return error


def _load_file(folder: Path, file: Path) -> ImageRecord:
    name = decode_path(str(file.relative_to(folder)))
    try:
        content = read_file(file)
    except FileNotFoundError as error:
        raise BadSample(Reason.MISSING_IMAGE, str(file)) from error
    return ImageRecord(name, content, {"file": decode_path(file.name)}, _absolute_path(file), has_only_name=True)


def _exists_unreadable(path: str) -> bool:
    try:
        read_file(Path(path))
    except BadSample:
        return True
    except FileNotFoundError:
        pass
    return False


def _load_with_text(image: SourceImage, texts: RecognizedTexts) -> ImageRecord:
    record = image.load()
    text = texts.find(record.path, record.name)  # not the path of `image`, which in a table is that of the table
    if not text:
        return record
    return record._replace(extra_fields={TEXT_FIELD: _escape_surrogates(text)})


def _load_sample(source: ShardedSource, row: int) -> ImageRecord:
    sample = source[row]
    fields: dict[str, Any] = {}
    for name, value in sample.fields.items():
        is_finite_float = isinstance(value, float) and math.isfinite(value)  # JSON has no other floats
        if isinstance(value, str):
            fields[_escape_surrogates(name)] = _escape_surrogates(value)
        elif isinstance(value, int) or is_finite_float:
            fields[_escape_surrogates(name)] = value
    # Captions and tags become fields with the language in their names, if the source says the language.
    for language, text in sample.captions.items():
        fields[f"caption_{language}".rstrip("_")] = text
    for language, tags in sample.tags.items():
        fields[f"tags_{language}".rstrip("_")] = list(tags)

    if sample.image_file:
        return ImageRecord(sample.image_name, sample.image, fields, _absolute_path(sample.image_file))
    shard, shard_row = source.locate(row)
    path = _absolute_path(source.shards[shard].name)
    return ImageRecord(sample.image_name, sample.image, fields, path, shard_row)


def _escape_surrogates(text: str) -> str:
    """Replace lone surrogates, which JSON can hold and the database cannot, by their escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _prepare_image(
    index: Index, thumbnail_side: int, new_item: tuple[Item, bytes]
) -> tuple[Item, np.ndarray] | BadSample:
    """Return the item with its thumbnail, and the pixels for the encoder."""
    item, content = new_item
    try:
        decoded = index.model.preprocessing.decode(content, item.id)
        pixels = index.model.preprocessing.make_view(decoded)
    except BadSample as error:
        return error
    if thumbnail_side:
        item = replace(item, thumbnail=make_thumbnail(content, to_rgb_array(decoded), thumbnail_side))
    return item, pixels


def _is_source(spec: DataSpec) -> bool:
    """Return whether a folder is a source with captions and fields of its images (docs/data.md)."""
    try:
        open_sources(spec)
    except (ValueError, FileNotFoundError):
        return False
    return True


def _absolute_path(path: str | Path) -> str:
    """Return a path that does not depend on the working directory; an address stays as it is."""
    if is_address(str(path)):
        return str(path)
    return os.path.abspath(path)  # noqa: PTH100  -- resolve() would follow links


def _matches_pattern(path: str, pattern: str) -> bool:
    """Return whether a path matches a pattern, whose wildcards match no "/", as where the pattern is expanded."""
    names, patterns = path.split("/"), pattern.split("/")
    return len(names) == len(patterns) and all(map(fnmatchcase, names, patterns))


def _remove_in_chunks(collection: EditableItems, ids: Sequence[str]) -> int:
    num_removed = 0
    for start in range(0, len(ids), CHUNK_SIZE):
        num_removed += collection.remove(ids[start : start + CHUNK_SIZE])
    return num_removed


def _progress_bar(description: str, total: int, unit: str) -> tqdm:
    return progress_bar(description=description, unit=unit, total=total, mininterval=1.0)
