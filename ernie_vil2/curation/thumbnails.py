"""Thumbnails of many images on the disk, and the pairs of them that show the same."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ernie_vil2.curation import likeness
from ernie_vil2.curation.joins import Joins
from ernie_vil2.curation.neighbours import neighbours


class Thumbnails(NamedTuple):
    """N of images, one or two of each, in files that are mapped.

    samples: `[N]` int64, what each is of.
    thumbnails: `[N, likeness.BYTES]` uint8.
    vectors: `[N, likeness.WIDTH]` float16.
    shapes, extents: `[N]` float32, as of `likeness.Thumbnail`.
    """

    samples: np.ndarray
    thumbnails: np.ndarray
    vectors: np.ndarray
    shapes: np.ndarray
    extents: np.ndarray


class Alike(NamedTuple):
    """Pairs of thumbnails of images that show the same: rows, and how alike they are; `[P]` each."""

    queries: np.ndarray
    rows: np.ndarray
    likeness: np.ndarray


def alive_thumbnails(joins: Joins, name: str) -> Thumbnails:
    """Those of the pairs that are alive, in files of this name in the folder of the joins."""
    count = joins.all("select coalesce(sum(len(thumbnail)), 0)::bigint from alive")[0][0]
    kinds = {
        "samples": (np.int64, ()),
        "thumbnails": (np.uint8, (likeness.BYTES,)),
        "vectors": (np.float16, (likeness.WIDTH,)),
        "shapes": (np.float32, ()),
        "extents": (np.float32, ()),
    }
    made = Thumbnails(
        **{
            part: np.lib.format.open_memmap(joins.folder / f"{name}-{part}.npy", "w+", kind, (count, *shape))
            for part, (kind, shape) in kinds.items()
        }
    )
    listed = ", ".join(f"unnest({column}) as {column}" for column in likeness.COLUMNS)
    query = f"select sample, {listed} from alive order by sample"
    first = 0
    for batch in joins.rows(query):
        rows = slice(first, first + len(batch))
        made.samples[rows] = batch["sample"].to_numpy()
        values = np.frombuffer(b"".join(batch["thumbnail"].to_pylist()), np.uint8).reshape(len(batch), -1)
        made.thumbnails[rows], made.vectors[rows] = values, likeness.vectors(values)
        made.shapes[rows], made.extents[rows] = batch["shape"].to_numpy(), batch["extent"].to_numpy()
        first += len(batch)
    return made


def remove_files(folder: Path, name: str) -> None:
    """Removes what `alive_thumbnails` has written."""
    for part in Thumbnails._fields:
        (folder / f"{name}-{part}.npy").unlink(missing_ok=True)


def alike(
    found: Thumbnails,
    folder: Path,
    candidates: float,
    least: float,
    queries: Thumbnails | None = None,
    crops: bool = True,
    mirror: bool = False,
) -> Iterator[Alike]:
    """Pairs that show the same, each once or several times.

    Args:
        folder: where the vectors are that are asked for.
        candidates: least cosine of two vectors.
        least: likeness from which two images show the same.
        queries: others to compare with; None: the images themselves.
        crops: as of `likeness.likeness`.
        mirror: compares with the mirrored queries.
    """
    asked = found if queries is None else queries
    if not len(asked.samples) or not len(found.samples):
        return
    count = likeness.WINDOWS if crops else 1
    for near in neighbours(found.vectors, candidates, _asking(asked.thumbnails, folder, crops, mirror)):
        one, other = np.unique(np.stack([near.queries // count, near.rows]), axis=1)
        shapes = np.stack([asked.shapes[one], found.shapes[other]])
        close = likeness.comparable(shapes, np.stack([asked.extents[one], found.extents[other]]))
        if queries is None:
            close &= asked.samples[one] != found.samples[other]
        one, other = one[close], other[close]
        first, stretch = asked.thumbnails[one], np.log(shapes[1] / shapes[0])[close]
        first = likeness.mirrored(first) if mirror else first
        value = likeness.likeness(first, found.thumbnails[other], stretch, crops)
        same = value >= least
        if same.any():
            yield Alike(one[same], other[same], value[same])


def _asking(thumbnails: np.ndarray, folder: Path, crops: bool, mirror: bool) -> np.ndarray:
    """The vectors of images, or of each all of its windows, one after another, in a file that has no name."""
    shape = len(thumbnails), likeness.WINDOWS if crops else 1, likeness.WIDTH
    with tempfile.TemporaryFile(dir=folder) as file:
        made = np.memmap(file, np.float16, "w+", shape=shape)
    for start in range(0, len(thumbnails), likeness.BLOCK):
        block = thumbnails[start : start + likeness.BLOCK]
        block = likeness.mirrored(block) if mirror else block
        made[start : start + len(block)] = likeness.windows(block) if crops else likeness.vectors(block)[:, None]
    return made.reshape(-1, likeness.WIDTH)
