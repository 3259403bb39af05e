"""The loader: what batches hold, that ranks and workers only share the work, bad samples, and memory."""

import itertools
import re
import time
from pathlib import Path

import numpy as np
import paddle
import pytest

from ernie_vil2.config import load_config
from ernie_vil2.data.loader import load_batches
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.data.tokenizer import LibraryTokenizer, WordPieceTokenizer
from ernie_vil2.tasks.multi_view import MultiViewRows
from tests.support.image_formats import FILES, forbid_opencv
from tests.support.shapes import draw, encode_png, write_tar, write_tsv

VIEWS = {"image_1", "image_2", "text_1", "text_2"}


@pytest.fixture(scope="module")
def tokenizer():
    return WordPieceTokenizer(max_length=24)


SETTINGS = ["Model.image.image_size=32", "Views.crop_area=[0.5, 1.0]", "Views.languages={zh: 1.0, en: 1.0}",
            "Training.global_batch=16", "Data.workers=0"]  # fmt: skip


def make_config(*overrides):
    return load_config(None, [*SETTINGS, *overrides])


def read_batches(shapes, tokenizer, count, *overrides, views=VIEWS, **options):
    """Return the first batches that the loader gives, with arrays in place of tensors."""
    config = make_config(f"Data.train=[{shapes['train']}]", *overrides)
    batches = load_batches(MultiViewRows(SampleStream(config), config, tokenizer, views), config, **options)
    batches_of_arrays = []
    for batch in itertools.islice(batches, count):
        arrays = {key: value.numpy() for key, value in batch.items() if isinstance(value, paddle.Tensor)}
        batches_of_arrays.append(batch | arrays)
    return batches_of_arrays


def are_equal(first, second):
    return first.keys() == second.keys() and all(np.array_equal(first[key], second[key]) for key in first)


def test_batch_holds_the_requested_views(shapes, tokenizer):
    batch = read_batches(shapes, tokenizer, 1)[0]
    assert batch["image_1"].shape == batch["image_2"].shape == (16, 32, 32, 3)
    assert (batch["image_1"] != batch["image_2"]).any()
    assert batch["text"].shape[0] == 16 and batch["ids"].shape == (16, 2) and batch["bad"] == []
    assert len(set(batch["names"])) == len(set(batch["ids"][:, 0])) == 16
    only_text = read_batches(shapes, tokenizer, 1, views={"text_1"})[0]
    assert "image_1" not in only_text and "image_2" not in only_text


def test_files_of_every_format_are_read_without_opencv(tmp_path, tokenizer, monkeypatch):
    forbid_opencv(monkeypatch)
    members = []
    for number, file in enumerate(FILES.values()):
        members += [(f"{number}.jpg", file), (f"{number}.txt", b"a disc")]
    shapes = {"train": write_tar(tmp_path / "a.tar", members)}
    batch = read_batches(shapes, tokenizer, 1, f"Training.global_batch={len(FILES)}", views={"image_1"})[0]
    assert batch["bad"] == [] and len(set(batch["names"])) == len(batch["image_1"]) == len(FILES)


def test_equal_seeds_give_equal_views_for_any_workers(shapes, tokenizer):
    without_workers = read_batches(shapes, tokenizer, 2, "Data.workers=0", "Training.seed=5")
    with_workers = read_batches(shapes, tokenizer, 2, "Data.workers=2", "Training.seed=5")
    next_seed = read_batches(shapes, tokenizer, 2, "Data.workers=0", "Training.seed=6")
    assert all(map(are_equal, without_workers, with_workers))
    assert not any(map(are_equal, without_workers, next_seed))


def read_names(shapes, tokenizer, steps, ranks, *overrides, position=0):
    """Return names in the order of the stream, read by so many ranks in batches of 12; an epoch has 128 samples."""
    batches_of_ranks = []
    for rank in range(ranks):
        batches = read_batches(
            shapes, tokenizer, steps, "Training.global_batch=12", *overrides, views={"text_1"},
            position=position, rank=rank, num_ranks=ranks,
        )  # fmt: skip
        batches_of_ranks.append(batches)
    names = []
    for step in range(steps):
        for batches in batches_of_ranks:
            names += batches[step]["names"]
    return names


