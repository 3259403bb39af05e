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
from ernie_vil2.data.tokenizer import WordPieceTokenizer
from ernie_vil2.tasks.multi_view import MultiViewRows
from tests.support.image_formats import FILES, forbid_opencv
from tests.support.shapes import draw, png, write_tar, write_tsv

VIEWS = {"image_1", "image_2", "text_1", "text_2"}


@pytest.fixture(scope="module")
def tokenizer():
    return WordPieceTokenizer(max_length=24)


PLAIN = ["Model.image.image_size=32", "Views.crop_area=[0.5, 1.0]", "Views.languages={zh: 1.0, en: 1.0}",
         "Training.global_batch=16", "Data.workers=0"]  # fmt: skip


def config(*overrides):
    return load_config(None, [*PLAIN, *overrides])


def take(shapes, tokenizer, count, *overrides, views=VIEWS, **options):
    settings = config(f"Data.train=[{shapes['train']}]", *overrides)
    batches = load_batches(MultiViewRows(SampleStream(settings), settings, tokenizer, views), settings, **options)
    return [
        {key: value.numpy() if isinstance(value, paddle.Tensor) else value for key, value in batch.items()}
        for batch in itertools.islice(batches, count)
    ]


def equal(first, second):
    return first.keys() == second.keys() and all(np.array_equal(first[key], second[key]) for key in first)


def test_a_batch_holds_the_views_that_are_asked_for(shapes, tokenizer):
    batch = take(shapes, tokenizer, 1)[0]
    assert batch["image_1"].shape == batch["image_2"].shape == (16, 32, 32, 3)
    assert (batch["image_1"] != batch["image_2"]).any()
    assert batch["text"].shape[0] == 16 and batch["ids"].shape == (16, 2) and batch["bad"] == []
    assert len(set(batch["names"])) == len(set(batch["ids"][:, 0])) == 16
    only_text = take(shapes, tokenizer, 1, views={"text_1"})[0]
    assert "image_1" not in only_text and "image_2" not in only_text


def test_files_of_every_format_are_read_without_opencv(tmp_path, tokenizer, monkeypatch):
    forbid_opencv(monkeypatch)
    members = [(f"{number}.{ending}", content) for number, file in enumerate(FILES.values())
               for ending, content in (("jpg", file), ("txt", b"a disc"))]  # fmt: skip
    shapes = {"train": write_tar(tmp_path / "a.tar", members)}
    batch = take(shapes, tokenizer, 1, f"Training.global_batch={len(FILES)}", views={"image_1"})[0]
    assert batch["bad"] == [] and len(set(batch["names"])) == len(batch["image_1"]) == len(FILES)


def test_equal_seeds_give_equal_views_for_any_workers(shapes, tokenizer):
    alone, two, other = (
        take(shapes, tokenizer, 2, f"Data.workers={workers}", f"Training.seed={seed}")
        for workers, seed in ((0, 5), (2, 5), (0, 6))
    )
    assert all(map(equal, alone, two))
    assert not any(map(equal, alone, other))


def names(shapes, tokenizer, steps, ranks, *overrides, position=0):
    """Names in the order of the stream, read by so many ranks; 128 samples are an epoch, 12 a global batch."""
    parts = [
        take(shapes, tokenizer, steps, "Training.global_batch=12", *overrides, views={"text_1"},
             position=position, rank=rank, num_ranks=ranks)
        for rank in range(ranks)
    ]  # fmt: skip
    return [name for step in zip(*parts, strict=True) for part in step for name in part["names"]]


@pytest.mark.parametrize(("before", "after", "stop"), [((2, 1), (3, 0), 10), ((4, 0), (1, 2), 11)])
def test_a_stream_goes_on_with_other_ranks_and_workers(shapes, tokenizer, before, after, stop):
    whole = names(shapes, tokenizer, 22, 1)
    assert sorted(whole[:128]) == sorted(set(whole)) == sorted(whole[128:256]) and whole[:128] != whole[128:256]
    (ranks, workers), (later_ranks, later_workers) = before, after
    read = names(shapes, tokenizer, stop, ranks, f"Data.workers={workers}")
    read += names(shapes, tokenizer, 22 - stop, later_ranks, f"Data.workers={later_workers}", position=12 * stop)
    assert read == whole


@pytest.mark.parametrize(("groups", "ranks"), [(1, 4), (4, 2), (4, 8)])
def test_any_number_of_ranks_shares_the_global_batch(shapes, tokenizer, groups, ranks):
    """Also from the middle of an epoch of eight batches."""
    option = f"Data.groups={groups}"
    whole = take(shapes, tokenizer, 6, option)
    parts = [take(shapes, tokenizer, 2, option, rank=rank, num_ranks=ranks, position=4 * 16) for rank in range(ranks)]
    for step, batch in enumerate(whole[4:]):
        assert batch["positions"].tolist() == list(range(16))
        for key in ("image_1", "ids", "positions"):
            assert np.array_equal(batch[key], np.concatenate([part[step][key] for part in parts]))


