import itertools
import os
import shutil
from collections import Counter

import numpy as np
import pytest

from ernie_vil2.data.readers import MAX_OPEN_SHARDS
from ernie_vil2.data.readers.locations import LocalFile
from tests.support.shapes import write_tsv
from tests.support.streams import open_stream, read_names, write_shard


@pytest.fixture
def two(tmp_path):
    """Two sources: 30 samples in three shards, and 10 in one."""
    for number in range(3):
        write_shard(tmp_path / f"a{number}.tsv", range(10 * number, 10 * number + 10), "a")
    write_shard(tmp_path / "b.tsv", range(10), "b")
    return f"[{{data: [{tmp_path}/a*.tsv], weight: 1}}, {{data: [{tmp_path}/b.tsv], weight: 3}}]"


def test_an_image_is_known_by_its_name_and_its_bytes(tmp_path):
    """Keys begin again in each shard; an image with two captions has one name."""
    write_tsv(tmp_path / "a.tsv", [("a", "0", b"A"), ("a again", "0", b"A"), ("b", "1", b"B"), ("b too", "2", b"B")])
    write_tsv(tmp_path / "b.tsv", [("c", "0", b"C"), ("a in b", "0", b"A")])
    stream = open_stream(f"[{tmp_path}/a.tsv, {tmp_path}/b.tsv]")
    captions, texts = {}, set()
    for source, sample in [stream[position] for position in range(6)]:
        image, text = stream.ids(source, sample)
        captions.setdefault(image, set()).add(sample.caption("zh"))
        texts.add(text)
    assert sorted(map(sorted, captions.values())) == [["a", "a again", "a in b"], ["b"], ["b too"], ["c"]]
    assert len(texts) == 6


@pytest.mark.parametrize("weighted", [True, False])
def test_sources_mix_by_weight_or_size_each_in_its_own_epochs(two, weighted):
    mixed = open_stream(two if weighted else two.replace(", weight: 1", "").replace(", weight: 3", ""))
    pairs = read_names(mixed, range(4000))
    counts = Counter(source for source, _ in pairs)
    assert abs(counts[0] - (1000 if weighted else 3000)) < 5 * np.sqrt(4000 * 0.25 * 0.75)
    for source, size in enumerate((30, 10)):
        names = [name for of, name in pairs if of == source]
        epochs = [names[start : start + size] for start in range(0, len(names) - size + 1, size)]
        assert len(epochs) >= 30 and all(len(set(epoch)) == size for epoch in epochs)
    assert mixed.epochs(4000) == [counts[0] / 30, counts[1] / 10]


def test_a_source_has_views_of_its_own(tmp_path):
    path = write_shard(tmp_path / "a.tsv", range(3))
    settings = "tag_probability: 0.0, languages: {en: 1.0}, prompts: {en: 'There is a '}"
    plain, other = open_stream(f"[{path}, {{data: [{path}], {settings}}}]", "Views.tag_probability=0.7").views
    assert (plain.tag_probability, plain.languages) == (0.7, {"zh": 1.0})
    assert (other.tag_probability, other.languages) == (0.0, {"en": 1.0})
    assert other.prompts == {"zh": "图片中包含", "en": "There is a "} and other.resize == plain.resize


def test_equal_names_in_two_sources_are_two_images_of_one_text(tmp_path):
    one, other = (write_tsv(tmp_path / f"{name}.tsv", [("same text", "7", b"-")]) for name in "ab")
    mixed = open_stream(f"[{{data: [{one}]}}, {{data: [{other}]}}, {{data: [{one}]}}]")
    ids = {}
    for source, sample in itertools.islice(map(mixed.__getitem__, itertools.count()), 50):
        ids[source] = mixed.ids(source, sample)
    assert ids[0] == ids[2] and ids[0][0] != ids[1][0] and ids[0][1] == ids[1][1]
    assert mixed.names == [f"{one} (1)", f"{other}", f"{one} (3)"]


@pytest.mark.parametrize(
    ("shard", "samples"), [("a1", range(11)), ("a2", range(21, 31)), ("a3", range(4))], ids=["longer", "other", "new"]
)
def test_changed_data_is_named(two, tmp_path, shard, samples):
    """The same data in another folder are the same."""
    state = open_stream(two).state(400)
    moved = two.replace(str(tmp_path), str(shutil.copytree(tmp_path, tmp_path / "moved")))
    os.utime(tmp_path / "moved" / "b.tsv", (1, 1))
    open_stream(moved).check_state(state)
    write_shard(tmp_path / "moved" / f"{shard}.tsv", samples, "a")
    with pytest.raises(ValueError, match=r"a\*\.tsv has changed"):
        open_stream(moved).check_state(state)


