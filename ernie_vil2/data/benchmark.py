"""A retrieval benchmark: images, texts and the pairs of them that match, before anything is encoded.

Samples make a benchmark in each language of their captions, and the pairs of a benchmark are samples to train on.
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
    check_text,
    decode_utf8,
    hash_id,
    is_blank,
    is_id,
)
from ernie_vil2.data.source_files import decode_path, list_image_files, read_file, read_numbered_lines
from ernie_vil2.data.spec import DataSpec

TEXT_ID = "text_id"  # field that names a text in tables and in Chinese-CLIP's files
SHARED_NAME_REMARK = "name of an earlier, different image"  # its content tells such an image from the earlier one


class BenchmarkRow:
    """An image or a text of the gallery."""

    id: str
    fields: Mapping[str, object]


@dataclass(frozen=True)
class BenchmarkImage(BenchmarkRow):
    """An image of the gallery.

    Attributes:
        id: id of the image, unique in the benchmark.
        read: returns the bytes of the encoded file; raises OSError or BadSample.
        fields: further values from the annotations, for filters.
        find: for an image in a file of its own: returns that file, and what `read` returns. None: it has no such file.
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
    """Images, texts and pairs, as a reader makes them of the files on disk.

    Images and texts have distinct ids and the order of the files, on which protocols rely ("the first 10,000 images").

    Attributes:
        name: name of the benchmark, with its split.
        images: the image gallery.
        texts: the text gallery.
        pairs: int64 `[P, 2]` of (image row, text row), many to many, each pair once, in the order of the files. A row
            without a pair is in the gallery, but is no query.
        entry_report: counts of the entries in the files and of the unusable ones among them.
        files: annotation and shard files that were read.
    """

    name: str
    images: Sequence[BenchmarkImage]
    texts: Sequence[BenchmarkText]
    pairs: np.ndarray
    entry_report: BadSampleReport
    files: tuple[Path, ...] = ()

    def get_side(self, name: str) -> Sequence[BenchmarkImage] | Sequence[BenchmarkText]:
        """Return the rows of the side `image` or `text`."""
        return self.images if name == "image" else self.texts

    def select(
        self, images: Sequence[int] | np.ndarray | None = None, texts: Sequence[int] | np.ndarray | None = None
    ) -> Benchmark:
        """Return the benchmark of some rows, with the pairs that keep both sides.

        Args:
            images: numbers of the images, in the new order; None: all.
            texts: numbers of the texts, in the new order; None: all.
        """
        image_rows = np.arange(len(self.images)) if images is None else np.asarray(images, np.int64)
        text_rows = np.arange(len(self.texts)) if texts is None else np.asarray(texts, np.int64)
        pairs = self.pairs
        for column, (size, rows) in enumerate(((len(self.images), image_rows), (len(self.texts), text_rows))):
            # Replace the old row numbers of this side by the new ones, and drop pairs that lose this side.
            new_rows = np.full(size, -1, np.int64)
            new_rows[rows] = np.arange(len(rows))
            pairs = pairs.copy()
            pairs[:, column] = new_rows[pairs[:, column]]
            pairs = pairs[pairs[:, column] >= 0]
        return replace(
            self,
            images=[self.images[row] for row in image_rows.tolist()],
            texts=[self.texts[row] for row in text_rows.tolist()],
            pairs=pairs,
        )


