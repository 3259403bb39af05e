"""Opens what lies at places, as samples to train on or as benchmarks to score: whatever can be one can be the other."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText, Collector
from ernie_vil2.data.readers.layout import ImageFolders, Layout, Options
from ernie_vil2.data.readers.layouts import LAYOUTS, Content, annotates, content
from ernie_vil2.data.readers.locations import LocalFile, Location
from ernie_vil2.data.readers.shard_files import PreparedShards, at_most, find
from ernie_vil2.data.readers.source import THREADS, SampleSequence, Shard, ShardedSource
from ernie_vil2.data.samples import SEVERAL_LINES, BadSample, Reason, Sample, content_id, is_blank, is_id
from ernie_vil2.io.terminal import shows_progress

MANY = 10_000  # shards that wait to be opened at once

TEXT_ID = "text_id"
"""Field that names a text in tables and in Chinese-CLIP's files."""
SHARED_NAME = "name of an earlier, different image"
"""Remark on an image that is distinguished from others by its content."""


def open_sources(
    patterns: Iterable[str],
    text_id: str | None = None,
    split: str | None = None,
    images: str | None = None,
    default: str | None = "train",
    layout: str | None = None,
) -> ShardedSource:
    """The samples of all files that the patterns name, in the order given, sorted within a pattern.

    A shard of `tools/prepare_data.py` is as long as the `index.json` beside it says, if it has the size in bytes that
    this names; one at an address is compared with size and checksum when it is fetched. Every other shard is scanned,
    once: what the scan found is kept in the cache folder if it took long.

    Args:
        patterns: as `shard_files.find` takes them: paths with braces and `*`, addresses, `pipe:` commands, lists; the
            folder of a benchmark, or its annotation file.
        text_id: JSON field of a tar sample that names its text; None: the caption itself is its name.
        split: of a benchmark or of tables; None: the default.
        images: folder of the image files; None: they are looked for with the data.
        default: the split that is meant where none is named; None: the one that is scored.
        layout: one of `LAYOUTS`; None: told from the files.

    Raises:
        FileNotFoundError: a pattern names no file, or no image file is there.
        ValueError: a file is of no layout that is known, or it is unreadable or empty; the split is not there.
        OSError: a file cannot be fetched.
    """
    found = [content(place, split, default, layout) for place in _places(patterns)]
    return _opened(found, images, text_id)


def open_local(path: Path) -> ShardedSource:
    """The samples of one file or folder that lies here; unlike for `open_sources`, its name is only a name.

    Raises:
        ValueError, OSError: as `open_sources`.
    """
    return _opened([content(LocalFile(path), default="train")], None, None)


def open_benchmark(path: str | Path | Sequence[str | Path], language: str | None = None, **options) -> Benchmark:
    """The images and texts that are scored: a benchmark as its authors publish it, or whatever can be trained on.

    Args:
        path: the folder of a benchmark, one of its annotation files, or what `open_sources` takes.
        language: of the captions; None: the only one that they are in.
        options: as of `open_benchmarks`.

    Raises:
        ValueError: there are captions in several languages; and as `open_benchmarks`.
        FileNotFoundError: as `open_benchmarks`.
    """
    found = open_benchmarks(path, None if language is None else [language], **options)
    if len(found) > 1:
        raise ValueError(f"{path}: there are captions in {' and '.join(found)}; name one language")
    return next(iter(found.values()))


