"""Where the image files of a benchmark lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from ernie_vil2.data.image_files import check_inside, read_image
from ernie_vil2.data.samples import BadSample
from ernie_vil2.evaluation.benchmark import BenchmarkImage


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
