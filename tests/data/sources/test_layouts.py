"""Sources recognised by what lies in a folder; what img2dataset writes, as it is."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.readers.files import FilesSource
from ernie_vil2.data.samples import BadSample
from tests.support.shapes import write_tar, write_tsv


def img2dataset(folder, output_format, shards=2, rows=2):
    """The files of img2dataset 1.x: samples by key, and for each shard a .parquet and a _stats.json."""
    folder.mkdir()
    for shard in range(shards):
        name, members, metadata = f"{shard:05d}", [], []
        for row in range(rows):
            key = f"{shard:05d}{row:04d}"
            fields = {
                "caption": f"caption {key}", "url": f"https://example.org/{key}", "key": key, "status": "success",
                "error_message": None, "width": 256, "height": 256, "exif": "{}", "sha256": "0" * 64,
            }  # fmt: skip
            metadata.append(fields)
            members += [
                (f"{key}.jpg", f"image {key}".encode()),
                (f"{key}.txt", fields["caption"].encode()),
                (f"{key}.json", json.dumps(fields, indent=4).encode()),
            ]
        if output_format == "webdataset":
            write_tar(folder / f"{name}.tar", members)
        elif output_format == "files":
            (folder / name).mkdir()
            for member, content in members:
                (folder / name / member).write_bytes(content)
        else:
            images = [content for member, content in members if member.endswith(".jpg")]
            metadata = [{**fields, "jpg": image} for fields, image in zip(metadata, images, strict=True)]
        pq.write_table(pa.Table.from_pylist(metadata), folder / f"{name}.parquet")
        (folder / f"{name}_stats.json").write_text(json.dumps({"count": rows, "successes": rows}))
    return folder


@pytest.mark.parametrize("output_format", ["webdataset", "files", "parquet"])
def test_what_img2dataset_writes_is_read_as_it_is(tmp_path, output_format):
    source = open_sources([str(img2dataset(tmp_path / "out", output_format))])
    samples = [source[row] for row in range(len(source))]
    keys = ["000000000", "000000001", "000010000", "000010001"]
    assert [sample.image_name for sample in samples] == keys
    assert [sample.image for sample in samples] == [f"image {key}".encode() for key in keys]
    assert [sample.caption("en") for sample in samples] == [f"caption {key}" for key in keys]
    assert samples[3].fields["url"] == "https://example.org/000010001" and source.shard_sizes.tolist() == [2, 2]


def test_files_of_a_sample_that_are_missing_are_reported(tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"")
    (tmp_path / "2.txt").write_bytes(b"x")
    (tmp_path / "3.jpg").write_bytes(b"")
    (tmp_path / "3.txt").write_bytes(b"x")
    source = FilesSource(tmp_path)
    for row, reason in ((0, "no caption"), (1, "no image member")):
        with pytest.raises(BadSample, match=reason):
            source[row]
    assert source[2].caption("") == "x"
    (tmp_path / "3.jpg").unlink()
    with pytest.raises(BadSample, match="missing file"):
        source[2]


def test_a_folder_is_its_shards(tmp_path):
    write_tsv(tmp_path / "a.tsv", [("x", "1", b"i")])
    assert open_sources([str(tmp_path)])[0].caption("") == "x"
    write_tar(tmp_path / "b.tar", [("1.jpg", b"i"), ("1.txt", b"tar")])
    assert open_sources([str(tmp_path)])[0].caption("") == "tar"  # shards go before what they may be made of


def test_what_is_not_a_source_is_reported_with_what_is(tmp_path):
    with pytest.raises(ValueError, match="no layout that is known; here are no files; known are coco-cn, .*, table"):
        open_sources([str(tmp_path)])
    (tmp_path / "x_texts.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="name the images, {split}_imgs.tsv"):
        open_sources([str(tmp_path / "x_texts.jsonl")])
    with pytest.raises(ValueError, match="only .tar and .tsv are read at an address"):
        open_sources(["memory://a.csv"])
    (tmp_path / "a.jsonl").write_text('{"image": "x", "text": "y"}\n')
    (tmp_path / "x_texts.jsonl").unlink()
    (tmp_path / "b.csv").write_text("image,text\nx,y\n")
    with pytest.raises(ValueError, match=r"\(layout table\) has no split train; choose a split of a, b"):
        open_sources([str(tmp_path)])
