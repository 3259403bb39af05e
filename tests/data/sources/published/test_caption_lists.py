"""Lists of captions as their authors publish or read them: rows, ids, order, and what cannot be used."""

import pytest

from ernie_vil2.data.readers import open_benchmark, open_benchmarks
from ernie_vil2.data.readers.opening import content
from ernie_vil2.data.readers.shard_files import LocalFile
from tests.support.published_files import image, json_lines, pairs, problems, write


def test_flickr30k_cna_is_lines_of_numbered_captions(tmp_path):
    lines = "1007129816#0\t警车停在路边\n1007129816#1\t一辆 警车\n36979#0\t两个人\nnone\n36979#0\t别的\n"
    images = {"flickr30k/images/1007129816.jpg": image(1), "flickr30k/images/36979.jpg": image(2)}
    texts = {f"{split}/flickr30k_cna_{split}.txt": lines for split in ("test", "train")}
    cna = open_benchmark(write(tmp_path, images | texts))
    assert cna.name == "flickr30k-cna-test"
    assert pairs(cna) == [("1007129816", "1007129816#0"), ("1007129816", "1007129816#1"), ("36979", "36979#0")]
    assert cna.texts[1].text == "一辆 警车" and cna.images[1].read() == image(2)
    assert len(problems(cna)) == 2
    assert open_benchmark(tmp_path, split="train").name == "flickr30k-cna-train"
    # The release of Zero calls its test file otherwise.
    other = write(tmp_path / "zero", {"flickr30k_cn_test.txt": "1#0\t人\n", "flickr30k-images/1.jpg": image(1)})
    assert open_benchmark(other).name == "flickr30k-cna-test"


def test_translated_captions_of_coco_cn_are_known_by_their_mark(tmp_path):
    name, other = "COCO_train2014_000000503310", "COCO_val2014_000000000042"
    lines = "".join(f"{name}#zhm#{n} 机舱内有座椅{n}。\n" for n in (3, 0, 1)) + f"{other}#zhm#3 鞋\n"
    images = {f"train2014/{name}.jpg": image(1), f"val2014/{other}.jpg": image(2)}
    translated = open_benchmark(write(tmp_path, {"pair.txt": lines} | images))
    assert [text.id for text in translated.texts][:2] == [f"{name}#zhm#3", f"{name}#zhm#0"]  # in the order of the file
    assert translated.texts[0].text == "机舱内有座椅3。" and len(translated.images) == 2
    with pytest.raises(ValueError, match="no layout that is known"):
        content(LocalFile(write(tmp_path / "other", {"pair.txt": "a b\n"})))


def test_long_captions_are_lines_of_path_and_caption(tmp_path):
    lines = "images/a.jpg\t很长的描述。\n/data/them/b.jpg\t很长的描述。\n../c.jpg\t外面\nno tab\nimages/d.jpg\t\n"
    folder = write(tmp_path, {"image_caption_trans.txt": lines, "images/a.jpg": image(1), "images/b.jpg": image(2)})
    found = open_benchmark(folder)
    assert [one.id for one in found.images] == ["images/a.jpg", "/data/them/b.jpg"]
    assert found.images[1].read() == image(2)
    assert len(found.texts) == 2 and len(found.pairs) == 2  # equal captions are two texts
    assert sum(entry["count"] for entry in found.rows.as_dict()["reasons"].values()) == 3
    write(tmp_path / "lit", {"image_caption_long_cn.txt": "x.jpg\t长\n", "x.jpg": image(3)})
    assert open_benchmark(tmp_path / "lit").images[0].read() == image(3)


def test_xm3600_is_a_benchmark_in_every_language(tmp_path):
    rows = [
        {"image/key": "0a", "image/locale": "zh", "zh": {"caption": ["红苹果", "苹果"]},
         "en": {"caption": ["an apple"]}},
        {"image/key": "0b", "image/locale": "en", "zh": {"caption": ["红苹果"]},
         "en": {"caption": ["a pear", "green pear", "pear"], "caption/tokenized": ["a pear"]}},
    ]  # fmt: skip
    images = {"images/0a.jpg": image(1), "images/0b.jpg": image(2)}
    write(tmp_path, {"captions.jsonl": json_lines(*rows)} | images)
    by_language = open_benchmarks(tmp_path, layout="xm3600")
    assert set(by_language) == {"zh", "en"}
    assert pairs(by_language["en"]) == [("0a", "0a#0"), ("0b", "0b#0"), ("0b", "0b#1"), ("0b", "0b#2")]
    chinese = by_language["zh"]
    assert pairs(chinese) == [("0a", "0a#0"), ("0a", "0a#1"), ("0b", "0b#0")]  # equal captions are two texts
    assert chinese.images[0].fields["locale"] == "zh" and chinese.images[1].read() == image(2)
    assert set(open_benchmarks(tmp_path, ["zh"])) == {"zh"}
    with pytest.raises(ValueError, match="no caption in fr"):
        open_benchmarks(tmp_path, ["fr"])