class Collector:
    """Collects images, texts and pairs in the order of the files; the first of several entries with one id counts."""

    def __init__(self) -> None:
        self.entry_report = BadSampleReport()
        self.entry = self.entry_report.attempt
        self._images: dict[str, tuple[int, BenchmarkImage, Hashable]] = {}  # row, image and content, by id
        self._texts: dict[str, tuple[int, BenchmarkText]] = {}  # row and text, by id
        self._pairs: dict[tuple[int, int], None] = {}  # an ordered set of (image row, text row)

    def add_image(self, image: BenchmarkImage, content: Hashable, must_be_new: bool = False) -> None:
        """Add an image, unless it has been added already.

        Args:
            image: the image.
            content: value that is equal for equal images, such as the file's name or a digest of its bytes.
            must_be_new: the files name each image once, so that a second entry is an error.

        Raises:
            BadSample: another image has this id, or the image is not new and must be.
        """
        self._check_image(image, content)
        if must_be_new and image.id in self._images:
            raise BadSample(Reason.REPEATED_IMAGE, image.id)
        self._images.setdefault(image.id, (len(self._images), image, content))

    def add_text(self, text: BenchmarkText, must_be_new: bool = False) -> None:
        """Add a text, unless it has been added already.

        Args:
            text: the text.
            must_be_new: the files name each text once, so that a second entry is an error.

        Raises:
            BadSample: the text is empty, another text has this id, or the text is not new and must be.
        """
        self._check_text(text, text.id)
        if must_be_new and text.id in self._texts:
            raise BadSample(Reason.REPEATED_TEXT, text.id)
        self._texts.setdefault(text.id, (len(self._texts), text))

    def add_sample(self, image: BenchmarkImage, content: Hashable, text: BenchmarkText, name: str) -> None:
        """Add an image and a text, unless they have been added already, and their pair: all of them, or nothing.

        Args:
            image: the image.
            content: as for `add_image`.
            text: the text.
            name: name of the entry, for the error if the text is empty.

        Raises:
            BadSample: the text is empty, or another image or text has the id.
        """
        # Check both before adding either.
        self._check_image(image, content)
        self._check_text(text, name)
        self.add_image(image, content)
        self.add_text(text)
        self.add_pair(image.id, text.id)

    def has_image(self, image_id: str) -> bool:
        """Return whether an image with this id has been added."""
        return image_id in self._images

    def add_pair(self, image_id: str, text_id: str) -> None:
        """Pair an image with a text, which have been added before; adding a pair twice changes nothing."""
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

    def make_benchmark(self, name: str, files: Sequence[Path]) -> Benchmark:
        """Return everything that has been added; raise ValueError if there is no image or no text."""
        for kind, entries in (("image", self._images), ("text", self._texts)):
            if not entries:
                names = ", ".join(map(str, files))
                raise ValueError(f"{names or name}: no {kind} could be used\n{self.entry_report}")
        return Benchmark(
            name,
            [image for _, image, _ in self._images.values()],
            [text for _, text in self._texts.values()],
            np.array(list(self._pairs), np.int64).reshape(-1, 2),
            self.entry_report,
            tuple(files),
        )


def read_unpaired(folder: Path | None, lines: Path | None) -> Benchmark:
    """Read images and texts as a benchmark without pairs. Either side may be omitted.

    Args:
        folder: folder with image files, also in sub-folders; their ids are their paths in it, as `decode_path` writes
            them.
        lines: a UTF-8 file with a text in each line; blank lines are skipped. The ids are the line numbers.

    Raises:
        OSError: the file cannot be read.
        ValueError: there is no image file in the folder, or no text in the file.
    """
    report = BadSampleReport()
    images: dict[str, BenchmarkImage] = {}
    root = folder or Path()
    for file in list_image_files(root) if folder else ():
        with report.attempt():
            image_id = decode_path(str(file.relative_to(root)))
            if image_id in images:  # one name in UTF-8, and the same in GBK
                raise BadSample(Reason.REPEATED_IMAGE, image_id)
            images[image_id] = BenchmarkImage(image_id, partial(read_file, file))

    texts: list[BenchmarkText] = []
    for name, line in read_numbered_lines(lines) if lines else ():
        with report.attempt():
            text = decode_utf8(line, name).strip()
            check_text(text, name)
            if is_blank(text):
                raise BadSample(Reason.EMPTY_TEXT, name)
            texts.append(BenchmarkText(name.rpartition(":")[2], text))

    if folder and not images:
        raise ValueError(f"{folder}: no image file in it that can be used\n{report}")
    if lines and not texts:
        raise ValueError(f"{lines}: no text in it that can be used\n{report}")
    pairs = np.empty([0, 2], np.int64)
    return Benchmark(str(folder or lines), list(images.values()), texts, pairs, report, (lines,) if lines else ())


class BenchmarkSource:
    """The pairs of a benchmark as samples: an image with five texts gives five samples. Equal texts share their name.

    Entries of the annotations that cannot be used follow after the pairs, as bad samples.

    Args:
        benchmark: the benchmark.
        name: name of its annotation file.
    """

    def __init__(self, benchmark: Benchmark, name: str):
        self.name, self.files = name, benchmark.files
        self._benchmark = benchmark
        self._bad_entries: list[tuple[Reason, str]] = []
        report = benchmark.entry_report
        for reason, count in report.counts.items():
            # The report keeps the first names only; the last of them stands for the others.
            names = report.names[reason]
            for index in range(count):
                self._bad_entries.append((Reason(reason), names[min(index, len(names) - 1)]))

    def __len__(self) -> int:
        return len(self._benchmark.pairs) + len(self._bad_entries)

    def _get_pair(self, index: int) -> tuple[BenchmarkImage, BenchmarkText]:
        pairs = self._benchmark.pairs
        if index >= len(pairs):
            raise BadSample(*self._bad_entries[index - len(pairs)])
        image_row, text_row = pairs[index].tolist()
        return self._benchmark.images[image_row], self._benchmark.texts[text_row]

    def read_image_name(self, index: int) -> str:
        """Return the name of a row's image, see `Shard`."""
        return self._get_pair(index)[0].id

    def __getitem__(self, index: int) -> Sample:
        image, text = self._get_pair(index)
        file: str | Path = ""
        if image.find:
            file, content = image.find()
        else:
            content = image.read()
        return Sample(image.id, text.text, content, {"": text.text}, {}, {**image.fields, **text.fields}, str(file))

    def release(self) -> None:
        """Do nothing: no file is open."""


