"""Options on data that have no such thing: they change nothing, and say so."""

import pytest

from ernie_vil2.data.readers import open_benchmarks, open_sources
from ernie_vil2.io import terminal
from tests.support.published_files import image, write
from tests.support.shapes import write_tar, write_tsv


@pytest.fixture
def data(tmp_path):
    terminal.print_once.cache_clear()  # notes are printed once in a process, and the tests share one
    row = {"image": "0.png", "caption": "a cat", "id": "7"}
    write(tmp_path, {"0.png": image(1), "pairs.csv": "image,caption,id\n0.png,a cat,7\n", "pairs.jsonl": row})
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
        assert (f"Data.{option}" in error and file in error) == (option not in UNDERSTOOD[file])


def test_option_that_one_of_several_files_takes_is_not_named(data, capsys):
    open_sources([str(data / "a.tar"), str(data / "pairs.csv"), str(data / "rows.tsv")], text_id="id", encoding="utf-8")
    assert capsys.readouterr().err == ""
