from pathlib import Path

import pytest

from ernie_vil2.data.readers import LAYOUTS, open_benchmark
from tests.data.sources.published.conftest import image, write
from tests.support.shapes import write_tsv


def test_an_unknown_folder_is_reported_with_the_layouts_that_are_known(tmp_path):
    write(tmp_path, {"notes.txt": "", "photos/1.jpg": image(1)})
    recognised = [name for name, layout in LAYOUTS.items() if not layout.by_name_only]
    with pytest.raises(ValueError, match=f"here are notes.txt, photos; known are {', '.join(recognised)}") as caught:
        open_benchmark(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_layout_that_is_asked_for_and_not_there(tmp_path):
    write_tsv(tmp_path / "a.tsv", [("a", "1", image(1))])
    with pytest.raises(ValueError, match="here are a.tsv; coco-cn is recognised by coco-cn_test.txt and"):
        open_benchmark(tmp_path, layout="coco-cn")
    with pytest.raises(ValueError, match="there is no layout 'coco'; did you mean"):
        open_benchmark(tmp_path, layout="coco")
    with pytest.raises(ValueError, match="here are x.txt; tar is recognised by .tar shards"):
        open_benchmark(write(tmp_path / "empty", {"x.txt": ""}), layout="tar")


@pytest.mark.parametrize("layout", [None, "coco-cn", "tsv"])
@pytest.mark.parametrize("path", ["nowhere", "nowhere/*.tsv"])
def test_a_path_that_is_not_there(tmp_path, path, layout):
    with pytest.raises(FileNotFoundError, match="no file matches .*nowhere"):
        open_benchmark(tmp_path / path, layout=layout)


def test_what_files_of_samples_have_not(tmp_path):
    path = write_tsv(tmp_path / "a.tsv", [("a", "1", image(1))])
    with pytest.raises(ValueError, match="has no splits; leave out split, or train with .*Data.holdout="):
        open_benchmark(path, split="test")
    with pytest.raises(ValueError, match="layout tsv holds its images; leave out images"):
        open_benchmark(path, images=tmp_path)
    with pytest.raises(ValueError, match="no data given"):
        open_benchmark([])
    with pytest.raises(ValueError, match="x.zip: no layout that is known"):
        open_benchmark([path, write(tmp_path, {"x.zip": ""}) / "x.zip"])


def test_a_data_set_that_is_there_twice_is_not_guessed(tmp_path):
    rows = '{"images": []}'
    write(tmp_path, {"a/dataset_coco.json": rows, "b/dataset_coco.json": rows})
    with pytest.raises(ValueError, match="dataset_coco.json is there more than once"):
        open_benchmark(tmp_path)


def test_a_table_next_to_a_published_benchmark_does_not_disturb_it(tmp_path):
    images = [{"filename": "1.jpg", "split": "test", "imgid": 0, "sentences": [{"raw": "cat", "sentid": 0}]}]
    files = {"dataset_flickr30k.json": {"images": images}, "results.csv": "image,text\n1.jpg,cat\n", "1.jpg": image(1)}
    assert open_benchmark(write(tmp_path, files)).name == "flickr30k-test"


def test_every_layout_is_in_the_docs():
    for name, layout in LAYOUTS.items():
        page = Path(__file__).parents[3] / "docs" / ("data.md" if layout.by_name_only else "benchmarks.md")
        assert f"`{name}`" in page.read_text(encoding="utf-8"), name
