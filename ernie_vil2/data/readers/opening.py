"""What is at a location, by the registry of layouts, and opens it: as samples to train on or as benchmarks to score.

Whatever can be one can be the other. docs/data.md and docs/benchmarks.md show each layout on disk.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.data.readers.benchmarks import BenchmarkSource, benchmarks_of
from ernie_vil2.data.readers.caption_benchmarks import AIC_ICC, COCO_CAPTIONS, COCO_CN, FLICKR30K, FLICKR30K_CN, MSCOCO
from ernie_vil2.data.readers.caption_lists import COCO_CN_TRANSLATED, FLICKR30K_CNA, LONG_CAPTIONS_CN, XM3600
from ernie_vil2.data.readers.chinese_clip import CHINESE_CLIP, IMAGES, LMDB
from ernie_vil2.data.readers.entailment import NLVR2, SNLI_VE
from ernie_vil2.data.readers.files import FILES
from ernie_vil2.data.readers.layout import SPLITS, ImageFolders, Layout, Options, family
from ernie_vil2.data.readers.shard_files import LocalFile, Location, PreparedShards, at_most, find
from ernie_vil2.data.readers.source import THREADS, Shard, ShardedSource
from ernie_vil2.data.readers.tables import TABLE, TEXTS, find_tables, what_tables_lack
from ernie_vil2.data.readers.tar import TAR
from ernie_vil2.data.readers.tsv import TSV
from ernie_vil2.data.source_files import image_files
from ernie_vil2.io.terminal import print_once, shows_progress
from ernie_vil2.registry import Registry

if TYPE_CHECKING:
    from ernie_vil2.data.readers.splits import Part

# A folder that holds several of these is ambiguous.
BENCHMARKS = (
    COCO_CN, AIC_ICC, FLICKR30K, MSCOCO, FLICKR30K_CN, CHINESE_CLIP, SNLI_VE, NLVR2,
    FLICKR30K_CNA, COCO_CN_TRANSLATED, LONG_CAPTIONS_CN, XM3600,
)  # fmt: skip
# Of these the first counts that a folder holds: MSCOCO's own captions lie next to what others made of them, shards go
# before what they may be made of, and img2dataset leaves a table without images next to each of its folders.
OTHERS = (COCO_CAPTIONS, TAR, LMDB, TSV, FILES, TABLE, TEXTS)
LAYOUTS: Registry[Layout] = Registry.of("layout", [*BENCHMARKS, *OTHERS], ("find", "fits", "open", "read"))
MANY = 10_000  # shards that wait to be opened at once
HOLDING_OUT = "parts of it held out: -o 'Data.holdout={val: 0.15, test: 0.2}'"


def open_sources(
    patterns: Iterable[str],
    text_id: str | None = None,
    split: str | None = None,
    images: str | Path | None = None,
    default: str | None = "train",
    layout: str | None = None,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
) -> ShardedSource:
    """The samples of all files that the patterns name, in the order given, sorted within a pattern.

    A shard of `tools/prepare.py` is as long as the `index.json` next to it says, if it has the size in bytes that
    this names; one at an address is compared with size and checksum when it is fetched. Every other shard is scanned,
    once: what the scan found is kept in the cache folder if it took long.

    Args:
        patterns: as `shard_files.find` takes them: paths with braces and `*`, addresses, `pipe:` commands, lists; the
            folder of a benchmark, or its annotation file.
        text_id: JSON field of a tar sample that names its text; None: the caption itself is its name.
        split: of a benchmark or of tables; None: the default.
        images: folder of the image files; None: they are looked for with the data.
        default: the split that is meant where none is named; None: the one that is scored.
        layout: one of `LAYOUTS`; None: recognised from the files.
        columns: of tables, by their names here: `{"image": "图片"}`; the usual ones are understood without.
        encoding: of CSV files; None: recognised.

    Raises:
        FileNotFoundError: a pattern names no file, or no image file is there.
        ValueError: a file is of no layout that is known, or it is unreadable or empty; the split is not there.
        OSError: a file cannot be fetched.
    """
    found = [content(location, split, default, layout, columns) for location in _locations(patterns)]
    return _opened(found, images, text_id, columns, encoding)


def open_local(path: Path) -> ShardedSource:
    """The samples of one file or folder that lies here; unlike for `open_sources`, its name is only a name. Errors as
    of `open_sources`."""
    return _opened([content(LocalFile(path), default="train")])


def open_benchmark(path: str | Path | Sequence[str | Path], language: str | None = None, **options: Any) -> Benchmark:
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
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    part: Part | None = None,
) -> dict[str, Benchmark]:
    """What is scored by the language of its captions; the data are read once for all of them.

    Captions that name no language are under "". Languages whose texts are the same, as those of a published
    benchmark, are one entry under their joined names: nothing is scored twice.

    Args:
        path: as of `open_benchmark`.
        languages: None: those that the captions are in, of these the `preferred` ones if there are some.
        layout: one of `LAYOUTS`; None: recognised from the files.
        split: `test`, `val`, `train`, ...; None: test, or validation where test is not there or has no answers.
        images: folder of the image files, or of their published sub-folders; None: looked for with the data.
        text_id: as in `open_sources`.
        caption_lines: each line of a sample's caption is a text of its own, see `Views.caption_lines`.
        default: the split that comes before these where none is named.
        columns, encoding: as of `open_sources`.
        part: of the samples that is scored; None: all of them.

    Raises:
        FileNotFoundError: there is no such path, or none of the images is found.
        ValueError: the layout cannot be recognised, the split is not there, or no image or text could be used.
    """
    locations = _locations([path] if isinstance(path, str | Path) else path)
    found = [content(location, split, default, layout, columns) for location in locations]
    first = found[0]
    if (published := [one for one in found if one.layout.read]) and part is None:
        if len(found) > 1:
            raise ValueError(f"layout {published[0].layout.name} is that of one folder; {len(found)} paths were given")
        _note_unused(found, text_id, columns, encoding)
        benchmark = read_benchmark(first.layout, Path(first.shards[0].name), _options(first, images, text_id))
        return {", ".join(languages or ()): benchmark}
    path = Path(first.shards[0].name)
    name = f"{path.parent.name}-{first.split}" if first.split else path.stem
    source = _opened(found, images, text_id, columns, encoding)
    if part is not None:
        source, name = part.of(source), f"{name}-{part.name}"
    return _each_once(benchmarks_of(source, name, languages, preferred, text_id, caption_lines))


def _each_once(benchmarks: Mapping[str, Benchmark]) -> dict[str, Benchmark]:
    joined: dict[tuple[str, ...], list[str]] = {}
    for language, benchmark in benchmarks.items():
        joined.setdefault(tuple(text.text for text in benchmark.texts), []).append(language)
    return {", ".join(same): benchmarks[same[0]] for same in joined.values()}


def _locations(paths: Iterable[str | Path]) -> list[Location]:
    """A list of images that a benchmark has is not a list of paths."""
    locations = at_most(
        location
        for path in paths
        for location in ([LocalFile(path)] if annotates(Path(path), LAYOUTS.values()) else find(str(path)))
    )
    if not locations:
        raise ValueError("no data given: name tar shards, a benchmark or another source (docs/data.md)")
    return locations


def _opened(
    found: Sequence[Content],
    images: str | Path | None = None,
    text_id: str | None = None,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
) -> ShardedSource:
    _note_unused(found, text_id, columns, encoding)
    prepared, shards = PreparedShards(), []
    for one in found:
        options = _options(one, images, text_id)._replace(columns=columns, encoding=encoding)
        for shard in one.shards:
            location, samples = prepared(shard)
            shards.append((one.layout, location, options._replace(samples=samples)))
    quiet = not shows_progress()
    bar = tqdm(desc="shards", total=len(shards), unit="shard", delay=2, file=sys.stdout, disable=quiet)
    with ThreadPoolExecutor(THREADS) as threads, bar:
        opened = list[Shard]()
        # A task each would take more memory than the shards, which may be hundreds of thousands.
        for start in range(0, len(shards), MANY):
            for source in threads.map(open_shard, *zip(*shards[start : start + MANY], strict=True)):
                opened.append(source)
                bar.update()
    return ShardedSource(opened, [location for _, location, _ in shards])


def _note_unused(
    found: Sequence[Content], text_id: str | None, columns: Mapping[str, str] | None, encoding: str | None
) -> None:
    """Print a note on each option that nothing of these contents understands.

    A note, and not an error, as one option of a configuration is for all of its data.
    """
    # A layout of the user's own may understand anything.
    has_own_layout = any(content.layout.name not in LAYOUTS for content in found)
    tables = [content for content in found if content.layout.name in (TABLE.name, TEXTS.name)]
    is_csv = any(Path(shard.name).suffix.lower() in (".csv", ".tsv") for content in tables for shard in content.shards)
    names_texts = any(content.layout.open and content.layout.name != TSV.name for content in found)
    unused = {
        "--encoding (Data.encoding) is of CSV files, and there is none": encoding and not is_csv,
        "--columns (Data.columns) is of tables, and there is none": columns and not tables,
        "--text-id (Data.text_id) names a field, and texts have names of their own": text_id and not names_texts,
    }
    for option, is_unused in unused.items():
        if is_unused and not has_own_layout and shows_progress():
            print_once(f"{found[0].location.name} (layout {found[0].layout.name}): {option} here; it changes nothing")


def _options(found: Content, images: str | Path | None, text_id: str | None) -> Options:
    if images and found.layout.image_folders is None:
        raise ValueError(f"{found.location.name}: layout {found.layout.name} holds its images; leave out images")
    if images and not Path(images).is_dir():
        raise FileNotFoundError(f"{images}: no such folder of images")
    return Options(found.split, Path(found.location.name), Path(images) if images else None, text_id)


def read_benchmark(layout: Layout, annotations: Path, options: Options) -> Benchmark:
    """The split of a published benchmark. Annotations are read once, here; an image is read when it is asked for.

    Raises:
        FileNotFoundError: there is no such folder of images, or none of the images is found.
        ValueError: a file is malformed as a whole, or no image or text could be used.
    """
    if layout.read is None:
        raise ValueError(f"{layout.name}: a layout needs `open` or `read`")
    if layout.image_folders is None:
        return layout.read(annotations, options.split, ImageFolders([], []))
    folders = layout.images_of(annotations, options)
    benchmark = layout.read(annotations, options.split, folders)
    folders.require(benchmark.images)
    return benchmark


def open_shard(layout: Layout, location: Location, options: Options) -> Shard:
    """A shard of samples, or a benchmark as one; errors as of the layout's source and of `read_benchmark`."""
    if layout.open:
        return layout.open(location, options)
    return BenchmarkSource(read_benchmark(layout, Path(location.name), options), location.name)


