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
    boxes: `[N, 4]` float32, of each thumbnail in its image.
    detail_bounds: `[N, 2]` int64, where the JPEG of the image is in `details`.
    details: bytes of all JPEGs, uint8.
    """

    samples: np.ndarray
    thumbnails: np.ndarray
    shapes: np.ndarray
    extents: np.ndarray
    features: np.ndarray
    num_features: np.ndarray
    boxes: np.ndarray
    detail_bounds: np.ndarray
    details: np.ndarray

    @property
    def luminances(self) -> np.ndarray:
        """Luminances, `[N, 64, 64]` uint8."""
        return self.thumbnails[:, : SIDE * SIDE].reshape(-1, SIDE, SIDE)

    def write(self, start: int, samples: np.ndarray, thumbnails: Iterable[likeness.Thumbnail]) -> None:
        """Write thumbnails and the samples that they are of into the rows from `start` on, in ascending order."""
        for row, (sample, thumbnail) in enumerate(zip(samples, thumbnails, strict=True), start):
            self.samples[row] = sample
            self.thumbnails[row] = np.frombuffer(thumbnail.content, np.uint8)
            self.shapes[row], self.extents[row] = thumbnail.shape, thumbnail.extent
            features = np.frombuffer(thumbnail.features, FEATURE)
            self.features[row, : len(features)] = features
            self.num_features[row] = len(features)
            self.boxes[row] = np.frombuffer(thumbnail.box, np.float32)
            first_byte, end = self.detail_bounds[row - 1] if row else (0, 0)
            if thumbnail.detail:  # else it is the second thumbnail of the image in the row before
                first_byte, end = end, end + len(thumbnail.detail)
                self.details[first_byte:end] = np.frombuffer(thumbnail.detail, np.uint8)
            self.detail_bounds[row] = first_byte, end

    def read_detail(self, row: int) -> np.ndarray:
        """Return the JPEG of the image that a thumbnail is of, `[bytes]` uint8."""
        first_byte, end = self.detail_bounds[row].tolist()
        return self.details[first_byte:end]

    def compute_digests(self) -> np.ndarray:
        """Return numbers that are equal for equal thumbnails of equal details, `[N]` uint64."""
        digests = np.empty(len(self.samples), np.uint64)
        for row in range(len(digests)):
            digest = blake2b(self.thumbnails[row].data, digest_size=8)
            digest.update(self.shapes[row : row + 1].tobytes() + self.boxes[row].tobytes())
            digest.update(np.ascontiguousarray(self.read_detail(row)).data)
            digests[row] = int.from_bytes(digest.digest(), "little")
        return digests


def allocate_thumbnails(count: int, num_bytes: int, folder: Path | None) -> Thumbnails:
    """Return room for thumbnails and the bytes of their details, in files without names in a folder, or in memory."""
    columns: list[tuple[type | np.dtype, tuple[int, ...]]] = [
        (np.int64, ()),
        (np.uint8, (likeness.BYTES,)),
        (np.float32, ()),
        (np.float32, ()),
        (FEATURE, (MAX_FEATURES,)),
        (np.uint8, ()),
        (np.float32, (4,)),
        (np.int64, (2,)),
    ]
    arrays = [allocate(folder, kind, (count, *shape)) for kind, shape in columns]
    arrays.append(allocate(folder, np.uint8, (num_bytes,)))
    return Thumbnails(*arrays)


def pack_thumbnails(thumbnails_by_image: Sequence[Sequence[likeness.Thumbnail]]) -> Thumbnails:
    """Return the thumbnails of images in memory; an image's sample is its number."""
    thumbnails = [thumbnail for thumbnails in thumbnails_by_image for thumbnail in thumbnails]
    packed = allocate_thumbnails(len(thumbnails), sum(len(thumbnail.detail) for thumbnail in thumbnails), None)
    counts = [len(thumbnails) for thumbnails in thumbnails_by_image]
    packed.write(0, np.repeat(np.arange(len(counts)), counts), thumbnails)
    return packed


def read_thumbnails(joins: Joins) -> Thumbnails:
    """Return the thumbnails of all readable pairs, in the folder of the joins.

    Those of removed pairs are among them, so that what is known of pairs of images does not depend on thresholds.
    """
    num_bytes = "list_sum(list_transform(detail, lambda content: octet_length(content)))"
    sums = f"coalesce(sum(len(thumbnail)), 0)::bigint, coalesce(sum({num_bytes}), 0)::bigint"
    count, total = joins.fetch_all(f"select {sums} from readable")[0]  # noqa: S608  -- no text of the data is in it
    images = allocate_thumbnails(count, total, joins.folder)
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
