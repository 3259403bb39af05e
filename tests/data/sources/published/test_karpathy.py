import pytest

from ernie_vil2.data.readers import open_benchmark
from tests.data.sources.published.conftest import image, pairs, problems, write


def row(imgid, split, filename, sentids, **fields):
    sentences = [{"raw": f"Sentence {n}.", "tokens": ["sentence"], "sentid": n, "imgid": imgid} for n in sentids]
    return {"filename": filename, "split": split, "imgid": imgid, "sentids": sentids, "sentences": sentences, **fields}


def coco(imgid, split, filepath, sentids):
    return row(imgid, split, f"COCO_{filepath}_{imgid:012}.jpg", sentids, filepath=filepath, cocoid=imgid)


COCO = [
    coco(0, "test", "val2014", [5, 3, 4, 9, 8, 7]),
    coco(1, "restval", "val2014", [10]),
    coco(2, "train", "train2014", [11]),
    coco(3, "test", "val2014", [12]),
    coco(4, "val", "val2014", [13]),
]
FILES = {"dataset_coco.json": {"images": COCO, "dataset": "coco"}}
FILES |= {f"{one['filepath']}/{one['filename']}": image(one["imgid"]) for one in COCO}
FLICKR = {"images": [row(0, "train", "1.jpg", [0]), row(1, "test", "2.jpg", [1, 2])], "dataset": "flickr30k"}


def test_all_sentences_of_the_mscoco_test_split(tmp_path):
    benchmark = open_benchmark(write(tmp_path, FILES))
    first, second = "COCO_val2014_000000000000.jpg", "COCO_val2014_000000000003.jpg"
    assert benchmark.name == "mscoco-test"
    assert pairs(benchmark) == [*((first, n) for n in "534987"), (second, "12")]
    assert benchmark.texts[0].text == "Sentence 5."
    assert [one.read() for one in benchmark.images] == [image(0), image(3)]
    assert benchmark.images[1].fields == {"imgid": 3, "cocoid": 3, "filepath": "val2014", "split": "test"}


def test_train_includes_restval(tmp_path):
    write(tmp_path, FILES)
    assert pairs(open_benchmark(tmp_path, split="train")) == [
        ("COCO_val2014_000000000001.jpg", "10"),
        ("COCO_train2014_000000000002.jpg", "11"),
    ]
    assert len(open_benchmark(tmp_path / "dataset_coco.json", split="val").images) == 1
    with pytest.raises(ValueError, match="mscoco.* has no split restval; choose a split of test, val, train"):
        open_benchmark(tmp_path, split="restval")


@pytest.mark.parametrize(
    "folder", ["flickr30k-images", "flickr30k_images", "flickr30k_images/flickr30k_images", "images"]
)
def test_flickr30k_by_any_of_its_image_folders(tmp_path, folder):
    write(tmp_path, {"dataset_flickr30k.json": FLICKR, f"{folder}/2.jpg": image(2)})
    benchmark = open_benchmark(tmp_path)
    assert benchmark.name == "flickr30k-test"
    assert pairs(benchmark) == [("2.jpg", "1"), ("2.jpg", "2")] and benchmark.images[0].read() == image(2)


def test_of_both_data_sets_in_a_folder_one_must_be_named(tmp_path):
    write(tmp_path, FILES | {"karpathy/dataset_flickr30k.json": FLICKR, "flickr30k-images/2.jpg": image(2)})
    with pytest.raises(ValueError, match=r"several layouts are here \(flickr30k, mscoco\)"):
        open_benchmark(tmp_path)
    assert open_benchmark(tmp_path, layout="flickr30k").name == "flickr30k-test"
    assert open_benchmark(tmp_path, layout="mscoco").name == "mscoco-test"
    assert open_benchmark(tmp_path / "dataset_coco.json").name == "mscoco-test"


def test_bad_rows_are_named(tmp_path):
    stranger = row(6, "test", "g.jpg", [30])
    stranger["sentences"][0]["imgid"] = 5
    sentences = [{"raw": " ", "sentid": 20}, {"raw": "x", "sentid": 1}, {"raw": "Sentence 1.", "sentid": 1}, {"raw": 3}]
    images = [
        row(1, "test", "2.jpg", [1, 2]),
        row(1, "test", "2.jpg", [3]),
        {"split": "test", "filename": "f.jpg", "imgid": 5, "sentences": sentences},
        {"split": "test", "filename": "a/../../b.jpg", "sentences": []},
        {"split": "test", "sentences": []},
        stranger,
        None,
    ]
    write(tmp_path, {"dataset_flickr30k.json": {"images": images}, "flickr30k-images/2.jpg": image(2)})
    benchmark = open_benchmark(tmp_path)
    assert problems(benchmark) == {
        "repeated image id": ["2.jpg"],
        "empty text": ["20"],
        "text id with different content": ["1"],
        "repeated text id": ["1"],
        "malformed row": ["f.jpg, sentence 3", "dataset_flickr30k.json, image 4", "dataset_flickr30k.json, image 6"],
        "image outside its folder": ["a/../../b.jpg"],
        "unmatched image id": ["g.jpg, sentence 0"],
    }
    assert pairs(benchmark) == [("2.jpg", "1"), ("2.jpg", "2")]


def test_a_json_file_of_another_kind_is_named(tmp_path):
    with pytest.raises(ValueError, match="dataset_coco.json: no list of images"):
        open_benchmark(write(tmp_path, {"dataset_coco.json": {"annotations": []}}))
