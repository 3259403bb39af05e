"""Options on data that have no such thing: they change nothing, and say so."""

import pytest

from ernie_vil2.data.readers import open_benchmarks, open_sources
from ernie_vil2.io import terminal
from tests.support.published_files import image
from tests.support.shapes import write_tar, write_tsv


@pytest.fixture(autouse=True)
def every_note():
    """Notes are printed once in a process, and the tests share one."""
    terminal.print_once.cache_clear()


@pytest.fixture
def data(tmp_path):
    (tmp_path / "0.png").write_bytes(image(1))
    (tmp_path / "pairs.csv").write_text("image,caption,id\n0.png,a cat,7\n")
    (tmp_path / "pairs.jsonl").write_text('{"image": "0.png", "caption": "a cat", "id": "7"}\n')
    write_tar(tmp_path / "a.tar", [("0.png", image(1)), ("0.json", b'{"caption": "a cat", "id": "7"}')])
    write_tsv(tmp_path / "rows.tsv", [("a cat", "7", image(1))])
    return tmp_path


OPTIONS = {"encoding": "gb18030", "text_id": "id", "columns": {"caption": "caption"}}
UNDERSTOOD = {
    "pairs.csv": {"encoding", "text_id", "columns"},
    "pairs.jsonl": {"text_id", "columns"},
    "a.tar": {"text_id"},
    "rows.tsv": set(),
}


@pytest.mark.parametrize("open_data", [open_sources, open_benchmarks])
@pytest.mark.parametrize("file", UNDERSTOOD)
def test_option_that_nothing_understands_is_named(data, capsys, open_data, file):
    for option, value in OPTIONS.items():
        assert len(open_data([str(data / file)], **{option: value})) == 1
        error = capsys.readouterr().err
        is_named = f"Data.{option}" in error and file in error
        assert is_named == (option not in UNDERSTOOD[file])


def test_option_that_one_of_several_files_takes_is_not_named(data, capsys):
    open_sources([str(data / "a.tar"), str(data / "pairs.csv"), str(data / "rows.tsv")], text_id="id", encoding="utf-8")
    assert capsys.readouterr().err == ""
