"""Training batches: an endless, seeded stream."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import paddle

from ernie_vil2.config import Config, ViewsConfig
from ernie_vil2.data.samples import BadSample, content_id, decode_image
from ernie_vil2.data.sources import Source
from ernie_vil2.data.tokenizer import Tokenizer, pad
from ernie_vil2.views import augmented_view, draw_text

Batch = dict[str, Any]
IMAGE_VIEWS = ("image_1", "image_2")
TEXT_VIEWS = ("text_1", "text_2")


def _generator(seed: int, *position: int) -> np.random.Generator:
    return np.random.default_rng([seed, *position])


class SampleOrder:
    """Which sample stands at a position of the endless stream: every epoch is a new permutation of all samples."""

    def __init__(self, size: int, seed: int):
        self.size, self.seed = size, seed
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position, self.size)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, _generator(self.seed, epoch).permutation(self.size)
        return int(self._order[place])


class _TrainingViews(paddle.io.Dataset):
    """The stream's samples by position, as views. Everything random follows from seed and position alone."""

    def __init__(self, source: Source, config: Config, tokenizer: Tokenizer, views: Collection[str]):
        super().__init__()
        self.source = source
        self.order = SampleOrder(len(source), config.Training.seed)
        self.seed = config.Training.seed
        self.global_batch = config.Training.global_batch
        self.config: ViewsConfig = config.Views
        self.size = config.Model.image.image_size
        self.tokenizer = tokenizer
        self.image_views = [view for view in IMAGE_VIEWS if view in views]
        self.has_text = any(view in views for view in TEXT_VIEWS)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, position: int) -> Batch | BadSample:
        try:
            return self._views(position)
        except BadSample as bad:
            return bad

    def _views(self, position: int) -> Batch:
        sample = self.source[self.order[position]]
        views: Batch = {
            "name": sample.image_name,
            "place": position % self.global_batch,
            "ids": np.array([content_id(sample.image_name), content_id(sample.text_name)]),
        }
        if self.image_views:
            image = decode_image(sample.image, sample.image_name)
            for view in self.image_views:
                rng = _generator(self.seed, position, IMAGE_VIEWS.index(view))
                views[view] = augmented_view(image, self.size, self.config, rng)
        if self.has_text:
            text = draw_text(sample, self.config, _generator(self.seed, position, len(IMAGE_VIEWS)))
            views["text"] = self.tokenizer.encode(text)
        return views


def _collate(rows: Sequence[Batch | BadSample]) -> Batch:
    good = [row for row in rows if not isinstance(row, BadSample)]
    batch: Batch = {
        "rows": len(rows),
        "bad": [[row.reason, row.name] for row in rows if isinstance(row, BadSample)],
        "names": [row["name"] for row in good],
    }
    if good:
        batch["places"] = np.array([row["place"] for row in good])
        batch["ids"] = np.stack([row["ids"] for row in good])
        for view in IMAGE_VIEWS:
            if view in good[0]:
                batch[view] = np.stack([row[view] for row in good])
        if "text" in good[0]:
            batch["text"] = pad([row["text"] for row in good])
    return batch


class _Positions(paddle.io.BatchSampler):
    """Positions of this rank's rows in every global batch, from `first_step` on, without end."""

    def __init__(self, first_step: int, global_batch: int, rank: int, ranks: int):
        # BatchSampler's own set-up wants a finite data set.
        self.first_step, self.global_batch = first_step, global_batch
        self.rank, self.ranks = rank, ranks

    def __iter__(self) -> Iterator[list[int]]:
        rows = self.global_batch // self.ranks
        for step in itertools.count(self.first_step):
            start = step * self.global_batch + self.rank * rows
            yield list(range(start, start + rows))

    def __len__(self) -> int:
        return 2**62


def _start_worker(_: int) -> None:
    # Processes are the parallelism here; OpenCV's own threads would only compete with them.
    cv2.setNumThreads(0)


def training_batches(
    source: Source,
    config: Config,
    tokenizer: Tokenizer,
    views: Collection[str],
    first_step: int = 0,
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[Batch]:
    """This rank's share of every global batch, from a step on, without end.

    Step s holds the stream's positions s * global_batch and following, so that a resumed run goes on
    exactly where it stopped; the views depend on the seed and the position, not on the number of
    workers or ranks. Samples that cannot be used are missing from their batch and listed in `bad`.

    Args:
        views: names of the views that the loss needs; others are not made.

    Yields:
        `image_1`, `image_2` `[b, H, W, 3]` uint8; `text` `[b, L]` int64 ids, one encoding for both text views;
        `ids` `[b, 2]` int64 (image, text); `places` `[b]` int64, of the rows in the global batch; `names`;
        `rows` read; `bad` as [reason, name] pairs.
    """
    cv2.setNumThreads(0)
    loader = paddle.io.DataLoader(
        _TrainingViews(source, config, tokenizer, views),
        batch_sampler=_Positions(first_step, config.Training.global_batch, rank, ranks),
        collate_fn=_collate,
        num_workers=config.Data.workers,
        worker_init_fn=_start_worker,
    )
    return iter(loader)
