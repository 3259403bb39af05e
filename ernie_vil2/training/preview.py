"""One batch of one source, as the loader makes it, with what a person wants to see of it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ernie_vil2.config import Config
from ernie_vil2.data.loader import SampleRows, ShownRow, read_batch

SHOWN = 6
"""Samples of a source that are looked at closely."""


@dataclass(frozen=True)
class Preview:
    """What one batch of one source says of it.

    Attributes:
        read: rows.
        bad: (reason, name) of those that could not be used.
        remarks: (remark, name) on others.
        seconds: that reading took, with the start of the loader's processes.
        notes: of the task, on all rows.
        samples: the first that could be used.
        stored_bytes: of these.
    """

    read: int
    bad: list[tuple[str, str]]
    remarks: list[tuple[str, str]]
    seconds: float
    notes: list[str]
    samples: list[ShownRow]
    stored_bytes: list[int]


def preview(make: SampleRows, config: Config, source: int, rows: int) -> Preview:
    """Reads the first samples of a source that training will see, as the task makes rows of them.

    Args:
        make: the task's rows, for a run of this configuration.
        source: number of the source.
        rows: samples to read.

    Raises:
        WorkerError: a loader process failed or was killed.
    """
    positions = make.stream.first_positions(source, rows)
    began = time.monotonic()
    batch = read_batch(make, config, positions)
    seconds = time.monotonic() - began
    shown = [positions[int(position)] for position in batch.get("positions", [])[:SHOWN]]
    return Preview(
        read=rows,
        bad=[tuple(each) for each in batch["bad"]],
        remarks=[tuple(each) for each in batch["remarks"]],
        seconds=seconds,
        notes=make.notes(batch),
        samples=[make.shown(batch, row, position) for row, position in enumerate(shown)],
        stored_bytes=[make.stream[position][1].stored_bytes for position in shown],
    )
