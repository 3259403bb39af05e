"""What is at a location, by the registry of layouts, and opens it: as samples to train on or as benchmarks to score.

Whatever can be one can be the other. docs/data.md and docs/benchmarks.md show each layout on disk.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from ernie_vil2.data.benchmark import Benchmark, BenchmarkSource, benchmarks_of
from ernie_vil2.data.readers.chinese_clip import IMAGES
from ernie_vil2.data.readers.layout import SPLITS, ImageFolders, Layout, Precedence, family
from ernie_vil2.data.readers.locations import LocalFile, Location, PreparedShards, at_most, find
from ernie_vil2.data.readers.source import THREADS, Shard, ShardedSource
from ernie_vil2.data.readers.splits import held_out
from ernie_vil2.data.readers.tables import TABLE, find_tables, what_tables_lack
from ernie_vil2.data.readers.webdataset import TAR
from ernie_vil2.data.source_files import image_files
from ernie_vil2.data.spec import TRAIN, DataLike, DataSpec
from ernie_vil2.io.terminal import print_once, shows_progress
from ernie_vil2.registry import Registry

LAYOUTS: Registry[Layout] = Registry(
    "layout",
    {
        "coco-cn": "ernie_vil2.data.readers.caption_benchmarks:COCO_CN",
        "aic-icc": "ernie_vil2.data.readers.caption_benchmarks:AIC_ICC",
        "flickr30k": "ernie_vil2.data.readers.caption_benchmarks:FLICKR30K",
        "mscoco": "ernie_vil2.data.readers.caption_benchmarks:MSCOCO",
        "flickr30k-cn": "ernie_vil2.data.readers.caption_benchmarks:FLICKR30K_CN",
        "chinese-clip": "ernie_vil2.data.readers.chinese_clip:CHINESE_CLIP",
        "snli-ve": "ernie_vil2.data.readers.entailment:SNLI_VE",
        "nlvr2": "ernie_vil2.data.readers.entailment:NLVR2",
        "flickr30k-cna": "ernie_vil2.data.readers.caption_benchmarks:FLICKR30K_CNA",
        "coco-cn-translated": "ernie_vil2.data.readers.caption_benchmarks:COCO_CN_TRANSLATED",
        "long-captions-cn": "ernie_vil2.data.readers.caption_benchmarks:LONG_CAPTIONS_CN",
        "xm3600": "ernie_vil2.data.readers.caption_benchmarks:XM3600",
        "coco-captions": "ernie_vil2.data.readers.caption_benchmarks:COCO_CAPTIONS",
        "tar": "ernie_vil2.data.readers.webdataset:TAR",
        "lmdb": "ernie_vil2.data.readers.chinese_clip:LMDB",
        "tsv": "ernie_vil2.data.readers.tsv:TSV",
        "files": "ernie_vil2.data.readers.webdataset:FILES",
        "table": "ernie_vil2.data.readers.tables:TABLE",
        "texts": "ernie_vil2.data.readers.tables:TEXTS",
    },
    ("find", "fits", "open", "read"),
)
MANY = 10_000  # shards that wait to be opened at once
HOLDING_OUT = "parts of it held out: -o 'Data.holdout={val: 0.15, test: 0.2}'"


def open_sources(data: DataLike, **fields: Any) -> ShardedSource:
    """Open the samples of all files that the paths name, in the order given, sorted within a pattern.

    A shard of `tools/prepare.py` is as long as the `index.json` next to it says, if it has the size in bytes that
    this names; one at an address is compared with size and checksum when it is fetched. Every other shard is scanned,
    once: what the scan found is kept in the cache folder if it took long.

    Args:
        data: a spec, or one path or several.
        fields: of `DataSpec`. With paths the split that is meant where none is named is train.

    Raises:
        FileNotFoundError: a pattern names no file, or no image file is there.
        ValueError: a file is of no layout that is known, or it is unreadable or empty; the split is not there.
        OSError: a file cannot be fetched.
    """
    if not isinstance(data, DataSpec):
        fields = {"default_split": TRAIN, **fields}
    spec = DataSpec.of(data, **fields)
    return _open_contents([recognise(location, spec) for location in _find_locations(spec.paths)])


def open_local(path: Path) -> ShardedSource:
    """Open the samples of one file or folder that lies here; unlike for `open_sources`, its name is only a name.

    Errors are those of `open_sources`.
    """
    return _open_contents([recognise(LocalFile(path), DataSpec([str(path)], default_split=TRAIN))])


def open_benchmark(data: DataLike, language: str | None = None, **fields: Any) -> Benchmark:
    """Open the images and texts that are scored: a published benchmark, or whatever can be trained on.

    Args:
        data: as for `open_benchmarks`.
        language: of the captions; None: the only one that they are in.
        fields: of `DataSpec`.

    Raises:
        ValueError: there are captions in several languages; and as `open_benchmarks`.
        FileNotFoundError: as `open_benchmarks`.
    """
    spec = DataSpec.of(data, **fields)
    if language is not None:
        spec = replace(spec, languages=[language])
    benchmarks = open_benchmarks(spec)
    if len(benchmarks) > 1:
        where = ", ".join(spec.paths)
        raise ValueError(f"{where}: there are captions in {' and '.join(benchmarks)}; name one language")
    return next(iter(benchmarks.values()))


def open_benchmarks(data: DataLike, **fields: Any) -> dict[str, Benchmark]:
    """Open what is scored, by the language of its captions; the data are read once for all of them.

    Captions that name no language are under `unnamed_language`. Languages whose texts are the same, as those of a
    published benchmark, are one entry under their joined names: nothing is scored twice.

    Args:
        data: a spec, or one path or several.
        fields: of `DataSpec`. Where no split is named, it is test, or validation where test is not there or has no
            answers.

    Raises:
        FileNotFoundError: there is no such path, or none of the images is found.
        ValueError: the layout cannot be recognised, the split is not there, or no image or text could be used.
    """
    spec = DataSpec.of(data, **fields)
    contents = [recognise(location, spec) for location in _find_locations(spec.paths)]
    first = contents[0]
    published = [content.layout.name for content in contents if content.layout.read]
    path = Path(first.shards[0].name)
    if published and spec.holdout is None:
        if len(contents) > 1:
            raise ValueError(f"layout {published[0]} is that of one folder; {len(contents)} paths were given")
        _note_unused(contents)
        _check_images(first)
        benchmarks = {", ".join(spec.languages or ()): read_benchmark(first.layout, path, first.data)}
    else:
        split = first.data.split
        name = f"{path.parent.name}-{split}" if split else path.stem
        source = _open_contents(contents)
        if spec.holdout is not None:
            source, name = held_out(spec.holdout, spec.part).of(source), f"{name}-{spec.part}"
        benchmarks = _each_once(benchmarks_of(source, name, spec))
    return {language or spec.unnamed_language: benchmark for language, benchmark in benchmarks.items()}


def _each_once(benchmarks: Mapping[str, Benchmark]) -> dict[str, Benchmark]:
    joined: dict[tuple[str, ...], list[str]] = {}
    for language, benchmark in benchmarks.items():
        joined.setdefault(tuple(text.text for text in benchmark.texts), []).append(language)
    return {", ".join(same): benchmarks[same[0]] for same in joined.values()}


def _find_locations(paths: Iterable[str]) -> list[Location]:
    locations = at_most(_each_location(paths))
    if not locations:
        raise ValueError("no data given: name tar shards, a benchmark or another source (docs/data.md)")
    return locations


def _each_location(paths: Iterable[str]) -> Iterator[Location]:
    layouts = LAYOUTS.parts()
    for path in paths:
        # A list of images that a benchmark has is not a list of paths.
        if annotates(Path(path), layouts):
            yield LocalFile(path)
        else:
            yield from find(path)


def _open_contents(contents: Sequence[Content]) -> ShardedSource:
    _note_unused(contents)
    add_index = PreparedShards()
    shards: list[tuple[Layout, Location, DataSpec]] = []
    for content in contents:
        _check_images(content)
        shards.extend((content.layout, add_index(shard), content.data) for shard in content.shards)
    quiet = not shows_progress()
    bar = tqdm(desc="shards", total=len(shards), unit="shard", delay=2, file=sys.stdout, disable=quiet)
    with ThreadPoolExecutor(THREADS) as threads, bar:
        sources: list[Shard] = []
        # A task each would take more memory than the shards, which may be hundreds of thousands.
        for start in range(0, len(shards), MANY):
            for source in threads.map(open_shard, *zip(*shards[start : start + MANY], strict=True)):
                sources.append(source)
                bar.update()
    return ShardedSource(sources, [location for _, location, _ in shards])


def _note_unused(contents: Sequence[Content]) -> None:
    """Print a note on each option that nothing of these contents understands.

    A note, and not an error, as one option of a configuration is for all of its data.
    """
    data = contents[0].data
    # A layout of the user's own may understand anything.
    has_own_layout = any(content.layout.name not in LAYOUTS for content in contents)
    tables = [content for content in contents if content.layout.precedence == Precedence.TABLE]
    is_csv = any(Path(shard.name).suffix.lower() in (".csv", ".tsv") for content in tables for shard in content.shards)
    names_texts = any(content.layout.open and content.layout.precedence != Precedence.ROWS for content in contents)
    unused = {
        "--encoding (Data.encoding) is of CSV files, and there is none": data.encoding and not is_csv,
        "--columns (Data.columns) is of tables, and there is none": data.columns and not tables,
        "--text-id (Data.text_id) names a field, and texts have names of their own": data.text_id and not names_texts,
    }
    for option, is_unused in unused.items():
        if is_unused and not has_own_layout and shows_progress():
            print_once(f"{data.paths[0]} (layout {contents[0].layout.name}): {option} here; it changes nothing")


def _check_images(content: Content) -> None:
    folder, name = content.data.image_folder, content.data.paths[0]
    if folder and content.layout.image_folders is None:
        raise ValueError(f"{name}: layout {content.layout.name} holds its images; leave out images")
    if folder and not folder.is_dir():
        raise FileNotFoundError(f"{content.data.images}: no such folder of images")


def read_benchmark(layout: Layout, annotations: Path, data: DataSpec) -> Benchmark:
    """Read the split of a published benchmark: the annotations here, once; an image when it is asked for.

    Raises:
        FileNotFoundError: there is no such folder of images, or none of the images is found.
        ValueError: a file is malformed as a whole, or no image or text could be used.
    """
    if layout.read is None:
        raise ValueError(f"{layout.name}: a layout needs `open` or `read`")
    if layout.image_folders is None:
        return layout.read(annotations, data.split or "", ImageFolders([], []))
    folders = layout.images_of(annotations, data)
    benchmark = layout.read(annotations, data.split or "", folders)
    folders.require(benchmark.images)
    return benchmark


def open_shard(layout: Layout, location: Location, data: DataSpec) -> Shard:
    """Open a shard of samples, or a benchmark as one; errors are those of the source and of `read_benchmark`."""
    if layout.open:
        return layout.open(location, data)
    return BenchmarkSource(read_benchmark(layout, Path(location.name), data), location.name)


class UnknownLayout(ValueError):  # noqa: N818  -- named by what has happened
    """A folder has none of the layouts."""


class Content(NamedTuple):
    """The files of one location.

    data: as they were asked for, of this location alone, with the split by its name there.
    layout: how they are read.
    shards: files or folders of the split.
    """

    data: DataSpec
    layout: Layout
    shards: Sequence[Location]


def recognise(location: Location, data: DataSpec) -> Content:
    """Find the layout and the split of a location.

    Args:
        location: a folder, a file, an address or a command.
        data: names the layout and the split, or leaves them open. `val`, `valid`, `validation` and `dev` are one
            split, and so are `train` and `train2014`. Where the default split is missing, it is the one that is
            scored; only for `train` there is no other: nobody wants to train on test data unawares.

    Raises:
        ValueError: the layout cannot be recognised, or the split is not there.
    """
    layouts = [LAYOUTS.find(data.layout)] if data.layout else _recognisable_layouts()
    if data.columns:
        find_in_folder = partial(find_tables, columns=data.columns)
        layouts = [replace(layout, find=find_in_folder) if layout is TABLE else layout for layout in layouts]
    path, is_local = Path(location.name), isinstance(location, LocalFile)
    if is_local and path.is_dir():
        layout, splits = _in_folder(path, layouts)
    elif is_local and (annotated := annotates(path, layouts)):
        layout, splits = annotated
    else:
        layout, splits = _of_file(location, layouts), {"": [path]}
    split = _choose(f"{location.name} (layout {layout.name})", path, splits, data.split, data.default_split)
    shards = [LocalFile(shard) for shard in splits[split]] if is_local else [location]
    return Content(replace(data, paths=[location.name], split=split), layout, shards)


def _recognisable_layouts() -> list[Layout]:
    layouts = [layout for layout in LAYOUTS.parts() if not layout.by_name_only]
    return sorted(layouts, key=lambda layout: layout.precedence)


def _of_file(location: Location, layouts: Sequence[Layout]) -> Layout:
    """Return the layout of a single file, an address or a command."""
    for layout in layouts:
        if layout.fits and location.name.endswith(layout.endings) and layout.fits(location):
            return layout
    if Path(location.name).suffix.lower() in (".xls", ".et"):
        raise ValueError(f"{location.name}: an older workbook, which is not read; save it as .xlsx or CSV UTF-8")
    where = "" if isinstance(location, LocalFile) else "; only .tar and .tsv are read at an address"
    raise ValueError(f"{location.name}: no layout that is known; {_names(layouts)}{where}")


def annotates(path: Path, known: Iterable[Layout]) -> tuple[Layout, Mapping[str, Sequence[Path]]] | None:
    """The benchmark that has a file for its annotations, with the splits in it; None: it is not such a file."""
    if path.suffix in (".json", ".jsonl", ".txt") or path.name.endswith(IMAGES):
        for layout in known:
            if not layout.read and not layout.is_benchmark:
                continue
            with suppress(ValueError):
                if own := {split: paths for split, paths in layout.find(path.parent).items() if path in paths}:
                    return layout, own
    return None


def _in_folder(folder: Path, known: Sequence[Layout]) -> tuple[Layout, Mapping[str, Sequence[Path]]]:
    fitting, problems = dict[Layout, Mapping[str, Sequence[Path]]](), list[ValueError]()
    for layout in known:
        # Shards of a benchmark that lies in a sub-folder are as likely to be meant.
        may_be_meant = layout.is_benchmark or (layout is TAR and not _is_inside(fitting, folder))
        if fitting and not may_be_meant:
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
