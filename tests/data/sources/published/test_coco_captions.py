import pytest

from ernie_vil2.data.readers import open_benchmark
from tests.data.sources.published.conftest import image, pairs, problems, write


def captions(images, texts):
    """MSCOCO's file of images as (id, file name) and texts as (id, image id, caption)."""
    return {
        "info": {},
        "licenses": [],
        "images": [{"license": 5, "file_name": file, "id": number, "height": 8, "width": 8} for number, file in images],
        "annotations": [{"image_id": of, "id": number, "caption": words} for number, of, words in texts],
    }


FILES = {
    "annotations/captions_train2014.json": captions(
        [(9, "COCO_train2014_000000000009.jpg"), (7, "COCO_train2014_000000000007.jpg")],
        [(48, 9, "A cat."), (49, 9, "Two cats."), (50, 7, "A dog.")],
    ),
    "annotations/captions_val2014.json": captions([(42, "COCO_val2014_000000000042.jpg")], [(1, 42, "A bird. ")]),
    "annotations/instances_val2014.json": {},
    "train2014/COCO_train2014_000000000009.jpg": image(9),
    "train2014/COCO_train2014_000000000007.jpg": image(7),
    "val2014/COCO_val2014_000000000042.jpg": image(42),
}


@pytest.mark.parametrize("location", ["", "annotations", "annotations/captions_val2014.json"])
def test_images_and_texts_have_their_published_ids(tmp_path, location):
    benchmark = open_benchmark(write(tmp_path, FILES) / location)
    assert benchmark.name == "coco-captions-val2014"
    assert pairs(benchmark) == [("42", "1")] and benchmark.texts[0].text == "A bird."
    assert [one.read() for one in benchmark.images] == [image(42)]
    assert [path.name for path in benchmark.files] == ["captions_val2014.json"]


def test_the_files_of_two_years_are_distinguished(tmp_path):
    later = {"annotations/captions_val2017.json": captions([(3, "000000000003.jpg")], [(2, 3, "A boat.")])}
    write(tmp_path, FILES | later | {"val2017/000000000003.jpg": image(3)})
    with pytest.raises(ValueError, match="has several splits val; choose a split of val2014, val2017, train2014"):
        open_benchmark(tmp_path)
    assert pairs(open_benchmark(tmp_path, split="val2017")) == [("3", "2")]
    assert open_benchmark(tmp_path, split="train").name == "coco-captions-train2014"


def test_next_to_karpathys_split_they_are_skipped(tmp_path):
    karpathy = {"images": [{"filename": "COCO_val2014_000000000042.jpg", "split": "test", "imgid": 0,
                            "sentences": [{"raw": "x", "sentid": 0}]}]}  # fmt: skip
    write(tmp_path, FILES | {"dataset_coco.json": karpathy})
    assert open_benchmark(tmp_path).name == "mscoco-test"
    assert open_benchmark(tmp_path, layout="coco-captions", split="val").name == "coco-captions-val2014"


def test_bad_rows_are_named(tmp_path):
    content = captions(
        [(1, "COCO_val2014_000000000042.jpg"), (1, "COCO_val2014_000000000042.jpg"), (2, "../x.jpg"), (None, "y.jpg")],
        [(1, 1, "cat"), (1, 1, "cat"), (2, 1, " "), (3, 7, "dog"), (4, 1, None)],
    )
    content["annotations"].append("x")
    benchmark = open_benchmark(write(tmp_path, FILES | {"annotations/captions_val2014.json": content}), split="val")
    assert problems(benchmark) == {
        "repeated image id": ["1"],
        "image outside its folder": ["../x.jpg"],
        "malformed row": [
            "captions_val2014.json, image 3",
            "captions_val2014.json, annotation 4",
            "captions_val2014.json, annotation 5",
        ],
        "repeated text id": ["1"],
        "empty text": ["2"],
        "unmatched image id": ["captions_val2014.json, annotation 3, 7"],
    }
    assert pairs(benchmark) == [("1", "1")]


@pytest.mark.parametrize("content", [{}, {"images": []}, {"images": {}, "annotations": []}])
def test_another_json_file_is_named(tmp_path, content):
    with pytest.raises(ValueError, match="captions_val2014.json: no lists of images and annotations"):
        open_benchmark(write(tmp_path, {"annotations/captions_val2014.json": content}))
