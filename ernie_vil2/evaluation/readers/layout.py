"""What is known about one publisher's way to lay out a benchmark on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ernie_vil2.evaluation.benchmark import Benchmark
from ernie_vil2.evaluation.readers.images import ImageFolders

# In the order in which a benchmark's split is chosen when none is named.
SPLITS = ("test", "valid", "val", "train")


@dataclass(frozen=True)
class Layout:
    """A layout by name.

    `files` says by which files it is told. `find` gives the annotation file of every split in a folder, the
    preferred split first, or nothing if the folder has another layout. `read` makes one of them a benchmark.
    `image_folders` are the published names of the folders with image files; None: the annotations hold the images.
    """

    name: str
    files: str
    find: Callable[[Path], Mapping[str, Path]]
    read: Callable[[Path, str, ImageFolders], Benchmark]
    image_folders: tuple[str, ...] | None = ()


def find_file(folder: Path, name: str) -> Path | None:
    """The file of this name in a folder or, if it is not there, in one of its sub-folders.

    Raises:
        ValueError: several sub-folders have one.
    """
    found = [folder / name] if (folder / name).is_file() else sorted(folder.glob(f"*/{name}"))
    if len(found) > 1:
        raise ValueError(f"{folder}: {name} is there more than once ({', '.join(map(str, found))}); give one's folder")
    return found[0] if found else None


def in_order(splits: Mapping[str, Path]) -> dict[str, Path]:
    """The splits in the order of `SPLITS`, others behind them by name."""
    places = {split: place for place, split in enumerate(SPLITS)}
    return dict(sorted(splits.items(), key=lambda item: (places.get(item[0], len(SPLITS)), item[0])))
