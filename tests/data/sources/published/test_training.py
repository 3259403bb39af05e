"""A benchmark's folder is trained on as it is: its train split, an image with each of its texts."""

import pytest

from ernie_vil2.config import ConfigError, load_config
from ernie_vil2.data.readers import open_benchmark, open_sources
from ernie_vil2.data.samples import BadSample
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.evaluation.scorers.retrieval import Retrieval
from tests.data.sources.published import (
    test_aic_icc,
    test_chinese_clip,
    test_coco_captions,
    test_coco_cn,
    test_flickr30k_cn,
    test_karpathy,
)
from tests.data.sources.published.conftest import image, write
from tests.support.shapes import write_tar


def validation_sets(config):
    """What is scored of `Data.val`, by language."""
    scorer, data = Retrieval.of_run(config, config.Data.validation, "val")
    return scorer.open(data)


A = test_coco_cn.A
CLIP = test_chinese_clip.FILES | {
    "train_imgs.tsv": test_chinese_clip.tsv((5, image(5)), (6, image(6))),
    "train_texts.jsonl": test_chinese_clip.lines(
        test_chinese_clip.text(1, "猫", 5, 6), test_chinese_clip.text(2, "狗", 6)
    ),
}
FOLDERS = {
    "coco-cn": (test_coco_cn.FILES, [(test_coco_cn.D, "房子", 4)]),
    "aic-icc": (test_aic_icc.FILES, [("c.jpg", "天", 3)]),
    "mscoco": (
        test_karpathy.FILES,
        [
            ("COCO_val2014_000000000001.jpg", "Sentence 10.", 1),  # restval
            ("COCO_train2014_000000000002.jpg", "Sentence 11.", 2),
        ],
    ),
    "flickr30k": (
        {"dataset_flickr30k.json": test_karpathy.FLICKR, "flickr30k-images/1.jpg": image(1)},
        [("1.jpg", "Sentence 0.", 1)],
    ),
    "flickr30k-cn": (test_flickr30k_cn.FILES, [("36979", "两个年轻人", 3)]),
    "chinese-clip": (CLIP, [("5", "猫", 5), ("6", "猫", 6), ("6", "狗", 6)]),
    "coco-captions": (test_coco_captions.FILES, [("9", "A cat.", 9), ("9", "Two cats.", 9), ("7", "A dog.", 7)]),
}


def read(source):
    samples = [source[row] for row in range(len(source))]
    return [(sample.image_name, sample.caption("zh"), sample.image) for sample in samples]


@pytest.mark.parametrize("layout", FOLDERS)
def test_the_train_split_is_many_to_many(tmp_path, layout):
    files, expected = FOLDERS[layout]
    write(tmp_path, files)
    expected = [(name, text, image(number)) for name, text, number in expected]
    assert read(open_sources([str(tmp_path)])) == expected
    stream = SampleStream(load_config(None, [f"Data.train=['{tmp_path}']", "Views.languages={zh: 1.0}"]))
    assert sorted(stream[position][1].image_name for position in range(len(expected))) == sorted(
        row[0] for row in expected
    )


def test_a_split_and_a_folder_of_images_are_named_in_the_configuration(tmp_path):
    files = dict(test_coco_cn.FILES)
    images = {name: files.pop(name) for name in list(files) if name.endswith(".jpg")}
    write(tmp_path / "notes", files), write(tmp_path / "photos", images)
    entry = f"{{data: ['{tmp_path}/notes'], split: test, images: '{tmp_path}/photos'}}"
    config = load_config(None, [f"Data.train=[{entry}]"])
    (source,) = config.Data.sources
    samples = read(open_sources(source.data, split=source.split, images=source.images))
    assert [(name, text) for name, text, _ in samples] == [
        (A, "一只猫"),
        (test_coco_cn.B, "两只 狗"),
        (A, "猫"),
    ]
    assert {SampleStream(config)[position][1].image_name for position in range(3)} == {A, test_coco_cn.B}


