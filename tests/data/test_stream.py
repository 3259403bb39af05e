"""The stream of samples: ids, the mixture of sources, changed data, windows of shards, and training texts."""

import os
import shutil
from collections import Counter

import numpy as np
import pytest

from ernie_vil2.data.readers import MAX_OPEN_SHARDS
from tests.support.shapes import write_tsv
from tests.support.streams import open_stream, read_names, record_opened_files, write_shard


@pytest.fixture
def two_sources(tmp_path):
    """Write sources of 30 samples in three shards and of 10 in one, and return them as a value of Data.train."""
    for number in range(3):
        write_shard(tmp_path / f"a{number}.tsv", range(10 * number, 10 * number + 10), "a")
    write_shard(tmp_path / "b.tsv", range(10), "b")
    return f"[{{data: [{tmp_path}/a*.tsv], weight: 1}}, {{data: [{tmp_path}/b.tsv], weight: 3}}]"


def test_image_is_identified_by_its_name_and_its_bytes(tmp_path):
    # Keys begin again in each shard; an image with two captions has one name.
    write_tsv(tmp_path / "a.tsv", [("a", "0", b"A"), ("a again", "0", b"A"), ("b", "1", b"B"), ("b too", "2", b"B")])
    write_tsv(tmp_path / "b.tsv", [("c", "0", b"C"), ("a in b", "0", b"A")])
    stream = open_stream(f"[{tmp_path}/a.tsv, {tmp_path}/b.tsv]")
    captions, texts = {}, set()
    for source, sample in (stream[position] for position in range(6)):
        image, text = stream.ids(source, sample)
        captions.setdefault(image, set()).add(sample.caption("zh"))
        texts.add(text)
    assert sorted(map(sorted, captions.values())) == [["a", "a again", "a in b"], ["b"], ["b too"], ["c"]]
    assert len(texts) == 6


@pytest.mark.parametrize("weighted", [True, False])
def test_sources_mix_by_weight_or_size_in_their_own_epochs(two_sources, weighted):
    sources = two_sources
    if not weighted:
        sources = sources.replace(", weight: 1", "").replace(", weight: 3", "")
    stream = open_stream(sources)
    draws = read_names(stream, range(4000))
    counts = Counter(source for source, _ in draws)
    # A quarter or three quarters of the draws, within 5 standard deviations.
    assert abs(counts[0] - (1000 if weighted else 3000)) < 5 * np.sqrt(4000 * 0.25 * 0.75)
    for source, size in enumerate((30, 10)):
        names = [name for source_of_name, name in draws if source_of_name == source]
        epochs = [names[start : start + size] for start in range(0, len(names) - size + 1, size)]
        assert len(epochs) >= 30 and all(len(set(epoch)) == size for epoch in epochs)
    assert stream.epochs(4000) == [counts[0] / 30, counts[1] / 10]


def test_source_may_have_views_of_its_own(tmp_path):
    path = write_shard(tmp_path / "a.tsv", range(3))
    settings = "tag_probability: 0.0, languages: {en: 1.0}, prompts: {en: 'There is a '}"
    common, special = open_stream(f"[{path}, {{data: [{path}], {settings}}}]", "Views.tag_probability=0.7").views
    assert (common.tag_probability, common.languages) == (0.7, {"zh": 1.0})
    assert (special.tag_probability, special.languages) == (0.0, {"en": 1.0})
    assert special.prompts == {"zh": "图片中包含", "en": "There is a "} and special.resize == common.resize


def test_equal_names_in_two_sources_are_two_images_of_one_text(tmp_path):
    a = write_tsv(tmp_path / "a.tsv", [("same text", "7", b"-")])
    b = write_tsv(tmp_path / "b.tsv", [("same text", "7", b"-")])
    stream = open_stream(f"[{{data: [{a}]}}, {{data: [{b}]}}, {{data: [{a}]}}]")
    ids = {}
    for position in range(50):
        source, sample = stream[position]
        ids[source] = stream.ids(source, sample)
    assert ids[0] == ids[2] and ids[0][0] != ids[1][0] and ids[0][1] == ids[1][1]
    assert stream.names == [f"{a} (1)", f"{b}", f"{a} (3)"]


