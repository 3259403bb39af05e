"""Images that are both scored and trained on are noticed: by id before a run, by content during it."""

import numpy as np
import pytest

from ernie_vil2.config import Config, ConfigError, load_config
from ernie_vil2.data.decoding import collect_remarks
from ernie_vil2.data.readers import open_benchmark
from ernie_vil2.data.stream import SampleStream, watch_for_leaks
from ernie_vil2.training.trainer import Trainer
from tests.support.published_files import TRAIN_SPLITS, write_files
from tests.support.shapes import encode_png, write_tsv


def write_numbers(path, numbers, prefix=""):
    """Write a TSV file whose images are their numbers."""
    return write_tsv(path, [(f"text {number}", f"{prefix}{number}", f"{number}".encode()) for number in numbers])


def open_and_watch(train, scored):
    """Return the training stream that watches for scored images, and what is printed about their ids."""
    stream = SampleStream(load_config(None, [f"Data.train=['{train}']"]))
    return stream, watch_for_leaks(stream, [open_benchmark(scored)])


def test_equal_content_under_another_name_is_a_remark(tmp_path):
    train = write_numbers(tmp_path / "a.tsv", range(6))
    scored = write_numbers(tmp_path / "b.tsv", range(4, 8), "other")  # shares images 4 and 5
    stream, lines = open_and_watch(train, scored)
    remarks_by_image = {}
    for position in range(6):
        with collect_remarks() as remarks:
            _, sample = stream[position]
        if remarks:
            remarks_by_image[sample.image] = remarks
    assert remarks_by_image == {b"4": ["image that is scored too"], b"5": ["image that is scored too"]}
    assert lines == []


def test_ids_that_a_benchmark_lists_are_compared_before_the_run(tmp_path):
    files, samples = TRAIN_SPLITS["coco-captions"]
    write_files(tmp_path / "train", files)
    shared_id = samples[0][0]
    scored = write_tsv(tmp_path / "b.tsv", [("x", shared_id, b"other content"), ("y", "nobody's", b"another")])
    _, (line,) = open_and_watch(tmp_path / "train", scored)
    assert f"of 2 scored images 1 ({shared_id})" in line and f"{tmp_path}/train" in line
    unshared = write_numbers(tmp_path / "c.tsv", range(3), "z")
    assert open_and_watch(tmp_path / "train", unshared)[1] == []


def test_unreadable_scored_image_is_not_a_leak(tmp_path):
    benchmark = open_benchmark(write_files(tmp_path / "scored", TRAIN_SPLITS["coco-captions"][0]))
    for path in (tmp_path / "scored").rglob("*.jpg"):
        path.unlink()
    train = write_numbers(tmp_path / "a.tsv", range(3))
    stream = SampleStream(load_config(None, [f"Data.train=['{train}']"]))
    assert watch_for_leaks(stream, [benchmark]) == [] and stream.scored_contents == frozenset()


def test_run_prints_how_many_images_are_scored_too(tmp_path, capsys):
    colours = [encode_png(np.full((32, 32, 3), 20 * number, np.uint8)) for number in range(12)]
    train = write_tsv(tmp_path / "train.tsv", [(f"a {n}", f"t{n}", colours[n]) for n in range(10)])  # shares 8 and 9
    val = write_tsv(tmp_path / "val.tsv", [(f"b {n}", f"v{n}", colours[n]) for n in range(8, 12)])
    config = load_config(None, [
        "Model.image={name: ViT, image_size: 32, patch_size: 16, width: 32, depth: 1, heads: 1}",
        "Model.text={name: ernie, width: 32, depth: 1, heads: 1, max_positions: 16}", "Data.max_length=16",
        f"Data.train=['{train}']", f"Data.val=['{val}']", "Data.workers=0", "Schedule.warmup_steps=0",
        "Training.steps=2", "Training.global_batch=5", f"Training.output={tmp_path / 'run'}",
    ])  # fmt: skip
    assert Trainer(config).fit()
    assert "image that is scored too: 2 (t" in capsys.readouterr().out


def test_scored_data_without_files_are_taken_from_training(tmp_path):
    data = load_config(None, ["Data.train=[{data: [a], images: photos}]", "Data.val=[{split: val}]",
                              "Data.test=[{split: test, protocol: coco-cn-test, images: others}]"]).Data  # fmt: skip
    assert (data.val_config.data, data.val_config.split, data.val_config.images) == (["a"], "val", "photos")
    test_config = data.test_config
    assert (test_config.data, test_config.protocol, test_config.images) == (["a"], "coco-cn-test", "others")
    with pytest.raises(ConfigError, match="test: "):
        load_config(None, ["Data.test=[a, {split: test}]"])

    location = {"layout": "tsv", "images": "b", "columns": {"image": "c"}, "encoding": "gb18030", "text_id": "d",
                "caption_lines": True}  # fmt: skip
    train = {"data": ["a"], "split": "train", **location}
    data = Config.model_validate({"Data": {"train": [train], "val": [{"split": "val", "caption_lines": False}]}}).Data
    expected = {**location, "data": ["a"], "split": "val", "protocol": None, "caption_lines": False}
    assert data.val_config.model_dump() == expected
    with pytest.raises(ValueError, match="Data.train"):
        _ = load_config(None, ["Data.val=[{split: val}]"]).Data.val_config
