import json
import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_vil2.data.samples import BadSample, BadSampleReport, TooManyBadSamples, content_id, decode_image
from ernie_vil2.data.sources import Sources, TarSource, TsvSource, open_sources
from tests.conftest import draw, png, write_tar, write_tsv

IMAGE = png(draw((200, 30, 30), "disc", np.random.default_rng(0)))


def tar(tmp_path, *members):
    return TarSource(write_tar(tmp_path / "a.tar", members))


def test_tar_members_that_share_a_name_up_to_the_first_dot_are_one_sample(tmp_path):
    fields = {"caption_zh": "红", "caption_en": "red", "tags_en": ["a", " ", "b"], "kind": "object"}
    source = tar(tmp_path, ("d/1.png", IMAGE), ("d/1.json", json.dumps(fields).encode()), ("d/2.x.txt", b"two"))
    assert len(source) == 2
    sample = source[0]
    assert (sample.image_name, sample.image, sample.caption("zh"), sample.caption("en")) == ("d/1", IMAGE, "红", "red")
    assert sample.tag_list("en") == ("a", "b") and sample.tag_list("zh") == ()
    assert sample.fields["kind"] == "object"
    with pytest.raises(BadSample, match="d/2: no image member"):
        source[1]


def test_a_txt_member_is_the_caption_of_every_language(tmp_path):
    sample = tar(tmp_path, ("1.png", IMAGE), ("1.txt", "猫".encode()))[0]
    assert sample.caption("zh") == sample.caption("en") == "猫"


def test_the_text_is_named_by_the_field_that_is_asked_for(tmp_path):
    members = [("1.png", IMAGE), ("1.json", b'{"id": 7, "caption": "x"}')]
    path = write_tar(tmp_path / "a.tar", members)
    assert TarSource(path, "id")[0].text_name == "7"
    assert TarSource(path)[0].text_name == "x"
    with pytest.raises(BadSample, match="no field concept"):
        TarSource(path, "concept")[0]


@pytest.mark.parametrize(
    "text, reason",
    [
        (b"{", "malformed JSON"),
        (b"[]", "malformed JSON"),
        (b"\xff", "malformed JSON"),
        (b"{}", "no caption"),
        (b'{"caption": 3}', "malformed caption"),
        (b'{"caption": "a", "tags": "b"}', "malformed tags"),
    ],
)
def test_a_bad_json_member_is_told_by_reason_and_name(tmp_path, text, reason):
    with pytest.raises(BadSample) as caught:
        tar(tmp_path, ("1.png", IMAGE), ("1.json", text))[0]
    assert (caught.value.reason, caught.value.name) == (reason, "1")


def test_an_empty_caption_is_bad_when_it_is_asked_for(tmp_path):
    sample = tar(tmp_path, ("1.png", IMAGE), ("1.json", b'{"caption_zh": " ", "caption_en": "x"}'))[0]
    assert sample.caption("en") == "x"
    with pytest.raises(BadSample, match="1: empty caption"):
        sample.caption("zh")


