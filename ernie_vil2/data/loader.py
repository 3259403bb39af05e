"""Training batches from an endless, seeded stream of samples."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from statistics import fmean
from typing import Any, NamedTuple

import cv2
import numpy as np
import paddle

from ernie_vil2.config import Config
from ernie_vil2.data.decoding import collect_remarks
from ernie_vil2.data.loader_workers import Arrays, RowLayout, fill_batches
from ernie_vil2.data.samples import BadSample, Reason
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.data.tokenizer import TextTokenizer
from ernie_vil2.device.transfers import copy_to_host, upload_batches

Batch = dict[str, Any]


class RowReport(NamedTuple):
    """The name of a row's sample, the reason if the sample cannot be used, and remarks on it."""

    name: str
    reason: str | None = None
    remarks: Sequence[str] = ()

    def __str__(self) -> str:
        return self.name


class RowPreview(NamedTuple):
    """A row for display: images `[H, W, 3]` uint8 RGB by name, and texts by name, the sample's name first."""

    images: Mapping[str, np.ndarray]
    texts: Mapping[str, str]


class SampleRows(ABC):
    """What the row of a batch holds, how it is filled from a sample, and how it is previewed; each task has a subclass.

    Args:
        stream: the samples by their position.

    Attributes:
        host_arrays: names of the arrays that stay on the host; all others go to the device.
    """

    host_arrays: Collection[str] = ()

    def __init__(self, stream: SampleStream):
        self.stream = stream

    @property
    @abstractmethod
    def layout(self) -> RowLayout:
        """Shape and type of the arrays of one row, by name."""

    @abstractmethod
    def fill(self, position: int, row: Arrays) -> str:
        """Write the sample at a position of the stream into a row.

        All random numbers follow from the seed and the position.

        Args:
            position: position of the sample in the stream.
            row: arrays `[1, ...]` with arbitrary content.

        Returns:
            The sample's name.

        Raises:
            BadSample: the sample cannot be used.
        """

    def collate(self, arrays: Arrays) -> Arrays:
        """Return the arrays of a batch, `[b, ...]`, made from the rows that could be used."""
        return arrays

    def preview(self, batch: Batch, row: int, position: int) -> RowPreview:
        """Return a row of a batch for display.

        Args:
            batch: a batch of `load_batches` or `read_batch`.
            row: number of the row in the batch.
            position: position of its sample in the stream.
        """
        return RowPreview({}, {"sample": batch["names"][row]})

    def summarize(self, batch: Batch) -> list[str]:
        """Return lines about the rows of a batch, for people, such as how many texts were cut."""
        return []

    def __call__(self, position: int, arrays: Arrays, row: int) -> RowReport:
        """Fill one row of the arrays, as `fill_batches` asks for it."""
        self.stream.fetch_ahead(position)
        with collect_remarks() as remarks:
            try:
                name = self.fill(position, {key: array[row : row + 1] for key, array in arrays.items()})
            except BadSample as bad:
                return RowReport(bad.name, bad.reason)
        return RowReport(name, remarks=remarks)

    def report_stuck(self, position: int) -> RowReport:
        """Return the report of a row whose sample did not arrive in time."""
        return RowReport(self.stream.describe_location(position), Reason.NO_ANSWER)


TEXT_ARRAYS = ("text", "text_2")  # the second one only with `Views.long_caption`