class ImageIds:
    """Assigns distinct ids to images: their names, with file and row added if different images have one name."""

    def __init__(self) -> None:
        self._ids_by_name: dict[str, dict[int, str]] = {}

    def assign(self, sample: Sample, where: str) -> str:
        """Return the id of a sample's image; samples share it if they share the image (`SampleStream.ids`)."""
        ids = self._ids_by_name.setdefault(sample.image_name, {})
        new_id = f"{sample.image_name} ({where})" if ids else sample.image_name
        return ids.setdefault(hash_id(sample.image_name, sample.image), new_id)


SampleImage = tuple[Sample, BenchmarkImage]  # a sample without the bytes of its image, and the image


def make_benchmarks(source: LocatedSamples, name: str, data: DataSpec) -> dict[str, Benchmark]:
    """Return the samples of a source as a benchmark in each language, in their order.

    Images are distinguished by name and content. Texts are distinguished by the field `data.text_id`, or by the field
    `text_id`, or else by the text itself. An image or a text has the fields of its first sample. All samples are read
    once here, and an image is read again when it is needed.

    Args:
        source: the samples.
        name: name of the benchmarks.
        data: names the languages. A sample without a caption in a language is a bad sample of that benchmark.

    Raises:
        ValueError: no sample could be used.
    """
    samples: list[SampleImage | BadSample] = []
    image_ids = ImageIds()
    available_languages: dict[str, None] = {}
    for index in range(len(source)):
        try:
            sample = source[index]
        except BadSample as bad_sample:
            samples.append(bad_sample)
            continue
        # Forget the bytes of the image: all images together may not fit into memory.
        image_id = image_ids.assign(sample, source.describe_location(index))
        image = BenchmarkImage(image_id, partial(read_image, source, index), sample.fields)
        samples.append((replace(sample, image=b""), image))
        for language, caption in sample.captions.items():
            if not is_blank(caption):
                available_languages[language] = None

    # If the user chose no languages, score the languages that the model was trained for, or all if the data have none
    # of them.
    languages = data.languages
    if languages is None:
        languages = [language for language in data.preferred_languages if language in available_languages]
        languages = languages or list(available_languages) or [""]
    # Captions of no language ("") are read as captions of any language.
    if available_languages and "" not in available_languages:
        for language in languages:
            if language not in available_languages:
                raise ValueError(
                    f"{name}: no caption in {language or 'no language'}; there are captions in "
                    f"{', '.join(available_languages)}"
                )
    files = source.files
    return {language: _collect_language(samples, name, language, data, files) for language in languages}


def _collect_language(
    samples: Sequence[SampleImage | BadSample], name: str, language: str, data: DataSpec, files: Sequence[Path]
) -> Benchmark:
    collector = Collector()
    for entry in samples:
        remarks: list[tuple[str, str]] = []
        with collector.entry(remarks):
            if isinstance(entry, BadSample):
                raise BadSample(entry.reason, entry.name)
            sample, image = entry
            texts = sample.caption_lines(language)
            if not data.caption_lines:
                if len(texts) > 1:
                    remarks.append((SEVERAL_LINES, sample.image_name))
                texts = [sample.caption(language)]
            if image.id != sample.image_name and not collector.has_image(image.id):
                remarks.append((SHARED_NAME_REMARK, sample.image_name))
            # Further lines of a caption are texts of their own, numbered after the first.
            text_id = _find_text_id(sample, data.text_id)
            for number, text in enumerate(texts):
                if text_id is None:
                    key = text
                else:
                    key = text_id if number == 0 else f"{text_id}#{number}"
                collector.add_sample(image, image.id, BenchmarkText(key, text, sample.fields), sample.image_name)
    return collector.make_benchmark(name, files)


def _find_text_id(sample: Sample, text_id_field: str | None) -> str | None:
    """Return the id of a sample's text from the field that the user names, or from `text_id`; None if it has none."""
    if text_id_field is not None:
        return sample.text_name  # the reader took it from the field
    text_id = sample.fields.get(TEXT_ID)
    if text_id is None:
        return None
    if not is_id(text_id):
        raise BadSample(Reason.MALFORMED_ROW, f"{sample.image_name}, {TEXT_ID}")
    return str(text_id)


def read_image(source: SampleSequence, index: int) -> bytes:
    """Read the image of a sample again."""
    return source[index].image