def test_validation_takes_the_split_of_validation_if_there_is_one(tmp_path):
    write(tmp_path, test_coco_cn.FILES)
    position = str(tmp_path)
    for changes, images in (
        ([f"Data.val=['{position}']"], [test_coco_cn.C]),
        ([f"Data.val=['{position}']", "Evaluation.protocol=coco-cn-test"], [test_coco_cn.B, A]),
        ([f"Data.val=[{{data: ['{position}'], split: test}}]"], [test_coco_cn.B, A]),
    ):
        sets = validation_sets(load_config(None, ["Views.languages={zh: 1.0}", *changes]))
        assert [one.id for one in sets["zh"].images] == images
    (tmp_path / test_coco_cn.FOLDER / "coco-cn_val.txt").unlink()
    assert len(validation_sets(load_config(None, [f"Data.val=['{position}']"]))["zh"].images) == 2


def test_validation_is_in_the_languages_that_run_and_captions_share(tmp_path, shapes):
    write(tmp_path, test_coco_cn.FILES)
    both = "Views.languages={zh: 1.0, en: 1.0}"
    for val, languages, expected in (
        (tmp_path, both, ["zh, en"]),  # a published benchmark names no language: scored once
        (shapes["val"], both, ["zh", "en"]),
        (shapes["val"], "Views.languages={en: 1.0}", ["en"]),
        (shapes["val"], "Views={languages: {fr: 1.0}, prompts: {fr: ''}, separators: {fr: ', '}}", ["en", "zh"]),
    ):
        assert sorted(validation_sets(load_config(None, [languages, f"Data.val=['{val}']"]))) == sorted(expected)


def test_lines_are_captions_in_validation_where_the_data_or_the_views_say_so(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("0.png", image(1)), ("0.txt", b"one\ntwo")])
    for changes, texts in (([], 1), (["Views.caption_lines=true"], 2)):
        assert len(validation_sets(load_config(None, [f"Data.val=['{path}']", *changes]))["zh"].texts) == texts
    own = f"Data.val=[{{data: ['{path}'], caption_lines: true}}]"
    assert len(validation_sets(load_config(None, [own]))["zh"].texts) == 2


def test_validation_is_one_benchmark():
    with pytest.raises(ConfigError, match="val: write plain entries, or one mapping"):
        load_config(None, ["Data.val=[a.tar, {data: [b], split: test}]"])


def test_without_a_train_split_the_message_says_what_to_do(tmp_path):
    files = {name: content for name, content in test_coco_cn.FILES.items() if "_train" not in name}
    with pytest.raises(ValueError, match=r"\(layout coco-cn\) has no split train; choose a split of test, val"):
        open_sources([str(write(tmp_path, files))])


def test_what_cannot_be_used_is_counted_with_the_samples(tmp_path):
    captions = f"{test_coco_cn.FOLDER}/imageid.human-written-caption.txt"
    files = test_coco_cn.FILES | {captions: f"{test_coco_cn.D}#0\t房子\n{test_coco_cn.D}#1\t \nnone#0\tx\n"}
    source = open_sources([str(write(tmp_path, files))])
    reasons = []
    for row in range(len(source)):
        try:
            assert source[row].caption("") == "房子"
        except BadSample as bad:
            reasons.append(bad.reason)
    assert len(source) == 3 and sorted(reasons) == ["empty text", "unmatched image id"]


def test_what_a_run_was_trained_on_is_known_by_annotations_and_captions(tmp_path):
    write(tmp_path, test_coco_cn.FILES)
    before = open_sources([str(tmp_path)]).fingerprint
    assert open_sources([str(tmp_path)]).fingerprint == before
    captions = tmp_path / test_coco_cn.FOLDER / "imageid.human-written-caption.txt"
    captions.write_text(captions.read_text().replace("房子", "屋子"))
    assert open_sources([str(tmp_path)]).fingerprint != before


def test_shards_next_to_a_benchmark_in_a_sub_folder_are_not_guessed(tmp_path):
    write(tmp_path, test_coco_cn.FILES | {"00000.tar": b""})
    with pytest.raises(ValueError, match=r"files of several layouts are here \(coco-cn, tar\)"):
        open_sources([str(tmp_path)])
    # Archives of the images next to the annotations themselves are skipped.
    files = {"dataset_flickr30k.json": test_karpathy.FLICKR, "flickr30k-images/2.jpg": image(1)}
    write(tmp_path / "flickr", files | {"flickr30k-images.tar": b""})
    assert open_benchmark(tmp_path / "flickr").name == "flickr30k-test"
