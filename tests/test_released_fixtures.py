"""Small models as the two releases leave them, with what their own code computes, where a folder of them is at hand.

ERNIE_VIL2_FIXTURES=path/to/fixtures pytest tests/test_released_fixtures.py
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from ernie_vil2 import load_model
from ernie_vil2.data.sources import TsvSource
from ernie_vil2.data.tokenizer import Tokenizer, pad
from ernie_vil2.evaluation.embedding_files import read_embeddings
from ernie_vil2.evaluation.evaluator import score
from ernie_vil2.evaluation.protocols import PROTOCOLS
from ernie_vil2.evaluation.results import official_summary
from ernie_vil2.models.weight_files import read_weights
from ernie_vil2.views import normalize_images
from tests.training.conftest import run

FIXTURES = Path(os.environ.get("ERNIE_VIL2_FIXTURES", "none"))
OFFICIAL, PADDLENLP = FIXTURES / "released" / "official_tiny", FIXTURES / "released" / "paddlenlp_tiny"

pytestmark = pytest.mark.skipif(not OFFICIAL.is_dir(), reason="ERNIE_VIL2_FIXTURES names no folder of fixtures")


@pytest.fixture(scope="module", params=["official", "paddlenlp"])
def release(request):
    """A model, what its release computes for the rows of the official TSV, and these rows."""
    folder = OFFICIAL if request.param == "official" else PADDLENLP
    model = load_model(OFFICIAL / "model.pdparams" if request.param == "official" else PADDLENLP)
    expected = np.load(folder / "expected.npz")
    source = TsvSource(OFFICIAL / "coco_rows.tsv")
    return model, expected, [source[row] for row in range(len(expected["input_ids"]))]


def test_ids_are_identical(release):
    model, expected, rows = release
    ids = pad([*model.tokenizer([row.caption("") for row in rows]).tolist(), [0] * expected["input_ids"].shape[1]])
    assert np.array_equal(ids[:-1], expected["input_ids"])


def test_pixels_are_equal(release):
    import paddle

    model, expected, rows = release
    pixels = np.stack([model.preprocess(row.image) for row in rows])
    mean, std = model.preprocessing.mean, model.preprocessing.std
    normalized = normalize_images(paddle.to_tensor(pixels), mean, std).numpy()
    first = expected[next(name for name in expected.files if name.startswith("pixels_first"))]
    np.testing.assert_allclose(normalized[: len(first)], first, atol=1e-6)
    np.testing.assert_allclose(normalized.mean(axis=(1, 2, 3)), expected["pixel_mean"], atol=1e-6)


def test_embeddings_and_logits_agree(release):
    model, expected, rows = release
    images = model.encode_images([row.image for row in rows])
    texts = model.encode_texts([row.caption("") for row in rows])
    for name, found in (("image", images), ("text", texts)):
        key = next(key for key in expected.files if key.startswith(name))
        wanted = expected[key] / np.linalg.norm(expected[key], axis=1, keepdims=True)
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    if "logits_per_image" in expected:
        scores = model.rank([row.image for row in rows], [row.caption("") for row in rows]).scores
        np.testing.assert_allclose(scores, expected["logits_per_image"], atol=1e-3)


def test_the_whole_chain_gives_the_official_file_and_the_official_table(tmp_path):
    made = run("tools/extract_embeddings.py", "--checkpoint", OFFICIAL / "model.pdparams", "--data",
               OFFICIAL / "coco_rows.tsv", "--format", "official", "--output", tmp_path)  # fmt: skip
    assert made.returncode == 0, made.stderr
    ours, official = (read_embeddings(folder) for folder in (tmp_path, OFFICIAL))
    np.testing.assert_allclose(ours.images, official.images, atol=1e-5)
    np.testing.assert_allclose(ours.texts, official.texts, atol=1e-5)
    table = json.loads((OFFICIAL / "official_eval.json").read_text())
    for encoded in (ours, official):
        assert official_summary(score(encoded, PROTOCOLS["official-rows"])) == table


def test_conversion_there_and_back_is_bit_exact(tmp_path):
    weights = OFFICIAL / "model.pdparams"
    for source, target, layout in ((weights, "there", "paddlenlp"), (tmp_path / "there", "back", "official")):
        converted = run("tools/convert_checkpoint.py", source, tmp_path / target, "--to", layout)
        assert converted.returncode == 0, converted.stderr
    before, after = read_weights(weights), read_weights(tmp_path / "back" / "model.pdparams")
    assert before.keys() == after.keys()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)


def test_the_reference_sentences():
    reference = json.loads((FIXTURES / "vocab" / "tokenization_reference.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer(FIXTURES / "vocab" / "ernie_3.0_vocab.tsv", max_length=512)
    assert len(reference) == 44
    for entry in reference:
        assert tokenizer.encode(entry["text"])[1:-1] == entry["ids"], entry["text"]
