"""Options on data that have no such thing: they change nothing, and say so."""

import pytest

from ernie_vil2.data.readers import open_benchmarks, open_sources
from ernie_vil2.io import terminal
from tests.curation.conftest import smooth_image
from tests.support.shapes import png, write_tar, write_tsv


@pytest.fixture(autouse=True)
def every_note():
    """Notes are printed once in a process, and the tests share one."""
    terminal.print_once.cache_clear()


@pytest.fixture
def data(tmp_path):
    image = png(smooth_image(1))
    (tmp_path / "0.png").write_bytes(image)
    (tmp_path / "pairs.csv").write_text("image,caption,id\n0.png,a cat,7\n")
    (tmp_path / "pairs.jsonl").write_text('{"image": "0.png", "caption": "a cat", "id": "7"}\n')
    write_tar(tmp_path / "a.tar", [("0.png", image), ("0.json", b'{"caption": "a cat", "id": "7"}')])
    write_tsv(tmp_path / "rows.tsv", [("a cat", "7", image)])
    return tmp_path


OPTIONS = {"encoding": "gb18030", "text_id": "id", "columns": {"caption": "caption"}}
UNDERSTOOD = {
    "pairs.csv": {"encoding", "text_id", "columns"},
    "pairs.jsonl": {"text_id", "columns"},
    "a.tar": {"text_id"},
    "rows.tsv": set(),
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("file", UNDERSTOOD)
@pytest.mark.parametrize("opened", [lambda path, **options: open_sources([path], **options), open_benchmarks],
                         ids=["sources", "benchmarks"])  # fmt: skip
def test_option_that_nothing_understands_is_named(data, capsys, opened, file, option):
    assert len(opened(str(data / file), **{option: OPTIONS[option]})) == 1
    error = capsys.readouterr().err
    named = f"Data.{option}" in error and file in error
    assert named == (option not in UNDERSTOOD[file])


def test_option_that_one_of_several_files_understands_is_not_named(data, capsys):
    open_sources([str(data / "a.tar"), str(data / "pairs.csv"), str(data / "rows.tsv")], text_id="id", encoding="utf-8")
    assert capsys.readouterr().err == ""
