"""Open data of any layout, as samples to train on or as benchmarks to score.

`recognise` determines the layout and the split of the files at a location. Each layout can be opened both ways: the
pairs of a benchmark are samples, and samples make a benchmark. docs/data.md and docs/benchmarks.md show the layouts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ernie_vil2.data.benchmark import Benchmark, BenchmarkSource, make_benchmarks
from ernie_vil2.data.readers.chinese_clip import IMAGES_SUFFIX
from ernie_vil2.data.readers.layout import SPLITS, ImageFolders, Layout, Precedence, canonical_split
from ernie_vil2.data.readers.locations import LocalFile, Location, ShardIndexes, check_num_locations, find_locations
from ernie_vil2.data.readers.remote import RemoteFile, remove_query
from ernie_vil2.data.readers.source import NUM_THREADS, Shard, ShardedSource
from ernie_vil2.data.readers.splits import make_holdout_part
from ernie_vil2.data.readers.tables import TABLE, describe_missing_columns, find_tables
from ernie_vil2.data.readers.tsv import TSV, find_tsv_files, is_tsv
from ernie_vil2.data.readers.webdataset import TAR
from ernie_vil2.data.source_files import list_image_files
from ernie_vil2.data.spec import TRAIN, DataLike, DataSpec
from ernie_vil2.io.progress import progress_bar
from ernie_vil2.io.terminal import print_once, should_show_progress
from ernie_vil2.registry import Registry

# Messages list the layouts in this order. Which one a folder has is decided by `Layout.precedence`.
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
    # Attributes that a layout of the user's must have, too.
    ("find", "accepts", "open", "read"),
)
# Shards that wait for a thread at the same time. A data set may have hundreds of thousands of shards, and queueing all
# of them at once would take more memory than the shards themselves.
MAX_QUEUED_SHARDS = 10_000
HOLDOUT_HINT = "a part of it held out: -o 'Data.holdout={val: 0.15, test: 0.2}'"

Splits = Mapping[str, Sequence[Path]]  # files or folders of each split
Searches = dict[tuple[str, Path], Splits]  # what a layout, by its name, finds in a folder


@dataclass(frozen=True)
class DataFiles:
    """The files at one location, and how they are read.

    Attributes:
        data: the user's spec, reduced to this location and with the name that the split has on disk.
        layout: layout of the files.
        shards: files or folders of the split.
    """

    data: DataSpec
    layout: Layout
    shards: Sequence[Location]


class UnknownLayout(ValueError):  # noqa: N818  -- named by what has happened
    """A folder has none of the layouts."""


def open_sources(data: DataLike, **fields: Any) -> ShardedSource:
    """Open all samples in the files that the paths name.

    Shards are in the order of the paths; the files that match one pattern are sorted by name.

    The number of samples in a shard of `tools/prepare.py` is taken from the `index.json` next to it, provided that the
    shard has the size in bytes that is given there. Size and checksum of a remote shard are verified when it is
    fetched. Any other shard is scanned once. The result of a scan that takes long is kept in the cache folder.

    Args:
        data: a spec, a path or several paths.
        fields: fields of `DataSpec`. Given paths, the default split is train.

    Raises:
        FileNotFoundError: a pattern matches no file, or no image file exists.
        ValueError: a file has no known layout, is unreadable or empty, or the split does not exist.
        OSError: a file cannot be fetched.
    """
    if not isinstance(data, DataSpec):
        fields = {"default_split": TRAIN, **fields}
    spec = DataSpec.from_data(data, **fields)
    return _open_all(_find_files(spec))


def open_local(path: Path) -> ShardedSource:
    """Open the samples of one local file or folder, whose name may contain braces or `*`; raise as `open_sources`."""
    return _open_all([recognise(LocalFile(path), DataSpec([str(path)], default_split=TRAIN))])


def open_benchmark(data: DataLike, language: str | None = None, **fields: Any) -> Benchmark:
    """Open images and texts to score: a published benchmark, or any data that can be trained on.

    Args:
        data: as for `open_benchmarks`.
        language: language of the captions; None: the only language that the data have.
        fields: fields of `DataSpec`.

    Raises:
        ValueError: there are captions in several languages; otherwise as `open_benchmarks`.
        FileNotFoundError: as `open_benchmarks`.
    """
    spec = DataSpec.from_data(data, **fields)
    if language is not None:
        spec = replace(spec, languages=[language])
    benchmarks = open_benchmarks(spec)
    if len(benchmarks) > 1:
        where = ", ".join(spec.paths)
        raise ValueError(f"{where}: there are captions in {' and '.join(benchmarks)}; name one language")
    return next(iter(benchmarks.values()))


def open_benchmarks(data: DataLike, **fields: Any) -> dict[str, Benchmark]:
    """Open images and texts to score in each language of the captions, reading the data once.

    Languages with the same texts share one entry under their joined names, so that nothing is scored twice.

    Args:
        data: a spec, a path or several paths.
        fields: fields of `DataSpec`. The default split is test, or validation if test is missing or has no answers.

    Returns:
        Benchmarks by language. Captions without a language are under `DataSpec.unnamed_language`.

    Raises:
        FileNotFoundError: a path does not exist, or no image file was found.
        ValueError: the layout cannot be recognised, the split does not exist, or no image or text could be used.
    """
    spec = DataSpec.from_data(data, **fields)
    all_files = _find_files(spec)
    first = all_files[0]
    path = Path(first.shards[0].name)
    # A layout with `read` has images, texts and pairs of its own; the others have samples.
    benchmark_layouts = [files.layout.name for files in all_files if files.layout.read]

    # A holdout divides samples. For it, the pairs of a published benchmark are read as samples, like any other data.
    if benchmark_layouts and spec.holdout is None:
        if len(all_files) > 1:
            raise ValueError(f"layout {benchmark_layouts[0]} is that of one folder; {len(all_files)} paths were given")
        _note_unused_options(all_files)
        _check_image_folder(first)
        # A published benchmark has one set of texts for all languages, so it makes a single entry.
        benchmarks = {", ".join(spec.languages or ()): read_benchmark(first.layout, path, first.data)}
    else:
        split = first.data.split
        name = f"{path.parent.name}-{split}" if split else path.stem
        source = _open_all(all_files)
        if spec.holdout is not None:
            source = make_holdout_part(spec.holdout, spec.holdout_part).select(source)
            name = f"{name}-{spec.holdout_part}"
        benchmarks = _join_equal_languages(make_benchmarks(source, name, spec))
    return {language or spec.unnamed_language: benchmark for language, benchmark in benchmarks.items()}


def _join_equal_languages(benchmarks: Mapping[str, Benchmark]) -> dict[str, Benchmark]:
    languages_by_texts: dict[tuple[str, ...], list[str]] = {}
    for language, benchmark in benchmarks.items():
        texts = tuple(text.text for text in benchmark.texts)
        languages_by_texts.setdefault(texts, []).append(language)
    return {", ".join(languages): benchmarks[languages[0]] for languages in languages_by_texts.values()}


def _find_files(data: DataSpec) -> list[DataFiles]:
    """Find the locations that the paths and patterns name, and recognise the files there."""
    layouts = LAYOUTS.load_all()
    searches: Searches = {}  # a folder of thousands of tables is searched once, rather than for each of them
    locations: list[Location] = []
    for path in data.paths:
        # Some benchmarks have annotations in .txt files, which `find_locations` would take for lists of paths.
        if _find_annotated_benchmark(Path(path), layouts, searches):
            locations.append(LocalFile(path))
        else:
            locations.extend(find_locations(path))
        check_num_locations(locations)
    if not locations:
        raise ValueError("no data given: name tar shards, a benchmark or another source (docs/data.md)")
    return [recognise(location, data, searches) for location in locations]


def _open_all(all_files: Sequence[DataFiles]) -> ShardedSource:
    """Open the shards of all locations as one source."""
    _note_unused_options(all_files)
    indexes = ShardIndexes()
    locations: list[Location] = []
    arguments: list[tuple[Layout, Location, DataSpec]] = []  # of `open_shard`
    for files in all_files:
        _check_image_folder(files)
        for shard in files.shards:
            location = indexes.look_up(shard)  # with the number of samples if an `index.json` has it
            locations.append(location)
            arguments.append((files.layout, location, files.data))

    opened_shards: list[Shard] = []
    bar = progress_bar(
        description="shards", unit="shard", total=len(arguments), delay=2, is_shown=should_show_progress()
    )
    with ThreadPoolExecutor(NUM_THREADS) as threads, bar:
        for start in range(0, len(arguments), MAX_QUEUED_SHARDS):
            queue = arguments[start : start + MAX_QUEUED_SHARDS]
            for opened_shard in threads.map(lambda shard_arguments: open_shard(*shard_arguments), queue):
                opened_shards.append(opened_shard)
                bar.update()
    return ShardedSource(opened_shards, locations)


def _note_unused_options(all_files: Sequence[DataFiles]) -> None:
    """Print a note on each option that has no effect on these files.

    This is no error, because a configuration has one such option for all of its data.
    """
    if not should_show_progress():
        return  # only the main process prints notes
    if any(files.layout.name not in LAYOUTS for files in all_files):
        return  # a layout that is not in the registry is the user's, and may use any option

    data = all_files[0].data
    has_tables = has_csv = uses_text_id = False
    for files in all_files:
        layout = files.layout
        if layout.precedence == Precedence.TABLE:
            has_tables = True
            has_csv |= any(Path(shard.name).suffix.lower() in (".csv", ".tsv") for shard in files.shards)
        # A layout that only has `read` brings its own text ids, and the official TSV has no fields.
        uses_text_id |= layout.open is not None and layout.precedence != Precedence.TSV

    notes: list[str] = []
    if data.encoding and not has_csv:
        notes.append("--encoding (Data.encoding) applies to CSV files, and there are none")
    if data.columns and not has_tables:
        notes.append("--columns (Data.columns) applies to tables, and there are none")
    if data.text_id and not uses_text_id:
        notes.append("--text-id (Data.text_id) names a field, and the texts have names already")
    for note in notes:
        print_once(f"{data.paths[0]} (layout {all_files[0].layout.name}): {note} here; it changes nothing")


def _check_image_folder(files: DataFiles) -> None:
    """Raise if the user names a folder of images that does not exist, or that the layout does not use."""
    folder, name = files.data.image_folder, files.data.paths[0]
    if folder and files.layout.image_folders is None:
        raise ValueError(f"{name}: layout {files.layout.name} holds its images; leave out images")
    if folder and not folder.is_dir():
        raise FileNotFoundError(f"{files.data.images}: no such folder of images")


def read_benchmark(layout: Layout, annotations: Path, data: DataSpec) -> Benchmark:
    """Read the annotations of a split of a published benchmark; each image is read when it is needed.

    Raises:
        FileNotFoundError: the folder of images does not exist, or no image file was found.
        ValueError: a file is malformed as a whole, or no image or text could be used.
    """
    if layout.read is None:
        raise ValueError(f"{layout.name}: a layout needs `open` or `read`")
    if layout.image_folders is None:
        return layout.read(annotations, data.split or "", ImageFolders([], []))
    folders = layout.find_image_folders(annotations, data)
    benchmark = layout.read(annotations, data.split or "", folders)
    folders.check_images(benchmark.images)
    return benchmark


def open_shard(layout: Layout, location: Location, data: DataSpec) -> Shard:
    """Open a shard of samples, or a published benchmark as one shard; raise as the layout or `read_benchmark` does."""
    if layout.open:
        return layout.open(location, data)
    return BenchmarkSource(read_benchmark(layout, Path(location.name), data), location.name)


def recognise(location: Location, data: DataSpec, searches: Searches | None = None) -> DataFiles:
    """Determine the layout and the split of the files at a location.

    Args:
        location: a folder, a file, an address or a command.
        data: may name the layout and the split. Spellings do not matter: `val`, `valid`, `validation` and `dev` are one
            split, and so are `train` and `train2014`. If the default split does not exist, the preferred split for
            scoring is taken. The default "train" has no such substitute, so that nobody trains on test data unawares.
        searches: searches for benchmarks that other locations have needed; those of this one are added.

    Raises:
        ValueError: the layout cannot be recognised, or the split does not exist.
    """
    if data.layout:
        layouts = [LAYOUTS.find(data.layout)]
    else:
        layouts = [layout for layout in LAYOUTS.load_all() if layout.is_detectable]
        layouts.sort(key=lambda layout: layout.precedence)
    layouts = [_apply_columns(layout, data) for layout in layouts]

    path = Path(location.name)
    searches = {} if searches is None else searches
    is_local = isinstance(location, LocalFile)
    if is_local and path.is_dir():
        layout, splits = _recognise_folder(path, layouts, data.encoding)
    elif is_local and (annotated_benchmark := _find_annotated_benchmark(path, layouts, searches)):
        layout, splits = annotated_benchmark
    else:
        layout, splits = _recognise_file(location, layouts), {"": [path]}

    description = f"{location.name} (layout {layout.name})"
    split = _choose_split(description, path, splits, data.split, data.default_split)
    shards: list[Location] = [location]
    if is_local:
        shards = [LocalFile(shard) for shard in splits[split]]
    return DataFiles(replace(data, paths=[location.name], split=split), layout, shards)


def _apply_columns(layout: Layout, data: DataSpec) -> Layout:
    """Return a layout that recognises tables by the columns that the user names, in the encoding that the user names.

    The official TSV files are those that are no such tables.
    """
    if layout is TABLE:
        return replace(layout, find=partial(find_tables, columns=data.columns, encoding=data.encoding))
    if layout is TSV:
        return replace(
            layout,
            find=partial(find_tsv_files, columns=data.columns, encoding=data.encoding),
            accepts=lambda location: is_tsv(location.name, data.columns, data.encoding),
        )
    return layout


def _recognise_file(location: Location, layouts: Sequence[Layout]) -> Layout:
    """Return the layout of a single file, an address or a command."""
    candidates: list[Location] = [location]
    # The query of an address, such as a signature or `?download=1`, need not end with the name of a file.
    if isinstance(location, RemoteFile):
        candidates.append(RemoteFile(remove_query(location.name)))
    for candidate in candidates:
        for layout in layouts:
            if layout.accepts and candidate.name.endswith(layout.suffixes) and layout.accepts(candidate):
                return layout
    if Path(location.name).suffix.lower() in (".xls", ".et"):
        raise ValueError(f"{location.name}: an old workbook format, which is not read; save it as .xlsx or CSV UTF-8")
    remark = "" if isinstance(location, LocalFile) else "; only .tar and .tsv are read at an address"
    raise ValueError(f"{candidates[-1].name}: no known layout; {_describe_layouts(layouts)}{remark}")


def _find_annotated_benchmark(
    path: Path, layouts: Iterable[Layout], searches: Searches
) -> tuple[Layout, Splits] | None:
    """Return the benchmark whose annotations a file holds, and the splits in the file; None if it holds none."""
    if path.suffix not in (".json", ".jsonl", ".txt") and not path.name.endswith(IMAGES_SUFFIX):
        return None
    for layout in layouts:
        # Only benchmarks have annotation files. Some of them, such as XM3600, are opened as samples and have no `read`.
        if not layout.read and not layout.is_benchmark:
            continue
        search = layout.name, path.parent
        if search not in searches:
            searches[search] = {}
            # An ambiguous folder is no reason to reject the file: the user may have named it to be clear. OSError: a
            # file next to it may not be read, or this is a command, which may be too long for the name of a folder.
            with suppress(ValueError, OSError):
                searches[search] = layout.find(path.parent)
        splits = {split: paths for split, paths in searches[search].items() if path in paths}
        if splits:
            return layout, splits
    return None


def _recognise_folder(folder: Path, layouts: Sequence[Layout], encoding: str | None) -> tuple[Layout, Splits]:
    """Return the layout of the files in a folder, and its splits; raise ValueError if there are several or none."""
    splits_by_layout: dict[Layout, Splits] = {}
    errors: list[ValueError | OSError] = []
    for layout in layouts:
        # After the first layout that fits, others are considered only if the user may well mean them: a second
        # benchmark, or tar shards directly in the folder if the first layout has files in sub-folders only.
        may_be_meant = layout.is_benchmark or (layout is TAR and not _has_files_in(folder, splits_by_layout))
        if splits_by_layout and not may_be_meant:
            continue
        try:
            splits = layout.find(folder)
        except (ValueError, OSError) as error:  # OSError: a file that another layout needs may not be read
            errors.append(error)
            continue
        if splits:
            splits_by_layout[layout] = splits

    if len(splits_by_layout) == 1:
        return next(iter(splits_by_layout.items()))
    if splits_by_layout:
        names = ", ".join(layout.name for layout in splits_by_layout)
        raise ValueError(f"{folder}: files of several layouts are here ({names}); name one as the layout, or its file")
    if errors:
        raise errors[0]
    raise UnknownLayout(_describe_unknown_folder(folder, layouts, encoding))


def _has_files_in(folder: Path, splits_by_layout: Mapping[Layout, Splits]) -> bool:
    """Return whether a layout has files in the folder itself, and not only in its sub-folders."""
    for splits in splits_by_layout.values():
        for paths in splits.values():
            if any(path.parent == folder for path in paths):
                return True
    return False


def _describe_unknown_folder(folder: Path, layouts: Sequence[Layout], encoding: str | None) -> str:
    """Return a message that says what a folder without a known layout holds, and what would make it readable."""
    table_problems = describe_missing_columns(folder, encoding)[:3]
    if not list_image_files(folder):
        problem = "no images in this folder, and no known layout"
    elif table_problems:
        problem = "no known layout"
    else:
        problem = (
            "images without texts: put a table with the columns image and text next to them (train.csv), "
            "or next to each a .txt of its name"
        )
    names = sorted(entry.name for entry in folder.iterdir())
    listing = ", ".join(names[:10]) or "no files"
    if len(names) > 10:
        listing += ", ..."
    return "; ".join([f"{folder}: {problem}", f"here are {listing}", *table_problems, _describe_layouts(layouts)])


def _describe_layouts(layouts: Sequence[Layout]) -> str:
    if len(layouts) == 1:
        return f"{layouts[0].name} is recognised by {layouts[0].file_description}"
    return f"known layouts: {', '.join(layout.name for layout in layouts)} (docs/data.md, docs/benchmarks.md)"


def _choose_split(location: str, path: Path, splits: Splits, split: str | None, default: str | None) -> str:
    """Return the name on disk of the split that is meant.

    Args:
        location: description of the location, for errors.
        path: path that the user named; it may be the file of one split.
        splits: files of each split, the preferred one for scoring first.
        split: split that the user named; None: choose one.
        default: as `DataSpec.default_split`.
    """
    names = ", ".join(splits)
    if split is None:
        splits_of_path = [name for name, paths in splits.items() if path in paths]
        if len(splits_of_path) == 1:
            return splits_of_path[0]
        first = next(iter(splits))
        # Tables are splits that are called by their file names. A single table is taken whatever its name; but a single
        # split that is called "test" must not be taken for training.
        if len(splits) == 1 and canonical_split(first) not in SPLITS:
            return first
        # A default split that does not exist is replaced by the preferred one for scoring, except for "train".
        if default and (default == TRAIN or default in map(canonical_split, splits)):
            split = default
        else:
            split = canonical_split(first)
        if split not in SPLITS:  # only tables have such names, and a single table was returned above
            raise ValueError(f"{location} holds several tables ({names}); name one as the split")
    elif list(splits) == [""]:
        raise ValueError(f"{location} has no splits; leave out split, or train with {HOLDOUT_HINT}")

    # The exact name goes first: a folder may have train2014 and train2017.
    if split in splits:
        return split
    matches = [name for name in splits if canonical_split(name) == canonical_split(split)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ValueError(f"{location} has several splits {split}; choose a split of {names}, or name its file")
    raise ValueError(
        f"{location} has no split {split}; choose a split of {names}, or name its file, or train with {HOLDOUT_HINT}"
    )
