"""A layout: one way in which data lie on disk, how it is recognised and how it is read."""

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
from ernie_vil2.data.source_files import check_inside, read_first_image
from ernie_vil2.data.spec import DataSpec

# If no split is named, the first of these that exists is scored.
SPLITS = ("test", "val", "train")
# `train2014`, `valid`, `validation`, `test1`, `dev`, ...
_SPLIT_SPELLING = re.compile(r"(test|train|val)(id|idation)?\d*|(dev)")
# Images that are tried before a folder of images is rejected: some may be missing or broken without the folder being
# the wrong one, and reading all of them would take too long.
MAX_IMAGES_TRIED = 100


class Precedence(IntEnum):
    """Order in which layouts are tried: a folder with files of several layouts has the one of lowest precedence."""

    BENCHMARK = 0
    """A published benchmark. A folder that holds several benchmarks is ambiguous."""
    CAPTIONS = 1
    """MSCOCO's original captions, which lie next to benchmarks that were derived from them."""
    SHARDS = 2
    """Shards, which lie next to the files that they were made from."""
    DATABASE = 3
    """LMDB databases of Chinese-CLIP."""
    TSV = 4
    """TSV files of the official release."""
    FILES = 5
    """Images, each with a text file of the same name. img2dataset writes folders of these, and next to each folder a
    table without images."""
    TABLE = 6
    USER = 7
    """Default for layouts that users add."""


@dataclass(frozen=True)
class Layout:
    """One way in which data lie on disk. A published benchmark defines `read`, a layout of samples defines `open`.

    Attributes:
        name: name on the command line.
        file_description: the files that identify the layout, in words for error messages.
        find: returns the files or folders of each split in a folder, the preferred split for scoring first. Data
            without splits are under ""; the mapping is empty if the folder has another layout.
        accepts: returns whether a single file, an address or a command is a shard of this layout; None: nothing is.
        suffixes: `accepts` is only called for names that end with one of these.
        open: opens a shard. Its DataSpec has one path, the one that the user named, and the split's name on disk.
        read: makes a benchmark from the annotation file of a split.
        image_folders: names that the publisher gave the folders of image files; None: the files hold the images.
        is_detectable: False if the layout is used only when the user names it.
        precedence: decides which layout a folder has that holds files of several.
    """

    name: str
    file_description: str
    find: Callable[[Path], Mapping[str, Sequence[Path]]]
    accepts: Callable[[Location], bool] | None = None
    suffixes: tuple[str, ...] = ("",)
    open: Callable[[Location, DataSpec], Shard] | None = None
    read: Callable[[Path, str, ImageFolders], Benchmark] | None = None
    image_folders: tuple[str, ...] | None = None
    is_detectable: bool = True
    precedence: Precedence = Precedence.USER

    @property
    def is_benchmark(self) -> bool:
        """Whether this is a published benchmark of the first precedence: a folder should hold only one of these."""
        return self.precedence == Precedence.BENCHMARK

    def find_image_folders(self, annotations: Path, data: DataSpec) -> ImageFolders:
        """Return the folders in which the images of an annotation file are searched."""
        published_names = self.image_folders or ()
        if data.image_folder:
            return ImageFolders([data.image_folder], published_names)
        # Annotations lie next to the folders of images, or in a folder next to them.
        nearby = dict.fromkeys([Path(data.paths[0]), *annotations.parents[:2]])
        return ImageFolders([folder for folder in nearby if folder.is_dir()], published_names)


def canonical_split(split: str) -> str:
    """Return `test`, `val` or `train` for any spelling (`valid`, `dev`, `train2014`); other names stay as they are."""
    spelling = _SPLIT_SPELLING.fullmatch(split)
    if spelling is None:
        return split
    return "val" if spelling[3] else spelling[1]


def find_file(folder: Path, name: str, predicate: Callable[[Path], bool] = lambda path: True) -> Path | None:
    """Return the file of this name in a folder or else in one of its sub-folders; None if there is none.

    Args:
        folder: folder to search; sub-folders are searched only if the file is not in the folder itself.
        name: name of the file.
        predicate: files for which it returns False are ignored.

    Raises:
        ValueError: several sub-folders have such a file.
    """
    path = folder / name
    if path.is_file() and predicate(path):
        return path
    paths = sorted(filter(predicate, folder.glob(f"*/{name}")))
    if len(paths) > 1:
        raise ValueError(f"{folder}: {name} exists more than once ({', '.join(map(str, paths))}); name one folder")
    return paths[0] if paths else None


def find_split_files(folder: Path, names: Mapping[str, str]) -> dict[str, list[Path]]:
    """Return the annotation file of each split for which `find_file` finds one.

    Args:
        folder: folder to search.
        names: file name of each split.
    """
    files = {}
    for split, name in names.items():
        path = find_file(folder, name)
        if path:
            files[split] = [path]
    return files


def order_splits(splits: Mapping[str, Path]) -> dict[str, list[Path]]:
    """Return the file of each split as a list of one, in the order of `SPLITS`; then other splits by name."""

    def sort_key(split: str) -> tuple[int, str]:
        name = canonical_split(split)
        return SPLITS.index(name) if name in SPLITS else len(SPLITS), split

    return {split: [splits[split]] for split in sorted(splits, key=sort_key)}


class ImageFolders:
    """Folders in which image files are searched, in order, at the moment when an image is read.

    Args:
        roots: folders that hold the published folders, or the image files themselves.
        subfolders: names of the published folders; each may lie in a root or in `images/` of a root.
    """

    def __init__(self, roots: Sequence[Path], subfolders: Sequence[str]):
        self.roots = tuple(roots)
        self.subfolders = tuple(subfolders)
        parents: list[Path] = []
        for root in roots:
            parents += [root, root / "images"]
        # Published folders are more specific than their parents and therefore come first.
        candidates: list[Path] = []
        for parent in parents:
            for name in subfolders:
                candidates.append(parent / name)
        self._folders = tuple(folder for folder in (*candidates, *parents) if folder.is_dir())

    def get_image(self, image_id: str, *names: str, fields: Mapping[str, object] | None = None) -> BenchmarkImage:
        """Return an image whose file is searched only when the image is read.

        Args:
            image_id: id of the image in the benchmark.
            *names: possible names of its file; the first one that exists is read.
            fields: further values that the annotations have for the image.

        Raises:
            BadSample: a name leads out of the folders.
        """
        for name in names:
            check_inside(name)
        find = partial(read_first_image, self._folders, *names)
        return BenchmarkImage(image_id, lambda: find()[1], fields or {}, find)

    def check_images(self, images: Sequence[BenchmarkImage]) -> None:
        """Raise FileNotFoundError if none of the first images can be read: the folder must be the wrong one.

        Nothing is known without images, as if the first rows of a file are all malformed.
        """
        if not images or any(_is_readable(image) for image in images[:MAX_IMAGES_TRIED]):
            return
        folders: list[str] = []
        for root in self.roots:
            for name in (*self.subfolders, ""):
                folders.append(f"{root}/{name}")
        raise FileNotFoundError(
            f"no image file was found, for example of {images[0].id}; looked in {', '.join(folders)}; "
            "say in which folder the images are (images, --images)"
        )


def _is_readable(image: BenchmarkImage) -> bool:
    try:
        return bool(image.read())
    except (OSError, BadSample):
        return False
