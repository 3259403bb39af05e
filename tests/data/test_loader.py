import itertools

import numpy as np
import pytest

from ernie_vil2.config import load_config
from ernie_vil2.data.loader import SampleOrder, training_batches
from ernie_vil2.data.samples import content_id
from ernie_vil2.data.sources import open_sources
from ernie_vil2.data.tokenizer import Tokenizer
from tests.conftest import draw, png, write_tsv

VIEWS = {"image_1", "image_2", "text_1", "text_2"}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(max_length=24)


def config(*overrides):
    return load_config(
        None,
        [
            "Model.image.image_size=32",
            "Views.crop_area=[0.5, 1.0]",
            "Views.languages={zh: 1.0, en: 1.0}",
            "Training.global_batch=16",
            "Data.workers=0",
            *overrides,
        ],
    )


def take(shapes, tokenizer, count, *overrides, views=VIEWS, **options):
    source = open_sources([str(shapes["train"])])
    batches = training_batches(source, config(*overrides), tokenizer, views, **options)
    return [
        {key: value if isinstance(value, list | int) else value.numpy() for key, value in batch.items()}
        for batch in itertools.islice(batches, count)
    ]


def equal(first, second):
    return first.keys() == second.keys() and all(np.array_equal(first[key], second[key]) for key in first)


def test_a_batch_holds_the_views_that_are_asked_for(shapes, tokenizer):
    batch = take(shapes, tokenizer, 1)[0]
    assert batch["image_1"].shape == batch["image_2"].shape == (16, 32, 32, 3)
    assert (batch["image_1"] != batch["image_2"]).any()
    assert batch["text"].shape[0] == 16 and batch["ids"].shape == (16, 2) and batch["bad"] == []
    assert batch["ids"][:, 0].tolist() == [content_id(name) for name in batch["names"]]
    only_text = take(shapes, tokenizer, 1, views={"text_1"})[0]
    assert "image_1" not in only_text and "image_2" not in only_text


def test_every_epoch_is_another_order_of_all_samples(shapes, tokenizer):
    batches = take(shapes, tokenizer, 16)
    epochs = [sum((batch["names"] for batch in batches[start : start + 8]), []) for start in (0, 8)]
    assert len(set(epochs[0])) == 128 and sorted(epochs[0]) == sorted(epochs[1]) and epochs[0] != epochs[1]


def test_sizes_that_the_batch_does_not_divide_lose_nothing():
    order = SampleOrder(7, seed=3)
    positions = [order[position] for position in range(21)]
    assert all(sorted(positions[start : start + 7]) == list(range(7)) for start in (0, 7, 14))


def test_equal_seeds_give_equal_views_whatever_the_number_of_workers(shapes, tokenizer):
    alone, two, other = (
        take(shapes, tokenizer, 4, f"Data.workers={workers}", f"Training.seed={seed}")
        for workers, seed in ((0, 5), (2, 5), (0, 6))
    )
    assert all(map(equal, alone, two))
    assert not any(map(equal, alone, other))


def test_a_stream_that_starts_later_goes_on_as_the_whole_one(shapes, tokenizer):
    assert all(map(equal, take(shapes, tokenizer, 6)[4:], take(shapes, tokenizer, 2, first_step=4)))


def test_ranks_share_the_global_batch(shapes, tokenizer):
    whole = take(shapes, tokenizer, 3)
    parts = [take(shapes, tokenizer, 3, rank=rank, ranks=4) for rank in range(4)]
    for step in range(3):
        for key in ("image_1", "ids"):
            assert np.array_equal(whole[step][key], np.concatenate([part[step][key] for part in parts]))


def test_bad_samples_are_missing_and_named(tmp_path, tokenizer):
    good = png(draw((200, 0, 0), "disc", np.random.default_rng(0)))
    rows = [("x", "a", good), ("", "b", good), ("y", "c", b"no image"), ("z", "d", good)]
    source = open_sources([str(write_tsv(tmp_path / "a.tsv", rows))])
    batch = next(training_batches(source, config("Training.global_batch=4"), tokenizer, VIEWS))
    assert sorted(batch["names"]) == ["a", "d"] and batch["rows"] == 4
    assert sorted(batch["bad"]) == [["broken image", "c"], ["empty caption", "b"]]
    assert batch["image_1"].shape[0] == batch["text"].shape[0] == 2
