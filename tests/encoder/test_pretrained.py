"""Models load from every kind of source, encode images and texts, and rank them.

tests/models/test_released_fixtures.py compares their embeddings with those of the releases' code.
"""

import shutil
import threading
from functools import partial

import numpy as np
import paddle
import pytest
from PIL import Image

from ernie_vil2.config import load_config
from ernie_vil2.data.samples import BadSample
from ernie_vil2.data.tokenizer import WordPieceTokenizer
from ernie_vil2.device import runtime, transfers
from ernie_vil2.encoder import ErnieViL2, PaddleBackend, load_model
from ernie_vil2.io import hub
from ernie_vil2.models import build_dual_encoder
from ernie_vil2.models.weights.files import read_weights, write_weights
from ernie_vil2.training.checkpoint import Checkpoint, save_checkpoint
from tests.support.late_device import LateDevice
from tests.support.paths import FIXTURES
from tests.support.shapes import draw, encode_png

TEXTS = ["一个红圆", "a disc", "two discs, of bars", "绿", "一个蓝色的方块 a square"]
TOKENS = (FIXTURES / "released" / "paddlenlp_tiny" / "vocab.txt").read_text(encoding="utf-8").split()
WIDTH = 32


@pytest.fixture(scope="module")
def images():
    """Draw Pillow images of several sizes."""
    rng = np.random.default_rng(0)
    sizes = [(40, 70), (64, 33), (32, 32), (50, 50)]
    return [Image.fromarray(draw((200, 40, 30), "disc", rng, 90)).resize(size) for size in sizes]


@pytest.fixture(scope="module")
def folder():
    """Return the folder of a small model that PaddleNLP has saved."""
    return FIXTURES / "released" / "paddlenlp_tiny"


@pytest.fixture(scope="module")
def official():
    """Return the file of a small model of the official release."""
    return FIXTURES / "released" / "official_tiny" / "model.pdparams"


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder)


@pytest.fixture
def checkpoint(tmp_path):
    """Write a run with a checkpoint, whose configuration names a vocabulary file elsewhere."""
    vocabulary = tmp_path / "words.txt"
    vocabulary.write_text("\n".join(TOKENS), encoding="utf-8")
    tower = "width: 16, depth: 1, heads: 2"
    config = load_config(None, [
        f"Model.image={{name: ViT, image_size: 16, patch_size: 8, {tower}}}",
        f"Model.text={{name: bert, max_positions: 16, vocabulary: {vocabulary}, {tower}}}",
        "Data.max_length=9",
    ])  # fmt: skip
    paddle.seed(1)
    model = build_dual_encoder(config.Model, len(TOKENS))
    state = {"step": 5, "scaler": {}, "bad_samples": {}, "best": None}
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    optimizer_state: dict[str, np.ndarray] = {}
    checkpoint = Checkpoint(state, weights, optimizer_state, config, WordPieceTokenizer(TOKENS))
    return save_checkpoint(tmp_path / "run", checkpoint)


def test_official_file_needs_its_vocabulary(official, tmp_path):
    weights = tmp_path / "model.pdparams"
    shutil.copy(official, weights)
    with pytest.raises(ValueError, match="no vocab.txt"):
        load_model(weights, heads=(4, 2))
    assert load_model(weights, heads=(4, 2), vocab=official.with_name("vocab.txt")).tokenizer.tokens == TOKENS
    # A model with as many words as ERNIE 3.0 gets its vocabulary, which is packaged.
    rows = np.zeros([40_000, WIDTH], np.float32)
    write_weights(weights, read_weights(official) | {"text_model.word_emb.weight": rows})
    assert len(load_model(weights, heads=(4, 2)).tokenizer.tokens) == 39_980


def test_checkpoint_needs_no_other_file(checkpoint, images, tmp_path, monkeypatch):
    (tmp_path / "words.txt").unlink()
    run = checkpoint.parents[1]
    monkeypatch.chdir(run.parent)
    models = [load_model(source) for source in (run, "run", checkpoint, checkpoint / "model.safetensors")]
    for model in models:
        assert model.preprocessing.kind == "ernie_vil2" and model.preprocess(images[0]).shape == (16, 16, 3)
        assert model.tokenizer.tokens == TOKENS and model.tokenizer.max_length == 9
        np.testing.assert_array_equal(model.encode_images(images), models[0].encode_images(images))


def test_model_of_a_published_name_comes_from_the_cache(official, tmp_path, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "MODELS", {"small": {"model.pdparams": ("http://127.0.0.1:9/model.pdparams", None)}})
    with pytest.raises(FileNotFoundError, match=r"small.model\.pdparams"):
        load_model("small")
    shutil.copy(official, tmp_path / "small")
    model = load_model("small", vocab=official.with_name("vocab.txt"), heads=(4, 2))
    assert model.encode_texts(["红"]).shape == (1, WIDTH)


