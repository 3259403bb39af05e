"""Gradients and the other ways of texts of other families are those of their authors' code.

test_pipelines.py compares the embeddings of files and strings. The mark: two versions of the authors' libraries agree
to 2e-7; the nearest other way of computing is 2e-5 away.
"""

import json

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

from ernie_vil2 import load_model
from ernie_vil2.data.preprocessing import normalize_images
from tests.support.other_families import (
    FOLDERS,
    NAMES,
    built,
    expected,
    images,
    inputs,
    stored,
    text_difference,
)

CLOSE = 5e-6


@pytest.mark.parametrize("name", [name for name in NAMES if "fgclip2" in name])
@pytest.mark.parametrize("way", ["box", "long"])
def test_other_ways_of_reading_a_text(name, way):
    assert text_difference(built(stored(name, {"text": way})), name, f"/{way}") < CLOSE
    model = load_model(FOLDERS[name], dialect={"text": way})
    np.testing.assert_allclose(model.encode_texts(inputs(name)[1]), expected(name)[f"text_embeddings/{way}"], atol=1e-5)


@pytest.mark.parametrize("name", [name for name in NAMES if "naflex" in name])
def test_padded_patches_are_seen_where_nothing_masks_them(name):
    """Images of several shapes in one batch, as the authors compute them; here each shape is a batch of its own."""
    found, arrays = stored(name), expected(name)
    model = built(found)
    tower, masks = model.image, arrays["pixel_attention_mask"]
    positions = []
    for (rows, columns), mask in zip(arrays["spatial_shapes"], masks, strict=True):
        grid = tower.positions(int(rows), int(columns))
        positions.append(paddle.concat([grid, grid[:, :1].tile([1, len(mask) - rows * columns, 1])], axis=1))
    tokens = tower.patch_embed["proj"](paddle.to_tensor(arrays["pixel_values"])) + paddle.concat(positions)
    hidden = paddle.to_tensor((1 - masks[:, None, None]) * np.float32(-1e4))
    for mask, most in ((hidden, CLOSE), (None, np.inf)):
        features = model.image_projection(tower.encode(tokens, mask))
        difference = np.abs(F.normalize(features).numpy() - arrays["image_embeddings"]).max()
        assert difference < most
    distance = json.loads((FOLDERS[name] / "expected.json").read_text())["controls"]["image: padded patches not masked"]
    np.testing.assert_allclose(difference, distance, rtol=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_the_authors(name):
    """Of (CE(L) + CE(L.T)) / 2 with L = scale * image @ text[:6].T, by the authors' names."""
    found = stored(name)
    model, arrays = built(found), expected(name)
    if "pixel_values_rows" in arrays:  # of one image
        encoder = load_model(FOLDERS[name])
        pixels = [paddle.to_tensor(encoder.preprocess(file)[None]) for file in inputs(name)[0]]
        batches = [normalize_images(image, [0.5] * 3, [0.5] * 3) for image in pixels]
    else:
        batches = [paddle.to_tensor(batch) for batch, _ in images(name, found.config.Model.image.patch_size)]
    embeddings = paddle.concat([model.encode_image(batch) for batch in batches])
    texts = model.encode_text(paddle.to_tensor(arrays["input_ids"][:6]))
    logits, labels = model.logit_scale * embeddings @ texts.T, paddle.arange(6)
    cross_entropy = paddle.nn.functional.cross_entropy
    loss = (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2
    np.testing.assert_allclose(loss.item(), arrays["loss"], rtol=1e-5)
    loss.backward()
    ours = {key: np.zeros(value.shape, "float32") if value.grad is None else value.grad.numpy()
            for key, value in model.named_parameters()}  # fmt: skip
    family = found.family
    theirs = family.family.names(found.config.Model, family.dialect, family.names).to_theirs(ours)
    names = [key.removeprefix("grad/") for key in arrays if key.startswith("grad/")]
    assert len(names) >= 6
    for key in names:
        gradient = theirs[key.removeprefix("module.")]
        largest = np.abs(arrays[f"grad/{key}"]).max()
        np.testing.assert_allclose(gradient.reshape(arrays[f"grad/{key}"].shape), arrays[f"grad/{key}"],
                                   rtol=0, atol=1e-4 * largest, err_msg=key)  # fmt: skip
