"""Caption benchmarks in their published layouts: pairs, order, images, splits, and bad rows."""

import json

import pytest

from ernie_vil2.data.readers import open_benchmark, open_benchmarks, open_sources
from ernie_vil2.data.readers.caption_benchmarks import join_words
from ernie_vil2.data.readers.locations import LocalFile
from ernie_vil2.data.readers.opening import recognise
from ernie_vil2.data.samples import BadSample
from ernie_vil2.data.spec import DataSpec
from tests.support.published_files import (
    AIC_ICC,
    AIC_ICC_ANNOTATIONS,
    AIC_ICC_FILES,
    CLIP_FILES,
    CN_TEST_1,
    CN_TEST_2,
    CN_VAL,
    COCO_CAPTIONS_FILES,
    COCO_CN,
    COCO_CN_CAPTIONS,
    COCO_CN_FILES,
    FLICKR30K,
    FLICKR30K_CN_FILES,
    FLICKR_CN_TRAIN,
    MSCOCO_FILES,
    format_clip_images,
    json_lines,
    list_pairs,
    list_problems,
    make_aic_icc_row,
    make_clip_text,
    make_coco_captions,
    make_image,
    make_karpathy_row,
    read_all,
    write_files,
)

COCO_1, COCO_2 = "COCO_val2014_000000000000.jpg", "COCO_val2014_000000000003.jpg"
# Name of a benchmark -> its files, where it may be opened, its pairs, its texts, and the numbers of its images.
BENCHMARKS = {
    "coco-cn-test": (
        COCO_CN_FILES, ["", COCO_CN, f"{COCO_CN}/coco-cn_test.txt"],
        [(CN_TEST_2, f"{CN_TEST_2}#0"), (CN_TEST_1, f"{CN_TEST_1}#0"), (CN_TEST_2, f"{CN_TEST_2}#1")],
        ["一只猫", "两只 狗", "猫"], [2, 1],
    ),
    "aic-icc-val": (
        AIC_ICC_FILES, ["", AIC_ICC, AIC_ICC_ANNOTATIONS],
        [(name, f"{name}#{n}") for name in ("b.jpg", "a.jpg") for n in range(5)], list("一二三四五六七八九十"), [2, 1],
    ),
    "mscoco-test": (
        MSCOCO_FILES, [""], [*((COCO_1, n) for n in "534987"), (COCO_2, "12")],
        [f"Sentence {n}." for n in (5, 3, 4, 9, 8, 7, 12)], [0, 3],
    ),
    "coco-captions-val2014": (
        COCO_CAPTIONS_FILES, ["", "annotations", "annotations/captions_val2014.json"], [("42", "1")], ["A bird."], [42],
    ),
    "flickr30k-cn-test": (
        FLICKR30K_CN_FILES, [""],
        [("1007129816", "1007129816#zhm#0"), ("1007129816", "1007129816#zhm#1"), ("1009434119", "1009434119#zhm#0")],
        ["一个男人，戴帽子", "男人", "黑狗。"], [1, 2],
    ),
    "MUGE-valid": (
        CLIP_FILES, ["MUGE/valid_imgs.tsv", "MUGE"],
        [("1076345", "8428"), ("517602", "8428"), ("1076345", "7")], ["托特包", "帽子", "靴子"], [1, 2, 3],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BENCHMARKS)
def test_pairs_texts_and_images_are_in_the_order_of_the_files(tmp_path, name):
    files, locations, expected, texts, numbers = BENCHMARKS[name]
    write_files(tmp_path / "MUGE" if name == "MUGE-valid" else tmp_path, files)
    for location in locations:
        benchmark = open_benchmark(tmp_path / location)
        assert benchmark.name == name and list_pairs(benchmark) == expected
        assert [text.text for text in benchmark.texts] == texts
        assert [image.read() for image in benchmark.images] == [make_image(number) for number in numbers]
        assert benchmark.entry_report.counts.total() == 0


@pytest.mark.parametrize(
    ("files", "split", "images"),
    [
        (COCO_CN_FILES, "valid", [CN_VAL]),
        (MSCOCO_FILES, "val", ["COCO_val2014_000000000004.jpg"]),
        (CLIP_FILES, "test", ["11"]),  # without answers: opened only by its name
    ],
)
def test_split_is_opened_by_its_name(tmp_path, files, split, images):
    assert [image.id for image in open_benchmark(write_files(tmp_path, files), split=split).images] == images


@pytest.mark.parametrize("in_folders", [True, False])
def test_images_may_be_in_another_folder(tmp_path, in_folders, monkeypatch):
    for name, data in COCO_CN_FILES.items():
        if name.endswith(".txt"):
            write_files(tmp_path / "notes", {name: data})
        else:
            write_files(tmp_path / "photos", {name if in_folders else name.split("/")[1]: data})
    benchmark = open_benchmark(tmp_path / "notes", images=tmp_path / "photos")
    assert [image.read() for image in benchmark.images] == [make_image(2), make_image(1)]
    monkeypatch.chdir(tmp_path / "notes" / COCO_CN)
    assert len(open_benchmark("coco-cn_test.txt", images="../../photos").texts) == 3


def test_id_and_sentence_may_be_separated_by_a_space(tmp_path):
    captions = {COCO_CN_CAPTIONS: f"\ufeff{CN_TEST_2}#0 一只猫\r\n{CN_TEST_1}#zhm#0 狗\r\n"}
    benchmark = open_benchmark(write_files(tmp_path, COCO_CN_FILES | captions))
    # A change of any of these files is noticed.
    assert [path.name for path in benchmark.files] == ["coco-cn_test.txt", CN_CAPTIONS]
    texts = [(text.id, text.text) for text in benchmark.texts]
    assert texts == [(f"{CN_TEST_2}#0", "一只猫"), (f"{CN_TEST_1}#zhm#0", "狗")]


@pytest.mark.parametrize("folder", ["flickr30k_images", "flickr30k_images/flickr30k_images", "images"])
def test_flickr30k_is_opened_with_any_image_folder(tmp_path, folder):
    benchmark = open_benchmark(
        write_files(tmp_path, {"dataset_flickr30k.json": FLICKR30K, f"{folder}/2.jpg": make_image(2)})
    )
    assert list_pairs(benchmark) == [("2.jpg", "1"), ("2.jpg", "2")] and benchmark.images[0].read() == make_image(2)


def test_captions_of_coco_of_two_years_need_a_split(tmp_path):
    later = {"annotations/captions_val2017.json": make_coco_captions([(3, "000000000003.jpg")], [(2, 3, "A boat.")])}
    write_files(tmp_path, COCO_CAPTIONS_FILES | later | {"val2017/000000000003.jpg": make_image(3)})
    with pytest.raises(ValueError, match="several splits val"):
        open_benchmark(tmp_path)
    assert list_pairs(open_benchmark(tmp_path, split="val2017")) == [("3", "2")]


def test_layout_or_file_selects_one_of_several_data_sets(tmp_path):
    flickr = {"karpathy/dataset_flickr30k.json": FLICKR30K, "flickr30k-images/2.jpg": make_image(2)}
    write_files(tmp_path, COCO_CAPTIONS_FILES | MSCOCO_FILES)
    assert open_benchmark(tmp_path).name == "mscoco-test"  # Karpathy's split is preferred to the captions of COCO
    assert open_benchmark(tmp_path, layout="coco-captions", split="val").name == "coco-captions-val2014"
    write_files(tmp_path, flickr | FLICKR30K_CN_FILES)
    with pytest.raises(ValueError, match=r"\(flickr30k, mscoco, flickr30k-cn\)"):
        open_benchmark(tmp_path)
    for location, options, name in (
        ("", {"layout": "flickr30k"}, "flickr30k-test"),
        ("dataset_coco.json", {}, "mscoco-test"),
        (FLICKR_CN_TRAIN, {"images": tmp_path / "flickr30k-images"}, "flickr30k-cn-train"),
    ):
        assert open_benchmark(tmp_path / location, **options).name == name


def test_parts_of_speech_are_removed_from_words():
    words = ["时间:n ：:wm 12:00:t", "::w", "T:nx 恤:n", ":n"]
    assert list(map(join_words, words)) == ["时间：12:00", ":", "T恤", ""]


def test_test_split_is_preferred_if_it_has_answers(tmp_path):
    write_files(tmp_path, CLIP_FILES | {"test_texts.jsonl": json_lines(make_clip_text(12, "裙子", 11))})
    assert open_benchmark(tmp_path).name.endswith("-test")
    assert open_benchmark(tmp_path, split="val").name.endswith("-valid")


SENTENCES = [{"raw": " ", "sentid": 20}, {"raw": "x", "sentid": 1}, {"raw": "Sentence 1.", "sentid": 1}, {"raw": 3}]
CN_CAPTIONS = COCO_CN_CAPTIONS.rpartition("/")[2]
# Layout -> files with bad rows, the names of these by reason, and the pairs that remain.
BAD_ROWS = {
    "coco-cn": (
        COCO_CN_FILES
        | {
            f"{COCO_CN}/coco-cn_test.txt": f"{CN_TEST_2}\n{CN_TEST_1}\n{CN_TEST_2}\n../../etc/passwd\n",
            COCO_CN_CAPTIONS: f"{CN_TEST_2}#0\t猫\n{CN_TEST_2}#0\t猫\n{CN_TEST_1}#0\t\n"
            "no mark\nCOCO_val2014_9#0\t鸟\n".encode()
            + b"\xff#0\tx\n",
        },
        {
            "repeated image id": [CN_TEST_2],
            "image outside its folder": ["../../etc/passwd.jpg"],
            "repeated text id": [f"{CN_TEST_2}#0"],
            "empty text": [f"{CN_TEST_1}#0"],
            "malformed row": [f"{CN_CAPTIONS}:4"],
            "unmatched image id": ["COCO_val2014_9#0"],
            "not UTF-8": [f"{CN_CAPTIONS}:6"],
        },
        [(CN_TEST_2, f"{CN_TEST_2}#0")],
    ),
    "aic-icc": (
        AIC_ICC_FILES
        | {
            AIC_ICC_ANNOTATIONS: [
                make_aic_icc_row("b.jpg", "一", " "),
                make_aic_icc_row("../a.jpg", "一"),
                {"image_id": "a.jpg", "caption": "一"},
                make_aic_icc_row("a.jpg", 1),
                7,
            ],
        },
        {
            "empty text": ["b.jpg#1"],
            "image outside its folder": ["../a.jpg"],
            "malformed row": [f"{AIC_ICC_ANNOTATIONS.rpartition('/')[2]}, entry {number}" for number in (2, 3, 4)],
        },
        [("b.jpg", "b.jpg#0")],
    ),
    "flickr30k": (
        {
            "dataset_flickr30k.json": {
                "images": [
                    make_karpathy_row(1, "test", "2.jpg", [1, 2]),
                    make_karpathy_row(1, "test", "2.jpg", [3]),
                    {"split": "test", "filename": "f.jpg", "imgid": 5, "sentences": SENTENCES},
                    {"split": "test", "filename": "a/../../b.jpg", "sentences": []},
                    {"split": "test", "sentences": []},
                    make_karpathy_row(6, "test", "g.jpg", [30]) | {"imgid": 5},
                    None,
                    make_karpathy_row(7, ["test"], "h.jpg", [31]),
                ]
            },
            "flickr30k-images/2.jpg": make_image(2),
        },
        {
            "repeated image id": ["2.jpg"],
            "empty text": ["20"],
            "text id with different content": ["1"],
            "repeated text id": ["1"],
            "image outside its folder": ["a/../../b.jpg"],
            "malformed row": ["f.jpg, sentence 3", *(f"dataset_flickr30k.json, image {number}" for number in (4, 6))],
            "unmatched image id": ["g.jpg, sentence 0"],
        },
        [("2.jpg", "1"), ("2.jpg", "2")],
    ),
    "coco-captions": (
        COCO_CAPTIONS_FILES
        | {
            "annotations/captions_val2014.json": make_coco_captions(
                [
                    (1, "COCO_val2014_000000000042.jpg"),
                    (1, "COCO_val2014_000000000042.jpg"),
                    (2, "../x.jpg"),
                    (None, "y.jpg"),
                ],
                [(1, 1, "cat"), (1, 1, "cat"), (2, 1, " "), (3, 7, "dog"), (4, 1, None)],
            ),
        },
        {
            "repeated image id": ["1"],
            "image outside its folder": ["../x.jpg"],
            "malformed row": ["captions_val2014.json, image 3", "captions_val2014.json, annotation 4"],
            "repeated text id": ["1"],
            "empty text": ["2"],
            "unmatched image id": ["captions_val2014.json, annotation 3, 7"],
        },
        [("1", "1")],
    ),
    "chinese-clip": (
        {
            "test_imgs.tsv": format_clip_images(
                (1, make_image(1)), (2, make_image(2)), (1, make_image(1)), (2, make_image(3))
            )
            + "no tab\n",
            "test_texts.jsonl": json_lines(
                make_clip_text(10, "一", 1, 99),
                make_clip_text(10, "一", 1),
                make_clip_text(10, "三", 1),
                make_clip_text(12, " ", 1),
                {"text_id": 13, "text": "四", "image_ids": 1},
                {"text": "四", "image_ids": [1]},
                make_clip_text(14, 5, 1),
                make_clip_text(15, "四", [1]),
                [1],
            )
            + "{\n",
        },
        {
            "repeated image id": ["test_imgs.tsv:3, 1"],
            "image id with different content": ["test_imgs.tsv:4, 2"],
            "malformed row": ["test_imgs.tsv:5", *(f"test_texts.jsonl:{number}" for number in (5, 6, 7, 8))],
            "unmatched image id": ["test_texts.jsonl:1, 99"],
            "repeated text id": ["10"],
            "text id with different content": ["10"],
            "empty text": ["12"],
            "malformed JSON": ["test_texts.jsonl:9", "test_texts.jsonl:10"],
        },
        [("1", "10")],
    ),
}


@pytest.mark.parametrize("layout", BAD_ROWS)
def test_bad_rows_are_skipped_and_named(tmp_path, layout):
    files, names_by_reason, expected = BAD_ROWS[layout]
    benchmark = open_benchmark(
        write_files(tmp_path, files), layout=layout, split="val" if "captions" in layout else None
    )
    assert list_problems(benchmark) == names_by_reason and list_pairs(benchmark) == expected


def test_bad_row_of_an_image_is_noticed_when_it_is_read(tmp_path):
    files = {
        "test_imgs.tsv": f"1\t{'A' * 400}\tAAAA\n2\t!!!!\n",
        "test_texts.jsonl": json_lines(make_clip_text(1, "一", 1)),
    }
    images = open_benchmark(write_files(tmp_path, files)).images
    for image, reason in zip(images, ("test_imgs.tsv:1: malformed row", "test_imgs.tsv:2: malformed"), strict=True):
        with pytest.raises(BadSample, match=reason):
            image.read()


@pytest.mark.parametrize(
    ("layout", "files", "culprit"),
    [
        ("aic-icc", AIC_ICC_FILES | {AIC_ICC_ANNOTATIONS: "["}, "caption_validation_annotations_20170910.json"),
        ("coco-captions", {"annotations/captions_val2014.json": {"images": []}}, "captions_val2014.json"),
        ("mscoco", {"dataset_coco.json": {"annotations": []}}, "dataset_coco.json"),
        ("coco-cn", {name: text for name, text in COCO_CN_FILES.items() if name != COCO_CN_CAPTIONS}, CN_CAPTIONS),
        ("coco-cn", {name: text for name, text in COCO_CN_FILES.items() if name.endswith(".txt")}, "--images"),
    ],
)
def test_error_names_the_missing_or_malformed_file(tmp_path, layout, files, culprit):
    with pytest.raises((ValueError, FileNotFoundError), match=culprit):
        open_benchmark(write_files(tmp_path, files), layout=layout)


def test_flickr30k_cna_is_read_from_lines_of_captions(tmp_path):
    lines = "1007129816#0\t警车停在路边\n1007129816#1\t一辆 警车\n36979#0\t两个人\nnone\n36979#0\t别的\n"
    images = {"flickr30k/images/1007129816.jpg": make_image(1), "flickr30k/images/36979.jpg": make_image(2)}
    texts = {f"{split}/flickr30k_cna_{split}.txt": lines for split in ("test", "train")}
    cna = open_benchmark(write_files(tmp_path, images | texts))
    assert cna.name == "flickr30k-cna-test"
    assert list_pairs(cna) == [("1007129816", "1007129816#0"), ("1007129816", "1007129816#1"), ("36979", "36979#0")]
    assert cna.texts[1].text == "一辆 警车" and cna.images[1].read() == make_image(2)
    assert len(list_problems(cna)) == 2
    assert open_benchmark(tmp_path, split="train").name == "flickr30k-cna-train"
    # The release of Zero has another name for the test file.
    zero = write_files(
        tmp_path / "zero", {"flickr30k_cn_test.txt": "1#0\t人\n", "flickr30k-images/1.jpg": make_image(1)}
    )
    assert open_benchmark(zero).name == "flickr30k-cna-test"


def test_translated_coco_cn_is_recognised_by_the_mark_zhm(tmp_path):
    train_name, val_name = "COCO_train2014_000000503310", "COCO_val2014_000000000042"
    lines = "".join(f"{train_name}#zhm#{n} 机舱内有座椅{n}。\n" for n in (3, 0, 1)) + f"{val_name}#zhm#3 鞋\n"
    images = {f"train2014/{train_name}.jpg": make_image(1), f"val2014/{val_name}.jpg": make_image(2)}
    translated = open_benchmark(write_files(tmp_path, {"pair.txt": lines} | images))
    assert [text.id for text in translated.texts[:2]] == [f"{train_name}#zhm#3", f"{train_name}#zhm#0"]  # file order
    assert translated.texts[0].text == "机舱内有座椅3。" and len(translated.images) == 2
    with pytest.raises(ValueError, match="no known layout"):
        recognise(LocalFile(write_files(tmp_path / "other", {"pair.txt": "a b\n"})), DataSpec([]))


def test_long_captions_are_read_from_lines_of_path_and_text(tmp_path):
    lines = "images/a.jpg\t很长的描述。\n/data/them/b.jpg\t很长的描述。\n../c.jpg\t外面\nno tab\nimages/d.jpg\t\n"
    folder = write_files(
        tmp_path, {"image_caption_trans.txt": lines, "images/a.jpg": make_image(1), "images/b.jpg": make_image(2)}
    )
    benchmark = open_benchmark(folder)
    assert [image.id for image in benchmark.images] == ["images/a.jpg", "/data/them/b.jpg"]
    assert benchmark.images[1].read() == make_image(2)
    assert len(benchmark.texts) == 2 and len(benchmark.pairs) == 2  # equal captions are two texts
    assert sum(entry["count"] for entry in benchmark.entry_report.as_dict()["reasons"].values()) == 3
    write_files(tmp_path / "lit", {"image_caption_long_cn.txt": "x.jpg\t长\n", "x.jpg": make_image(3)})
    assert open_benchmark(tmp_path / "lit").images[0].read() == make_image(3)


def test_xm3600_is_a_benchmark_in_every_language(tmp_path):
    rows = [
        {"image/key": "0a", "image/locale": "zh", "zh": {"caption": ["红苹果", "苹果"]},
         "en": {"caption": ["an apple"]}},
        {"image/key": "0b", "image/locale": "en", "zh": {"caption": ["红苹果"]},
         "en": {"caption": ["a pear", "green pear", "pear"], "caption/tokenized": ["a pear"]}},
    ]  # fmt: skip
    images = {"images/0a.jpg": make_image(1), "images/0b.jpg": make_image(2)}
    write_files(tmp_path, {"captions.jsonl": json_lines(*rows)} | images)
    by_language = open_benchmarks(tmp_path, layout="xm3600")
    assert set(by_language) == {"zh", "en"}
    assert list_pairs(by_language["en"]) == [("0a", "0a#0"), ("0b", "0b#0"), ("0b", "0b#1"), ("0b", "0b#2")]
    chinese = by_language["zh"]
    assert list_pairs(chinese) == [("0a", "0a#0"), ("0a", "0a#1"), ("0b", "0b#0")]  # equal captions are two texts
    assert chinese.images[0].fields["locale"] == "zh" and chinese.images[1].read() == make_image(2)
    assert set(open_benchmarks(tmp_path, languages=["zh"])) == {"zh"}
    with pytest.raises(ValueError, match="no caption in fr"):
        open_benchmarks(tmp_path, languages=["fr"])


def test_xm3600_caption_that_is_no_unicode_text_is_bad(tmp_path):
    row = {"image/key": "0a", "en": {"caption": ["\ud800", "an apple", "x" * 100_001]}}
    write_files(tmp_path, {"captions.jsonl": json.dumps(row), "0a.jpg": make_image(1)})
    first, sample, last = read_all(open_sources([str(tmp_path)]))
    assert (first, sample.caption("en"), last) == ("0a#0: not Unicode text", "an apple", "0a#2: text too long")