def open_benchmarks(
    path: str | Path | Sequence[str | Path],
    languages: Sequence[str] | None = None,
    *,
    preferred: Collection[str] = (),
    layout: str | None = None,
    split: str | None = None,
    images: str | Path | None = None,
    text_id: str | None = None,
    caption_lines: bool = False,
    default: str | None = None,
) -> dict[str, Benchmark]:
    """What is scored by the language of its captions; the data are read once for all of them.

    Captions that name no language stand under "". Languages whose texts are the same, as those of a published
    benchmark, are one entry under their joined names: nothing is scored twice.

    Args:
        path: as of `open_benchmark`.
        languages: None: those that the captions are in, of these the `preferred` ones if there are some.
        layout: one of `LAYOUTS`; None: told from the files.
        split: `test`, `val`, `train`, ...; None: test, or validation where test is not there or has no answers.
        images: folder of the image files, or of their published sub-folders; None: looked for with the data.
        text_id: as in `open_sources`.
        caption_lines: each line of a sample's caption is a text of its own, see `Views.caption_lines`.
        default: the split that comes before these where none is named.

    Raises:
        FileNotFoundError: there is no such path, or none of the images is found.
        ValueError: the layout cannot be told, the split is not there, or no image or text could be used.
    """
    places = _places([path] if isinstance(path, str | Path) else path)
    found = [content(place, split, default, layout) for place in places]
    first = found[0]
    if published := [one for one in found if one.layout.read]:
        if len(found) > 1:
            raise ValueError(f"layout {published[0].layout.name} is that of one folder; {len(found)} paths were given")
        benchmark = read_benchmark(first.layout, Path(first.shards[0].name), _options(first, images, text_id))
        return {", ".join(languages or ()): benchmark}
    path = Path(first.shards[0].name)
    name = f"{path.parent.name}-{first.split}" if first.split else path.stem
    source = _opened(found, images, text_id)
    return _each_once(benchmarks_of(source, name, languages, preferred, text_id, caption_lines))


def _each_once(benchmarks: Mapping[str, Benchmark]) -> dict[str, Benchmark]:
    joined: dict[tuple[str, ...], list[str]] = {}
    for language, benchmark in benchmarks.items():
        joined.setdefault(tuple(text.text for text in benchmark.texts), []).append(language)
    return {", ".join(same): benchmarks[same[0]] for same in joined.values()}


def _places(paths: Iterable[str | Path]) -> list[Location]:
    """A list of images that a benchmark has is no list of paths."""
    places = at_most(
        place
        for path in paths
        for place in ([LocalFile(path)] if annotates(Path(path), LAYOUTS.values()) else find(str(path)))
    )
    if not places:
        raise ValueError("no data given: name tar shards, a benchmark or another source (docs/data.md)")
    return places


def _opened(found: Sequence[Content], images: str | Path | None, text_id: str | None) -> ShardedSource:
    prepared, shards = PreparedShards(), []
    for one in found:
        options = _options(one, images, text_id)
        for shard in one.shards:
            location, samples = prepared(shard)
            shards.append((one.layout, location, options._replace(samples=samples)))
    quiet = not shows_progress()
    bar = tqdm(desc="shards", total=len(shards), unit="shard", delay=2, file=sys.stdout, disable=quiet)
    with ThreadPoolExecutor(THREADS) as threads, bar:
        opened = []
        # A task each would take more memory than the shards, which may be hundreds of thousands.
        for start in range(0, len(shards), MANY):
            for shard in threads.map(open_shard, *zip(*shards[start : start + MANY], strict=True)):
                opened.append(shard)
                bar.update()
    return ShardedSource(opened, [location for _, location, _ in shards])


def _options(found: Content, images: str | Path | None, text_id: str | None) -> Options:
    if images and found.layout.image_folders is None:
        raise ValueError(f"{found.place.name}: layout {found.layout.name} holds its images; leave out images")
    if images and not Path(images).is_dir():
        raise FileNotFoundError(f"{images}: no such folder of images")
    return Options(found.split, Path(found.place.name), Path(images) if images else None, text_id)


class BenchmarkSource:
    """The pairs of a benchmark as samples: an image with five texts is five of them. Equal texts have one name.

    What the annotations hold that cannot be used stands behind the pairs, as bad samples.

    Args:
        benchmark: as it was read.
        name: of its annotation file.
    """

    def __init__(self, benchmark: Benchmark, name: str):
        self.name, self.files = name, benchmark.files
        self._benchmark = benchmark
        rows = benchmark.rows
        self._bad = [
            (reason, rows.names[reason][min(place, len(rows.names[reason]) - 1)])
            for reason, count in rows.counts.items()
            for place in range(count)
        ]

    def __len__(self) -> int:
        return len(self._benchmark.pairs) + len(self._bad)

    def image_name(self, index: int) -> str:
        """What the image of a row is called, see `Shard`."""
        pairs = self._benchmark.pairs
        if index >= len(pairs):
            raise BadSample(*self._bad[index - len(pairs)])
        return self._benchmark.images[pairs[index, 0]].id

    def __getitem__(self, index: int) -> Sample:
        pairs = self._benchmark.pairs
        if index >= len(pairs):
            raise BadSample(*self._bad[index - len(pairs)])
        image_row, text_row = pairs[index].tolist()
        image, text = self._benchmark.images[image_row], self._benchmark.texts[text_row]
        file, content = image.find() if image.find else ("", image.read())
        return Sample(image.id, text.text, content, {"": text.text}, {}, {**image.fields, **text.fields}, str(file))

    def release(self) -> None:
        """Nothing is held open."""