@pytest.mark.parametrize(("ranks", "workers", "stop", "later_ranks", "later_workers"), [
    (2, 1, 10, 3, 0),
    (4, 0, 11, 1, 2),
])  # fmt: skip
def test_stream_resumes_with_other_ranks_and_workers(
    shapes, tokenizer, ranks, workers, stop, later_ranks, later_workers
):
    expected = read_names(shapes, tokenizer, 22, 1)
    first_epoch, second_epoch = expected[:128], expected[128:256]
    assert sorted(first_epoch) == sorted(set(expected)) == sorted(second_epoch) and first_epoch != second_epoch

    names = read_names(shapes, tokenizer, stop, ranks, f"Data.workers={workers}")
    names += read_names(shapes, tokenizer, 22 - stop, later_ranks, f"Data.workers={later_workers}", position=12 * stop)
    assert names == expected


@pytest.mark.parametrize(("groups", "ranks"), [(1, 4), (4, 2), (4, 8)])
def test_any_number_of_ranks_shares_the_global_batch(shapes, tokenizer, groups, ranks):
    option = f"Data.groups={groups}"
    expected = read_batches(shapes, tokenizer, 6, option)
    position = 4 * 16  # the middle of an epoch of eight batches
    batches_of_ranks = []
    for rank in range(ranks):
        batches = read_batches(shapes, tokenizer, 2, option, rank=rank, num_ranks=ranks, position=position)
        batches_of_ranks.append(batches)
    for step, batch in enumerate(expected[4:]):
        assert batch["positions"].tolist() == list(range(16))
        for key in ("image_1", "ids", "positions"):
            assert np.array_equal(batch[key], np.concatenate([batches[step][key] for batches in batches_of_ranks]))


@pytest.mark.parametrize(("texts", "lengths"), [([[1, 2, 1], [1, 0, 0]], "2.0"), ([[0, 0, 0]], "0.0")])
def test_texts_without_special_tokens_are_summarized(shapes, texts, lengths):
    tokenizers = pytest.importorskip("tokenizers")
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[PAD]": 0, "cat": 1, "[UNK]": 2}, "[UNK]"))
    library.enable_padding(pad_id=0, pad_token="[PAD]")  # noqa: S106  -- a word of a vocabulary
    tokenizer = LibraryTokenizer(library.to_str(), 8, "bert")
    config = make_config(f"Data.train=[{shapes['train']}]")
    rows = MultiViewRows(SampleStream(config), config, tokenizer, {"image_1", "text_1"})

    (line,) = rows.summarize({"text": np.array(texts)})

    assert line.startswith(f"texts of {lengths} tokens") and ("25.0%" in line) == (lengths == "2.0")


def read_words(shapes, tokenizer, tag_probability):
    """Return the words of two batches of a source that has settings of its own."""
    source = (
        f"{{data: [{shapes['train']}], weight: 1, text_id: id, languages: {{en: 1.0}}, "
        f"tag_probability: {tag_probability}, prompts: {{en: 'all '}}}}"
    )
    words = set()
    for batch in read_batches(shapes, tokenizer, 2, f"Data.train=[{source}]"):
        words.update(tokenizer.tokens[number] for number in batch["text"].ravel())
    return words


