"""A retrieval benchmark: images, texts and which of them belong together, before anything is encoded."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from ernie_vil2.data.samples import (
    BadSample,
    BadSampleReport,
    Reason,
    as_text,
    check_text,
)
from ernie_vil2.data.source_files import image_files, numbered_lines, read_file

TEXT_ID = "text_id"  # field that names a text in tables and in Chinese-CLIP's files


class BenchmarkRow:
    """An image or a text of the gallery."""

    id: str
    fields: Mapping[str, object]


@dataclass(frozen=True)
class BenchmarkImage(BenchmarkRow):
    """An image of the gallery. `read` gives the encoded file's bytes, and raises OSError or BadSample.

    `fields` holds what else the source says, for filters. `find`, of an image in a file of its own, gives that file and
    what `read` gives.
    """

    id: str
    read: Callable[[], bytes]
    fields: Mapping[str, object] = field(default_factory=dict)
    find: Callable[[], tuple[Path, bytes]] | None = None


@dataclass(frozen=True)
class BenchmarkText(BenchmarkRow):
    """A text of the gallery; `fields` as for an image."""

    id: str
    text: str
    fields: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """What a reader makes of the files on disk.

    Images and texts are distinct by id in the order of the files, on which protocols rely ("the first
    10,000 images"). `pairs` `[P, 2]` int64 are (image row, text row), many to many, each once, in the order of the
    files too; a row without a pair is in the gallery, but no query. `rows` counts the entries that were read and
    those of them that could not be used. `files` are the annotation and shard files it was read from.
    """

    name: str
    images: Sequence[BenchmarkImage]
    texts: Sequence[BenchmarkText]
    pairs: np.ndarray
    rows: BadSampleReport
    files: tuple[Path, ...] = ()

    def side(self, name: str) -> Sequence[BenchmarkImage] | Sequence[BenchmarkText]:
        """The rows of the side `image` or `text`."""
        return self.images if name == "image" else self.texts

    def select(
        self, images: Sequence[int] | np.ndarray | None = None, texts: Sequence[int] | np.ndarray | None = None
    ) -> Benchmark:
        """The benchmark of these rows alone, in this order, with the pairs that have both sides; None: all rows."""
        chosen = [np.arange(len(side)) if rows is None else np.asarray(rows, np.int64)
                  for side, rows in ((self.images, images), (self.texts, texts))]  # fmt: skip
        pairs = self.pairs
        for column, (side, rows) in enumerate(zip((self.images, self.texts), chosen, strict=True)):
            position = np.full(len(side), -1, np.int64)
            position[rows] = np.arange(len(rows))
            pairs = pairs.copy()
            pairs[:, column] = position[pairs[:, column]]
            pairs = pairs[pairs[:, column] >= 0]
        return replace(
            self,
            images=[self.images[row] for row in chosen[0].tolist()],
            texts=[self.texts[row] for row in chosen[1].tolist()],
            pairs=pairs,
        )


class Collector:
    """Images, texts and pairs in the order of the files. Of several entries with one id the first one is kept."""

    def __init__(self) -> None:
        self.rows = BadSampleReport()
        self.entry = self.rows.attempt
        self._images: dict[str, tuple[int, BenchmarkImage, Hashable]] = {}
        self._texts: dict[str, tuple[int, BenchmarkText]] = {}
        self._pairs: dict[tuple[int, int], None] = {}

    def add_image(self, image: BenchmarkImage, content: Hashable, once: bool = False) -> None:
        """Takes an image, unless it is there already.

        Args:
            content: equal for images that are the same, such as the file's name or a digest of its bytes.
            once: the files name an image once.

        Raises:
            BadSample: another image has this id, or it is there already and was to be named `once`.
        """
        self._check_image(image, content)
        if once and image.id in self._images:
            raise BadSample(Reason.REPEATED_IMAGE, image.id)
        self._images.setdefault(image.id, (len(self._images), image, content))

    def add_text(self, text: BenchmarkText, once: bool = False) -> None:
        """Takes a text, unless it is there already; `once` as of `add_image`. BadSample if it is empty, or another text
        has this id, or it is there already and was to be named `once`."""
        self._check_text(text, text.id)
        if once and text.id in self._texts:
            raise BadSample(Reason.REPEATED_TEXT, text.id)
        self._texts.setdefault(text.id, (len(self._texts), text))

    def add_sample(self, image: BenchmarkImage, content: Hashable, text: BenchmarkText, name: str) -> None:
        """Takes an image, a text, both or neither if they are there already, and their pair: all of it, or nothing.

        BadSample if the text is empty, where it has the entry's `name`, or another image or text has the id.
        """
        self._check_image(image, content)
        self._check_text(text, name)
        self.add_image(image, content)
        self.add_text(text)
        self.add_pair(image.id, text.id)

    def has_image(self, image_id: str) -> bool:
        """Whether an image with this id has been taken."""
        return image_id in self._images

    def add_pair(self, image_id: str, text_id: str) -> None:
        """An image and a text, both taken before, belong together; adding a pair twice changes nothing."""
        self._pairs[self._images[image_id][0], self._texts[text_id][0]] = None

    def _check_image(self, image: BenchmarkImage, content: Hashable) -> None:
        check_text(image.id)
        if image.id in self._images and self._images[image.id][2] != content:
            raise BadSample(Reason.DIFFERENT_IMAGE, image.id)

    def _check_text(self, text: BenchmarkText, name: str) -> None:
        check_text(text.id)
        check_text(text.text)
        if not text.text:
            raise BadSample(Reason.EMPTY_TEXT, name)
        if text.id in self._texts and self._texts[text.id][1].text != text.text:
            raise BadSample(Reason.DIFFERENT_TEXT, text.id)

    def benchmark(self, name: str, files: Sequence[Path]) -> Benchmark:
        """All that was taken; ValueError if there is no image, or no text."""
        for kind, taken in (("image", self._images), ("text", self._texts)):
            if not taken:
                names = ", ".join(map(str, files))
                raise ValueError(f"{names}: no {kind} could be used\n{self.rows}")
        return Benchmark(
            name,
            [image for _, image, _ in self._images.values()],
            [text for _, text in self._texts.values()],
            np.array(list(self._pairs), np.int64).reshape(-1, 2),
            self.rows,
            tuple(files),
        )


def read_unpaired(folder: Path | None, lines: Path | None) -> Benchmark:
    """Both sides as a benchmark without pairs, either of which may be left out.

    Args:
        folder: its image files, those of folders within it too, are named by their path in it.
        lines: a UTF-8 file with a text in each line that is not blank, which is named by its number.

    Raises:
        OSError: one of them cannot be read.
        ValueError: there is no image file in the folder, or no text in the file.
    """
    found = image_files(folder) if folder else []
    texts, rows = [], BadSampleReport()
    rows.add(len(found), [])
    for name, line in numbered_lines(lines) if lines else ():
        with rows.attempt():
            check_text(text := as_text(line, name).strip(), name)
            texts.append(BenchmarkText(name.rpartition(":")[2], text))
    for path, side, kind in ((folder, found, "image file"), (lines, texts, "text")):
        if path and not side:
            raise ValueError(f"{path}: no {kind} in it that can be used\n{rows}")
    root = folder or Path()
    images = [BenchmarkImage(file.relative_to(root).as_posix(), partial(read_file, file)) for file in found]
    files = (lines,) if lines else ()
    return Benchmark(str(folder or lines), images, texts, np.empty([0, 2], np.int64), rows, files)
