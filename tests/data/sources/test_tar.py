import io
import json
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.data.decoding import decode_image
from ernie_vil2.data.readers import TarSource
from ernie_vil2.data.samples import BadSample
from tests.support.limits import examples
from tests.support.shapes import draw, png, write_tar

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
    with pytest.raises(BadSample, match="1, concept: missing field"):
        TarSource(path, "concept")[0]


def test_samples_that_share_an_image_name_it(tmp_path):
    members = [(f"{row}.{kind}", data) for row in (1, 2) for kind, data in
               (("png", IMAGE), ("json", b'{"image_id": "i", "caption": "x"}'))]  # fmt: skip
    assert [tar(tmp_path, *members)[row].image_name for row in (0, 1)] == ["i", "i"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"{", "malformed JSON"),
        (b"[]", "malformed JSON"),
        (b"\xff", "malformed JSON"),
        (b"{}", "no caption"),
        (b'{"caption": null}', "no caption"),
        (b'{"caption": "a", "image_id": []}', "malformed image id"),
        (b'{"caption": 3}', "malformed caption"),
        (b'{"caption": "a", "tags": "b"}', "malformed tags"),
    ],
)
def test_a_bad_json_member_is_reported_by_reason_and_name(tmp_path, text, reason):
    with pytest.raises(BadSample) as caught:
        tar(tmp_path, ("1.png", IMAGE), ("1.json", text))[0]
    assert (caught.value.reason, caught.value.name) == (reason, "1")


def test_an_empty_caption_is_bad_when_it_is_asked_for(tmp_path):
    sample = tar(tmp_path, ("1.png", IMAGE), ("1.json", b'{"caption_zh": " ", "caption_en": "x"}'))[0]
    assert sample.caption("en") == "x"
    with pytest.raises(BadSample, match="1: empty caption"):
        sample.caption("zh")


def test_folders_and_hidden_files_are_skipped(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("1.png", IMAGE), ("1.txt", b"x"), ("._1.png", b"x"), ("d/.DS_Store", b"")])
    append(path, "d", type=tarfile.DIRTYPE)
    assert len(TarSource(path)) == 1


def append(path, name, **fields):
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo(name)
        for field, value in fields.items():
            setattr(info, field, value)
        archive.addfile(info, io.BytesIO(bytes(info.size)))


@pytest.mark.parametrize(
    ("name", "fields", "reason"),
    [
        ("2.png", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "link in the shard"),
        ("2.png", {"type": tarfile.LNKTYPE, "linkname": "1.png"}, "link in the shard"),
        ("2.png", {"type": tarfile.FIFOTYPE}, "device in the shard"),
        ("2.png", {"type": tarfile.CHRTYPE}, "device in the shard"),
        ("../2.png", {"size": 5}, "member outside the shard"),
        ("a/../../2.png", {"size": 5}, "member outside the shard"),
        ("/etc/2.png", {"size": 5}, "member outside the shard"),
        ("\udcff.png", {"size": 5}, "name is not UTF-8"),
    ],
)
def test_what_no_shard_should_hold_is_a_bad_sample_with_a_name(tmp_path, name, fields, reason):
    path = write_tar(tmp_path / "a.tar", [("1.png", IMAGE), ("1.txt", b"x")])
    append(path, name, **fields)
    append(path, name.replace("png", "txt"), size=1)
    source = TarSource(path)
    assert len(source) == 2 and source[0].image == IMAGE
    with pytest.raises(BadSample) as caught:
        source[1]
    assert caught.value.reason == reason
    assert caught.value.name == name.removesuffix(".png").replace("\udcff", "\\udcff")


def test_a_name_that_repeats_begins_a_new_sample(tmp_path):
    members = [("1.png", IMAGE), ("1.txt", b"a"), ("1.png", IMAGE), ("1.txt", b"b")]
    source = tar(tmp_path, *members)
    assert [source[row].caption("") for row in range(len(source))] == ["a", "b"]


def test_members_of_a_sample_need_not_be_adjacent(tmp_path):
    source = tar(tmp_path, ("1.png", IMAGE), ("2.png", IMAGE), ("2.txt", b"two"), ("1.txt", b"one"))
    assert [source[row].caption("") for row in range(len(source))] == ["one", "two"]


def test_every_cut_of_a_shard_keeps_the_samples_before_it_and_is_reported_once(tmp_path):
    members = [(f"{i}.{kind}", content) for i in range(3) for kind, content in (("png", IMAGE), ("txt", b"x"))]
    whole = write_tar(tmp_path / "whole.tar", members).read_bytes()
    sample = 1024 + -(-len(IMAGE) // 512) * 512 + 512  # two headers, and the data in blocks
    # From here on the end mark is there; what tar adds behind it only fills up.
    for size in [*range(600, 3 * sample + 511, 256), 3 * sample + 511]:
        path = tmp_path / "cut.tar"
        path.write_bytes(whole[:size])
        source = TarSource(path)
        good, bad = 0, []
        for row in range(len(source)):
            try:
                good += source[row].caption("") == "x"
            except BadSample as problem:
                bad.append(problem.reason)
        assert good >= size // sample and bad.count("cut shard") == 1
        assert set(bad) <= {"cut shard", "no image member", "no caption"}


def test_an_empty_shard_is_one_bad_sample(tmp_path):
    source = TarSource(write_tar(tmp_path / "empty.tar", []))
    assert len(source) == 1
    with pytest.raises(BadSample, match="empty.tar: empty shard"):
        source[0]


@pytest.mark.parametrize("packer", ["gz", "bz2", "xz"])
def test_a_compressed_shard_is_refused_and_reported_by_name(tmp_path, packer):
    with tarfile.open(tmp_path / "a.tar", f"w:{packer}") as archive:
        archive.addfile(tarfile.TarInfo("1.png"))
    with pytest.raises(ValueError, match="a.tar: compressed with .*unpack it first"):
        TarSource(tmp_path / "a.tar")


def test_what_is_not_a_tar_is_named(tmp_path):
    path = tmp_path / "odd.tar"
    path.write_bytes(b"not a tar file" * 100)
    with pytest.raises(ValueError, match="odd.tar"):
        TarSource(path)


@examples(60)
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
        assert "a.tar" in str(error)  # noqa: PT017  -- there may be no error
        return
    for row in range(len(source)):
        try:
            sample = source[row]
            sample.caption("zh")
            decode_image(sample.image, sample.image_name)
        except BadSample:
            pass