class UnknownLayout(ValueError):  # noqa: N818  -- named by what has happened
    """A folder has none of the layouts."""


class Content(NamedTuple):
    """What is at a location: its layout, a split by its name there, and the files or folders of that split."""

    location: Location
    layout: Layout
    split: str
    shards: Sequence[Location]


def content(
    location: Location,
    split: str | None = None,
    default: str | None = None,
    layout: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Content:
    """What is at a location.

    Args:
        location: a folder, a file, an address or a command.
        split: by name; `val`, `valid`, `validation` and `dev` are one, and so are `train` and `train2014`.
        default: the split that is meant where none is named; where it is missing, the one that is scored. Only for
            `train` there is no other: nobody wants to train on test data unawares.
        layout: by name; None: recognised from the files.
        columns: of tables, by their names here.

    Raises:
        ValueError: the layout cannot be recognised, or the split is not there.
    """
    known = [LAYOUTS.find(layout)] if layout else [one for one in LAYOUTS.values() if not one.by_name_only]
    if columns:
        known = [replace(one, find=partial(find_tables, columns=columns)) if one is TABLE else one for one in known]
    path, local = Path(location.name), isinstance(location, LocalFile)
    if local and path.is_dir():
        found, splits = _in_folder(path, known)
    elif local and (annotated := annotates(path, known)):
        found, splits = annotated
    else:
        fitting = next(
            (one for one in known if one.fits and location.name.endswith(one.endings) and one.fits(location)), None
        )
        if fitting is None:
            where = "" if local else "; only .tar and .tsv are read at an address"
            if path.suffix.lower() in (".xls", ".et"):
                raise ValueError(
                    f"{location.name}: an older workbook, which is not read; save it as .xlsx or CSV UTF-8"
                )
            raise ValueError(f"{location.name}: no layout that is known; {_names(known)}{where}")
        found, splits = fitting, {"": [path]}
    chosen = _choose(f"{location.name} (layout {found.name})", path, splits, split, default)
    return Content(location, found, chosen, [LocalFile(one) for one in splits[chosen]] if local else [location])


def annotates(path: Path, known: Iterable[Layout]) -> tuple[Layout, Mapping[str, Sequence[Path]]] | None:
    """The benchmark that has a file for its annotations, with the splits in it; None: it is not such a file."""
    if path.suffix in (".json", ".jsonl", ".txt") or path.name.endswith(IMAGES):
        for layout in known:
            if not layout.read and layout not in BENCHMARKS:
                continue
            with suppress(ValueError):
                if own := {split: paths for split, paths in layout.find(path.parent).items() if path in paths}:
                    return layout, own
    return None


def _in_folder(folder: Path, known: Sequence[Layout]) -> tuple[Layout, Mapping[str, Sequence[Path]]]:
    fitting, problems = dict[Layout, Mapping[str, Sequence[Path]]](), list[ValueError]()
    for layout in known:
        if fitting and layout not in BENCHMARKS and (layout is not TAR or _is_inside(fitting, folder)):
            continue
        try:
            splits = layout.find(folder)
        except ValueError as problem:
            problems.append(problem)
            continue
        if splits:
            fitting[layout] = splits
    if len(fitting) > 1:
        names = ", ".join(layout.name for layout in fitting)
        raise ValueError(f"{folder}: files of several layouts are here ({names}); name one as the layout, or its file")
    if fitting:
        return next(iter(fitting.items()))
    if problems:
        raise problems[0]
    here = sorted(entry.name for entry in folder.iterdir())
    shown = f"{', '.join(here[:10]) or 'no files'}{', ...' * (len(here) > 10)}"
    lacking = what_tables_lack(folder)[:3]
    if not image_files(folder):
        what = "no images in this folder, and no layout that is known"
    elif lacking:
        what = "no layout that is known"
    else:
        what = "images without texts: put a table with the columns image and text next to them (train.csv), "
        what += "or next to each a .txt of its name"
    about = [f"{folder}: {what}", f"here are {shown}", *lacking]
    raise UnknownLayout("; ".join([*about, _names(known)]))


def _is_inside(fitting: Mapping[Layout, Mapping[str, Sequence[Path]]], folder: Path) -> bool:
    """Whether a benchmark lies in the folder itself, and not only in one of its sub-folders."""
    return any(path.parent == folder for splits in fitting.values() for paths in splits.values() for path in paths)


def _names(known: Sequence[Layout]) -> str:
    if len(known) == 1:
        return f"{known[0].name} is recognised by {known[0].files}"
    return f"known are {', '.join(layout.name for layout in known)} (docs/data.md, docs/benchmarks.md)"


def _choose(
    location: str, path: Path, splits: Mapping[str, Sequence[Path]], split: str | None, default: str | None
) -> str:
    names = ", ".join(splits)
    if split is None:
        own = [name for name, paths in splits.items() if path in paths]  # the path is that of one split
        if len(own or splits) == 1 and (own or family(names) not in SPLITS):
            return next(iter(own or splits))
        named = default is not None and (default == "train" or default in map(family, splits))
        split = default if default and named else family(next(iter(splits)))
        if split not in SPLITS:
            raise ValueError(f"{location} holds several tables ({names}); name one as the split")
    elif list(splits) == [""]:
        raise ValueError(f"{location} has no splits; leave out split, or train with {HOLDING_OUT}")
    matching = [name for name in splits if name == split] or [name for name in splits if family(name) == family(split)]
    if len(matching) == 1:
        return matching[0]
    found = "several splits" if matching else "no split"
    instead = "" if matching else f", or train with {HOLDING_OUT}"
    raise ValueError(f"{location} has {found} {split}; choose a split of {names}, or name its file{instead}")