def test_links_and_folders_in_a_tar_are_passed_over(tmp_path):
    import tarfile

    path = write_tar(tmp_path / "a.tar", [("1.png", IMAGE), ("1.txt", b"x")])
    with tarfile.open(path, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo(f"2{kind.decode()}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert len(TarSource(path)) == 1


def test_what_is_no_tar_is_named(tmp_path):
    path = tmp_path / "odd.tar"
    path.write_bytes(b"not a tar file" * 100)
    with pytest.raises(ValueError, match="odd.tar"):
        TarSource(path)


def test_tsv_rows(tmp_path):
    source = TsvSource(write_tsv(tmp_path / "a.tsv", [("猫 坐", "7", IMAGE), ("狗", "8", IMAGE)]))
    assert len(source) == 2
    assert (source[0].caption("zh"), source[0].image_name, source[0].image) == ("猫 坐", "7", IMAGE)
    assert source[1].caption("en") == "狗"


@pytest.mark.parametrize("row", ["a\tb", "a\tb\tc\td", "a\tb\t!!!!", "", "a\tb\tabc"])
def test_a_malformed_tsv_row_is_named_by_line(tmp_path, row):
    path = tmp_path / "a.tsv"
    path.write_text(f"x\ty\tAAAA\n{row}\n")
    source = TsvSource(path)
    assert source[0].image == b"\0\0\0"
    with pytest.raises(BadSample) as caught:
        source[1]
    assert (caught.value.reason, caught.value.name) == ("malformed row", "a.tsv:2")


def test_url_safe_base64_is_read(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("x\ty\t-_-_\n")
    assert TsvSource(path)[0].image == b"\xfb\xff\xbf"


@settings(max_examples=60, deadline=None)
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
            assert bad.reason == "malformed row"


@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_flipped_byte_in_a_tar_is_an_error_with_a_name_or_a_bad_sample(tmp_path_factory, position, value):
    folder = tmp_path_factory.mktemp("tar")
    members = [(f"{i}.{kind}", content) for i in range(3) for kind, content in (("png", IMAGE), ("txt", b"x"))]
    path = write_tar(folder / "a.tar", members)
    data = bytearray(path.read_bytes())
    data[position % len(data)] = value
    path.write_bytes(data)
    try:
        source = TarSource(path)
    except ValueError as error:
        assert "a.tar" in str(error)
        return
    for row in range(len(source)):
        try:
            sample = source[row]
            sample.caption("zh")
            decode_image(sample.image, sample.image_name)
        except BadSample:
            pass


def test_sources_stand_one_behind_the_other(tmp_path):
    for name, count in (("b", 2), ("a", 3)):
        write_tsv(tmp_path / f"{name}.tsv", [(f"{name}{i}", str(i), IMAGE) for i in range(count)])
    source = open_sources([str(tmp_path / "*.tsv")])
    assert [source[row].caption("") for row in range(len(source))] == ["a0", "a1", "a2", "b0", "b1"]
    with pytest.raises(IndexError):
        source[5]


@pytest.mark.parametrize(
    "patterns, error", [(["nowhere/*.tar"], "no file matches nowhere"), ([], "no data given"), (["odd.zip"], "odd.zip")]
)
def test_data_that_is_not_there_is_named(tmp_path, monkeypatch, patterns, error):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd.zip").write_bytes(b"")
    with pytest.raises((FileNotFoundError, ValueError), match=error):
        open_sources(patterns)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", IMAGE[: len(IMAGE) // 2][:40]])
def test_a_broken_image_is_named(data):
    with pytest.raises(BadSample, match="x: broken image"):
        decode_image(data, "x")


def test_pixels_come_as_rgb():
    assert decode_image(IMAGE, "x")[16, 16].tolist() == [200, 30, 30]


def test_ids_fit_into_int64_and_tell_names_apart():
    ids = {content_id(str(number)) for number in range(10_000)}
    assert len(ids) == 10_000 and 0 <= min(ids) and max(ids) < 2**63


def test_the_report_counts_by_reason_and_names_the_first():
    report = BadSampleReport()
    report.add(30, [("broken image", f"i{i}") for i in range(12)] + [("empty caption", "t")])
    assert report.as_dict()["reasons"]["broken image"] == {"count": 12, "names": [f"i{i}" for i in range(10)]}
    assert "13 of 30 samples" in str(report) and re.search(r"broken image: 12 \(i0, .*i9, \.\.\.\)", str(report))
    again = BadSampleReport()
    again.merge(json.loads(json.dumps(report.as_dict())))
    assert again.as_dict() == report.as_dict()
    again.merge({"read": 5, "bad": 1, "reasons": {"empty caption": {"count": 1, "names": ["u"]}}})
    assert again.read == 35 and again.as_dict()["reasons"]["empty caption"] == {"count": 2, "names": ["t", "u"]}


def test_too_many_bad_samples_stop_the_run():
    report = BadSampleReport(max_share=0.1, patience=100)
    report.add(99, [("broken image", str(i)) for i in range(50)])
    with pytest.raises(TooManyBadSamples, match="50 of 100.*max_bad_share = 0.1"):
        report.add(1, [])


def test_sources_of_random_sizes_find_every_row():
    rng = random.Random(0)
    parts = [[rng.random() for _ in range(rng.randrange(4))] for _ in range(20)]
    source = Sources(parts)
    assert [source[i] for i in range(len(source))] == [value for part in parts for value in part]
