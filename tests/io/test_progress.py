"""Progress is a bar on a terminal, and lines elsewhere."""

import io

import pytest

from ernie_vil2.io import progress
from ernie_vil2.io.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def _line_of_every_update(monkeypatch):
    # 0 would make tqdm wait for a number of updates that it learns from the clock.
    monkeypatch.setattr(progress, "LINE_INTERVAL", 1e-9)


@pytest.mark.usefixtures("_line_of_every_update")
def test_file_gets_lines_with_count_total_and_fields():
    stream = io.StringIO()
    with progress_bar(description="a {b}", unit="step", total=4, initial=1, stream=stream, miniters=1) as bar:
        for loss in (3, 2, 1):
            bar.set_postfix_str(f"loss {loss}", refresh=False)
            bar.update()

    lines = stream.getvalue().splitlines()
    assert "\r" not in stream.getvalue() and all(lines)
    assert lines[0].startswith("a {b}: 2 of 4 steps, ") and lines[0].endswith("left, loss 3")
    assert lines[-1].startswith("a {b}: 4 of 4 steps, ") and lines[-1].endswith("loss 1")


@pytest.mark.usefixtures("_line_of_every_update")
def test_line_without_total_counts_units():
    stream = io.StringIO()
    assert list(progress_bar(iter("abc"), unit="row", stream=stream, miniters=1)) == ["a", "b", "c"]
    assert stream.getvalue().splitlines()[-1].startswith("3 rows, ")


def test_short_work_writes_nothing_into_a_file():
    stream = io.StringIO()
    assert list(progress_bar(range(3), "reading", unit="row", stream=stream)) == [0, 1, 2]
    assert stream.getvalue() == ""


def test_terminal_shows_a_bar_over_the_last_one():
    stream = Terminal()
    list(progress_bar(range(3), "reading", unit="row", stream=stream))
    assert stream.getvalue().startswith("\rreading:") and "3/3" in stream.getvalue()


def test_silent_process_shows_nothing():
    stream = Terminal()
    list(progress_bar(range(3), unit="row", stream=stream, is_shown=False))
    assert stream.getvalue() == ""
