"""Fills an index: from any source of samples, from a folder of pictures, from lines of text."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from ernie_vil2.data.image_files import image_files, read_file
from ernie_vil2.data.samples import BadSample, BadSampleReport, Reason, check_text
from ernie_vil2.data.sources import open_sources
from ernie_vil2.files import read_text
from ernie_vil2.search.collection import Collection, Item
from ernie_vil2.search.index import Index

CHUNK = 2048
"""Items that are committed together: what a killed process has to encode again at most."""
THUMBNAIL = 160
SMALL = 8192
"""Bytes of a picture that is its own thumbnail."""
TUNING_QUERIES = 3000
FEWEST_QUERIES = 100
THREADS = 4


@dataclass(frozen=True)
class Picture:
    """A picture to be indexed: `read` gives its bytes and what is known of it, or raises BadSample."""

    name: str
    location: Sequence[Any]
    read: Callable[[], tuple[str, bytes, Mapping[str, Any]]]


@dataclass
class Filled:
    """What came of it: items that were encoded, that were there already, and that could not be used."""

    added: int
    unchanged: int
    bad: BadSampleReport

    def usable(self, found: Iterable[Any]) -> list[Any]:
        """What is no BadSample; those are counted."""
        good = []
        for one in found:
            if isinstance(one, BadSample):
                self.bad.add(0, [(one.reason, one.name)])
            else:
                good.append(one)
        return good

    def __str__(self) -> str:
        return f"{self.added:,} added, {self.unchanged:,} unchanged; {self.bad}"


def pictures(data: Iterable[str]) -> list[Picture]:
    """The pictures of folders and of sources, in their order.

    Raises:
        FileNotFoundError, ValueError: as `open_sources`; a folder holds no picture.
    """
    found: list[Picture] = []
    for entry in data:
        files = image_files(Path(entry)) if os.path.isdir(entry) else []
        if files and not _is_source(entry):
            found += [Picture(str(file), [str(file)], partial(_of_file, Path(entry), file)) for file in files]
        else:
            source = open_sources([entry])
            found += [
                Picture(f"{entry}, sample {row}", [entry, row], partial(_of_sample, source, row))
                for row in range(len(source))
            ]
    return found


def texts_in(file: str) -> list[str]:
    """The lines of a `.txt`, or the tags of a source of samples.

    Raises:
        FileNotFoundError, ValueError: as `open_sources`; the file is not UTF-8.
    """
    if file.endswith(".txt"):
        return read_text(file).splitlines()
    found: dict[str, None] = {}
    source = open_sources([file])
    for row in range(len(source)):
        try:
            for tags in source[row].tags.values():
                found.update(dict.fromkeys(tags))
        except BadSample:
            continue  # of pictures that are indexed, it is counted there
    return list(found)


def read_picture(location: Sequence[Any]) -> bytes:
    """The bytes of a picture by the location that its item has.

    Raises:
        BadSample, OSError, ValueError: it is not there any more.
    """
    if len(location) == 1:
        return read_file(Path(location[0]))
    return open_sources([location[0]])[location[1]].image


def add_images(index: Index, found: Sequence[Picture], thumbnails: int = THUMBNAIL) -> Filled:
    """Encodes pictures and adds them; what is there already with the same content is left as it is.

    Args:
        thumbnails: longer side of the small pictures that are kept for the page; 0: none are kept.
    """
    collection = index.collection("images")
    filled = Filled(0, 0, BadSampleReport())
    with ThreadPoolExecutor(THREADS) as threads, _bar("encoding", len(found), "picture") as bar:
        numbered = iter(found)
        while chunk := list(islice(numbered, CHUNK)):
            read = filled.usable(threads.map(_read, chunk))
            new = _new(collection, read)
            filled.unchanged += len(read) - len(new)
            good = filled.usable(threads.map(partial(_prepared, index, thumbnails), new))
            if good:
                collection.add([item for item, _ in good], index.model.encode_pixels([pixels for _, pixels in good]))
                filled.added += len(good)
            filled.bad.read += len(chunk)
            bar.update(len(chunk))
    return filled


def add_texts(index: Index, lines: Iterable[str]) -> Filled:
    """Encodes texts, such as tags, and adds them, each under itself as its id; blank ones are left out."""
    collection = index.collection("texts")
    filled = Filled(0, 0, BadSampleReport())
    texts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    with _bar("encoding", len(texts), "text") as bar:
        for start in range(0, len(texts), CHUNK):
            chunk = texts[start : start + CHUNK]
            items = []
            for text in chunk:
                try:
                    check_text(text)
                    items.append((Item(text, _digest(text.encode()), {"caption": text}), b""))
                except BadSample as bad:
                    filled.bad.add(0, [(bad.reason, bad.name)])
            new = [item for item, _ in _new(collection, items)]
            filled.unchanged += len(items) - len(new)
            if new:
                collection.add(new, index.encode_texts([item.id for item in new]))
                filled.added += len(new)
            filled.bad.read += len(chunk)
            bar.update(len(chunk))
    return filled


def build(index: Index, kind: str, engine: str | None, recall: float, log: Callable[[str], None] = print) -> None:
    """Makes searching a collection fast, tuned on texts: on captions of its own, or on the index's texts.

    What lies off the distribution of pictures, as the embeddings of texts do, is missed by an engine that was tuned on
    pictures.
    """
    collection = index.collection(kind)

    def queries() -> np.ndarray:
        texts = collection.texts(TUNING_QUERIES)
        if len(texts) < FEWEST_QUERIES and kind == "images" and index.has("texts"):
            texts = index.collection("texts").texts(TUNING_QUERIES)
        found = index.encode_texts(texts)
        if len(texts) < FEWEST_QUERIES:
            log("there are too few captions to tune on: pictures of the index stand in, and sentences may find less")
            found = np.concatenate([found, collection.sample(TUNING_QUERIES)])
        return found

    collection.build(engine, queries, recall, log)


def _of_file(folder: Path, file: Path) -> tuple[str, bytes, dict[str, Any]]:
    try:
        return str(file.relative_to(folder)), read_file(file), {"file": file.name}
    except FileNotFoundError as error:
        raise BadSample(Reason.MISSING_IMAGE, str(file)) from error


def _of_sample(source: Any, row: int) -> tuple[str, bytes, dict[str, Any]]:
    sample = source[row]
    fields = {name: value for name, value in sample.fields.items() if isinstance(value, str | bool | int | float)}
    fields |= {f"caption_{language}".rstrip("_"): text for language, text in sample.captions.items()}
    fields |= {f"tags_{language}".rstrip("_"): list(tags) for language, tags in sample.tags.items()}
    return sample.image_name, sample.image, fields


def _read(picture: Picture) -> tuple[Item, bytes] | BadSample:
    try:
        name, content, fields = picture.read()
    except BadSample as bad:
        return bad
    return Item(name, _digest(content), fields, picture.location), content


def _new(collection: Collection, read: Sequence[tuple[Item, bytes]]) -> list[tuple[Item, bytes]]:
    """Those that are not there with the same content, each id once."""
    unique = {item.id: (item, content) for item, content in reversed(read)}
    there = collection.digests(list(unique))
    return [one for one in reversed(unique.values()) if there.get(one[0].id) != one[0].digest]


def _prepared(index: Index, side: int, one: tuple[Item, bytes]) -> tuple[Item, np.ndarray] | BadSample:
    """The item with its thumbnail, and what the model sees."""
    item, content = one
    try:
        decoded = index.model.preprocessing.decode(content, item.id)
        pixels = index.model.preprocessing.view(decoded)
    except BadSample as bad:
        return bad
    return replace(item, thumbnail=thumbnail(content, decoded, side) if side else None), pixels


def thumbnail(content: bytes, pixels: np.ndarray, side: int) -> bytes:
    """A picture as a WebP whose longer side is at most `side`; as it is, if it is a PNG as small as that.

    Args:
        content: the file.
        pixels: `[H, W, 3]` RGB of it.
    """
    if max(pixels.shape[:2]) <= side and len(content) <= SMALL and content.startswith(b"\x89PNG"):
        return content
    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    return cv2.imencode(".webp", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, 82])[1].tobytes()


def _is_source(entry: str) -> bool:
    """Whether a folder is one of docs/data.md, which knows more of its pictures than their files do."""
    try:
        open_sources([entry])
    except (ValueError, FileNotFoundError):
        return False
    return True


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()


def _bar(what: str, total: int, unit: str) -> tqdm:
    return tqdm(total=total, desc=what, unit=unit, file=sys.stdout, dynamic_ncols=True, mininterval=1.0)
