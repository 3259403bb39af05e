"""A benchmark is encoded as by calling the model by hand, resumed from the cache, and shared by several ranks."""

import threading

import numpy as np
import pytest

from ernie_vil2.evaluation.encoded import encode_benchmark
from tests.support import encoding_worker
from tests.support.encoding_model import (
    ProjectionEncoder,
    make_benchmark,
    make_noise_image,
    raise_malformed_row,
    raise_missing_file,
)
from tests.support.encoding_worker import CASES
from tests.support.ranks import run_ranks

IMAGES = {f"i{n}": make_noise_image(n) for n in range(7)}
TEXTS = ["红色的圆", "a", "b", "a", "红色的圆", "c", "a"]


@pytest.fixture
def rows():
    return make_benchmark(IMAGES, TEXTS)


def encode_by_hand(model, images, texts):
    pixels = np.stack([model.preprocess(image) for image in images])
    return model.encode_pixels(pixels), model.encode_texts(texts)


@pytest.mark.parametrize("chunk_rows", [1, 3, 7, 100])
def test_embeddings_equal_those_by_hand(rows, chunk_rows):
    model, ticks = ProjectionEncoder(), []
    encoded = encode_benchmark(model, rows, progress=ticks.append, chunk_rows=chunk_rows)
    assert encoded.benchmark is rows
    assert model.rows == {"preprocessed": 7, "images": 7, "texts": 4}, "equal texts are encoded once"
    assert model.largest <= chunk_rows and sum(ticks) == 14
    images, texts = encode_by_hand(model, IMAGES.values(), TEXTS)
    # Other batch sizes change the order of float32 sums.
    np.testing.assert_allclose(encoded.image_embeddings, images, atol=1e-6)
    np.testing.assert_allclose(encoded.text_embeddings, texts, atol=1e-6)
    assert encoded.image_embeddings.dtype == encoded.text_embeddings.dtype == np.float32
    assert str(encoded.bad_samples) == "all 7 samples read could be used"


def test_unusable_images_are_named_and_omitted(tmp_path):
    images = {
        "gone": raise_missing_file,
        "ok": make_noise_image(1),
        "torn": b"GIF89a",
        "row": raise_malformed_row,
        "last": make_noise_image(2),
    }
    encoded = encode_benchmark(ProjectionEncoder(), make_benchmark(images, list("uvwxy")), tmp_path, chunk_rows=2)
    from_cache = encode_benchmark(ProjectionEncoder(), make_benchmark(images, list("uvwxy")), tmp_path, chunk_rows=2)
    assert [image.id for image in encoded.benchmark.images] == ["ok", "last"]
    assert [text.id for text in encoded.benchmark.texts] == [f"t{n}" for n in range(5)], "texts stay in the gallery"
    assert encoded.benchmark.pairs.tolist() == [[0, 1], [1, 4]]
    expected, _ = encode_by_hand(ProjectionEncoder(), [make_noise_image(1), make_noise_image(2)], ["x"])
    np.testing.assert_allclose(encoded.image_embeddings, expected, atol=1e-6)
    reasons = encoded.bad_samples.as_dict()
    assert reasons["num_read"] == 5 and reasons["num_bad"] == 3
    names = {reason: entry["names"] for reason, entry in reasons["reasons"].items()}
    assert names == {"missing image": ["gone"], "broken image": ["torn"], "malformed row": ["row"]}
    assert from_cache.bad_samples.as_dict() == reasons
    assert np.array_equal(from_cache.image_embeddings, encoded.image_embeddings)

    # When a missing file has appeared, its chunk is encoded again.
    images["gone"] = make_noise_image(5)
    complete = encode_benchmark(ProjectionEncoder(), make_benchmark(images, list("uvwxy")), tmp_path, chunk_rows=2)
    assert [image.id for image in complete.benchmark.images] == ["gone", "ok", "last"]


def test_benchmark_without_usable_images_is_refused():
    with pytest.raises(ValueError, match="small: .* 0 usable images(.|\n)*missing image"):
        encode_benchmark(ProjectionEncoder(), make_benchmark({"a": raise_missing_file, "b": b"x"}, ["t"]))


def test_error_of_the_model_ends_all_threads(rows):
    class Broken(ProjectionEncoder):
        def preprocess(self, image, name="image"):
            raise RuntimeError("out of memory")

    num_threads = threading.active_count()
    with pytest.raises(RuntimeError, match="out of memory"):
        encode_benchmark(Broken(), rows, chunk_rows=2)
    assert threading.active_count() == num_threads


