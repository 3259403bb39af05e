import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.data.readers import TsvSource
from ernie_vil2.data.samples import BadSample
from tests.support.limits import examples
from tests.support.shapes import draw, png

IMAGE = png(draw((200, 30, 30), "disc", np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"a", "malformed row"),
        (b"a\tb\tabc", "malformed base64"),
        (b"a\t\xff\tAAAA", "not UTF-8"),
    ],
)
def test_a_bad_tsv_row_is_reported_by_reason_and_line(tmp_path, row, reason):
    path = tmp_path / "a.tsv"
    path.write_bytes(b"x\ty\tAAAA\n" + row + b"\n")
    source = TsvSource(path)
    assert source[0].image == b"\0\0\0"
    with pytest.raises(BadSample) as caught:
        source[1]
    assert (caught.value.reason, caught.value.name) == (reason, "a.tsv:2")


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
