import pytest

from ernie_vil2.data.readers import open_benchmark
from ernie_vil2.data.readers.caption_benchmarks import join_words
from tests.data.sources.published.conftest import image, pairs, problems, write

TEST, TRAIN = "flickr30kzhmbosontest", "flickr30kzhbbosontrain"
FILES = {
    f"{TEST}/ImageSets/{TEST}.txt": "1007129816\n1009434119\n",
    f"{TEST}/TextData/seg.{TEST}.caption.txt": (
        "1007129816#zhm#0 一个:m 男人:n ，:wd 戴:v 帽子:n\n1007129816#zhm#1 男人:n\n1009434119#zhm#0 黑:a 狗:n 。:wj\n"
    ),
    f"{TRAIN}/ImageSets/{TRAIN}.txt": "36979\n",
    f"{TRAIN}/TextData/seg.{TRAIN}.caption.txt": "36979#zhb#0 两个 年轻人\n",
    "flickr30k-images/1007129816.jpg": image(1),
    "flickr30k-images/1009434119.jpg": image(2),
    "flickr30k-images/36979.jpg": image(3),
}


def test_the_test_split_by_hand_with_words_joined(tmp_path):
    benchmark = open_benchmark(write(tmp_path, FILES))
    assert benchmark.name == "flickr30k-cn-test"
    assert [one.text for one in benchmark.texts] == ["一个男人，戴帽子", "男人", "黑狗。"]
    assert pairs(benchmark) == [
        ("1007129816", "1007129816#zhm#0"),
        ("1007129816", "1007129816#zhm#1"),
        ("1009434119", "1009434119#zhm#0"),
    ]
    assert [one.read() for one in benchmark.images] == [image(1), image(2)]


def test_the_train_split_and_the_folder_of_one_split(tmp_path):
    write(tmp_path, FILES)
    for benchmark in (
        open_benchmark(tmp_path, split="train"),
        open_benchmark(tmp_path / TRAIN, images=tmp_path / "flickr30k-images"),
    ):
        assert benchmark.name == "flickr30k-cn-train" and benchmark.texts[0].text == "两个年轻人"


@pytest.mark.parametrize(
    ("words", "text"), [("时间:n ：:wm 12:00:t", "时间：12:00"), ("::w", ":"), ("T:nx 恤:n", "T恤"), (":n", "")]
)
def test_only_the_part_of_speech_is_taken_away(words, text):
    assert join_words(words) == text


def test_bad_rows_are_named(tmp_path):
    captions = {f"{TEST}/TextData/seg.{TEST}.caption.txt": "1007129816#zhm#0 :n\n7#zhm#0 狗:n\n1009434119#zhm#0 狗:n\n"}
    benchmark = open_benchmark(write(tmp_path, FILES | captions))
    assert problems(benchmark) == {"empty text": ["1007129816#zhm#0"], "unmatched image id": ["7#zhm#0"]}
    assert pairs(benchmark) == [("1009434119", "1009434119#zhm#0")]
