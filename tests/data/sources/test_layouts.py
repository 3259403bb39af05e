"""Sources recognised by what lies in a folder."""

import pytest

from ernie_vil2.data.readers import open_benchmark, open_sources
from ernie_vil2.data.readers.files import FilesSource
from tests.support.published_files import img2dataset, read_all, write
from tests.support.shapes import write_tar, write_tsv


@pytest.mark.parametrize("output_format", ["webdataset", "files", "parquet"])
def test_what_img2dataset_writes_is_read_and_scored(tmp_path, output_format):
    folder = str(img2dataset(tmp_path / "out", output_format))
    keys = ["000000000", "000000001", "000010000", "000010001"]
    expected = [(key, f"caption {key}", f"image {key}".encode()) for key in keys]
    source, benchmark = open_sources([folder]), open_benchmark(folder)
    samples = [source[row] for row in range(len(source))]
    assert [(sample.image_name, sample.caption("en"), sample.image) for sample in samples] == expected
    assert samples[3].fields["url"] == "https://example.org/000010001" and source.shard_sizes.tolist() == [2, 2]
    scored = zip(benchmark.images, benchmark.texts, strict=True)
    assert [(image.id, text.text, image.read()) for image, text in scored] == expected
    suffixes = {"webdataset": [".tar"] * 2, "files": [], "parquet": [".parquet"] * 2}
    assert [path.suffix for path in benchmark.files] == suffixes[output_format]


def test_files_of_a_sample_that_are_missing_are_reported(tmp_path):
    source = FilesSource(write(tmp_path, {"1.jpg": b"", "2.txt": "x", "3.jpg": b"", "3.txt": "x"}))
    *problems, whole = read_all(source)
    assert problems == ["1: no caption", "2: no image member"] and whole.caption("") == "x"
    (tmp_path / "3.jpg").unlink()
    assert "missing file" in read_all(source)[2]


def test_a_folder_is_its_shards(tmp_path):
    write_tsv(tmp_path / "a.tsv", [("x", "1", b"i")])
    assert open_sources([str(tmp_path)])[0].caption("") == "x"
    write_tar(tmp_path / "b.tar", [("1.jpg", b"i"), ("1.txt", b"tar")])
    assert open_sources([str(tmp_path)])[0].caption("") == "tar"  # shards go before what they may be made of


def test_what_is_not_a_source_is_reported_with_what_is(tmp_path):
    with pytest.raises(ValueError, match="{split}_imgs.tsv"):
        open_sources([str(write(tmp_path, {"x_texts.jsonl": "{}\n"}) / "x_texts.jsonl")])
    with pytest.raises(ValueError, match="address"):
        open_sources(["memory://a.csv"])
    write(tmp_path / "two", {"a.jsonl": '{"image": "x", "text": "y"}\n', "b.csv": "image,text\nx,y\n"})
    with pytest.raises(ValueError, match="a split of a, b"):
        open_sources([str(tmp_path / "two")])
