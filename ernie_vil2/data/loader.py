"""Training batches: an endless, seeded stream."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import cv2
import numpy as np
import paddle

from ernie_vil2.config import Config
from ernie_vil2.config.view_names import IMAGE_VIEWS, TEXT_VIEWS
from ernie_vil2.data.decoding import remarks
from ernie_vil2.data.order import Draw, generator
from ernie_vil2.data.samples import SEVERAL_LINES, BadSample, Reason, Sample
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.data.tokenizer import PAD_ID, Tokenizer
from ernie_vil2.data.workers import Arrays, Layout, filled_batches
from ernie_vil2.views import draw_text, training_views

Batch = dict[str, Any]


class RowReport(NamedTuple):
    """The name of a row's sample, the reason if it cannot be used, and what is odd about it."""

    name: str
    reason: str | None = None
    remarks: Sequence[str] = ()


class _Rows:
    """Makes the row of a place: its views, in place. Everything random follows from the seed and the place."""

    def __init__(self, stream: SampleStream, config: Config, tokenizer: Tokenizer, views: Collection[str]):
        self._stream = stream
        self._seed = config.Training.seed
        self._views = config.Views
        self._image = config.Model.image
        self._tokenizer = tokenizer
        self.image_views = [view for view in IMAGE_VIEWS if view in views]
        self.has_text = any(view in views for view in TEXT_VIEWS)

    @property
    def layout(self) -> Layout:
        """Shape and type of what a row holds."""
        layout: dict = {"ids": ((2,), np.int64)}
        layout |= {view: ((self._image.image_size, self._image.image_size, 3), np.uint8) for view in self.image_views}
        if self.has_text:
            layout |= {"text": ((self._tokenizer.max_length,), np.int64), "text_length": ((), np.int64)}
        return layout

    def __call__(self, place: int, arrays: Arrays, row: int) -> RowReport:
        """Makes one row; says which sample it holds, or why it holds none."""
        with remarks() as found:
            try:
                source, sample = self._fill(place, {name: array[row : row + 1] for name, array in arrays.items()})
            except BadSample as bad:
                return RowReport(bad.name, bad.reason)
        if self.has_text and sample.has_lines and not self._stream.views[source].caption_lines:
            found.append(SEVERAL_LINES)
        return RowReport(sample.image_name, remarks=found)

    def stuck(self, place: int) -> RowReport:
        """What is said of a row whose sample did not come in time."""
        return RowReport(self._stream.where(place), Reason.NO_ANSWER)

    def _fill(self, place: int, row: Arrays) -> tuple[int, Sample]:
        source, sample = self._stream[place]
        row["ids"][0] = self._stream.ids(source, sample)
        if self.has_text:
            text = draw_text(sample, self._stream.views[source], generator(Draw.TEXT, self._seed, place))
            ids = self._tokenizer.encode(text)
            row["text"][0] = PAD_ID
            row["text"][0, : len(ids)] = ids
            row["text_length"][0] = len(ids)
        if self.image_views:
            rng = generator(Draw.IMAGES, self._seed, place)
            images = training_views(
                sample.image,
                sample.image_name,
                len(self.image_views),
                self._image.image_size,
                self._views,
                rng,
                self._image.background,
            )
            for view, image in zip(self.image_views, images, strict=True):
                row[view][0] = image
        return source, sample


def training_batches(
    stream: SampleStream,
    config: Config,
    tokenizer: Tokenizer,
    views: Collection[str],
    place: int = 0,
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[Batch]:
    """This rank's share of every global batch, from a place of the stream on, without end.

    A global batch holds the next `Training.global_batch` places, in turn by rank, so that a resumed run goes on
    exactly where it stopped; the views depend on the seed and the place, not on the number of workers or ranks.
    Samples that cannot be used are missing from their batch and listed in `bad`.

    Args:
        views: names of the views that the loss needs; others are not made.
        place: the first that is read: how many were read before, over all ranks.

    Yields:
        `image_1`, `image_2` `[b, H, W, 3]` uint8; `text` `[b, L]` int64 ids, one encoding for both text views;
        `ids` `[b, 2]` int64 (image, text); `places` `[b]` int64, of the rows in the global batch; `names`;
        `rows` read; `bad` as [reason, name] pairs, and `remarks` on the others alike.

    Raises:
        WorkerError: a loader process failed or was killed.
    """
    # Processes are the parallelism here; OpenCV's own threads would only compete, and do not survive a fork.
    cv2.setNumThreads(0)
    rows = config.Training.global_batch // ranks
    starts = itertools.count(place + rank * rows, config.Training.global_batch)
    places = (range(start, start + rows) for start in starts)
    make = _Rows(stream, config, tokenizer, views)
    data = config.Data
    for arrays, reports in filled_batches(make, make.layout, rows, places, data.workers, data.patience, make.stuck):
        yield _batch(arrays, reports, rank * rows)


def read_batch(
    stream: SampleStream, config: Config, tokenizer: Tokenizer, views: Collection[str], places: Sequence[int]
) -> Batch:
    """One batch of any places of the stream, made as `training_batches` makes its batches.

    Its `places` are the rows' numbers in the argument `places`.

    Raises:
        WorkerError: a loader process failed or was killed.
    """
    cv2.setNumThreads(0)
    make = _Rows(stream, config, tokenizer, views)
    data = config.Data
    batches = filled_batches(make, make.layout, len(places), [places], data.workers, data.patience, make.stuck)
    with closing(batches):
        return _batch(*next(batches), first=0)


def _batch(arrays: Arrays, reports: list[RowReport], first: int) -> Batch:
    good = [row for row, report in enumerate(reports) if report.reason is None]
    batch: Batch = {
        "rows": len(reports),
        "bad": [[report.reason, report.name] for report in reports if report.reason is not None],
        "remarks": [[remark, report.name] for report in reports for remark in report.remarks],
        "names": [reports[row].name for row in good],
    }
    if good:
        whole = len(good) == len(reports)
        chosen = {name: array if whole else array[good] for name, array in arrays.items()}
        if "text" in chosen:
            chosen["text"] = chosen["text"][:, : chosen.pop("text_length").max()]
        # The one copy: the arrays will hold another batch.
        batch |= {name: paddle.to_tensor(array) for name, array in chosen.items()}
        batch["places"] = paddle.to_tensor(np.array(good) + first)
    return batch
