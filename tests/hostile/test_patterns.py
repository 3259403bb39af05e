"""Patterns and lists of more files than any data set has are refused before they are written out."""

import pytest

from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.readers.shard_files import expand_braces, find


@pytest.mark.parametrize(("pattern", "message"), [
    ("{0..99999999999}", "names more than 1,000,000 files"),
    ("{0..9999}{0..9999}", "names more than 1,000,000 files"),
    ("{{0..9999}{0..9999},b}", "names more than 1,000,000 files"),
    ("{a,b}" * 800, "names more than 67,108 files"),
    ("\x000\x00{0..9999}{0..9999}", "names more than 1,000,000 files"),
    ("{a..z}" * 5, "names more than 1,000,000 files"),
    ("{0..900000}" + "x" * 4000, "names more than 66,92"),
    (f"{{{'0' * 4000}..900000}}", "names more than 66,9"),
    ("{a," * 1000 + "}" * 1000, "hundreds of braces"),
    ("x" * 5000, "more than 4,096 characters; is this a path"),
])  # fmt: skip
def test_a_pattern_of_too_many_files_is_refused(pattern, message):
    with pytest.raises(ValueError, match=message) as caught:
        expand_braces(pattern)
    assert len(str(caught.value)) < 250


def test_a_list_of_too_many_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("ernie_vil2.data.readers.shard_files.MOST", 1000)
    (tmp_path / "list.txt").write_text("memory://{0..899}.tar\n" * 2)
    with pytest.raises(ValueError, match="memory://0.tar, ...: more than 1,000 files"):
        find(str(tmp_path / "list.txt"))
    with pytest.raises(ValueError, match="memory://0.tar, ...: more than 1,000 files"):
        open_sources(["memory://{0..899}.tar"] * 2)
