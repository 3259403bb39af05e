import base64

from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.data.readers import TsvSource
from tests.support.limits import examples
from tests.support.published_files import read_all


def test_a_bad_row_is_reported_by_reason_and_line(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes(b"x\ty\tAAAA\n" + b"a\n" + b"a\tb\tabc\n" + b"a\t\xff\tAAAA\n")
    first, *others = read_all(TsvSource(path))
    assert first.image == b"\0\0\0"
    assert others == ["a.tsv:2: malformed row", "a.tsv:3: malformed base64", "a.tsv:4: not UTF-8"]


blanks = st.text(" \t", max_size=3)
columns = st.lists(st.sampled_from(["", " ", "7", "猫 坐", "AAAA", "x y"]), max_size=3).map("\t".join)


@examples(60)
@given(st.sampled_from(["a", "猫 坐", " b"]), columns, st.binary(min_size=1, max_size=9), blanks)
def test_rows_are_read_as_the_official_reader_reads_them(tmp_path_factory, text, between, image, behind):
    """`line.strip().split("\t")`, of which the first column is the text and the last one the image."""
    line = "\t".join(filter(None, [text, between, base64.b64encode(image).decode()])) + behind
    path = tmp_path_factory.mktemp("tsv") / "a.tsv"
    path.write_text(line + "\n", encoding="utf-8")
    first, *_, last = line.strip().split("\t")
    sample = TsvSource(path)[0]
    assert (sample.caption("zh"), sample.image) == (first, base64.b64decode(last)) == (text.strip(), image)


def test_an_image_without_id_is_known_by_its_content(tmp_path):
    (tmp_path / "a.tsv").write_text("x\tAAAA\ny\tAAAA\nz\tAAAB\nz\t\tAAAB\nz\t7\tx\tAAAB\n")
    source = TsvSource(tmp_path / "a.tsv")
    first, second, *others, named = [source[row].image_name for row in range(5)]
    assert first == second != others[0] == others[1] and named == "7"
