"""Training and validation on the published folder of a benchmark."""

import pytest

from ernie_vil2.config import load_config
from ernie_vil2.data.readers import open_benchmark, open_sources
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.evaluation.scorers.retrieval import Retrieval
from tests.support.published_files import (
    CN_TEST_1,
    CN_TEST_2,
    CN_VAL,
    COCO_CN,
    COCO_CN_FILES,
    FLICKR30K,
    TRAIN_SPLITS,
    make_image,
    read_all,
    write_files,
)
from tests.support.shapes import write_tar


def open_validation(config):
    """Return the benchmarks of `Data.val` by language."""
    scorer, data = Retrieval.from_config(config, config.Data.val_config, "val")
    return scorer.open(data).benchmarks


def read_rows(source):
    return [(sample.image_name, sample.caption("zh"), sample.image) for sample in read_all(source)]


@pytest.mark.parametrize("layout", TRAIN_SPLITS)
def test_train_split_has_a_row_for_each_text_of_an_image(tmp_path, layout):
    files, rows = TRAIN_SPLITS[layout]
    write_files(tmp_path, files)
    source = open_sources([str(tmp_path)])
    assert read_rows(source) == [(name, text, make_image(number)) for name, text, number in rows]
    stream = SampleStream(load_config(None, [f"Data.train=['{tmp_path}']", "Views.languages={zh: 1.0}"]))
    names = [stream[position][1].image_name for position in range(len(rows))]
    assert sorted(names) == sorted(name for name, _, _ in rows)


def test_configuration_sets_split_and_folder_of_images(tmp_path):
    for name, content in COCO_CN_FILES.items():
        write_files(tmp_path / ("photos" if name.endswith(".jpg") else "notes"), {name: content})
    entry = f"{{data: ['{tmp_path}/notes'], split: test, images: '{tmp_path}/photos'}}"
    stream = SampleStream(load_config(None, [f"Data.train=[{entry}]", "Views.languages={zh: 1.0}"]))
    samples = [stream[position][1] for position in range(3)]
    assert sorted((sample.image_name, sample.caption("zh")) for sample in samples) == [
        (CN_TEST_1, "两只 狗"), (CN_TEST_2, "一只猫"), (CN_TEST_2, "猫"),
    ]  # fmt: skip


def test_validation_uses_the_val_split_if_there_is_one(tmp_path):
    write_files(tmp_path, COCO_CN_FILES)
    for overrides, images in (
        ([f"Data.val=['{tmp_path}']"], [CN_VAL]),
        ([f"Data.val=['{tmp_path}']", "Evaluation.protocol=coco-cn-test"], [CN_TEST_1, CN_TEST_2]),
        ([f"Data.val=[{{data: ['{tmp_path}'], split: test}}]"], [CN_TEST_1, CN_TEST_2]),
    ):
        benchmarks = open_validation(load_config(None, ["Views.languages={zh: 1.0}", *overrides]))
        assert [image.id for image in benchmarks["zh"].images] == images
    (tmp_path / COCO_CN / "coco-cn_val.txt").unlink()
    assert len(open_validation(load_config(None, [f"Data.val=['{tmp_path}']"]))["zh"].images) == 2


def test_validation_is_in_languages_of_run_and_captions(tmp_path, shapes):
    write_files(tmp_path, COCO_CN_FILES)
    two_languages = "Views.languages={zh: 1.0, en: 1.0}"
    for val, languages, expected in (
        (tmp_path, two_languages, ["zh, en"]),  # a published benchmark names no language: scored once
        (shapes["val"], two_languages, ["zh", "en"]),
        (shapes["val"], "Views.languages={en: 1.0}", ["en"]),
        (shapes["val"], "Views={languages: {fr: 1.0}, prompts: {fr: ''}, separators: {fr: ', '}}", ["en", "zh"]),
    ):
        assert sorted(open_validation(load_config(None, [languages, f"Data.val=['{val}']"]))) == sorted(expected)


def test_caption_lines_split_captions_of_validation(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("0.png", make_image(1)), ("0.txt", b"one\ntwo")])
    for overrides, num_texts in (
        ([f"Data.val=['{path}']"], 1),
        ([f"Data.val=['{path}']", "Views.caption_lines=true"], 2),
        ([f"Data.val=[{{data: ['{path}'], caption_lines: true}}]"], 2),
    ):
        assert len(open_validation(load_config(None, overrides))["zh"].texts) == num_texts


def test_folder_with_a_benchmark_and_shards_is_refused(tmp_path):
    write_files(tmp_path, COCO_CN_FILES | {"00000.tar": b""})
    with pytest.raises(ValueError, match=r"\(coco-cn, tar\)"):
        open_sources([str(tmp_path)])
    # Archives of the images next to the annotations are skipped.
    files = {"dataset_flickr30k.json": FLICKR30K, "flickr30k-images/2.jpg": make_image(1)}
    write_files(tmp_path / "flickr", files | {"flickr30k-images.tar": b""})
    assert open_benchmark(tmp_path / "flickr").name == "flickr30k-test"