@pytest.mark.parametrize(
    ("shard", "samples"), [("a1", range(11)), ("a2", range(21, 31)), ("a3", range(4))], ids=["longer", "other", "new"]
)
def test_moved_data_pass_and_changed_data_are_named(two_sources, tmp_path, shard, samples):
    state = open_stream(two_sources).state(400)
    moved = two_sources.replace(str(tmp_path), str(shutil.copytree(tmp_path, tmp_path / "moved")))
    os.utime(tmp_path / "moved" / "b.tsv", (1, 1))
    open_stream(moved).restore_state(state)
    write_shard(tmp_path / "moved" / f"{shard}.tsv", samples, "a")
    with pytest.raises(ValueError, match=r"a\*\.tsv has changed"):
        open_stream(moved).restore_state(state)


def test_window_has_no_more_shards_than_may_be_open(tmp_path):
    for number in range(300):
        write_shard(tmp_path / f"{number:03}.tsv", [2 * number, 2 * number + 1])
    shards = np.array([int(name) // 2 for _, name in read_names(open_stream(f"['{tmp_path}/*.tsv']"), range(600))])
    positions = np.array([np.flatnonzero(shards == number) for number in range(300)])
    first, last = positions.min(axis=1), positions.max(axis=1)
    num_open = [((first <= position) & (last >= position)).sum() for position in range(600)]
    assert 40 < max(num_open) <= MAX_OPEN_SHARDS


@pytest.mark.parametrize("machines", [1, 4])
def test_machine_opens_its_share_of_the_shards_only(tmp_path, monkeypatch, machines):
    for number in range(24):
        write_shard(tmp_path / f"{number:02}.tsv", range(5 * number, 5 * number + 5))
    data = [f"['{tmp_path}/*.tsv']", "Data.groups=4", "Training.global_batch=8", "Data.shuffle_buffer=40"]
    draws = read_names(open_stream(*data), range(120))
    assert sorted(int(name) for _, name in draws) == list(range(120))
    opened_files = record_opened_files(monkeypatch)
    # An epoch is 15 batches of 8; every machine reads the same columns of each.
    for columns in np.split(np.arange(120).reshape(15, 8), machines, axis=1):
        positions = columns.ravel()
        stream = open_stream(*data)
        opened_files.clear()
        assert read_names(stream, positions) == [draws[position] for position in positions]
        assert len(opened_files) == 24 // machines


@pytest.mark.parametrize("options", [[], ["Data.groups=4"]])
def test_stream_counts_the_epochs_of_each_source(two_sources, options):
    stream = open_stream(two_sources, "Training.global_batch=8", *options)
    for position in (0, 3, 8, 333, 801):
        counts = Counter(source for source, _ in read_names(stream, range(position)))
        assert stream.epochs(position) == [counts[0] / 30, counts[1] / 10]
        assert stream.state(position)["position"] == position
    assert [stream[position][0] for position in stream.first_positions(0, 20)] == [0] * 20


def test_seed_and_buffer_decide_the_order(two_sources):
    # Drawn by an earlier version: an order that changes would make runs resume with other samples.
    names = "b7 b0 b4 a29 b9 b8 b6 b1 b3 a9 a24 b2 b5 a14 b4 b9 b2 b3 a17 b8 b1 a27 b5 b7"
    draws = read_names(open_stream(two_sources), range(24))
    assert " ".join(name for _, name in draws) == names
    for option in ("Training.seed=1", "Data.shuffle_buffer=3"):
        assert read_names(open_stream(two_sources, option), range(24)) != draws


def test_training_texts_are_normalised_and_in_the_languages(two_sources, tmp_path):
    all_texts = {f"a{number}" for number in range(30)} | {f"b{number}" for number in range(10)}
    assert open_stream(two_sources).training_texts(1000) == (all_texts, True)
    texts, is_complete = open_stream(two_sources).training_texts(12)
    assert len(texts) == 12 and texts < all_texts and not is_complete
    lines = ["image,caption_zh,caption_en", "1.png,红  杯 ,A Red  Cup", '2.png,"一\n二",two', "3.png,,three"]
    (tmp_path / "table.csv").write_text("\n".join(lines), encoding="utf-8")
    for name in "123":
        (tmp_path / f"{name}.png").write_bytes(b"-")
    table = f"[{tmp_path / 'table.csv'}]"
    assert open_stream(table, "Views.languages={zh: 1}").training_texts(9)[0] == {"红 杯", "一 二"}
    assert open_stream(table, "Views.languages={en: 1}").training_texts(9)[0] == {"a red cup", "two", "three"}
    texts_of_lines, _ = open_stream(table, "Views.languages={zh: 1}", "Views.caption_lines=true").training_texts(9)
    assert {"一", "二", "红 杯"} <= texts_of_lines
