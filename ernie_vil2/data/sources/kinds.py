"""Which kind of source lies at a place."""

from __future__ import annotations

from pathlib import Path

from ernie_vil2.data.sources.chinese_clip import IMAGES, TEXTS, ChineseClipSource
from ernie_vil2.data.sources.chinese_clip_lmdb import ChineseClipLmdb
from ernie_vil2.data.sources.files import FilesSource, holds_samples
from ernie_vil2.data.sources.locations import LocalFile, Location, PipeOutput
from ernie_vil2.data.sources.source import Shard
from ernie_vil2.data.sources.table import TableSource
from ernie_vil2.data.sources.tables import TABLES
from ernie_vil2.data.sources.tar import TarSource
from ernie_vil2.data.sources.tsv import TsvSource

KINDS = (
    "known are .tar shards, official .tsv files, Chinese-CLIP's {split}_imgs.tsv or lmdb/{split}, "
    ".jsonl, .csv or .parquet tables beside their images, and folders of these"
)
LMDB = ("pairs", "imgs")


def open_shard(place: Location, text_id: str | None, samples: int | None = None) -> Shard:
    """The source at a place, told by its name.

    Args:
        place, text_id, samples: as in `TarSource`; `samples` is of tar shards.

    Raises:
        ValueError: it is of no kind that is known, or not what its name says.
        OSError: it cannot be read or fetched.
    """
    name, local = place.name, isinstance(place, LocalFile)
    if isinstance(place, PipeOutput) or name.endswith((".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        return TarSource(place, text_id, samples)
    if name.endswith(tuple(TEXTS)):
        raise ValueError(f"{name}: name the images, {{split}}{IMAGES}; the texts beside it are read with it")
    if local and name.endswith(IMAGES):
        return ChineseClipSource(name, text_id)
    if name.endswith(".tsv") and not name.endswith(IMAGES):
        return TsvSource(place)
    if local and Path(name).suffix in TABLES:
        return TableSource(name, text_id)
    if local and Path(name).is_dir():
        return ChineseClipLmdb(name, text_id) if _is_lmdb(Path(name)) else FilesSource(name, text_id)
    where = "" if local else ", and of these only .tar and .tsv at an address"
    raise ValueError(f"{name}: no kind of source that is known; {KINDS}{where}")


def shards_at(place: Location) -> list[Location]:
    """The shards of a folder, by name; of anything else the place itself.

    Raises:
        ValueError: there is none in the folder, or it is not clear which one is meant.
    """
    folder = Path(place.name)
    if not isinstance(place, LocalFile) or not folder.is_dir() or _is_lmdb(folder):
        return [place]
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    shards = [entry for entry in entries if entry.suffix == ".tar"]
    if shards:
        return _local(shards)
    images = [entry for entry in entries if entry.name.endswith(IMAGES)]
    databases = [entry for entry in entries if _is_lmdb(entry)]
    if images or databases:
        return _local([_only(images or databases, folder)])
    shards = [entry for entry in entries if entry.suffix == ".tsv"]
    if shards:
        return _local(shards)
    folders = [entry for entry in [folder, *entries] if entry.is_dir() and holds_samples(entry)]
    if folders:  # before the tables: img2dataset leaves a .parquet without images beside each of its folders
        return _local(folders)
    tables = [entry for entry in entries if entry.suffix in TABLES]
    if tables and all(table.suffix == ".parquet" for table in tables):
        return _local(tables)
    if tables:
        return _local([_only(tables, folder)])
    raise ValueError(f"{folder}: no source in this folder; {KINDS}")


def _is_lmdb(folder: Path) -> bool:
    return all((folder / part).is_dir() for part in LMDB)


def _only(found: list[Path], folder: Path) -> Path:
    if len(found) > 1:
        raise ValueError(f"{folder} holds several sources; name one: {', '.join(map(str, found[:10]))}")
    return found[0]


def _local(paths: list[Path]) -> list[Location]:
    return [LocalFile(path) for path in paths]
