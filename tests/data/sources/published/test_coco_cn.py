import pytest

from ernie_vil2.data.readers import open_benchmark
from ernie_vil2.data.samples import BadSample
from tests.data.sources.published.conftest import image, pairs, problems, write

A, B, C, D = (f"COCO_{part}2014_{n:012}" for part, n in (("val", 1), ("train", 2), ("val", 3), ("train", 4)))
FOLDER = "coco-cn-version1805v1.1"
FILES = {
    f"{FOLDER}/coco-cn_train.txt": f"{D}\n",
    f"{FOLDER}/coco-cn_val.txt": f"{C}\n",
    f"{FOLDER}/coco-cn_test.txt": f"{B}\n{A}\n",
    f"{FOLDER}/imageid.human-written-caption.txt": (
        f"{A}#0\t一只猫\n{D}#0\t房子\n{B}#0\t两只 狗\n{A}#1\t猫 \n{C}#0\t鸟\n"
    ),
    f"{FOLDER}/imageid.human-written-tags.txt": f"{A} 猫 狗\n",
    f"{FOLDER}/imageid.manually-translated-caption.txt": f"{A}#0\t不读\n",
    f"val2014/{A}.jpg": image(1),
    f"train2014/{B}.jpg": image(2),
    f"val2014/{C}.jpg": image(3),
    f"train2014/{D}.jpg": image(4),
}


@pytest.mark.parametrize("location", ["", FOLDER, f"{FOLDER}/coco-cn_test.txt"])
def test_the_test_split_in_the_order_of_the_files(tmp_path, location):
    write(tmp_path, FILES)
    benchmark = open_benchmark(tmp_path / location)
    assert benchmark.name == "coco-cn-test"
    assert [one.id for one in benchmark.images] == [B, A]
    assert [(one.id, one.text) for one in benchmark.texts] == [
        (f"{A}#0", "一只猫"),
        (f"{B}#0", "两只 狗"),
        (f"{A}#1", "猫"),
    ]
    assert pairs(benchmark) == [(A, f"{A}#0"), (B, f"{B}#0"), (A, f"{A}#1")]
    assert [one.read() for one in benchmark.images] == [image(2), image(1)]
    assert str(benchmark.rows) == "all 5 samples read could be used"
    assert [path.name for path in benchmark.files] == ["coco-cn_test.txt", "imageid.human-written-caption.txt"]


@pytest.mark.parametrize("location", [".", "coco-cn_test.txt"])
def test_a_relative_path(tmp_path, monkeypatch, location):
    monkeypatch.chdir(write(tmp_path, FILES) / FOLDER)
    assert len(open_benchmark(location, images="..").texts) == 3


@pytest.mark.parametrize(("split", "images"), [("val", [C]), ("valid", [C]), ("train", [D])])
def test_the_other_splits(tmp_path, split, images):
    benchmark = open_benchmark(write(tmp_path, FILES), split=split)
    assert [one.id for one in benchmark.images] == images and len(benchmark.texts) == 1


@pytest.mark.parametrize("layout", ["images", "all in one"])
def test_images_lie_in_a_folder_of_their_own(tmp_path, layout):
    write(tmp_path / "notes", {name: content for name, content in FILES.items() if name.endswith(".txt")})
    for name, content in FILES.items():
        if name.endswith(".jpg"):
            write(tmp_path / "photos", {name if layout == "images" else name.split("/")[1]: content})
    benchmark = open_benchmark(tmp_path / "notes", images=tmp_path / "photos")
    assert [one.read() for one in benchmark.images] == [image(2), image(1)]


def test_a_space_may_part_id_and_sentence(tmp_path):
    captions = {f"{FOLDER}/imageid.human-written-caption.txt": f"\ufeff{A}#0 一只猫\r\n{B}#zhm#0 狗\r\n"}
    benchmark = open_benchmark(write(tmp_path, FILES | captions))
    assert [(one.id, one.text) for one in benchmark.texts] == [(f"{A}#0", "一只猫"), (f"{B}#zhm#0", "狗")]


def test_bad_rows_are_counted_by_reason_named_and_skipped(tmp_path):
    captions = (
        f"{A}#0\t猫\n{A}#0\t猫\n{A}#0\t狗\n{B}#0\t\nno mark\nCOCO_val2014_9#0\t鸟\n".encode()
        + b"\xff#0\tx\n"
        + "\u3000\n".encode()
    )
    files = FILES | {
        f"{FOLDER}/coco-cn_test.txt": f"{A}\n{B}\n{A}\n../../etc/passwd\n",
        f"{FOLDER}/imageid.human-written-caption.txt": captions,
    }
    benchmark = open_benchmark(write(tmp_path, files))
    file = "imageid.human-written-caption.txt"
    assert problems(benchmark) == {
        "repeated image id": [A],
        "image outside its folder": ["../../etc/passwd.jpg"],
        "repeated text id": [f"{A}#0"],
        "text id with different content": [f"{A}#0"],
        "empty text": [f"{B}#0"],
        "malformed row": [f"{file}:5", f"{file}:8"],
        "unmatched image id": ["COCO_val2014_9#0"],
        "not UTF-8": [f"{file}:7"],
    }
    assert pairs(benchmark) == [(A, f"{A}#0")] and len(benchmark.images) == 2
    # 4 lines of ids and 8 of captions; good are two ids and one caption.
    assert benchmark.rows.read == 12 and benchmark.rows.counts.total() == 9


def test_a_missing_image_names_itself_when_it_is_read(tmp_path):
    benchmark = open_benchmark(write(tmp_path, {name: c for name, c in FILES.items() if not name.endswith(f"{A}.jpg")}))
    with pytest.raises(BadSample, match=f"{A}.jpg: missing image"):
        benchmark.images[1].read()


def test_without_any_image_it_says_where_it_looked(tmp_path):
    write(tmp_path, {name: content for name, content in FILES.items() if name.endswith(".txt")})
    with pytest.raises(FileNotFoundError, match=r"looked in .*train2014, .*val2014.*--images"):
        open_benchmark(tmp_path)
    with pytest.raises(FileNotFoundError, match="photos: no such folder"):
        open_benchmark(tmp_path, images=tmp_path / "photos")


def test_without_captions_it_says_so(tmp_path):
    (write(tmp_path, FILES) / FOLDER / "imageid.human-written-caption.txt").unlink()
    with pytest.raises(FileNotFoundError, match="imageid.human-written-caption.txt is missing"):
        open_benchmark(tmp_path)