def test_at_most_two_chunks_are_prepared_ahead():
    class CountingModel(ProjectionEncoder):
        max_waiting = 0

        def encode_pixels(self, pixels):
            # Earlier chunks are encoded and freed; preprocessed images beyond them occupy memory.
            self.max_waiting = max(self.max_waiting, self.rows["preprocessed"] - self.rows["images"])
            return super().encode_pixels(pixels)

    model = CountingModel()
    encode_benchmark(model, make_benchmark({str(n): make_noise_image(n) for n in range(40)}, ["t"]), chunk_rows=4)
    assert model.max_waiting <= 8  # two chunks


def test_next_chunk_is_started_before_the_last_is_awaited():
    events = []

    class LoggingModel(ProjectionEncoder):
        def start_pixels(self, pixels):
            return log_wait("image", super().start_pixels(pixels))

        def start_texts(self, texts):
            return log_wait("text", super().start_texts(texts))

    def log_wait(kind, wait):
        events.append(f"start {kind}")

        def log_and_wait():
            events.append(f"wait for {kind}")
            return wait()

        return log_and_wait

    encode_benchmark(LoggingModel(), make_benchmark(IMAGES, ["a", "b", "c", "d", "e"]), chunk_rows=3)
    for kind, count in (("image", 3), ("text", 2)):
        start, wait = f"start {kind}", f"wait for {kind}"
        assert [event for event in events if kind in event] == [start, *[start, wait] * (count - 1), wait]


def test_interrupted_run_continues_after_its_last_chunk(rows, tmp_path):
    class Interrupted(ProjectionEncoder):
        def encode_pixels(self, pixels):
            if self.rows["images"] == 4:
                raise KeyboardInterrupt
            return super().encode_pixels(pixels)

    with pytest.raises(KeyboardInterrupt):
        encode_benchmark(Interrupted(), rows, tmp_path, chunk_rows=2)
    model = ProjectionEncoder()
    resumed = encode_benchmark(model, rows, tmp_path, chunk_rows=2)
    assert model.rows["images"] == 3 and model.rows["texts"] == 4
    uninterrupted = encode_benchmark(ProjectionEncoder(), rows, chunk_rows=2)
    assert np.array_equal(resumed.image_embeddings, uninterrupted.image_embeddings)
    assert np.array_equal(resumed.text_embeddings, uninterrupted.text_embeddings)


def test_changed_content_is_encoded_again(rows, tmp_path):
    encode_benchmark(ProjectionEncoder(), rows, tmp_path, chunk_rows=3)
    changed = make_benchmark({**IMAGES, "i4": make_noise_image(99)}, [*TEXTS[:-1], "d"])
    model = ProjectionEncoder()
    encoded = encode_benchmark(model, changed, tmp_path, chunk_rows=3)
    assert model.rows["images"] == 3, "the chunk of the image that was replaced"
    fresh = encode_benchmark(ProjectionEncoder(), changed, chunk_rows=3)
    assert np.array_equal(encoded.image_embeddings, fresh.image_embeddings)
    assert np.array_equal(encoded.text_embeddings, fresh.text_embeddings)
    another_model = ProjectionEncoder("another")
    encode_benchmark(another_model, changed, tmp_path, chunk_rows=3)
    assert another_model.rows["images"] == 7, "a cache serves only its model"


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Return the embeddings and counts of each of three processes."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(encoding_worker.main, folder, ranks=3)
    return [np.load(folder / f"rank_{rank}.npz") for rank in range(3)]


@pytest.mark.parametrize("case", CASES)
def test_three_ranks_equal_one_bit_for_bit(ranks, case):
    # No tolerance: any rank passes the same chunks through the same model, and nothing is summed across ranks.
    model = ProjectionEncoder()
    expected = encode_benchmark(model, CASES[case], chunk_rows=2)
    for rank in ranks:
        for run in ("first", "second"):
            assert np.array_equal(rank[f"{case}/{run}/images"], expected.image_embeddings)
            assert np.array_equal(rank[f"{case}/{run}/texts"], expected.text_embeddings)
            assert rank[f"{case}/{run}/ids"].tolist() == [image.id for image in expected.benchmark.images]
            assert rank[f"{case}/{run}/bad"] == expected.bad_samples.counts.total()
    num_encoded = [int(rank[f"{case}/first/encoded"]) for rank in ranks]
    assert sum(num_encoded) == model.rows["images"] + model.rows["texts"]
    # Ranks take chunks in turn. Uneven: images 2 2 2, then the broken image, texts 2 2, 1. Few: an image, a text.
    expected_counts = {"uneven": [3, 2 + 2, 2 + 2], "few": [1, 1, 0]}
    assert num_encoded == expected_counts[case]
    assert [int(rank[f"{case}/second/encoded"]) for rank in ranks] == [0, 0, 0]  # all from the cache
    assert ranks[0][f"{case}/first/ticks"] == len(CASES[case].images) + len(CASES[case].texts)
