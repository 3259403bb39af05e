"""Samples as benchmarks, one in every language of their captions, and the pairs of a benchmark as samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ernie_vil2.data.benchmark import TEXT_ID, Benchmark, BenchmarkImage, BenchmarkText, Collector
from ernie_vil2.data.readers.source import SampleSequence, ShardedSource
from ernie_vil2.data.samples import SEVERAL_LINES, BadSample, Reason, Sample, content_id, is_blank, is_id
from ernie_vil2.data.spec import DataSpec

SHARED_NAME = "name of an earlier, different image"  # remark on one that is distinguished by its content


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

    def image_name(self, index: int) -> str:
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


def benchmarks_of(source: ShardedSource, name: str, data: DataSpec) -> dict[str, Benchmark]:
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
    files = [file for shard in source.shards for path in shard.files
             for file in ([path] if path.is_file() else sorted(path.glob("*/data.mdb")))]  # fmt: skip
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
