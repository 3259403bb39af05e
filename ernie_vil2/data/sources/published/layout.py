"""What is known about one publisher's way to lay out a benchmark on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage
from ernie_vil2.data.image_files import check_inside, read_image
from ernie_vil2.data.samples import BadSample

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


class ImageFolders:
    """The folders in which image files are looked for, one after the other, when they are read.

    Args:
        roots: folders that hold the published ones, or the image files themselves.
        published: names of the sub-folders as the authors publish them; they may stand in `images/` too.
    """

    def __init__(self, roots: Sequence[Path], published: Sequence[str]):
        self.roots = tuple(roots)
        self.published = tuple(published)
        homes = [home for root in roots for home in (root, root / "images")]
        below = [home / name for home in homes for name in published]
        self._folders = tuple(folder for folder in (*below, *homes) if folder.is_dir())

    def image(self, image_id: str, name: str, fields: Mapping[str, object] | None = None) -> BenchmarkImage:
        """The image in the file `name`, read when it is asked for.

        Raises:
            BadSample: the name leads out of the folders.
        """
        check_inside(name)
        return BenchmarkImage(image_id, partial(read_image, self._folders, name), fields or {})

    def require(self, images: Sequence[BenchmarkImage]) -> None:
        """Raises FileNotFoundError when not one of the first hundred images is found: the folder is another one."""
        if any(_is_readable(image) for image in images[:100]):
            return
        places = ", ".join(f"{root}/{name}" for root in self.roots for name in (*self.published, ""))
        raise FileNotFoundError(
            f"no image file was found, for example of {images[0].id}; looked in {places}; "
            "say in which folder the images are (images, --images)"
        )


def _is_readable(image: BenchmarkImage) -> bool:
    try:
        return bool(image.read())
    except (OSError, BadSample):
        return False