def read_benchmark(layout: Layout, annotations: Path, options: Options) -> Benchmark:
    """The split of a published benchmark. Annotations are read once, here; an image is read when it is asked for.

    Raises:
        FileNotFoundError: there is no such folder of images, or none of the images is found.
        ValueError: a file is malformed as a whole, or no image or text could be used.
    """
    if layout.image_folders is None:
        return layout.read(annotations, options.split, ImageFolders([], []))
    folders = layout.images_of(annotations, options)
    benchmark = layout.read(annotations, options.split, folders)
    folders.require(benchmark.images)
    return benchmark


def open_shard(layout: Layout, place: Location, options: Options) -> Shard:
    """A shard of samples, or a benchmark as one; errors as of the layout's source and of `read_benchmark`."""
    if layout.open:
        return layout.open(place, options)
    return BenchmarkSource(read_benchmark(layout, Path(place.name), options), place.name)


class ImageIds:
    """Ids of images that are distinct: the names, and where different images have one, all but the first with place."""

    def __init__(self):
        self._ids: dict[str, dict[int, str]] = {}

    def __call__(self, sample: Sample, place: str) -> str:
        """The id of a sample's image; what samples have in common is as for `SampleStream.ids`."""
        known = self._ids.setdefault(sample.image_name, {})
        own = f"{sample.image_name} ({place})" if known else sample.image_name
        return known.setdefault(content_id(sample.image_name, sample.image), own)


def benchmarks_of(
    source: ShardedSource,
    name: str,
    languages: Sequence[str] | None = None,
    preferred: Collection[str] = (),
    text_id: str | None = None,
    caption_lines: bool = False,
) -> dict[str, Benchmark]:
    """The samples of a source as a benchmark in every language, in their order.

    Images are distinct by name and content, texts by `text_id`, by the field `text_id`, or else by themselves; the
    fields of the sample that comes first stay with them. All samples are read once here; an image is read again when it
    is asked for.

    Args:
        name: of the benchmarks.
        languages: of the captions; a sample without a caption in one is not used there. None: those in which there are
            captions, of these only the preferred ones if there are some.
        preferred: languages.
        text_id: that the source was opened with.
        caption_lines: each line of a caption is a text of its own.

    Raises:
        ValueError: no sample could be used.
    """
    read: list[_Read | BadSample] = []
    ids, found = ImageIds(), {}
    for index in range(len(source)):
        try:
            sample = source[index]
        except BadSample as bad:
            read.append(bad)
            continue
        image = BenchmarkImage(ids(sample, source.where(index)), partial(image_bytes, source, index), sample.fields)
        read.append(_Read(replace(sample, image=b""), image))
        found |= {language: None for language, caption in sample.captions.items() if not is_blank(caption)}
    if languages is None:
        languages = [language for language in preferred if language in found] or list(found) or [""]
    for language in languages:
        if found and "" not in found and language not in found:
            raise ValueError(
                f"{name}: no caption in {language or 'no language'}; there are captions in {', '.join(found)}"
            )
    files = [file for shard in source.shards for path in shard.files
             for file in ([path] if path.is_file() else sorted(path.glob("*/data.mdb")))]  # fmt: skip
    return {language: _in_language(read, name, language, text_id, caption_lines, files) for language in languages}


class _Read(NamedTuple):
    """A sample without its bytes, and its image."""

    sample: Sample
    image: BenchmarkImage


def _in_language(
    read: Sequence[_Read | BadSample],
    name: str,
    language: str,
    text_id: str | None,
    caption_lines: bool,
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
            if not caption_lines:
                odd += [(SEVERAL_LINES, sample.image_name)] * (len(texts) > 1)
                texts = [sample.caption(language)]
            if image.id != sample.image_name and not collector.has_image(image.id):
                odd.append((SHARED_NAME, sample.image_name))
            own = _text_id(sample, text_id)
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
    """The image of a sample, read anew."""
    return source[index].image