def test_texts_of_a_source_follow_its_own_settings(shapes, tokenizer):
    words_of_tags = read_words(shapes, tokenizer, tag_probability=1.0)
    words_of_captions = read_words(shapes, tokenizer, tag_probability=0.0)
    assert "all" in words_of_tags and "a" not in words_of_tags
    assert "a" in words_of_captions and "all" not in words_of_captions
    assert not words_of_captions & set("红绿蓝黄圆")  # characters of Chinese captions and tags


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_samples_are_left_out_and_named(tmp_path, tokenizer, workers):
    good = encode_png(draw((200, 0, 0), "disc", np.random.default_rng(0)))
    rows = [("x", "a", good), ("", "b", good), ("y", "c", b"no image"), ("z", "d", good)]
    options = ["Training.global_batch=4", f"Data.workers={workers}"]
    path = write_tsv(tmp_path / "a.tsv", rows)
    (batch,) = read_batches({"train": path}, tokenizer, 1, *options)
    assert sorted(batch["names"]) == ["a", "d"] and batch["rows"] == 4
    assert sorted(batch["bad"]) == [["broken image", "c"], ["empty caption", "b"]]
    assert batch["image_1"].shape[0] == batch["text"].shape[0] == 2
    stream = SampleStream(make_config(f"Data.train=[{path}]", *options))
    assert [stream[position][1].image_name for position in batch["positions"].tolist()] == batch["names"]
    write_tsv(path, [("", number, b"no image") for number in "abcd"])
    (batch,) = read_batches({"train": path}, tokenizer, 1, *options)
    assert batch["names"] == [] and len(batch["bad"]) == 4 and "image_1" not in batch


def test_sample_that_never_arrives_is_bad_and_named(tmp_path, tokenizer, monkeypatch):
    image = encode_png(draw((200, 0, 0), "disc", np.random.default_rng(0)))
    path = write_tsv(tmp_path / "a.tsv", [(f"text {row}", str(row), image) for row in range(8)])
    config = make_config("Training.global_batch=4", f"Data.train=[{path}]", "Data.workers=2", "Data.patience=1")
    stream = SampleStream(config)
    order = [stream[position][1].image_name for position in range(8)]
    read_sample = SampleStream.__getitem__

    def read_or_hang(self, position):
        if position == 5:
            time.sleep(3600)  # as reading from a network disk that does not answer any more
        return read_sample(self, position)

    monkeypatch.setattr(SampleStream, "__getitem__", read_or_hang)
    batches = load_batches(MultiViewRows(stream, config, tokenizer, VIEWS), config)
    assert next(batches)["names"] == order[:4]
    batch = next(batches)
    batches.close()
    assert batch["names"] == [order[4], *order[6:]]
    assert batch["bad"] == [["no answer in time", f"{path}, {int(order[5]) + 1}"]]


def list_children():
    """Return the numbers of this process's children."""
    pids = set()
    for task in Path("/proc/self").glob("task/*/children"):
        pids.update(task.read_text().split())
    return pids


def measure_mebibytes(workers):
    """Return the memory that this process and its workers have allocated: anonymous and shared, also swapped out.

    Pages of files are not counted. The kernel divides them among all processes that map a file, so that they would
    grow when an unrelated process that runs Paddle ends; and they can be dropped and read again at any time.
    """
    rollups = "".join(Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in ("self", *workers))
    return sum(map(int, re.findall(r"^(?:Pss_Anon|Pss_Shmem|SwapPss): +(\d+) kB", rollups, re.M))) / 1024


@pytest.mark.slow
def test_memory_does_not_grow_over_100_000_samples(tmp_path, tokenizer):
    samples, image = 100_000, encode_png(draw((200, 0, 0), "disc", np.random.default_rng(0)))
    for first in range(0, samples, 250):  # 400 shards, more than a process holds open
        rows = [(f"text {number}", str(number), image) for number in range(first, first + 250)]
        write_tsv(tmp_path / f"{first:06}.tsv", rows)
    config = make_config(f"Data.train=['{tmp_path}/*.tsv']", "Data.workers=2", "Training.global_batch=100")
    seen, memory = np.ones(samples, bool), {}  # written twice, so that all of its memory is allocated from the start
    seen[:] = False
    other_children = list_children()  # of earlier tests
    batches = load_batches(MultiViewRows(SampleStream(config), config, tokenizer, VIEWS), config)
    for number, batch in enumerate(itertools.islice(batches, samples // 100), 1):
        seen[[int(name) for name in batch["names"]]] = True
        if number in (200, 1000):
            workers = list_children() - other_children
            assert len(workers) == 2
            memory[number] = measure_mebibytes(workers)
    batches.close()
    # All buffers exist after 200 batches. 5 MiB are 65 bytes for each of the 80,000 samples after these.
    assert seen.all() and memory[1000] < memory[200] + 5
