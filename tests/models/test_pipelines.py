"""Embeddings of files and strings by other people's models, and gradients, are those of their authors' code.

The mark: two versions of the authors' libraries agree to 2e-7; the nearest other way of computing is 2e-5 away.
"""

import json
from dataclasses import replace

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

from ernie_vil2 import load_model
from ernie_vil2.data.preprocessing import Geometry, fit_patches, normalize_images
from ernie_vil2.models.weights.families.family import with_preprocessing
from ernie_vil2.models.weights.settings import Settings
from tests.support.other_families import (
    FOLDERS,
    NAMES,
    build_for_evaluation,
    list_inputs,
    make_image_batches,
    measure_text_difference,
    read_expected,
    read_family,
)
from tests.support.towers import make_image_config


@pytest.fixture(scope="module")
def model():
    loaded = {}

    def load(name):
        if name not in loaded:
            loaded.clear()
            loaded[name] = load_model(FOLDERS[name], device="cpu")
        return loaded[name]

    return load


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_pixels_and_embeddings_are_the_authors(model, name):
    """Pixels are those of the authors' processor, embeddings those of files and strings."""
    preprocessing, arrays = model(name).preprocessing, read_expected(name)
    files, texts = list_inputs(name)
    rows = arrays["pixel_values_rows"] if "pixel_values_rows" in arrays else range(len(files))
    for row, theirs in zip(rows, arrays["pixel_values"], strict=True):
        pixels = preprocessing(files[row].read_bytes(), "image").astype(np.float64) / 255
        ours = (pixels - preprocessing.mean) / preprocessing.std
        if theirs.ndim == 2:  # patches by (row, column, channel), then padding
            height, width, size = *ours.shape[:2], preprocessing.geometry.patch_size
            assert [height // size, width // size] == arrays["spatial_shapes"][row].tolist()
            ours = ours.reshape(height // size, size, width // size, size, 3).swapaxes(1, 2).reshape(-1, 3 * size**2)
            assert not theirs[len(ours) :].any()
            theirs = theirs[: len(ours)]
        else:
            ours = ours.transpose(2, 0, 1)
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    np.testing.assert_allclose(model(name).encode_texts(texts), arrays["text_embeddings"], atol=5e-6)
    np.testing.assert_allclose(model(name).encode_images(files), arrays["image_embeddings"], atol=5e-6)
    bias = model(name).backend.model.logit_bias
    logits = model(name).logit_scale * arrays["image_embeddings"] @ arrays["text_embeddings"].T
    np.testing.assert_allclose(logits + (0 if bias is None else bias.item()), arrays["logits"], rtol=1e-5, atol=1e-5)


# Ways that a folder does not have, some of which none has, with the name that its authors' code gave the distance.
OTHER_WAYS = [
    ("cn_clip_pt", "bilinear for bicubic", {"interpolation": "bilinear"}),
    ("cn_clip_pt", "shortest edge and crop, not squashed", {"resize": "shortest"}),
    ("hf_clip", "squashed, not cropped", {"resize": "squash"}),
    ("hf_siglip2_naflex", "resample 3 for 2", {"interpolation": "bicubic"}),
    ("openclip_siglip_timm", "resize_mode longest for squash", {"resize": "longest"}),
    ("openclip_siglip_timm", "RGBA turned to RGB before the resize (row 3 only)", {"kind": "transformers"}),
]


@pytest.mark.parametrize(("name", "way", "changes"), OTHER_WAYS)
def test_other_ways_of_images_are_as_far_as_the_authors(model, name, way, changes):
    preprocessing = model(name).preprocessing
    if "kind" not in changes:
        changes = {"geometry": preprocessing.geometry._replace(**changes)}
    other = replace(preprocessing, **changes)
    pixels = [other(path.read_bytes(), "image") for path in list_inputs(name)[0]]
    differences = np.abs(model(name).encode_pixels(pixels) - read_expected(name)["image_embeddings"]).max(axis=1)
    distance = json.loads((FOLDERS[name] / "expected.json").read_text())["controls"][f"image: {way}"]
    difference = differences[3] if "row 3" in way else differences.max()
    assert difference == pytest.approx(distance, rel=0.02)


def test_a_dialect_of_tokenizer_and_crop_is_chosen_by_name(capfd):
    dialect = {"tokenizer": "open_clip", "preprocessing": "open_clip"}
    made = load_model(FOLDERS["hf_clip"], device="cpu", dialect=dialect)
    assert "tokenizer open_clip; preprocessing open_clip (shortest, bicubic)" in capfd.readouterr().err
    assert made.tokenizer.encode("A&nbsp;Cat") == made.tokenizer.encode("a cat")
    assert made.preprocessing.kind == "open_clip"


def prepared(tmp_path, kind="clip", name="preprocessor_config.json", **settings):
    content = {"image_processor": settings} if name == "processor_config.json" else settings
    (tmp_path / name).write_text(json.dumps(content))
    image = make_image_config(name="ViT", image_size=32, patch_size=8, width=8, depth=1, heads=1, mean=[0.5] * 3)
    return with_preprocessing(image, kind, tmp_path, Settings(tmp_path, {}))


def test_integers_older_keys_and_absent_ones(tmp_path):
    plain = prepared(tmp_path, size=32, crop_size=32)
    assert (plain.preprocessing, plain.resize, plain.interpolation, plain.resized) == (
        "transformers", "shortest", "bicubic", None,
    )  # fmt: skip
    assert plain.mean == [0.5] * 3
    assert prepared(tmp_path, "square", size=32).resize == "squash"
    larger = prepared(tmp_path, size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}, resample=2)
    assert (larger.resized, larger.interpolation) == (36, "bilinear")
    (tmp_path / "preprocessor_config.json").unlink()
    new = prepared(tmp_path, name="processor_config.json", size={"height": 32, "width": 32}, do_center_crop=False,
                   image_mean=[0.1, 0.2, 0.3])  # fmt: skip
    assert new.resize == "squash" and new.mean == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("settings", "culprit"),
    [
        ({"crop_size": 30}, "crop_size is 30"),
        ({"size": {"height": 30, "width": 32}}, "the model takes 32 pixels"),
        ({"do_resize": False}, "do_resize is False"),
        ({"do_pad": True}, "do_pad is True"),
        ({"size": 32, "default_to_square": True}, "default_to_square is True"),
        ({"resample": 9}, "resample is 9"),
    ],
)
def test_settings_that_are_not_followed_are_named(tmp_path, settings, culprit):
    with pytest.raises(ValueError, match=culprit):
        prepared(tmp_path, **settings)


