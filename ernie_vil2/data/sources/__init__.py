"""Where samples and benchmarks lie, one file per layout; docs/data.md and docs/benchmarks.md show each on disk."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.data.sources.benchmarks import benchmarks_of, open_shard, read_benchmark
from ernie_vil2.data.sources.fetching import shows_progress
from ernie_vil2.data.sources.layout import Options
from ernie_vil2.data.sources.layouts import LAYOUTS, Content, annotates, content
from ernie_vil2.data.sources.locations import LocalFile, Location
from ernie_vil2.data.sources.patterns import at_most, find
from ernie_vil2.data.sources.prepared import PreparedShards
from ernie_vil2.data.sources.source import HELD_SHARDS, THREADS, SampleSequence, Shard, ShardedSource
from ernie_vil2.data.sources.tar import TarSource
from ernie_vil2.data.sources.tsv import TsvSource

MANY = 10_000  # shards that wait to be opened at once

__all__ = [
    "HELD_SHARDS",
    "LAYOUTS",
    "Shard",
    "SampleSequence",
    "ShardedSource",
    "TarSource",
    "TsvSource",
    "open_benchmark",
    "open_benchmarks",
    "open_sources",
]


def open_sources(
    patterns: Iterable[str],
    text_id: str | None = None,
    split: str | None = None,
    images: str | None = None,
    default: str | None = "train",
) -> ShardedSource:
    """The samples of all files that the patterns name, in the order given, sorted within a pattern.

    A shard of `tools/prepare_data.py` is as long as the `index.json` beside it says, if it has the size in bytes that
    this names; one at an address is compared with size and checksum when it is fetched. Every other shard is scanned,
    once: what the scan found is kept in the cache folder if it took long.

    Args:
        patterns: as `patterns.find` takes them: paths with braces and `*`, addresses, `pipe:` commands, lists; the
            folder of a benchmark, or its annotation file.
        text_id: JSON field of a tar sample that names its text; None: the caption itself is its name.
        split: of a benchmark or of tables; None: the default.
        images: folder of the image files; None: they are looked for with the data.
        default: the split that is meant where none is named; None: the one that is scored.

    Raises:
        FileNotFoundError: a pattern names no file, or no image file is there.
        ValueError: a file is of no layout that is known, or it is unreadable or empty; the split is not there.
        OSError: a file cannot be fetched.
    """
    found = [content(place, split, default) for place in _places(patterns)]
    return _opened(found, images, text_id)


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
