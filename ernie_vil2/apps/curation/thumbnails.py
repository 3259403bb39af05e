"""Thumbnails of many images on the disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ernie_vil2.apps.curation import likeness
from ernie_vil2.apps.curation.joins import Joins
from ernie_vil2.apps.curation.local_features import FEATURE, MAX_FEATURES
from ernie_vil2.apps.curation.neighbours import allocate
from ernie_vil2.apps.curation.registration import SIDE


class Thumbnails(NamedTuple):
    """N thumbnails of images, one or two of each, in memory or in files that are mapped.

    samples: `[N]` int64, what each is of.
    thumbnails: `[N, likeness.BYTES]` uint8.
    shapes, extents: `[N]` float32, as of `likeness.Thumbnail`.
    features: `[N, MAX_FEATURES]` of the type `FEATURE`.
    num_features: `[N]` uint8, of each thumbnail.
    """

    samples: np.ndarray
    thumbnails: np.ndarray
    shapes: np.ndarray
    extents: np.ndarray
    features: np.ndarray
    num_features: np.ndarray

    @property
    def luminances(self) -> np.ndarray:
        """Luminances, `[N, 64, 64]` uint8."""
        return self.thumbnails[:, : SIDE * SIDE].reshape(-1, SIDE, SIDE)

    def write(self, start: int, samples: np.ndarray, thumbnails: Iterable[likeness.Thumbnail]) -> None:
        """Write thumbnails and the samples that they are of into the rows from `start` on."""
        for row, (sample, thumbnail) in enumerate(zip(samples, thumbnails, strict=True), start):
            self.samples[row] = sample
            self.thumbnails[row] = np.frombuffer(thumbnail.content, np.uint8)
            self.shapes[row], self.extents[row] = thumbnail.shape, thumbnail.extent
            features = np.frombuffer(thumbnail.features, FEATURE)
            self.features[row, : len(features)] = features
            self.num_features[row] = len(features)

    def compute_digests(self) -> np.ndarray:
        """Return numbers that are equal for equal thumbnails, `[N]` uint64."""
        digests = np.empty(len(self.samples), np.uint64)
        for row in range(len(digests)):
            digest = blake2b(self.thumbnails[row].data, digest_size=8)
            digest.update(self.shapes[row : row + 1].tobytes() + self.extents[row : row + 1].tobytes())
            digests[row] = int.from_bytes(digest.digest(), "little")
        return digests


def allocate_thumbnails(count: int, folder: Path | None) -> Thumbnails:
    """Return room for so many thumbnails, in files without names in a folder, or in memory."""
    columns: list[tuple[type | np.dtype, tuple[int, ...]]] = [
        (np.int64, ()),
        (np.uint8, (likeness.BYTES,)),
        (np.float32, ()),
        (np.float32, ()),
        (FEATURE, (MAX_FEATURES,)),
        (np.uint8, ()),
    ]
    return Thumbnails(*(allocate(folder, kind, (count, *shape)) for kind, shape in columns))


def pack_thumbnails(thumbnails_by_image: Sequence[Sequence[likeness.Thumbnail]]) -> Thumbnails:
    """Return the thumbnails of images in memory; an image's sample is its number."""
    thumbnails = [thumbnail for thumbnails in thumbnails_by_image for thumbnail in thumbnails]
    packed = allocate_thumbnails(len(thumbnails), None)
    counts = [len(thumbnails) for thumbnails in thumbnails_by_image]
    packed.write(0, np.repeat(np.arange(len(counts)), counts), thumbnails)
    return packed


def read_thumbnails(joins: Joins) -> Thumbnails:
    """Return the thumbnails of all readable pairs, in the folder of the joins.

    Those of removed pairs are among them, so that what is known of pairs of images does not depend on thresholds.
    """
    count = joins.fetch_all("select coalesce(sum(len(thumbnail)), 0)::bigint from readable")[0][0]
    images = allocate_thumbnails(count, joins.folder)
    listed = ", ".join(f"unnest({column}) as {column}" for column in likeness.COLUMNS)
    first = 0
    for batch in joins.read_batches(f"select sample, {listed} from readable order by sample"):  # noqa: S608  -- no text of the data is in it
        columns = [batch[column].to_pylist() for column in likeness.COLUMNS]
        images.write(first, batch["sample"].to_numpy(), map(likeness.Thumbnail, *columns))
        first += len(batch)
    return images


def find_alive(joins: Joins, images: Thumbnails) -> np.ndarray:
    """Return which thumbnails are of pairs that no step has removed so far, `[N]` bool."""
    samples = joins.database.execute("select sample from alive").fetchnumpy()["sample"]
    return np.isin(images.samples, samples)