def test_naflex_sizes_by_hand():
    # 100 patches of 16 in the aspect 4 : 1 are 20 x 5; a search by halves ends just below the scale that gives more.
    assert fit_patches(400, 100, 16, 100) == (320, 80)
    assert fit_patches(1, 1, 16, 16) == (64, 64)
    for width, height, most in [(640, 480, 256), (50, 700, 24), (1920, 1080, 1024), (16, 16, 1)]:
        w, h = fit_patches(width, height, 16, most)
        assert w % 16 == 0 and h % 16 == 0 and 0 < (w // 16) * (h // 16) <= most
    assert [Geometry().max_patches_of(side, 160) for side in (192, 208, 416, 1008, 1280, 4000)] == [
        128,
        256,
        576,
        784,
        1024,
        1024,
    ]


CLOSE = 5e-6


@pytest.mark.parametrize("name", [name for name in NAMES if "fgclip2" in name])
@pytest.mark.parametrize("way", ["box", "long"])
def test_other_ways_of_reading_a_text(name, way):
    assert measure_text_difference(build_for_evaluation(read_family(name, {"text": way})), name, f"/{way}") < CLOSE
    model = load_model(FOLDERS[name], dialect={"text": way})
    np.testing.assert_allclose(
        model.encode_texts(list_inputs(name)[1]), read_expected(name)[f"text_embeddings/{way}"], atol=1e-5
    )


@pytest.mark.parametrize("name", [name for name in NAMES if "naflex" in name])
def test_padded_patches_are_seen_where_nothing_masks_them(name):
    """Images of several shapes in one batch, as the authors compute them; here each shape is a batch of its own."""
    found, arrays = read_family(name), read_expected(name)
    model = build_for_evaluation(found)
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
    found = read_family(name)
    model, arrays = build_for_evaluation(found), read_expected(name)
    if "pixel_values_rows" in arrays:  # of one image
        encoder = load_model(FOLDERS[name])
        pixels = [paddle.to_tensor(encoder.preprocess(file)[None]) for file in list_inputs(name)[0]]
        batches = [normalize_images(image, [0.5] * 3, [0.5] * 3) for image in pixels]
    else:
        batches = [
            paddle.to_tensor(batch)
            for batch, _ in make_image_batches(name, found.config.Model.image.sizes.get("patch_size"))
        ]
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
    theirs = family.format.make_name_table(found.config.Model, family.dialect, family.array_names).to_theirs(ours)
    names = [key.removeprefix("grad/") for key in arrays if key.startswith("grad/")]
    assert len(names) >= 6
    for key in names:
        gradient = theirs[key.removeprefix("module.")]
        largest = np.abs(arrays[f"grad/{key}"]).max()
        np.testing.assert_allclose(gradient.reshape(arrays[f"grad/{key}"].shape), arrays[f"grad/{key}"],
                                   rtol=0, atol=1e-4 * largest, err_msg=key)  # fmt: skip