def test_source_without_a_model_is_named(tmp_path):
    (tmp_path / "notes.pdparams").write_text("hello")
    for source, error in (("ernie-vil-9", FileNotFoundError), (tmp_path, FileNotFoundError),
                          (tmp_path / "notes.pdparams", ValueError)):  # fmt: skip
        with pytest.raises(error, match=str(source)):
            load_model(source)


def test_paths_bytes_pillow_images_and_arrays_are_encoded(model, tmp_path):
    array = draw((10, 90, 200), "bar", np.random.default_rng(1), 48)
    path = tmp_path / "bar.png"
    path.write_bytes(encode_png(array))
    embeddings = model.encode_images([path, str(path), path.read_bytes(), Image.open(path), array])
    assert embeddings.shape == (5, WIDTH) and embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, embeddings[[0] * 5], atol=1e-6)
    np.testing.assert_allclose(model.encode_pixels(np.stack([model.preprocess(path)])), embeddings[:1], atol=1e-6)


def test_batch_size_and_empty_inputs_do_not_matter(model, images):
    repeated = images * 3
    np.testing.assert_allclose(model.encode_images(repeated, batch_size=5), model.encode_images(repeated), atol=1e-6)
    np.testing.assert_allclose(model.encode_texts(TEXTS, batch_size=2), model.encode_texts(iter(TEXTS)), atol=1e-6)
    assert model.encode_images([]).shape == model.encode_texts([]).shape == (0, WIDTH)
    assert model.rank([], TEXTS).scores.shape == (0, len(TEXTS))


def test_unreadable_images_are_named_or_skipped(model, tmp_path, images):
    missing = tmp_path / "gone.jpg"
    for image, message in ((missing, f"{missing}: missing image"), (b"no image", "image 1: broken image"),
                           (np.zeros([4, 4], np.uint8), "image 1 .uint8 ")):  # fmt: skip
        with pytest.raises(BadSample, match=message):
            model.encode_images([images[0], image])

    sources = [images[0], missing, images[1], b"no image", images[2]]
    embeddings, rows, skipped = model.encode_images(sources, batch_size=2, on_error="skip")
    np.testing.assert_allclose(embeddings, model.encode_images(images[:3]), atol=1e-6)
    assert rows.tolist() == [0, 2, 4]
    assert {row: error.reason for row, error in skipped.items()} == {1: "missing image", 3: "broken image"}
    for name in ("a\0b.png", "a\ud800.png"):  # which no file can have
        skipped = model.encode_images([name, *sources], on_error="skip").skipped
        assert skipped[0].reason == "missing image"
    result = model.encode_images([b"", b""], on_error="skip")
    assert result.embeddings.shape == (0, WIDTH) and result.rows.tolist() == [] and list(result.skipped) == [0, 1]
    with pytest.raises(ValueError, match="on_error is 'ignore'"):
        model.encode_images(sources, on_error="ignore")


def test_failing_backend_leaves_no_threads(model, images, monkeypatch):
    def fail(pixels):
        raise RuntimeError("no memory")

    monkeypatch.setattr(model.backend, "start_pixels", fail)
    threads = threading.active_count()
    with pytest.raises(RuntimeError, match="no memory") as error:
        model.encode_images(images * 3, batch_size=1)
    assert threading.active_count() == threads and error.traceback  # which keeps the frames of the call


def test_images_are_decoded_on_threads_and_not_far_ahead(model, images, monkeypatch):
    num_yielded, threads = 0, set()
    num_yielded_by_batch = []  # how many images have been read when a batch is encoded
    preprocess, encode = model.preprocess, model.backend.model.encode_image

    def yield_images():
        nonlocal num_yielded
        for number in range(60):
            num_yielded += 1
            yield images[number % 4]

    def record_thread(image, name):
        threads.add(threading.current_thread())
        return preprocess(image, name)

    def record_progress(batch):
        num_yielded_by_batch.append(num_yielded)
        return encode(batch)

    monkeypatch.setattr(model, "preprocess", record_thread)
    monkeypatch.setattr(model.backend.model, "encode_image", record_progress)
    embeddings = model.encode_images(yield_images(), batch_size=3)
    np.testing.assert_allclose(embeddings, model.encode_images(images)[np.arange(60) % 4], atol=1e-6)
    assert threading.main_thread() not in threads
    # The batches so far, two more, and the image that the next one begins with.
    for batch, count in enumerate(num_yielded_by_batch[:20]):
        assert count <= 3 * (batch + 1) + 2 * 3 + 1


