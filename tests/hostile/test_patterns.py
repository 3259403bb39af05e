"""Patterns and lists of too many files are refused before they are expanded."""

import pytest

from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.readers.locations import expand_braces


@pytest.mark.parametrize(("pattern", "bound"), [
    ("{0..99999999999}", "1,000,000 files"),
    ("{{0..9999}{0..9999},b}", "1,000,000 files"),
    ("{a,b}" * 800, "67,108 files"),
    ("{a..z}" * 5, "1,000,000 files"),
    (f"{{{'0' * 4000}..900000}}", "66,9"),
    ("{a," * 1000 + "}" * 1000, "hundreds of braces"),
    ("x" * 5000, "4,096 characters"),
])  # fmt: skip
def test_pattern_of_too_many_files_is_refused(pattern, bound):
    with pytest.raises(ValueError, match=bound) as error:
        expand_braces(pattern)
    assert len(str(error.value)) < 250


def test_list_of_too_many_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("ernie_vil2.data.readers.locations.MAX_FILES", 1000)
    (tmp_path / "list.txt").write_text("memory://{0..899}.tar\n" * 2)
    for sources in ([str(tmp_path / "list.txt")], ["memory://{0..899}.tar"] * 2):
        with pytest.raises(ValueError, match="more than 1,000 files"):
            open_sources(sources)
