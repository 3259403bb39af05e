"""Dual encoders of other families compute what their authors' code does; every other way of computing shows.

The marks: two versions of the authors' libraries agree to 2e-7 on embeddings; the smallest control is 2e-5 away.
"""

import json
import re

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

from ernie_vil2 import load_model
from ernie_vil2.data.preprocessing import normalize_images
from ernie_vil2.models.weights.families import FAMILIES
from tests.support.other_families import (
    CARRIED_FIRST,
    FOLDERS,
    NAMES,
    built,
    expected,
    image_difference,
    images,
    inputs,
    stored,
    text_difference,
)

CLOSE = 5e-6
ACTIVATION = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_tanh": "gelu_tanh", "quick_gelu": "quick_gelu"}
OF_TEXTS = {
    "without the causal mask": {"mask": "none"},
    "with the causal mask": {"mask": "causal"},
    "without the padding mask": {"mask": "none"},
    "with a padding mask": {"mask": "padding"},
    "pooled at the last position": {"pooling": "last"},
}


def control(line):
    """What another way of computing, a line of an expected.json, is called here; None: it is not of the towers."""
    tower, _, what = line.partition(": ")
    if found := re.match(r"activation (\w+) for", what):
        return tower, {"activation": ACTIVATION[found[1]]}
    if found := re.match(r"eps ([\d.e-]+) for", what):
        return tower, {"epsilon": float(found[1])}
    return (tower, OF_TEXTS[what]) if tower == "text" and what in OF_TEXTS else None


def controls():
    for parameters in CARRIED_FIRST:
        (name,) = parameters.values
        for line, distance in json.loads((FOLDERS[name] / "expected.json").read_text())["controls"].items():
            if distance >= 2e-5 and control(line):
                identifier = f"{name}-{line.replace(' ', '_')}"
                yield pytest.param(name, *control(line), distance, id=identifier, marks=parameters.marks)


@pytest.mark.parametrize("name", NAMES)
def test_embeddings_and_logits_are_the_authors(name):
    model = built(found := stored(name))
    assert image_difference(model, name, found.config.Model.image.patch_size) < CLOSE
    assert text_difference(model, name) < CLOSE
    arrays = expected(name)
    logits = model.logit_scale.item() * arrays["image_embeddings"] @ arrays["text_embeddings"].T
    logits += 0 if model.logit_bias is None else model.logit_bias.item()
    np.testing.assert_allclose(logits, arrays["logits"], rtol=1e-5, atol=1e-5)


def test_loading_prints_one_line(capsys):
    load_model(FOLDERS["hf_clip"])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if str(FOLDERS["hf_clip"]) in line]
    for setting in ("; tokenizer ", "; preprocessing ", "; activation ", "; pooling ", "; no licence named"):
        assert setting in line


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


@pytest.mark.parametrize(("name", "tower", "changes", "distance"), [*controls()])
def test_other_ways_of_towers_are_as_far_as_the_authors(name, tower, changes, distance):
    found = stored(name)
    model = built(found, **{tower: changes})
    if tower == "text":
        difference = text_difference(model, name)
    else:
        difference = image_difference(model, name, found.config.Model.image.patch_size)
    if tower == "image" and "pixel_values_rows" in expected(name):  # the distance is the largest of all images
        assert CLOSE < difference < 1.01 * distance
    elif "pooling" in changes or (name, changes) == ("hf_altclip", {"mask": "none"}):
        assert difference > distance / 2  # where padding counts, it has other positions or another length there
    else:
        np.testing.assert_allclose(difference, distance, rtol=0.1, atol=1e-6)


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


@pytest.mark.parametrize("name", CARRIED_FIRST)
def test_names_are_invertible_bit_for_bit(name):
    found = stored(name)
    family, model = found.family, found.config.Model
    names = family.family.names(model, family.dialect, family.names)
    back = names.to_theirs(found.arrays)
    assert set(back) | set(family.unused) == set(family.names)
    again = names.to_ours(back)
    assert list(again) == list(found.arrays)
    for key, array in found.arrays.items():
        np.testing.assert_array_equal(again[key], array)


@pytest.mark.slow
def test_every_family_has_a_folder_that_is_tested():
    if len(FOLDERS) > 6:
        assert {stored(name).layout for name in NAMES} == {FAMILIES.find(name).title for name in FAMILIES}