def test_gpu_gets_a_batch_before_the_last_is_awaited(model, images, monkeypatch):
    device = LateDevice()
    monkeypatch.setattr(transfers, "_current_gpu", lambda purpose: device)
    towers, num_waits = model.backend.model, {"image": [], "text": []}

    def count_waits(kind, rows, encode):
        num_waits[kind].append(len(device.waits))
        return encode(rows)

    for kind in ("image", "text"):
        method = f"encode_{kind}"
        monkeypatch.setattr(towers, method, partial(count_waits, kind, encode=getattr(towers, method)))
    encoder = ErnieViL2(PaddleBackend(towers, model.preprocessing), model.tokenizer, model.config, batch_size=1)
    image_embeddings, texts = encoder.encode_images(images), TEXTS[:4]
    text_embeddings = encoder.encode_texts(texts)
    assert num_waits == {"image": [0, 0, 1, 2], "text": [4, 4, 5, 6]}
    monkeypatch.undo()
    np.testing.assert_allclose(image_embeddings, model.encode_images(images), atol=1e-6)
    np.testing.assert_allclose(text_embeddings, model.encode_texts(texts), atol=1e-6)


def test_missing_device_or_precision_is_named(folder, monkeypatch):
    with pytest.raises(ValueError, match="device cuda:1: .* CPU build"):
        load_model(folder, device="cuda:1")
    with pytest.raises(ValueError, match="precision=bfloat16"):
        load_model(folder, precision="bfloat16")
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 2)
    devices = []
    monkeypatch.setattr(paddle, "set_device", devices.append)
    for device in ("cuda", "cuda:1", "auto"):
        runtime.set_device(device)
    assert devices == ["gpu", "gpu:1", "gpu"]
    for device in ("cuda:2", "GPU:2"):
        with pytest.raises(ValueError, match="device gpu:2: Paddle sees 2 GPUs"):
            runtime.set_device(device)
    for device in ("auto", "cuda:1"):
        monkeypatch.setattr(paddle, "__version__", "3.2.0")
        with pytest.raises(ValueError, match=r"Paddle 3\.2\.0 .* attention"):
            runtime.set_device(device)
    runtime.set_device("cpu")
    runtime.set_device("CPU")
    assert devices[3:] == ["cpu", "cpu"]


def test_single_image_or_text_is_refused(model, images):
    for image in ("cat.jpg", b"bytes", images[0]):
        with pytest.raises(TypeError, match=r"encode_images\(\[image\]\)"):
            model.encode_images(image)
    with pytest.raises(TypeError, match=r"encode_texts\(\[text\]\)"):
        model.encode_texts("红")


@pytest.mark.parametrize("bias", [None, -2.0])
def test_scores_and_probabilities_are_as_by_hand(checkpoint, monkeypatch, bias):
    model = load_model(checkpoint)
    if bias:  # only the sigmoid loss has a bias
        model.backend.model.logit_bias = paddle.to_tensor([bias])
    monkeypatch.setattr(model, "encode_images", lambda images: np.array([[1, 0]], np.float32))
    monkeypatch.setattr(model, "encode_texts", lambda texts: np.array([[1, 0], [0, 1]], np.float32))
    # The cosines are 1 and 0.
    expected_scores = np.array([model.backend.model.logit_scale.item(), 0]) + (bias or 0)
    odds = np.exp(expected_scores)
    expected_probabilities = odds / (1 + odds) if bias else odds / odds.sum()
    scores, probabilities = model.rank(["a"], ["b", "c"])
    np.testing.assert_allclose(scores, [expected_scores], rtol=1e-6)
    np.testing.assert_allclose(probabilities, [expected_probabilities], rtol=1e-5)


@pytest.mark.filterwarnings("error")
def test_very_low_score_of_a_sigmoid_model_has_no_probability(checkpoint):
    model = load_model(checkpoint)
    model.backend.model.logit_bias = paddle.to_tensor([-200.0])
    image, text = np.array([[1, 0]], np.float32), np.array([[-1, 0]], np.float32)
    assert model.rank_embeddings(image, text).probabilities.tolist() == [[0]]


def test_encoding_leaves_a_model_in_training_mode(checkpoint, images):
    encoder = load_model(checkpoint)
    model = encoder.backend.model
    expected = encoder.encode_texts(TEXTS)
    model.train()
    np.testing.assert_array_equal(encoder.encode_texts(TEXTS), expected)  # encoding has no dropout
    assert model.training
    with pytest.raises(BadSample):
        encoder.encode_images([b""])
    assert model.training and not paddle.to_tensor(encoder.encode_images(images)).isnan().any()
    assert model.encode_text(paddle.to_tensor(encoder.tokenizer(TEXTS))).stop_gradient is False


def test_fingerprint_changes_only_with_the_embeddings(folder, official, tmp_path):
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", *reversed(TOKENS[1:])]), encoding="utf-8")
    model = load_model(folder)
    assert load_model(folder, batch_size=3).fingerprint == model.fingerprint
    fingerprints = {model.fingerprint}
    for source, options in ((folder, {"max_length": 5}), (folder, {"heads": (2, 4)}), (folder, {"vocab": vocabulary}),
                            (official, {})):  # fmt: skip
        fingerprints.add(load_model(source, **options).fingerprint)
    bias = model.backend.model.text.network.pooler.dense.bias
    bias.set_value(bias + 1e-3)
    fingerprints.add(model.fingerprint)
    assert len(fingerprints) == 6