def test_a_window_is_of_no_more_shards_than_a_process_holds_open(tmp_path):
    for number in range(300):
        write_shard(tmp_path / f"{number:03}.tsv", [2 * number, 2 * number + 1])
    shards = np.array([int(name) // 2 for _, name in read_names(open_stream(f"['{tmp_path}/*.tsv']"), range(600))])
    positions = np.array([np.flatnonzero(shards == number) for number in range(300)])
    first, last = positions.min(axis=1), positions.max(axis=1)
    in_use = [((first <= position) & (last >= position)).sum() for position in range(600)]
    assert 40 < max(in_use) <= MAX_OPEN_SHARDS


@pytest.mark.parametrize("machines", [1, 4])
def test_a_machine_opens_its_share_of_the_shards(tmp_path, monkeypatch, machines):
    for number in range(24):
        write_shard(tmp_path / f"{number:02}.tsv", range(5 * number, 5 * number + 5))
    data = [f"['{tmp_path}/*.tsv']", "Data.groups=4", "Training.global_batch=8", "Data.shuffle_buffer=40"]
    whole = read_names(open_stream(*data), range(120))
    assert sorted(int(name) for _, name in whole) == list(range(120))
    opened, open_file = set(), LocalFile.open
    monkeypatch.setattr(LocalFile, "open", lambda self: opened.add(self.name) or open_file(self))
    for share in np.split(np.arange(120).reshape(15, 8), machines, axis=1):
        stream = open_stream(*data)
        opened.clear()
        assert read_names(stream, share.ravel()) == [whole[position] for position in share.ravel()]
        assert len(opened) == 24 // machines


@pytest.mark.parametrize("options", [[], ["Data.groups=4"]])
def test_the_stream_knows_how_far_each_source_is_in_all_groups(two, options):
    mixed = open_stream(two, "Training.global_batch=8", *options)
    for position in (0, 3, 8, 333, 801):
        counts = Counter(source for source, _ in read_names(mixed, range(position)))
        assert mixed.epochs(position) == [counts[0] / 30, counts[1] / 10]
        assert mixed.state(position)["position"] == position
    assert [mixed[position][0] for position in mixed.first_positions(0, 20)] == [0] * 20


def test_the_seed_and_the_buffer_decide_the_order(two):
    """It is that of earlier versions."""
    names = "b7 b0 b4 a29 b9 b8 b6 b1 b3 a9 a24 b2 b5 a14 b4 b9 b2 b3 a17 b8 b1 a27 b5 b7"
    orders = [read_names(open_stream(two, *options), range(24)) for options in
              ([], ["Training.seed=1"], ["Data.shuffle_buffer=3"])]  # fmt: skip
    assert " ".join(name for _, name in orders[0]) == names
    assert orders[0] != orders[1] and orders[0] != orders[2]


def test_texts_of_training_are_those_of_its_languages(two, tmp_path):
    """Equal but for case and spaces; lines where captions have several; not beyond so many samples."""
    every = {f"{name}{number}" for name, count in (("a", 30), ("b", 10)) for number in range(count)}
    assert open_stream(two).training_texts(1000) == (every, True)
    texts, is_complete = open_stream(two).training_texts(12)
    assert len(texts) == 12 and texts < every and not is_complete
    lines = ["image,caption_zh,caption_en", "1.png,红  杯 ,A Red  Cup", '2.png,"一\n二",two', "3.png,,three"]
    (tmp_path / "table.csv").write_text("\n".join(lines), encoding="utf-8")
    for name in "123":
        (tmp_path / f"{name}.png").write_bytes(b"-")
    table = f"[{tmp_path / 'table.csv'}]"
    assert open_stream(table, "Views.languages={zh: 1}").training_texts(9)[0] == {"红 杯", "一 二"}
    assert open_stream(table, "Views.languages={en: 1}").training_texts(9)[0] == {"a red cup", "two", "three"}
    several = open_stream(table, "Views.languages={zh: 1}", "Views.caption_lines=true").training_texts(9)[0]
    assert {"一", "二", "红 杯"} <= several
