import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_vil2.data.samples import BadSample
from ernie_vil2.data.sources import TsvSource
from tests.conftest import draw, png, write_tsv

IMAGE = png(draw((200, 30, 30), "disc", np.random.default_rng(0)))


def test_tsv_rows(tmp_path):
    source = TsvSource(write_tsv(tmp_path / "a.tsv", [("猫 坐", "7", IMAGE), ("狗", "8", IMAGE)]))
    assert len(source) == 2
    assert (source[0].caption("zh"), source[0].image_name, source[0].image) == ("猫 坐", "7", IMAGE)
    assert source[1].caption("en") == "狗"


@pytest.mark.parametrize(
    "row, reason",
    [
        (b"a\tb", "malformed row"),
        (b"a\tb\tc\td", "malformed row"),
        (b"", "malformed row"),
        (b"a\tb\t!!!!", "malformed base64"),
        (b"a\tb\tabc", "malformed base64"),
        (b"a\t\xff\tAAAA", "not UTF-8"),
        (b"a\t \tAAAA", "malformed image id"),
    ],
)
def test_a_bad_tsv_row_is_told_by_reason_and_line(tmp_path, row, reason):
    path = tmp_path / "a.tsv"
    path.write_bytes(b"x\ty\tAAAA\n" + row + b"\n")
    source = TsvSource(path)
    assert source[0].image == b"\0\0\0"
    with pytest.raises(BadSample) as caught:
        source[1]
    assert (caught.value.reason, caught.value.name) == (reason, "a.tsv:2")


def test_url_safe_base64_is_read(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("x\ty\t-_-_\n")
    assert TsvSource(path)[0].image == b"\xfb\xff\xbf"


@settings(max_examples=60)
@given(content=st.binary(min_size=1, max_size=300))
def test_whatever_a_tsv_holds_a_row_is_a_sample_or_a_bad_sample(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("tsv") / "a.tsv"
    path.write_bytes(content)
    source = TsvSource(path)
    assert len(source) == content.count(b"\n") + (not content.endswith(b"\n"))
    for row in range(len(source)):
        try:
            source[row]
        except BadSample as bad:
            assert bad.reason in ("malformed row", "malformed base64", "not UTF-8", "malformed image id")