def test_the_texts_of_a_source_follow_its_own_settings(shapes, tokenizer):
    own = "{data: [%s], weight: 1, text_id: id, languages: {en: 1.0}, tag_probability: %s, prompts: {en: 'all '}}"
    tags, captions = (
        take(shapes, tokenizer, 2, "Data.train=[" + own % (shapes["train"], share) + "]") for share in (1.0, 0.0)
    )
    words = [{tokenizer.tokens[number] for batch in batches for number in batch["text"].ravel()}
             for batches in (tags, captions)]  # fmt: skip
    assert "all" in words[0] and "a" not in words[0]
    assert "a" in words[1] and "all" not in words[1] and not words[1] & set("红绿蓝黄圆")


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_samples_are_missing_and_named(tmp_path, tokenizer, workers):
    good = png(draw((200, 0, 0), "disc", np.random.default_rng(0)))
    rows = [("x", "a", good), ("", "b", good), ("y", "c", b"no image"), ("z", "d", good)]
    options = ["Training.global_batch=4", f"Data.workers={workers}"]
    path = write_tsv(tmp_path / "a.tsv", rows)
    (batch,) = take({"train": path}, tokenizer, 1, *options)
    assert sorted(batch["names"]) == ["a", "d"] and batch["rows"] == 4
    assert sorted(batch["bad"]) == [["broken image", "c"], ["empty caption", "b"]]
    assert batch["image_1"].shape[0] == batch["text"].shape[0] == 2
    stream = SampleStream(config(f"Data.train=[{path}]", *options))
    assert [stream[position][1].image_name for position in batch["positions"].tolist()] == batch["names"]
    write_tsv(path, [("", number, b"no image") for number in "abcd"])
    (batch,) = take({"train": path}, tokenizer, 1, *options)
    assert batch["names"] == [] and len(batch["bad"]) == 4 and "image_1" not in batch


def test_a_sample_that_never_comes_is_a_bad_one_and_named(tmp_path, tokenizer, monkeypatch):
    """As one on a network disk that does not answer any more."""
    image = png(draw((200, 0, 0), "disc", np.random.default_rng(0)))
    path = write_tsv(tmp_path / "a.tsv", [(f"text {row}", str(row), image) for row in range(8)])
    settings = config("Training.global_batch=4", f"Data.train=[{path}]", "Data.workers=2", "Data.patience=1")
    stream = SampleStream(settings)
    order = [stream[position][1].image_name for position in range(8)]
    read = SampleStream.__getitem__
    monkeypatch.setattr(SampleStream, "__getitem__",
                        lambda self, position: time.sleep(3600) if position == 5 else read(self, position))  # fmt: skip
    batches = load_batches(MultiViewRows(stream, settings, tokenizer, VIEWS), settings)
    assert next(batches)["names"] == order[:4]
    batch = next(batches)
    batches.close()
    assert batch["names"] == [order[4], *order[6:]]
    assert batch["bad"] == [["no answer in time", f"{path}, {int(order[5]) + 1}"]]


def own_mebibytes():
    """Return the memory that this process and its two workers have made: anonymous and shared, also swapped out.

    Pages of files are left out. The kernel divides them among all processes that map a file, so that they would grow
    when a stranger who runs Paddle ends; and they can be dropped and read again at any time.
    """
    pids = [pid for task in Path("/proc/self").glob("task/*/children") for pid in task.read_text().split()]
    assert len(pids) == 2
    rollups = "".join(Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in ("self", *pids))
    return sum(map(int, re.findall(r"^(?:Pss_Anon|Pss_Shmem|SwapPss): +(\d+) kB", rollups, re.M))) / 1024


@pytest.mark.slow
def test_memory_does_not_grow_over_an_epoch_of_100_000_samples(tmp_path, tokenizer):
    """In more shards than a process holds open."""
    samples, image = 100_000, png(draw((200, 0, 0), "disc", np.random.default_rng(0)))
    for first in range(0, samples, 250):
        rows = [(f"text {number}", str(number), image) for number in range(first, first + 250)]
        write_tsv(tmp_path / f"{first:06}.tsv", rows)
    settings = config(f"Data.train=['{tmp_path}/*.tsv']", "Data.workers=2", "Training.global_batch=100")
    seen, memory = np.ones(samples, bool), {}  # written, so that its memory is there from the start
    seen[:] = False
    batches = load_batches(MultiViewRows(SampleStream(settings), settings, tokenizer, VIEWS), settings)
    for number, batch in enumerate(itertools.islice(batches, samples // 100), 1):
        seen[[int(name) for name in batch["names"]]] = True
        if number in (200, 1000):
            memory[number] = own_mebibytes()
    batches.close()
    assert seen.all() and memory[1000] < memory[200] + 5
