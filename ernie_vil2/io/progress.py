"""Progress of long work: a bar on a terminal, and a line from time to time in a log file or a pipe."""

import sys
from collections.abc import Iterable, Sized
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

# Seconds between two lines where no terminal shows a bar: a log of a day then has 2,880 of them. Work that takes less
# time writes none.
LINE_INTERVAL = 30.0
T = TypeVar("T")


class LineStream:
    """Stream that writes each state of a bar as a line of its own, instead of over the one before."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        line = text.strip()
        if line:  # carriage returns and line ends of their own only move the cursor
            self._stream.write(f"{line}\n")
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def progress_bar(
    iterable: Iterable[T] | None = None,
    description: str = "",
    *,
    unit: str,
    total: int | None = None,
    initial: int = 0,
    delay: float = 0.0,
    leave: bool = True,
    is_shown: bool = True,
    stream: TextIO | None = None,
    **options: Any,
) -> tqdm:
    """Return tqdm's progress bar, which shows count, rate and time left.

    Without a terminal it writes a line every `LINE_INTERVAL` seconds.

    Args:
        iterable: what is iterated over; None: the caller counts by `update`.
        description: what is done, as "encoding".
        unit: what is counted, in the singular.
        total: number of all units; None: the length of the iterable, or unknown.
        initial: number of units that were done before.
        delay: seconds after which the bar appears.
        leave: whether the full bar stays on the terminal.
        is_shown: False for ranks and processes that show nothing.
        stream: where it is shown; None: standard output.
        options: further options of tqdm.
    """
    stream = stream or sys.stdout
    if not stream.isatty():
        if total is None and isinstance(iterable, Sized):
            total = len(iterable)
        stream = LineStream(stream)  # type: ignore[assignment]  # has what tqdm uses of a stream
        delay = LINE_INTERVAL
        units = unit if options.get("unit_scale") else f"{unit}s"  # "1.2G of 3.0G B"
        options |= {
            "bar_format": _line_format(description, units, total),
            "mininterval": LINE_INTERVAL,
            "maxinterval": LINE_INTERVAL,
        }
    return tqdm(
        iterable, description or None, total, leave, stream, initial=initial, unit=unit, delay=delay,
        disable=not is_shown, dynamic_ncols=True, **options,
    )  # fmt: skip


def _line_format(description: str, units: str, total: int | None) -> str:
    """Return the format of a line, in tqdm's names; `{postfix}` begins with a comma."""
    title = description.replace("{", "{{").replace("}", "}}")
    beginning = f"{title}: " if title else ""
    if total is None:
        return f"{beginning}{{n_fmt}} {units}, {{rate_fmt}}, {{elapsed}} so far{{postfix}}"
    return f"{beginning}{{n_fmt}} of {{total_fmt}} {units}, {{rate_fmt}}, {{remaining}} left{{postfix}}"
