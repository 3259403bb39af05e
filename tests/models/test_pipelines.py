"""Embeddings of files and strings by other people's models, and gradients, equal those of their authors' code.

Tolerances lie between 2e-7, to which two versions of the authors' libraries agree, and 2e-5, the distance of the
nearest other way of computing.
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
from ernie_vil2.models.weights.format import read_model
from ernie_vil2.models.weights.settings import Settings
from tests.support.other_families import (
    FOLDERS,
    NAMES,
    build_for_evaluation,
    change_arrays,
    copy_folder,
    list_inputs,
    make_image_batches,
    measure_image_difference,
    measure_text_difference,
    read_expected,
    read_family,
)
from tests.support.towers import make_image_config


@pytest.fixture(scope="module")
def load():
    """Return a function that loads the model of a family, and holds only the last one in memory."""
    models = {}

    def load_once(name):
        if name not in models:
            models.clear()
            models[name] = load_model(FOLDERS[name], device="cpu")
        return models[name]

    return load_once


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_pixels_and_embeddings_equal_those_of_the_authors(load, name):
    model, arrays = load(name), read_expected(name)
    preprocessing = model.preprocessing
    files, texts = list_inputs(name)
    rows = arrays["pixel_values_rows"] if "pixel_values_rows" in arrays else range(len(files))
    for row, expected in zip(rows, arrays["pixel_values"], strict=True):
        pixels = preprocessing(files[row].read_bytes(), "image").astype(np.float64) / 255
        pixels = (pixels - preprocessing.mean) / preprocessing.std
        if expected.ndim == 2:  # patches by (row, column, channel), then padding
            height, width, size = *pixels.shape[:2], preprocessing.geometry.patch_size
            assert [height // size, width // size] == arrays["spatial_shapes"][row].tolist()
            grid = pixels.reshape(height // size, size, width // size, size, 3).swapaxes(1, 2)
            pixels = grid.reshape(-1, 3 * size**2)
            assert not expected[len(pixels) :].any()
            expected = expected[: len(pixels)]
        else:
            pixels = pixels.transpose(2, 0, 1)
        np.testing.assert_allclose(pixels, expected, atol=1e-6)
    np.testing.assert_allclose(model.encode_texts(texts), arrays["text_embeddings"], atol=5e-6)
    np.testing.assert_allclose(model.encode_images(files), arrays["image_embeddings"], atol=5e-6)
    logits = model.logit_scale * arrays["image_embeddings"] @ arrays["text_embeddings"].T
    if model.backend.model.logit_bias is not None:
        logits = logits + model.backend.model.logit_bias.item()
    np.testing.assert_allclose(logits, arrays["logits"], rtol=1e-5, atol=1e-5)


# Changes of a folder's preprocessing, with the names that expected.json gives their distances from the right one.
OTHER_WAYS = [
    ("cn_clip_pt", "bilinear for bicubic", {"interpolation": "bilinear"}),
    ("cn_clip_pt", "shortest edge and crop, not squashed", {"resize": "shortest"}),
    ("hf_clip", "squashed, not cropped", {"resize": "squash"}),
    ("hf_siglip2_naflex", "resample 3 for 2", {"interpolation": "bicubic"}),
    ("openclip_siglip_timm", "resize_mode longest for squash", {"resize": "longest"}),
    ("openclip_siglip_timm", "RGBA turned to RGB before the resize (row 3 only)", {"kind": "transformers"}),
]


@pytest.mark.parametrize(("name", "way", "changes"), OTHER_WAYS)
def test_changed_preprocessing_is_as_far_off_as_the_authors(load, name, way, changes):
    model = load(name)
    if "kind" not in changes:
        changes = {"geometry": model.preprocessing.geometry._replace(**changes)}
    preprocessing = replace(model.preprocessing, **changes)
    pixels = [preprocessing(path.read_bytes(), "image") for path in list_inputs(name)[0]]
    differences = np.abs(model.encode_pixels(pixels) - read_expected(name)["image_embeddings"]).max(axis=1)
    distance = json.loads((FOLDERS[name] / "expected.json").read_text())["controls"][f"image: {way}"]
    difference = differences[3] if "row 3" in way else differences.max()
    assert difference == pytest.approx(distance, rel=0.02)


# Changes of a tower's settings, with the names that expected.json gives their distances from the right one.
OTHER_TOWERS = [
    ("openclip_xlmr", "text: eps 1e-12 for 1e-05", "epsilon", 1e-12),
    ("openclip_xlmr", "text: positions from 0, not 2", "variant.first_position", 0),
    ("openclip_xlmr", "text: first state (<s>), not the mean", "pooling", "first"),
    ("openclip_xlmr", "text: proj with gelu_tanh", "variant.head_activation", "gelu_tanh"),
    ("openclip_xlmr", "text: proj without its gelu", "variant.head_activation", None),
    ("openclip_bert_timm", "text: eps 1e-05 for 1e-12", "epsilon", 1e-5),
    ("openclip_bert_timm", "text: mean, not the first state", "pooling", "mean"),
    ("openclip_bert_timm", "text: without the padding mask", "variant.mask", "none"),
    ("openclip_bert_timm", "image: activation gelu_tanh for gelu", "variant.activation", "gelu_tanh"),
    ("openclip_bert_timm", "image: eps 1e-12 for 1e-06", "variant.epsilon", 1e-12),
    ("openclip_bert_timm", "image: mean of the patches, not the class token", "variant.pooling", "mean"),
    ("hf_vision_text_dual", "text: state of [CLS], without the pooler", "pooling", "first"),
    ("hf_vision_text_dual", "image: class token without the pooler", "variant.pooling", "class"),
    ("hf_vision_text_dual", "image: eps 1e-05 for 1e-12", "variant.epsilon", 1e-5),
    ("hf_vision_text_dual_clip", "text: mean of real tokens", "pooling", "mean"),
    ("hf_vision_text_dual_clip", "image: activation gelu for quick_gelu", "variant.activation", "gelu"),
    ("hf_clip_sharded_bin", "text: activation gelu for quick_gelu", "variant.activation", "gelu"),
    ("hf_clip_sharded_bin", "image: eps 1e-06 for 1e-05", "variant.epsilon", 1e-6),
]


@pytest.mark.parametrize(("name", "control", "field", "value"), [case for case in OTHER_TOWERS if case[0] in FOLDERS])
def test_changed_tower_is_as_far_off_as_the_authors(name, control, field, value):
    stored, kind = read_model(FOLDERS[name]), control.partition(":")[0]
    towers = stored.config.Model
    section, _, key = field.rpartition(".")
    tower = getattr(towers, kind)
    changes = {key: value}
    if section:
        changes = {section: getattr(tower, section).model_copy(update=changes)}
    towers = towers.model_copy(update={kind: tower.model_copy(update=changes)})
    changed = replace(stored, config=stored.config.model_copy(update={"Model": towers}))
    model, _ = changed.build(allow=["*pooler*"])
    model.eval()
    if kind == "text":
        difference = measure_text_difference(model, name)
    else:
        difference = measure_image_difference(model, name, tower.patch_size)
    distance = json.loads((FOLDERS[name] / "expected.json").read_text())["controls"][control]
    assert difference == pytest.approx(distance, rel=0.02)


def test_dialect_of_tokenizer_and_preprocessing_is_chosen(capfd):
    dialect = {"tokenizer": "open_clip", "preprocessing": "open_clip"}
    model = load_model(FOLDERS["hf_clip"], device="cpu", dialect=dialect)
    assert "tokenizer open_clip; preprocessing open_clip (shortest, bicubic)" in capfd.readouterr().err
    assert model.tokenizer.encode("A&nbsp;Cat") == model.tokenizer.encode("a cat")
    assert model.preprocessing.kind == "open_clip"


def read_processor(tmp_path, kind="clip", name="preprocessor_config.json", **settings):
    """Return the image configuration for a file of settings of transformers."""
    content = {"image_processor": settings} if name == "processor_config.json" else settings
    (tmp_path / name).write_text(json.dumps(content))
    image = make_image_config(name="ViT", image_size=32, patch_size=8, width=8, depth=1, heads=1, mean=[0.5] * 3)
    return with_preprocessing(image, kind, tmp_path, Settings(tmp_path, {}))


def test_processor_settings_of_all_versions_are_read(tmp_path):
    # Older files have integers, and lack keys with a default.
    image = read_processor(tmp_path, size=32, crop_size=32)
    assert (image.preprocessing, image.resize, image.interpolation) == ("transformers", "shortest", "bicubic")
    assert image.resized is None and image.mean == [0.5] * 3
    assert read_processor(tmp_path, "square", size=32).resize == "squash"
    image = read_processor(tmp_path, size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}, resample=2)
    assert (image.resized, image.interpolation) == (36, "bilinear")

    # Newer folders have a processor_config.json.
    (tmp_path / "preprocessor_config.json").unlink()
    image = read_processor(tmp_path, name="processor_config.json", size={"height": 32, "width": 32},
                           do_center_crop=False, image_mean=[0.1, 0.2, 0.3])  # fmt: skip
    assert image.resize == "squash" and image.mean == [0.1, 0.2, 0.3]


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
def test_unsupported_processor_settings_are_named(tmp_path, settings, culprit):
    with pytest.raises(ValueError, match=culprit):
        read_processor(tmp_path, **settings)


def test_naflex_sizes_are_as_by_hand():
    # 100 patches of 16 in the aspect 4 : 1 are 20 x 5; the search ends just below the scale with more patches.
    assert fit_patches(400, 100, 16, 100) == (320, 80)
    assert fit_patches(1, 1, 16, 16) == (64, 64)
    for width, height, max_patches in [(640, 480, 256), (50, 700, 24), (1920, 1080, 1024), (16, 16, 1)]:
        w, h = fit_patches(width, height, 16, max_patches)
        assert w % 16 == 0 and h % 16 == 0 and 0 < (w // 16) * (h // 16) <= max_patches
    num_patches = [Geometry().max_patches_of(side, 160) for side in (192, 208, 416, 1008, 1280, 4000)]
    assert num_patches == [128, 256, 576, 784, 1024, 1024]


CLOSE = 5e-6


@pytest.mark.parametrize("name", [name for name in NAMES if "fgclip2" in name])
@pytest.mark.parametrize("way", ["box", "long"])
def test_texts_of_fgclip_2_are_read_in_the_chosen_way(name, way):
    assert measure_text_difference(build_for_evaluation(read_family(name, {"text": way})), name, f"/{way}") < CLOSE
    model = load_model(FOLDERS[name], dialect={"text": way})
    np.testing.assert_allclose(
        model.encode_texts(list_inputs(name)[1]), read_expected(name)[f"text_embeddings/{way}"], atol=1e-5
    )


@pytest.mark.parametrize("name", [name for name in NAMES if "naflex" in name])
def test_padded_patches_are_masked_as_by_the_authors(name):
    # The authors compute images of several shapes in one padded batch; this package has a batch for each shape.
    stored, arrays = read_family(name), read_expected(name)
    model = build_for_evaluation(stored)
    tower, masks = model.image, arrays["pixel_attention_mask"]
    positions = []
    for (rows, columns), mask in zip(arrays["spatial_shapes"], masks, strict=True):
        grid = tower.positions(int(rows), int(columns))
        padding = grid[:, :1].tile([1, len(mask) - rows * columns, 1])
        positions.append(paddle.concat([grid, padding], axis=1))
    tokens = tower.patch_embed["proj"](paddle.to_tensor(arrays["pixel_values"])) + paddle.concat(positions)

    def measure_difference(attention_bias):
        features = model.image_projection(tower.encode(tokens, attention_bias))
        return np.abs(F.normalize(features).numpy() - arrays["image_embeddings"]).max()

    assert measure_difference(paddle.to_tensor((1 - masks[:, None, None]) * np.float32(-1e4))) < CLOSE
    controls = json.loads((FOLDERS[name] / "expected.json").read_text())["controls"]
    # Without a mask the embeddings are as far off as the authors measured.
    np.testing.assert_allclose(measure_difference(None), controls["image: padded patches not masked"], rtol=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_equal_those_of_the_authors(name):
    # The loss is (CE(L) + CE(L.T)) / 2 with L = scale * image @ text[:6].T.
    stored = read_family(name)
    model, arrays = build_for_evaluation(stored), read_expected(name)
    if "pixel_values_rows" in arrays:  # the fixture has the pixels of one image only
        encoder = load_model(FOLDERS[name])
        pixels = [paddle.to_tensor(encoder.preprocess(file)[None]) for file in list_inputs(name)[0]]
        batches = [normalize_images(image, [0.5] * 3, [0.5] * 3) for image in pixels]
    else:
        patch_size = stored.config.Model.image.sizes.get("patch_size")
        batches = [paddle.to_tensor(batch) for batch, _ in make_image_batches(name, patch_size)]
    embeddings = paddle.concat([model.encode_image(batch) for batch in batches])
    texts = model.encode_text(paddle.to_tensor(arrays["input_ids"][:6]))
    logits, labels = model.logit_scale * embeddings @ texts.T, paddle.arange(6)
    loss = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    np.testing.assert_allclose(loss.item(), arrays["loss"], rtol=1e-5)
    loss.backward()

    gradients = {}
    for key, value in model.named_parameters():
        gradients[key] = np.zeros(value.shape, "float32") if value.grad is None else value.grad.numpy()
    family = stored.family
    table = family.format.make_name_table(stored.config.Model, family.dialect, family.array_names)
    gradients = table.to_theirs(gradients)  # by the authors' names
    names = [key.removeprefix("grad/") for key in arrays if key.startswith("grad/")]
    assert len(names) >= 6
    for key in names:
        expected = arrays[f"grad/{key}"]
        gradient = gradients[key.removeprefix("module.")].reshape(expected.shape)
        # Relative to the largest entry: small ones are sums that mostly cancel.
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-4 * np.abs(expected).max(), err_msg=key)


@pytest.mark.skipif("fgclip2" not in FOLDERS, reason="its folder is not carried")
@pytest.mark.parametrize("keep_len", [0, 12, 33])
def test_long_texts_keep_as_many_positions_as_the_folder_says(keep_len, tmp_path):
    """A table that holds the authors' positions for their `keep_len` of 20 in other rows gives their embeddings."""
    first, second = (f"text_model.embeddings.position_embedding_{name}.weight" for name in ("ori", "res"))

    def move_rows(arrays):
        positions = np.concatenate([arrays[first][:20], arrays[second][20:]])
        for name, rows in ((first, slice(0, keep_len)), (second, slice(keep_len, None))):
            arrays[name] = np.zeros_like(positions)
            arrays[name][rows] = positions[rows]
        return arrays

    folder = copy_folder("fgclip2", tmp_path / "m", "config.json", "text_config", keep_len=keep_len)
    change_arrays(folder, move_rows)
    model = build_for_evaluation(read_model(folder, dialect={"text": "long"}))
    assert measure_text_difference(model, "fgclip2", "/long") < CLOSE
