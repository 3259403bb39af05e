"""A retrieval benchmark: images, texts and which of them belong together, before anything is encoded.

Samples become one in every language of their captions, and its pairs are samples to train on.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from ernie_vil2.data.samples import (
    SEVERAL_LINES,
    BadSample,
    BadSampleReport,
    LocatedSamples,
    Reason,
    Sample,
    SampleSequence,
    as_text,
    check_text,
    content_id,
    is_blank,
    is_id,
)
from ernie_vil2.data.source_files import image_files, numbered_lines, read_file
from ernie_vil2.data.spec import DataSpec

TEXT_ID = "text_id"  # field that names a text in tables and in Chinese-CLIP's files
SHARED_NAME = "name of an earlier, different image"  # remark on one that is distinguished by its content


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


class BenchmarkSource:
    """The pairs of a benchmark as samples: an image with five texts is five of them. Equal texts have one name.

    What the annotations hold that cannot be used comes after the pairs, as bad samples.

    Args:
        benchmark: as it was read.
        name: of its annotation file.
    """

    def __init__(self, benchmark: Benchmark, name: str):
        self.name, self.files = name, benchmark.files
        self._benchmark = benchmark
        rows = benchmark.rows
        self._bad = [
            (Reason(reason), rows.names[reason][min(index, len(rows.names[reason]) - 1)])
            for reason, count in rows.counts.items()
            for index in range(count)
        ]

    def __len__(self) -> int:
        return len(self._benchmark.pairs) + len(self._bad)

    def _pair(self, index: int) -> tuple[BenchmarkImage, BenchmarkText]:
        pairs = self._benchmark.pairs
        if index >= len(pairs):
            raise BadSample(*self._bad[index - len(pairs)])
        image, text = pairs[index].tolist()
        return self._benchmark.images[image], self._benchmark.texts[text]

    def read_image_name(self, index: int) -> str:
        """What the image of a row is called, see `Shard`."""
        return self._pair(index)[0].id

    def __getitem__(self, index: int) -> Sample:
        image, text = self._pair(index)
        file, content = image.find() if image.find else ("", image.read())
        return Sample(image.id, text.text, content, {"": text.text}, {}, {**image.fields, **text.fields}, str(file))

    def release(self) -> None:
        """Nothing is kept open."""


class ImageIds:
    """Ids of images that are distinct: the names, where different images have one, with the file and row."""

    def __init__(self) -> None:
        self._ids: dict[str, dict[int, str]] = {}

    def __call__(self, sample: Sample, where: str) -> str:
        """The id of a sample's image; what samples have in common is as for `SampleStream.ids`."""
        known = self._ids.setdefault(sample.image_name, {})
        own = f"{sample.image_name} ({where})" if known else sample.image_name
        return known.setdefault(content_id(sample.image_name, sample.image), own)


def make_benchmarks(source: LocatedSamples, name: str, data: DataSpec) -> dict[str, Benchmark]:
    """Return the samples of a source as a benchmark in every language, in their order.

    Images are distinct by name and content, texts by `data.text_id`, by the field `text_id`, or else by themselves; the
    fields of the sample that comes first stay with them. All samples are read once here; an image is read again when it
    is asked for.

    Args:
        source: that the data were opened as.
        name: of the benchmarks.
        data: says in which languages; a sample without a caption in one of them is not used there.

    Raises:
        ValueError: no sample could be used.
    """
    read: list[tuple[Sample, BenchmarkImage] | BadSample] = []  # samples without their bytes, and their images
    ids, found = ImageIds(), dict[str, None]()
    for index in range(len(source)):
        try:
            sample = source[index]
        except BadSample as bad:
            read.append(bad)
            continue
        image = BenchmarkImage(ids(sample, source.where(index)), partial(image_bytes, source, index), sample.fields)
        read.append((replace(sample, image=b""), image))
        found |= {language: None for language, caption in sample.captions.items() if not is_blank(caption)}
    languages = data.languages
    if languages is None:
        languages = [language for language in data.preferred_languages if language in found] or list(found) or [""]
    for language in languages:
        if found and "" not in found and language not in found:
            raise ValueError(
                f"{name}: no caption in {language or 'no language'}; there are captions in {', '.join(found)}"
            )
    files = source.files
    return {language: _in_language(read, name, language, data, files) for language in languages}


def _in_language(
    read: Sequence[tuple[Sample, BenchmarkImage] | BadSample],
    name: str,
    language: str,
    data: DataSpec,
    files: Sequence[Path],
) -> Benchmark:
    collector = Collector()
    for row in read:
        odd: list[tuple[str, str]] = []
        with collector.entry(odd):
            if isinstance(row, BadSample):
                raise BadSample(row.reason, row.name)
            sample, image = row
            texts = sample.caption_lines(language)
            if not data.caption_lines:
                odd += [(SEVERAL_LINES, sample.image_name)] * (len(texts) > 1)
                texts = [sample.caption(language)]
            if image.id != sample.image_name and not collector.has_image(image.id):
                odd.append((SHARED_NAME, sample.image_name))
            own = _text_id(sample, data.text_id)
            for number, text in enumerate(texts):
                key = text if own is None else own if number == 0 else f"{own}#{number}"
                collector.add_sample(image, image.id, BenchmarkText(key, text, sample.fields), sample.image_name)
    return collector.benchmark(name, files)


def _text_id(sample: Sample, text_id: str | None) -> str | None:
    if text_id is not None:
        return sample.text_name
    value = sample.fields.get(TEXT_ID)
    if value is not None and not is_id(value):
        raise BadSample(Reason.MALFORMED_ROW, f"{sample.image_name}, {TEXT_ID}")
    return None if value is None else str(value)


def image_bytes(source: SampleSequence, index: int) -> bytes:
    """The image of a sample, read again."""
    return source[index].image
