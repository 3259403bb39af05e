"""Small models in the files of the two releases give the results of the releases' code.

The make.py in tests/fixtures/released has made those there; ERNIE_VIL2_FIXTURES=FOLDER names further ones, which
.ci/run sets where they lie next to the repository.
"""

import dataclasses
import json
import os
from itertools import product
from pathlib import Path

import numpy as np
import paddle
import pytest

from ernie_vil2 import load_model
from ernie_vil2.config import apply_overrides
from ernie_vil2.data.preprocessing import normalize_images
from ernie_vil2.data.readers import TsvSource
from ernie_vil2.data.tokenizer import ERNIE_VOCABULARY, WordPieceTokenizer
from ernie_vil2.evaluation.embedding_files import read_embeddings
from ernie_vil2.evaluation.protocol import PROTOCOLS, score_embeddings
from ernie_vil2.evaluation.retrieval import COLUMNS, DIRECTIONS
from ernie_vil2.models.weights.files import read_weights
from ernie_vil2.models.weights.format import read_model, write_model
from tests.support.commands import succeed
from tests.support.paths import FIXTURES

pytestmark = pytest.mark.thorough
FOLDERS = [FIXTURES, *map(Path, filter(None, [os.environ.get("ERNIE_VIL2_FIXTURES")]))]
OFFICIAL = [folder / "released" / "official_tiny" for folder in FOLDERS]
PADDLENLP = [folder / "released" / "paddlenlp_tiny" for folder in FOLDERS]
TOWERS = {"native": "VisionTransformer", "suite": "SuiteVit"}
SENTENCES = [(FIXTURES / "tokenization_official.json", ERNIE_VOCABULARY)] + [
    (folder / "vocab" / "tokenization_reference.json", folder / "vocab" / "ernie_3.0_vocab.tsv")
    for folder in FOLDERS[1:]
]


@pytest.fixture(scope="module", params=product([*OFFICIAL, *PADDLENLP], TOWERS), ids=str)
def release(request, tmp_path_factory):
    """Return a model with this package's towers or the suite's, the results of its release, and the rows of the TSV."""
    folder, implementation = request.param
    source = folder
    if implementation == "suite":
        pytest.importorskip("paddleclas")
        pytest.importorskip("paddlenlp")
        stored, source = read_model(folder), tmp_path_factory.mktemp("suite") / "model"
        config = apply_overrides(stored.config, ["Model.implementation=suite"])
        write_model(dataclasses.replace(stored, config=config), source, "ernie_vil2")
    expected = np.load(folder / "expected.npz")
    rows = TsvSource(folder.with_name("official_tiny") / "coco_rows.tsv")
    model = load_model(source)
    assert type(model.backend.model.image).__name__ == TOWERS[implementation]
    return model, expected, [rows[row] for row in range(len(expected["input_ids"]))]


def test_ids_and_pixels_equal_those_of_the_release(release):
    model, expected, rows = release
    ids = model.tokenizer([row.caption("") for row in rows])
    padding = expected["input_ids"].shape[1] - ids.shape[1]
    assert np.array_equal(np.pad(ids, ((0, 0), (0, padding))), expected["input_ids"])
    pixels = paddle.to_tensor(np.stack([model.preprocess(row.image) for row in rows]))
    normalized = normalize_images(pixels, model.preprocessing.mean, model.preprocessing.std).numpy()
    (first_key,) = [name for name in expected.files if name.startswith("pixels_first")]
    first_pixels = expected[first_key]
    np.testing.assert_allclose(normalized[: len(first_pixels)], first_pixels, atol=1e-6)
    np.testing.assert_allclose(normalized.mean(axis=(1, 2, 3)), expected["pixel_mean"], atol=1e-6)


def test_embeddings_and_logits_equal_those_of_the_release(release):
    model, expected, rows = release
    images, texts = [row.image for row in rows], [row.caption("") for row in rows]
    for name, embeddings in (("image", model.encode_images(images)), ("text", model.encode_texts(texts))):
        features = expected[next(key for key in expected.files if key.startswith(name))]
        np.testing.assert_allclose(embeddings, features / np.linalg.norm(features, axis=1, keepdims=True), atol=1e-5)
    if "logits_per_image" in expected:
        np.testing.assert_allclose(model.rank(images, texts).scores, expected["logits_per_image"], atol=1e-3)


def round_measures(values):
    """Return the official evaluator's five measures of each direction by its names, in percent with 4 decimals."""
    names = {**{column: column for column in COLUMNS}, "mR": "mean_recall", "MRR": "mrr"}
    measures = {}
    for direction in DIRECTIONS:
        measures[direction] = {name: round(values[direction][key], 4) for key, name in names.items()}
    return measures


@pytest.mark.parametrize("folder", OFFICIAL, ids=str)
def test_embed_and_eval_give_the_official_file_and_table(folder, tmp_path):
    succeed("embed", "--checkpoint", folder / "model.pdparams", "--data", folder / "coco_rows.tsv",
            "--format", "official", "--output", tmp_path)  # fmt: skip
    actual, official = read_embeddings(tmp_path), read_embeddings(folder)
    np.testing.assert_allclose(actual.image_embeddings, official.image_embeddings, atol=1e-5)
    np.testing.assert_allclose(actual.text_embeddings, official.text_embeddings, atol=1e-5)
    logarithm = read_weights(folder / "model.pdparams")["contrastive_loss_mm.temperature_b"]
    assert load_model(folder).logit_scale == pytest.approx(np.exp(logarithm.item()))
    table = json.loads((folder / "official_eval.json").read_text())
    for embeddings in (actual, official):
        assert round_measures(score_embeddings(embeddings, PROTOCOLS["official-rows"]).as_dict()) == table


@pytest.mark.parametrize(("reference", "vocabulary"), SENTENCES, ids=str)
def test_reference_sentences_have_the_official_ids(reference, vocabulary):
    entries = json.loads(reference.read_text(encoding="utf-8"))
    tokenizer = WordPieceTokenizer(vocabulary, max_length=512)
    assert len(entries) >= 42
    for entry in entries:
        assert tokenizer.encode(entry["text"])[1:-1] == entry["ids"], entry["text"]
