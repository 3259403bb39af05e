"""Training batches: an endless, seeded stream."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from itertools import takewhile
from statistics import fmean
from typing import Any, NamedTuple

import cv2
import numpy as np
import paddle

from ernie_vil2.config import Config
from ernie_vil2.data.decoding import collect_remarks
from ernie_vil2.data.loader_workers import Arrays, RowLayout, filled_batches
from ernie_vil2.data.samples import BadSample, Reason
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.data.tokenizer import TextTokenizer
from ernie_vil2.device.transfers import uploaded

Batch = dict[str, Any]


class RowReport(NamedTuple):
    """The name of a row's sample, the reason if it cannot be used, and what is odd about it."""

    name: str
    reason: str | None = None
    remarks: Sequence[str] = ()

    def __str__(self) -> str:
        return self.name


class ShownRow(NamedTuple):
    """A row as it is shown: images `[H, W, 3]` uint8 RGB by name, and texts by name, the sample's first."""

    images: Mapping[str, np.ndarray]
    texts: Mapping[str, str]


class SampleRows(ABC):
    """How the rows of a batch are made of samples, one sample each. A task says what a row holds, fills and shows it.

    Args:
        stream: the samples by their position.

    Attributes:
        on_host: names of what stays an array on the host; all else goes to the device.
    """

    on_host: Collection[str] = ()

    def __init__(self, stream: SampleStream):
        self.stream = stream

    @property
    @abstractmethod
    def layout(self) -> RowLayout:
        """Shape and type of what a row holds, by name."""

    @abstractmethod
    def fill(self, position: int, row: Arrays) -> str:
        """Writes the sample at a position into `row`, arrays `[1, ...]` that hold anything; returns its name.

        Everything random follows from the seed and the position. BadSample if the sample cannot be used.
        """

    def finished(self, arrays: Arrays) -> Arrays:
        """What of the rows that could be used becomes the batch."""
        return arrays

    def shown(self, batch: Batch, row: int, position: int) -> ShownRow:
        """A row of a batch, which holds the sample at a position of the stream."""
        return ShownRow({}, {"sample": batch["names"][row]})

    def notes(self, batch: Batch) -> list[str]:
        """What is reported of the rows together, as how their texts fit."""
        return []

    def __call__(self, position: int, arrays: Arrays, row: int) -> RowReport:
        """Makes one row; says which sample it holds, or why it holds none."""
        self.stream.fetch_ahead(position)
        with collect_remarks() as found:
            try:
                name = self.fill(position, {name: array[row : row + 1] for name, array in arrays.items()})
            except BadSample as bad:
                return RowReport(bad.name, bad.reason)
        return RowReport(name, remarks=found)

    def stuck(self, position: int) -> RowReport:
        """What is reported of a row whose sample did not come in time."""
        return RowReport(self.stream.where(position), Reason.NO_ANSWER)


TEXTS = ("text", "text_2")


class ViewRows(SampleRows):
    """Image views `[b, S, S, 3]` uint8 by name, and `text` `[b, L]` int64.

    Args:
        image_views: their names.
        has_text: whether there is a text.
    """

    def __init__(
        self, stream: SampleStream, config: Config, tokenizer: TextTokenizer, image_views: Sequence[str], has_text: bool
    ):
        super().__init__(stream)
        self._seed = config.Training.seed
        self._views = config.Views
        self._image = config.Model.image
        self.tokenizer = tokenizer
        self._image_views, self._has_text = image_views, has_text
        self._tokenizers = {"text": tokenizer} if has_text else {}

    @property
    def layout(self) -> RowLayout:
        side = self._image.image_size
        layout: dict = dict.fromkeys(self._image_views, ((side, side, 3), np.uint8))
        for name, tokenizer in self._tokenizers.items():
            layout |= {name: ((tokenizer.max_length,), np.int64), f"{name}_length": ((), np.int64)}
        return layout

    def _write_text(self, row: Arrays, text: str, name: str = "text") -> None:
        tokenizer = self._tokenizers[name]
        ids = tokenizer.encode(text)
        row[name][0] = tokenizer.pad_id
        row[name][0, : len(ids)] = ids
        row[f"{name}_length"][0] = tokenizer.max_length if tokenizer.to_full_length else len(ids)

    def shown(self, batch: Batch, row: int, position: int) -> ShownRow:
        """As `SampleRows.shown`: the views, and the text as the model reads it."""
        texts = {"sample": batch["names"][row]}
        if self._has_text:
            for name in filter(batch.__contains__, TEXTS):
                ids = self._ids(batch[name])[row]
                texts[f"{name}, as tokens"] = " ".join(self.tokenizer.tokens[id] for id in ids)
        return ShownRow({view: batch[view][row].numpy() for view in self._image_views}, texts)

    def notes(self, batch: Batch) -> list[str]:
        """As `SampleRows.notes`; a text that fills the longest length was most likely cut."""
        rows = [ids for name in TEXTS if name in batch for ids in self._ids(batch[name])]
        lengths = list(map(len, rows))
        if not lengths:
            return []
        longest = self.tokenizer.max_length
        unknown = sum(id == self.tokenizer.unknown_id for row in rows for id in row) / sum(lengths)
        return [f"texts of {fmean(lengths):.1f} tokens, {lengths.count(longest):,} of them cut at {longest}, "
                f"{unknown:.1%} of the tokens unknown"]  # fmt: skip

    def _ids(self, texts: Any) -> list[list[int]]:
        """The texts without their padding, which may be of the end token's id: that stays once."""
        padding, end = self.tokenizer.pad_id, self.tokenizer.encode("")[-1]
        rows = []
        for row in texts.tolist():
            count = sum(1 for _ in takewhile(lambda id: id == padding, reversed(row)))
            rows.append(row[: len(row) - max(0, count - (end == padding))])
        return rows

    def finished(self, arrays: Arrays) -> Arrays:
        """The texts of a name as long as the longest of them."""
        for name in self._tokenizers:
            lengths = arrays.pop(f"{name}_length")
            arrays[name] = arrays[name][:, : lengths.max()]
        return arrays


