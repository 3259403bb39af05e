"""Thumbnails of many images, as columns in memory or in mapped files."""

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
from ernie_vil2.apps.curation.registration import COLOUR_SIDE, SIDE

MAX_THUMBNAILS = 3  # of an image: with and without its last border, and of the picture that it shows
BATCH = 1024  # pairs read from the measures at once; each has some 15 KB


class Thumbnails(NamedTuple):
    """Columns of N thumbnails of images, one to three of each image, in successive rows.

    samples: number of the sample whose image it is, `[N]` int64, ascending.
    thumbnails: pixels, `[N, likeness.BYTES]` uint8.
    shapes, extents: as in `likeness.Thumbnail`, `[N]` float32.
    features: the first `num_features` of each row, `[N, MAX_FEATURES]` of the type `FEATURE`.
    num_features: number of features, `[N]` uint8.
    boxes: box of the thumbnail in its image, `[N, 4]` float32.
    detail_bounds: start and end of the image's JPEG in `details`, `[N, 2]` int64.
    details: bytes of the JPEGs of all images, uint8.
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

    @property
    def colours(self) -> np.ndarray:
        """Colours, `[N, 16, 16, 3]` uint8."""
        return self.thumbnails[:, SIDE * SIDE :].reshape(-1, COLOUR_SIDE, COLOUR_SIDE, 3)

    def have_siblings(self, rows: np.ndarray, shift: int) -> np.ndarray:
        """Return which rows, `[P]`, have a thumbnail of the same image so many rows further on, `[P]` bool."""
        siblings = rows.astype(np.int64) + shift
        exists = (siblings >= 0) & (siblings < len(self.samples))
        return exists & (self.samples[siblings.clip(0, len(self.samples) - 1)] == self.samples[rows])

    def write(self, row: int, first_byte: int, sample: int, thumbnails: Iterable[likeness.Thumbnail]) -> None:
        """Write the thumbnails of an image.

        Args:
            row: row of the first thumbnail; the others follow it.
            first_byte: place of the image's JPEG in `details`.
            sample: number of the sample whose image it is.
            thumbnails: the thumbnails, of which the first one has the JPEG.
        """
        end = first_byte
        for number, thumbnail in enumerate(thumbnails, row):
            self.samples[number] = sample
            self.thumbnails[number] = np.frombuffer(thumbnail.content, np.uint8)
            self.shapes[number], self.extents[number] = thumbnail.shape, thumbnail.extent
            features = np.frombuffer(thumbnail.features, FEATURE)
            self.features[number, : len(features)] = features
            self.num_features[number] = len(features)
            self.boxes[number] = np.frombuffer(thumbnail.box, np.float32)
            if thumbnail.detail:
                end = first_byte + len(thumbnail.detail)
                self.details[first_byte:end] = np.frombuffer(thumbnail.detail, np.uint8)
            self.detail_bounds[number] = first_byte, end

    def read_detail(self, row: int) -> np.ndarray:
        """Return the JPEG of the image that a thumbnail is of, `[bytes]` uint8."""
        first_byte, end = self.detail_bounds[row].tolist()
        return self.details[first_byte:end]

    def compute_digests(self) -> np.ndarray:
        """Return a digest of each thumbnail with its shape, box and detail, `[N]` uint64."""
        digests = np.empty(len(self.samples), np.uint64)
        for row in range(len(digests)):
            digest = blake2b(self.thumbnails[row].data, digest_size=8)
            digest.update(self.shapes[row : row + 1].tobytes() + self.boxes[row].tobytes())
            digest.update(np.ascontiguousarray(self.read_detail(row)).data)
            digests[row] = int.from_bytes(digest.digest(), "little")
        return digests


def allocate_thumbnails(count: int, num_bytes: int, folder: Path | None) -> Thumbnails:
    """Return empty thumbnails.

    Args:
        count: number of thumbnails.
        num_bytes: bytes of all details together.
        folder: folder of the mapped files, which have no names; None: in memory.
    """
    # Type and shape of a row, in the order of the fields of `Thumbnails` without `details`.
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
    arrays = [allocate(folder, data_type, (count, *shape)) for data_type, shape in columns]
    arrays.append(allocate(folder, np.uint8, (num_bytes,)))
    return Thumbnails(*arrays)


def pack_thumbnails(thumbnails_by_image: Sequence[Sequence[likeness.Thumbnail]]) -> Thumbnails:
    """Return the thumbnails of images as columns in memory; the number of an image's sample is its index."""
    counts = [len(thumbnails) for thumbnails in thumbnails_by_image]
    num_bytes = [sum(len(thumbnail.detail) for thumbnail in thumbnails) for thumbnails in thumbnails_by_image]
    columns = allocate_thumbnails(sum(counts), sum(num_bytes), None)
    row = first_byte = 0
    for sample, thumbnails in enumerate(thumbnails_by_image):
        columns.write(row, first_byte, sample, thumbnails)
        row, first_byte = row + counts[sample], first_byte + num_bytes[sample]
    return columns


def read_thumbnails(joins: Joins) -> Thumbnails:
    """Return the thumbnails of all readable pairs, in files in the folder of the joins.

    Removed pairs are among them, so that the comparisons of images, which are cached, do not depend on thresholds.
    """
    # A row of a pair has lists of one to three thumbnails.
    detail_size = "list_sum(list_transform(detail, lambda content: octet_length(content)))"
    sizes = joins.database.execute(
        f"select sample, len(shape) as count, {detail_size}::bigint as num_bytes from readable order by sample"  # noqa: S608  -- no text of the data is in it
    ).fetchnumpy()
    samples, counts, num_bytes = sizes["sample"], sizes["count"], sizes["num_bytes"]
    first_rows, first_bytes = np.cumsum(counts) - counts, np.cumsum(num_bytes) - num_bytes
    images = allocate_thumbnails(int(counts.sum()), int(num_bytes.sum()), joins.folder)

    # The sizes say where each pair belongs, so that pairs may come in any order: to sort the pixels, the database would
    # need as much memory as all of them take.
    columns = ", ".join(likeness.COLUMNS)
    with joins.database.cursor() as cursor:
        for batch in cursor.sql(f"select sample, {columns} from readable").to_arrow_reader(BATCH):  # noqa: S608  -- no text of the data is in it
            numbers = np.searchsorted(samples, batch["sample"].to_numpy())
            lists = zip(*(batch[column].to_pylist() for column in likeness.COLUMNS), strict=True)
            for number, values in zip(numbers.tolist(), lists, strict=True):
                thumbnails = map(likeness.Thumbnail, *values)
                images.write(int(first_rows[number]), int(first_bytes[number]), int(samples[number]), thumbnails)
    return images


def find_alive(joins: Joins, images: Thumbnails) -> np.ndarray:
    """Return whether the pair of each thumbnail has not been removed so far, `[N]` bool."""
    samples = joins.database.execute("select sample from alive").fetchnumpy()["sample"]
    return np.isin(images.samples, samples)
