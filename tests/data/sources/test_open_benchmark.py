import pytest

from ernie_vil2.data.readers import LAYOUTS, open_benchmark
from tests.support.published_files import image, write
from tests.support.shapes import write_tsv


def test_an_unknown_folder_is_reported_with_known_layouts(tmp_path):
    write(tmp_path, {"notes.txt": "", "photos/1.jpg": image(1)})
    recognised = [name for name, layout in LAYOUTS.items() if not layout.by_name_only]
    with pytest.raises(ValueError, match=f"notes.txt, photos; .*{', '.join(recognised)}"):
        open_benchmark(tmp_path)


@pytest.mark.parametrize(
    ("name", "options", "culprit"),
    [
        ("", {"layout": "coco-cn"}, "coco-cn is recognised by"),
        ("", {"layout": "coco"}, "no layout 'coco'"),
        ("a.tsv", {"split": "test"}, "no splits"),
        ("a.tsv", {"images": "photos"}, "leave out images"),
        ("x.zip", {}, "x.zip"),
        ("nowhere/*.tsv", {"layout": "tsv"}, "nowhere"),
    ],
)
def test_what_the_files_have_not_is_named(tmp_path, name, options, culprit):
    write_tsv(tmp_path / "a.tsv", [("a", "1", image(1))])
    (tmp_path / "x.zip").touch()
    with pytest.raises((ValueError, FileNotFoundError), match=culprit):
        open_benchmark(tmp_path / name, **options)


def test_a_data_set_that_is_there_twice_is_not_guessed(tmp_path):
    rows = '{"images": []}'
    write(tmp_path, {"a/dataset_coco.json": rows, "b/dataset_coco.json": rows})
    with pytest.raises(ValueError, match="dataset_coco.json"):
        open_benchmark(tmp_path)


def test_a_table_next_to_a_benchmark_does_not_disturb_it(tmp_path):
    images = [{"filename": "1.jpg", "split": "test", "imgid": 0, "sentences": [{"raw": "cat", "sentid": 0}]}]
    files = {"dataset_flickr30k.json": {"images": images}, "results.csv": "image,text\n1.jpg,cat\n", "1.jpg": image(1)}
    assert open_benchmark(write(tmp_path, files)).name == "flickr30k-test"