class ViewRows(SampleRows):
    """Base of rows with image views `[b, S, S, 3]` uint8, by name, and a `text` `[b, L]` int64; subclasses fill them.

    Args:
        stream: the samples by their position.
        config: the run's configuration.
        tokenizer: tokenizer of the texts.
        image_views: names of the image views.
        has_text: whether rows have a text.
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
            layout[name] = ((tokenizer.max_length,), np.int64)
            layout[f"{name}_length"] = ((), np.int64)
        return layout

    def _write_text(self, row: Arrays, text: str, name: str = "text") -> None:
        """Write the ids of a text into a row, padded to the maximum length, and the length that may not be cut."""
        tokenizer = self._tokenizers[name]
        ids = tokenizer.encode(text)
        row[name][0] = tokenizer.pad_id
        row[name][0, : len(ids)] = ids
        row[f"{name}_length"][0] = tokenizer.max_length if tokenizer.to_full_length else len(ids)

    def preview(self, batch: Batch, row: int, position: int) -> RowPreview:
        """Return the views of a row, and its texts as the model reads them."""
        texts = {"sample": batch["names"][row]}
        if self._has_text:
            for name in TEXT_ARRAYS:
                if name in batch:
                    (ids,) = self._without_padding(copy_to_host(batch[name][row : row + 1]))
                    texts[f"{name}, as tokens"] = " ".join(self.tokenizer.tokens[token_id] for token_id in ids)
        return RowPreview({view: copy_to_host(batch[view][row]) for view in self._image_views}, texts)

    def summarize(self, batch: Batch) -> list[str]:
        """Return a line about the lengths of the texts; a text of the maximum length was most likely cut."""
        texts: list[list[int]] = []
        for name in TEXT_ARRAYS:
            if name in batch:
                texts += self._without_padding(batch[name])
        if not texts:
            return []
        lengths = [len(ids) for ids in texts]
        max_length = self.tokenizer.max_length
        num_unknown = 0
        for ids in texts:
            num_unknown += sum(token_id == self.tokenizer.unknown_id for token_id in ids)
        return [f"texts of {fmean(lengths):.1f} tokens, {lengths.count(max_length):,} of them cut at {max_length}, "
                f"{num_unknown / max(1, sum(lengths)):.1%} of the tokens unknown"]  # fmt: skip

    def _without_padding(self, texts: Any) -> list[list[int]]:
        """Return the ids of texts `[b, L]` without the padding at their ends."""
        pad_id = self.tokenizer.pad_id
        special_ids = self.tokenizer.encode("")
        is_end_padding = bool(special_ids) and special_ids[-1] == pad_id
        rows = []
        for ids in texts.tolist():
            length = len(ids)
            while length and ids[length - 1] == pad_id:
                length -= 1
            # Some tokenizers pad with the end token; then the first of these ends the text.
            if is_end_padding:
                length = min(length + 1, len(ids))
            rows.append(ids[:length])
        return rows

    def collate(self, arrays: Arrays) -> Arrays:
        """Cut the texts of a batch to the longest of them."""
        for name in self._tokenizers:
            lengths = arrays.pop(f"{name}_length")
            arrays[name] = arrays[name][:, : lengths.max()]
        return arrays


def load_batches(
    rows: SampleRows, config: Config, position: int = 0, rank: int = 0, num_ranks: int = 1
) -> Generator[Batch, None, None]:
    """Load this rank's share of every global batch, from a position of the stream on, without end.

    A global batch holds the next `Training.global_batch` positions, a contiguous share for each rank. Rows depend on
    the seed and the position, not on the number of workers or ranks, so that a resumed run continues exactly.
    Samples that cannot be used are missing from their batch and listed in `bad`.

    Args:
        rows: definition of the rows.
        config: the run's configuration.
        position: first position: the number of samples that all ranks have read before.
        rank: number of this rank.
        num_ranks: number of ranks.

    Yields:
        The arrays of the rows, on the device except `host_arrays`, and: `positions` `[b]` int64, the rows' numbers in
        the global batch, on the host; `names` of the samples; `rows`, the number of samples read; `bad`, a list of
        [reason, name] of the samples that cannot be used; `remarks`, a list of [remark, name] of the others. If no
        sample of a batch can be used, the batch has neither arrays nor `positions`.

    Raises:
        WorkerError: a loader process failed or was killed.
    """
    # Processes are the parallelism here; OpenCV's threads would only compete with them, and do not survive a fork.
    cv2.setNumThreads(0)
    size = config.Training.global_batch // num_ranks
    first_row = rank * size
    # The positions of this rank in one global batch after the other, without end.
    starts = itertools.count(position + first_row, config.Training.global_batch)
    positions = (range(start, start + size) for start in starts)

    def assemble() -> Generator[tuple[Arrays, Batch], None, None]:
        for arrays, reports in _fill(rows, config, size, positions):
            yield _assemble_batch(rows, arrays, reports, first_row)

    for tensors, batch in upload_batches(assemble()):
        yield batch | tensors


def read_batch(rows: SampleRows, config: Config, positions: Sequence[int]) -> Batch:
    """Read one batch of any positions of the stream, in the form of `load_batches`.

    Its `positions` are indices into the argument `positions`.

    Raises:
        WorkerError: a loader process failed or was killed.
    """
    cv2.setNumThreads(0)
    with closing(_fill(rows, config, len(positions), [positions])) as batches:
        filled, reports = next(batches)
        arrays, batch = _assemble_batch(rows, filled, reports, first_row=0)
        return batch | {name: paddle.to_tensor(array) for name, array in arrays.items()}


def _fill(
    rows: SampleRows, config: Config, size: int, positions: Iterable[Sequence[int]]
) -> Generator[tuple[Arrays, list[RowReport]], None, None]:
    data = config.Data
    return fill_batches(rows, rows.layout, size, positions, data.workers, data.patience, rows.report_stuck)


def _assemble_batch(rows: SampleRows, arrays: Arrays, reports: list[RowReport], first_row: int) -> tuple[Arrays, Batch]:
    """Return the arrays that go to the device, which are views of the workers' memory, and the rest of the batch."""
    batch: Batch = {"rows": len(reports), "bad": [], "remarks": [], "names": []}
    usable = []
    for row, report in enumerate(reports):
        if report.reason is not None:
            batch["bad"].append([report.reason, report.name])
            continue
        usable.append(row)
        batch["names"].append(report.name)
        batch["remarks"] += [[remark, report.name] for remark in report.remarks]
    if not usable:
        return {}, batch

    # Copies are made only where rows are missing; `fill_batches` says how long the memory remains valid.
    if len(usable) < len(reports):
        arrays = {name: array[usable] for name, array in arrays.items()}
    collated = rows.collate(dict(arrays))
    for name in rows.host_arrays:
        batch[name] = collated.pop(name).copy()  # the workers will fill this memory again
    batch["positions"] = np.array(usable) + first_row
    return collated, batch
