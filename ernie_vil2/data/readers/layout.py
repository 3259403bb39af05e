"""What is known about one way to lay data out on disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from pathlib import Path

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage
from ernie_vil2.data.readers.locations import Location
from ernie_vil2.data.readers.source import Shard
from ernie_vil2.data.samples import BadSample
from ernie_vil2.data.source_files import check_inside, found_image
from ernie_vil2.data.spec import DataSpec

# In the order in which the split that is scored is chosen when none is named.
SPLITS = ("test", "val", "train")
_SPELLING = re.compile(r"(test|train|val)(id|idation)?\d*|(dev)")


class Precedence(IntEnum):
    """Which layout a folder has that holds the files of several: the one of the lowest precedence."""

    BENCHMARK = 0
    """A published benchmark; a folder that holds several of these is ambiguous."""
    CAPTIONS = 1
    """MSCOCO's own captions, which lie next to what others made of them."""
    SHARDS = 2
    """Shards, which lie next to what they were made of."""
    DATABASE = 3
    ROWS = 4
    FILES = 5
    """Images with a text of their name. img2dataset leaves a table without images next to each folder of these."""
    TABLE = 6
    OWN = 7
    """A layout of the user's own that does not say otherwise."""


@dataclass(frozen=True)
class Layout:
    """A layout by name. One that is published as a benchmark has `read`, one of samples has `open`.

    Attributes:
        name: by which a command line names it.
        files: by which files it is recognised, for a person.
        find: the files or folders of every split that a folder holds, the split that is scored first; under "" what
            has no splits. Nothing if the folder has another layout.
        fits: whether a single file, an address or a command is a shard of it; None: none is.
        endings: of the names of those that may be, of which alone `fits` is asked.
        open: opens a shard; its data have one path, what the user named, and the split by its name there.
        read: makes a benchmark of a split's annotation file.
        image_folders: published names of the folders with image files; None: the files of the layout hold the images.
        by_name_only: whether it is not recognised from the files, but has to be named.
        precedence: decides where a folder holds files of several layouts.
    """

    name: str
    files: str
    find: Callable[[Path], Mapping[str, Sequence[Path]]]
    fits: Callable[[Location], bool] | None = None
    endings: tuple[str, ...] = ("",)
    open: Callable[[Location, DataSpec], Shard] | None = None
    read: Callable[[Path, str, ImageFolders], Benchmark] | None = None
    image_folders: tuple[str, ...] | None = None
    by_name_only: bool = False
    precedence: Precedence = Precedence.OWN

    @property
    def is_benchmark(self) -> bool:
        """Whether it is one of the benchmarks of which a folder holds one."""
        return self.precedence == Precedence.BENCHMARK

    def images_of(self, annotations: Path, data: DataSpec) -> ImageFolders:
        """Return the folders in which the image files of an annotation file are looked for."""
        published_names = self.image_folders or ()
        if data.image_folder:
            return ImageFolders([data.image_folder], published_names)
        nearby = [Path(data.paths[0]), *annotations.parents[:2]]
        return ImageFolders([folder for folder in dict.fromkeys(nearby) if folder.is_dir()], published_names)


def family(split: str) -> str:
    """`test`, `val` or `train` for all spellings of these (`valid`, `dev`, `train2014`); another split as it is."""
    found = _SPELLING.fullmatch(split)
    return split if not found else "val" if found[3] else found[1]


def find_file(folder: Path, name: str, counts: Callable[[Path], bool] = lambda path: True) -> Path | None:
    """The file of this name that `counts` in a folder or, if it is not there, in one of its sub-folders. ValueError if
    several of these have one."""
    here = folder / name
    found = [here] if here.is_file() and counts(here) else sorted(filter(counts, folder.glob(f"*/{name}")))
    if len(found) > 1:
        raise ValueError(f"{folder}: {name} is there more than once ({', '.join(map(str, found))}); give one's folder")
    return found[0] if found else None


def found_files(folder: Path, names: Mapping[str, str]) -> dict[str, list[Path]]:
    """Of the splits by the name of their file those whose file is there, as `find_file` finds it."""
    found = {split: find_file(folder, name) for split, name in names.items()}
    return {split: [path] for split, path in found.items() if path}


def in_order(splits: Mapping[str, Path]) -> dict[str, list[Path]]:
    """The one file of every split, in the order of `SPLITS`, others behind them by name."""
    positions = {split: position for position, split in enumerate(SPLITS)}
    order = sorted(splits, key=lambda split: (positions.get(family(split), len(SPLITS)), split))
    return {split: [splits[split]] for split in order}


class ImageFolders:
    """The folders in which image files are looked for, one after the other, when they are read.

    Args:
        roots: folders that hold the published ones, or the image files themselves.
        published: names of the sub-folders as the authors publish them; they may be in `images/` too.
    """

    def __init__(self, roots: Sequence[Path], published: Sequence[str]):
        self.roots = tuple(roots)
        self.published = tuple(published)
        homes = [home for root in roots for home in (root, root / "images")]
        below = [home / name for home in homes for name in published]
        self._folders = tuple(folder for folder in (*below, *homes) if folder.is_dir())

    def image(self, image_id: str, *names: str, fields: Mapping[str, object] | None = None) -> BenchmarkImage:
        """The image in the file of the first of the names that is there, read when it is asked for. BadSample if a name
        leads out of the folders."""
        for name in names:
            check_inside(name)
        find = partial(found_image, self._folders, *names)
        return BenchmarkImage(image_id, lambda: find()[1], fields or {}, find)

    def require(self, images: Sequence[BenchmarkImage]) -> None:
        """Raises FileNotFoundError when not one of the first hundred images is found: the folder is another one."""
        if any(_is_readable(image) for image in images[:100]):
            return
        looked_in = ", ".join(f"{root}/{name}" for root in self.roots for name in (*self.published, ""))
        raise FileNotFoundError(
            f"no image file was found, for example of {images[0].id}; looked in {looked_in}; "
            "say in which folder the images are (images, --images)"
        )


def _is_readable(image: BenchmarkImage) -> bool:
    try:
        return bool(image.read())
    except (OSError, BadSample):
        return False
