"""Where samples lie: tar shards (WebDataset layout) and the official TSV.

A source is indexed once by offset, so that any sample can be read at random, by any process.
"""

from __future__ import annotations

import base64
import binascii
import glob
import json
import os
import tarfile
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np

from ernie_vil2.data.samples import BadSample, Sample

IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp", "bmp"})


class Source(Protocol):
    """Random access to samples; reading one raises BadSample when it cannot be used."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class _File:
    """Reads byte ranges; opened at first use, so that it survives a fork or a pickle."""

    def __init__(self, path: Path):
        self.path = path
        self._handle: int | None = None
        self._owner: int | None = None

    def read(self, offset: int, size: int) -> bytes:
        if self._owner != os.getpid():
            self._handle, self._owner = os.open(self.path, os.O_RDONLY), os.getpid()
        return os.pread(self._handle, size, offset)


class TarSource:
    """Samples of one tar shard: members that share their name up to the first dot.

    An image member (`.jpg`, `.png`, `.webp`, ...) and texts from `.json` (`caption`, `tags`, or with a
    language: `caption_zh`, `tags_en`, ...) or from `.txt` (the caption).

    Args:
        path: the shard.
        text_id: JSON field that names the text (`Data.text_id`); None: the captions name it.

    Raises:
        ValueError: the file is not a tar file, or it holds no sample.
    """

    def __init__(self, path: str | Path, text_id: str | None = None):
        self.path = Path(path)
        self._text_id = text_id
        self._file = _File(self.path)
        self._samples: list[tuple[str, dict[str, tuple[int, int]]]] = []
        by_name: dict[str, dict[str, tuple[int, int]]] = {}
        try:
            with tarfile.open(self.path, "r:") as archive:
                for member in archive:
                    if member.isfile():
                        inside = PurePosixPath(member.name)
                        stem, _, suffix = inside.name.partition(".")
                        name = str(inside.with_name(stem)) if stem else member.name
                        by_name.setdefault(name, {})[suffix.lower()] = (member.offset_data, member.size)
        except tarfile.TarError as error:
            raise ValueError(f"{self.path}: not a readable, uncompressed tar shard ({error})") from error
        self._samples = list(by_name.items())
        if not self._samples:
            raise ValueError(f"{self.path}: no samples in this shard")

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        name, members = self._samples[index]
        image = next((members[suffix] for suffix in members if suffix in IMAGE_SUFFIXES), None)
        if image is None:
            raise BadSample("no image member", name)
        fields: dict = {}
        if "json" in members:
            try:
                fields = json.loads(self._file.read(*members["json"]))
            except ValueError as error:
                raise BadSample("malformed JSON", name) from error
            if not isinstance(fields, dict):
                raise BadSample("malformed JSON", name)
        captions, tags = _texts(fields, name)
        if "txt" in members:
            try:
                captions.setdefault("", self._file.read(*members["txt"]).decode("utf-8"))
            except UnicodeDecodeError as error:
                raise BadSample("caption is not UTF-8", name) from error
        if not captions:
            raise BadSample("no caption", name)
        text_name = fields.get(self._text_id) if self._text_id else "\n".join(captions.values())
        if text_name is None:
            raise BadSample(f"no field {self._text_id}", name)
        return Sample(name, str(text_name), self._file.read(*image), captions, tags, fields)


def _texts(fields: dict, name: str) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    captions, tags = {}, {}
    for key, value in fields.items():
        kind, _, language = key.partition("_")
        if kind == "caption":
            if not isinstance(value, str):
                raise BadSample("malformed caption", name)
            captions[language] = value
        elif kind == "tags":
            if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
                raise BadSample("malformed tags", name)
            tags[language] = tuple(tag for tag in value if tag.strip())
    return captions, tags


class TsvRows:
    """Rows of a TSV file by number, found by offset: a row that holds an image can be megabytes long.

    Raises:
        ValueError: the file is empty.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._file = _File(self.path)
        ends, start = [], 0
        with open(self.path, "rb") as lines:
            for line in lines:
                start += len(line)
                ends.append(start)
        if not ends:
            raise ValueError(f"{self.path}: no rows in this file")
        self._bounds = np.array([0, *ends], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def name(self, index: int) -> str:
        """File and line, for a person who looks for the row."""
        return f"{self.path.name}:{index + 1}"

    def columns(self, index: int, first: int | None = None) -> list[bytes]:
        """The columns of a row; `first` reads that many of its bytes alone, so that the last column is cut."""
        start, end = self._bounds[index : index + 2].tolist()
        size = end - start if first is None else min(first, end - start)
        return self._file.read(start, size).rstrip(b"\r\n").split(b"\t")


def decode_base64(text: bytes) -> bytes:
    """What base64 stands for, in the standard or the URL-safe alphabet; binascii.Error if it is none."""
    # b64decode drops characters that it does not know unless told to validate.
    return base64.b64decode(text.replace(b"-", b"+").replace(b"_", b"/"), validate=True)


class TsvSource:
    """Rows of an official TSV: `text<TAB>image id<TAB>base64 image`, UTF-8, one pair a row.

    Rows with the same image id share an image, rows with the same text share a text.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._rows = TsvRows(self.path)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        name = self._rows.name(index)
        columns = self._rows.columns(index)
        if len(columns) != 3:
            raise BadSample("malformed row", name)
        try:
            text, image_name = columns[0].decode("utf-8"), columns[1].decode("utf-8")
            image = decode_base64(columns[2])
        except (UnicodeDecodeError, binascii.Error) as error:
            raise BadSample("malformed row", name) from error
        return Sample(image_name, text, image, {"": text})


class Sources:
    """Several sources, one behind the other."""

    def __init__(self, sources: Sequence[Source]):
        self._sources = sources
        self._starts = [0, *accumulate(len(source) for source in sources)]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        which = bisect_right(self._starts, index) - 1
        return self._sources[which][index - self._starts[which]]


def open_sources(patterns: Iterable[str], text_id: str | None = None) -> Sources:
    """The samples of all files that the patterns name, in the order given, sorted within a pattern.

    Raises:
        FileNotFoundError: a pattern names no file.
        ValueError: a file is neither `.tar` nor `.tsv`, or it is unreadable or empty.
    """
    sources: list[Source] = []
    for pattern in patterns:
        paths = sorted(glob.glob(pattern))
        if not paths:
            raise FileNotFoundError(f"no file matches {pattern}; check Data.train, Data.val or --data")
        for path in paths:
            if path.endswith(".tar"):
                sources.append(TarSource(path, text_id))
            elif path.endswith(".tsv"):
                sources.append(TsvSource(path))
            else:
                raise ValueError(f"{path}: a source is a .tar shard or an official .tsv file")
    if not sources:
        raise ValueError("no data given: set Data.train (and Data.val) to .tar or .tsv files")
    return Sources(sources)