def training_batches(
    rows: SampleRows, config: Config, position: int = 0, rank: int = 0, ranks: int = 1
) -> Generator[Batch, None, None]:
    """This rank's share of every global batch, from a position of the stream on, without end.

    A global batch holds the next `Training.global_batch` positions, in turn by rank, so that a resumed run goes on
    exactly where it stopped; rows depend on the seed and the position, not on the number of workers or ranks.
    Samples that cannot be used are missing from their batch and listed in `bad`.

    Args:
        rows: that a batch is made of.
        position: the first that is read: how many were read before, over all ranks.

    Yields:
        What the rows hold, and: `positions` `[b]` int64, of the rows in the global batch, an array; `names`; `rows`
        read; `bad` as [reason, name] pairs, and `remarks` on the others alike.

    Raises:
        WorkerError: a loader process failed or was killed.
    """
    # Processes are the parallelism here; OpenCV's own threads would only compete, and do not survive a fork.
    cv2.setNumThreads(0)
    size = config.Training.global_batch // ranks
    starts = itertools.count(position + rank * size, config.Training.global_batch)
    positions = (range(start, start + size) for start in starts)
    made = (_batch(rows, arrays, reports, rank * size) for arrays, reports in _filled(rows, config, size, positions))
    for tensors, batch in uploaded(made):
        yield batch | tensors


def read_batch(rows: SampleRows, config: Config, positions: Sequence[int]) -> Batch:
    """One batch of any positions of the stream, made as `training_batches` makes its batches.

    Its `positions` are the rows' numbers in the argument `positions`.

    Raises:
        WorkerError: a loader process failed or was killed.
    """
    cv2.setNumThreads(0)
    with closing(_filled(rows, config, len(positions), [positions])) as batches:
        filled, reports = next(batches)
        arrays, batch = _batch(rows, filled, reports, first=0)
        return batch | {name: paddle.to_tensor(array) for name, array in arrays.items()}


def _filled(
    rows: SampleRows, config: Config, size: int, positions: Iterable[Sequence[int]]
) -> Generator[tuple[Arrays, list[RowReport]], None, None]:
    return filled_batches(rows, rows.layout, size, positions, config.Data.workers, config.Data.patience, rows.stuck)


def _batch(rows: SampleRows, arrays: Arrays, reports: list[RowReport], first: int) -> tuple[Arrays, Batch]:
    """The arrays of a batch that go to the device, which will hold another batch, and the rest of it."""
    good = [row for row, report in enumerate(reports) if report.reason is None]
    batch: Batch = {
        "rows": len(reports),
        "bad": [[report.reason, report.name] for report in reports if report.reason is not None],
        "remarks": [[remark, report.name] for report in reports for remark in report.remarks],
        "names": [reports[row].name for row in good],
    }
    if not good:
        return {}, batch
    whole = len(good) == len(reports)
    chosen = rows.finished({name: array if whole else array[good] for name, array in arrays.items()})
    batch |= {name: chosen.pop(name).copy() for name in rows.on_host}
    batch["positions"] = np.array(good) + first
    return chosen, batch
