"""Names and shapes of the releases, compared with PaddleNLP's model and by round trips."""

import errno
import json
import shutil

import numpy as np
import paddle
import pytest

from ernie_vil2.config import Config, ModelConfig
from ernie_vil2.models import build_dual_encoder
from ernie_vil2.models.weights.files import read_weights
from ernie_vil2.models.weights.format import FORMATS, StoredModel, read_model, write_model
from ernie_vil2.models.weights.formats.official import from_ours, infer_architecture, to_ours
from ernie_vil2.towers.transformer import ENCODER_SIZES, VIT_SIZES
from tests.support.encoding_model import normalise_rows
from tests.support.other_families import build_for_evaluation, copy_folder
from tests.support.towers import assert_same_bits, copy_arrays, make_image_config, make_text_config, randomize

transformers = pytest.importorskip("paddlenlp.transformers", reason="PaddleNLP is not installed")

TOKENS = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", *"一二三四"]
ROWS = len(TOKENS) + 3
SIZES = {"hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 96}


def build_model(image_width=24, text="ernie", image=None):
    """Return a small model of this package and its configuration."""
    config = ModelConfig(
        image=image or make_image_config(name="ViT", image_size=12, patch_size=4, width=image_width, depth=2, heads=3),
        text=make_text_config(name=text, width=24, depth=2, heads=2, max_positions=8, dropout=0.3),
    )
    return config, randomize(build_dual_encoder(config, ROWS))


def make_stored_model():
    """Return a small model of this package as it is stored, and its configuration."""
    config, model = build_model()
    return config, StoredModel("ernie_vil2", copy_arrays(model), Config(Model=config, Data={"max_length": 8}), TOKENS)


@pytest.fixture
def paddlenlp(tmp_path):
    """Return a small model of PaddleNLP, and its folder with the files of save_pretrained."""
    vision = {**SIZES, "num_hidden_layers": 2, "image_size": 12, "patch_size": 4}
    text = {**SIZES, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": ROWS, "max_position_embeddings": 8}
    model = randomize(transformers.ErnieViLModel(transformers.ErnieViLConfig(text_config=text, vision_config=vision)))
    folder = tmp_path / "paddlenlp"
    model.save_pretrained(str(folder))
    (tmp_path / "tokens.txt").write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
    transformers.ErnieViLTokenizer(str(tmp_path / "tokens.txt")).save_pretrained(str(folder))
    transformers.ErnieViLImageProcessor(size=12, crop_size=12).save_pretrained(str(folder))
    return model, folder


@paddle.no_grad()
def test_pixels_beyond_whole_patches_are_unused_as_in_paddlenlp(paddlenlp, tmp_path):
    # The side of the images, 14, is no multiple of the patch, 4.
    folder = paddlenlp[1]
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["image_size"] = 14
    (folder / "config.json").write_text(json.dumps(config))
    transformers.ErnieViLImageProcessor(size=14, crop_size=14).save_pretrained(str(folder))
    paddlenlp_model = transformers.ErnieViLModel.from_pretrained(str(folder)).eval()
    images = paddle.to_tensor(np.random.default_rng(1).normal(size=(3, 3, 14, 14)).astype("float32"))
    stored = read_model(folder)
    assert stored.config.Model.image.image_size == 14
    expected = normalise_rows(paddlenlp_model.get_image_features(images).numpy())
    np.testing.assert_allclose(build_for_evaluation(stored).encode_image(images).numpy(), expected, atol=1e-5)
    write_model(stored, tmp_path / "back", "paddlenlp")
    assert read_model(tmp_path / "back").config.Model.image.image_size == 14


def make_inputs():
    """Return images and the ids of texts."""
    images = np.random.default_rng(1).normal(size=(3, 3, 12, 12)).astype("float32")
    return paddle.to_tensor(images), paddle.to_tensor([[1, 5, 8, 2], [1, 7, 2, 0], [1, 2, 0, 0]])


@paddle.no_grad()
def test_embeddings_and_logits_equal_those_of_paddlenlp(paddlenlp, tmp_path):
    paddlenlp_model, folder = paddlenlp
    stored = read_model(folder)
    assert stored.layout == "paddlenlp" and stored.tokens == TOKENS and stored.vocab_size == ROWS
    model = build_for_evaluation(stored)
    images, ids = make_inputs()
    expected = paddlenlp_model(input_ids=ids, pixel_values=images)
    image, text = model.encode_image(images).numpy(), model.encode_text(ids).numpy()
    np.testing.assert_allclose(image, normalise_rows(paddlenlp_model.get_image_features(images).numpy()), atol=1e-5)
    np.testing.assert_allclose(text, normalise_rows(paddlenlp_model.get_text_features(ids).numpy()), atol=1e-5)
    np.testing.assert_allclose(float(model.logit_scale) * image @ text.T, expected.logits_per_image.numpy(), atol=1e-3)

    # PaddleNLP computes the same bits from the folder that this package writes.
    write_model(stored, tmp_path / "own", "ernie_vil2")
    write_model(read_model(tmp_path / "own"), tmp_path / "back", "paddlenlp")
    reloaded_model = transformers.ErnieViLModel.from_pretrained(str(tmp_path / "back")).eval()
    actual = reloaded_model(input_ids=ids, pixel_values=images)
    np.testing.assert_array_equal(actual.logits_per_image.numpy(), expected.logits_per_image.numpy())
    np.testing.assert_array_equal(actual.text_embeds.numpy(), expected.text_embeds.numpy())


def test_processor_of_paddlenlp_reads_written_folders(tmp_path):
    from paddlenlp.transformers import ErnieViLProcessor

    model_config, model = build_model()
    mean = [0.1, 0.2, 0.3]
    image_config = model_config.image.model_copy(update={"mean": mean})
    model_config = model_config.model_copy(update={"image": image_config})
    config = Config(Model=model_config, Data={"max_length": 7})
    write_model(StoredModel("ernie_vil2", copy_arrays(model), config, TOKENS), tmp_path / "p", "paddlenlp")
    processor = ErnieViLProcessor.from_pretrained(str(tmp_path / "p"))
    assert processor.tokenizer("一四 x")["input_ids"] == [1, 5, 8, 4, 2]
    assert processor.image_processor.image_mean == mean
    pixels = processor(images=np.full([20, 15, 3], 255, np.uint8), return_tensors="np")["pixel_values"]
    assert pixels.shape == (1, 3, 12, 12)
    np.testing.assert_allclose(pixels[0, :, 0, 0], (1 - np.array(mean)) / image_config.std, rtol=1e-5)  # white
    stored = read_model(tmp_path / "p")
    assert stored.config.Model.image.mean == mean and stored.config.Data.max_length == 7


@pytest.mark.parametrize("layout", ["official", "paddlenlp", "ernie_vil2"])
def test_round_trip_is_bit_exact(tmp_path, layout):
    config, stored = make_stored_model()
    write_model(stored, tmp_path / "there", layout)
    reread = read_model(tmp_path / "there", heads=(3, 2) if layout == "official" else None)
    assert reread.layout == layout and reread.tokens == TOKENS
    assert_same_bits(reread.arrays, stored.arrays)
    sizes = {"width", "depth", "heads"}
    for tower, fields in (("image", sizes | {"patch_size", "image_size"}), ("text", sizes | {"max_positions"})):
        actual, expected = getattr(reread.config.Model, tower), getattr(config, tower)
        assert actual.model_dump(include=fields) == expected.model_dump(include=fields)
    write_model(reread, tmp_path / "back", "ernie_vil2")
    assert_same_bits(read_weights(tmp_path / "back/model.safetensors"), stored.arrays)


@pytest.mark.parametrize(
    ("model", "culprit"),
    [
        ({"image_width": 12}, "image_projection.weight"),
        ({"text": "bert"}, "token_type_embeddings"),
        ({"image": make_image_config(name="PPLCNet_x0_25", image_size=32)}, "image.network"),
    ],
)
def test_model_that_does_not_fit_a_release_is_refused(model, culprit, tmp_path):
    arrays = copy_arrays(build_model(**model)[1])
    for layout in ("official", "paddlenlp"):
        with pytest.raises(ValueError, match=f"{layout} .*{culprit}"):
            from_ours(arrays, layout)
    config = Config(Model=ModelConfig(text=make_text_config(pooling="mean")))
    with pytest.raises(ValueError, match="pools texts"):
        write_model(StoredModel("ernie_vil2", {}, config, ["[PAD]"]), tmp_path / "new", "official")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "array", "culprit"),
    [
        ("visual.positional_embedding", None, "image.pos_embed is missing"),
        ("visual.positional_embedding", np.zeros([1, 9, 24]), "8 patches"),
        ("visual.positional_embedding", np.zeros([24]), "3 axes"),
        ("visual.blocks.0.mlp.fc1.weight", np.zeros([24, 48]), "not four times as wide"),
    ],
)
def test_shapes_of_no_official_model_are_refused(name, array, culprit):
    official_arrays = from_ours(copy_arrays(build_model()[1]), "official")
    official_arrays[name] = array
    arrays = to_ours({name: array for name, array in official_arrays.items() if array is not None}, "official")
    with pytest.raises(ValueError, match=culprit):
        infer_architecture(arrays, (3, 2), "official")


def test_epsilon_and_dropout_of_a_paddlenlp_folder_are_read(paddlenlp, tmp_path):
    rates = {"hidden_dropout_prob": 0.25, "attention_probs_dropout_prob": 0}
    folder = copy_folder(paddlenlp[1], tmp_path / "m", "config.json", "text_config", layer_norm_eps=1e-12, **rates)
    text = read_model(folder).config.Model.text
    assert (text.epsilon, text.dropout, text.attention_dropout) == (1e-12, 0.25, 0)


@pytest.mark.parametrize("safe", [False, True])
def test_shards_are_read_and_a_wrong_one_is_named(paddlenlp, tmp_path, safe):
    model, folder = paddlenlp
    sharded = tmp_path / "sharded"
    shutil.copytree(folder, sharded)
    (sharded / "model_state.pdparams").unlink()
    model.save_pretrained(str(sharded), max_shard_size="50KB", safe_serialization=safe)
    index = next(sharded.glob("*.index.json"))
    shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    assert len(shards) > 2 and not (sharded / "model_state.pdparams").exists()
    expected, actual = read_model(folder), read_model(sharded)
    assert actual.config == expected.config
    assert_same_bits(actual.arrays, expected.arrays)
    (sharded / shards[1]).rename(sharded / "aside")
    with pytest.raises(FileNotFoundError, match=shards[1]):
        read_model(sharded)
    shutil.copy(sharded / shards[0], sharded / shards[1])
    with pytest.raises(ValueError, match=f"{shards[1]}: .* is not in it, as {index.name} says"):
        read_model(sharded)


def test_broken_files_next_to_the_weights_are_named(paddlenlp):
    folder = paddlenlp[1]
    vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join([*TOKENS, *"abcdef"]), encoding="utf-8")
    with pytest.raises(ValueError, match=f"{ROWS} rows of words, but .*vocab.txt has 15 tokens"):
        read_model(folder)
    (folder / "vocab.txt").write_text(vocabulary, encoding="utf-8")
    for name in ("config.json", "preprocessor_config.json", "tokenizer_config.json"):
        (folder / name).rename(folder / "aside")
        with pytest.raises(ValueError, match=f"{name} missing"):
            read_model(folder)
        (folder / "aside").rename(folder / name)
    (folder / name).write_text("{")
    with pytest.raises(ValueError, match=name):
        read_model(folder)


@pytest.fixture
def official(tmp_path):
    """Write an official folder of a model whose towers do not have width / 64 heads."""
    _, stored = make_stored_model()
    write_model(stored, tmp_path / "official", "official")
    return tmp_path / "official"


def test_official_settings_are_read(official):
    (official / "integrity.json").unlink(missing_ok=True)  # the folder is changed below
    config = read_model(official).config.Model
    assert (config.image.heads, config.text.heads, config.text.dropout) == (3, 2, 0.3)
    assert read_model(official).config.Data.max_length == 8  # the official length is 48, but the model has 8 positions
    assert read_model(official, heads=(2, 4)).config.Model.text.heads == 4
    path = official / "ernie_config.json"
    settings = json.loads(path.read_text())
    path.rename(official / "ernie_config.base.json")  # its name in the official repository
    assert read_model(official).config.Model == config
    del settings["image_num_attention_heads"]  # the release's file lacks it
    path.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="width, 24"):
        read_model(official)


@pytest.mark.parametrize("layout", ["official", "paddlenlp"])
def test_stray_pt_file_does_not_make_it_a_chinese_clip(tmp_path, layout):
    write_model(make_stored_model()[1], tmp_path / "there", layout)
    (tmp_path / "there" / "best.pt").write_bytes(b"not even weights")
    assert read_model(tmp_path / "there").layout == layout


def test_writing_needs_a_new_folder_and_a_vocabulary(official, tmp_path):
    stored = read_model(official)
    with pytest.raises(FileExistsError, match=str(tmp_path)):
        write_model(stored, tmp_path, "official")
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "none")):
        read_model(tmp_path / "none")
    with pytest.raises(ValueError, match="no vocabulary"):
        write_model(StoredModel("ernie_vil2", stored.arrays, stored.config, None), tmp_path / "new", "official")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("layout", ["official", "paddlenlp"])
def test_sizes_of_named_towers_are_written(tmp_path, monkeypatch, layout):
    # A fault would write no width for ViT-B/16 and ernie-base; smaller sizes make the test quick.
    monkeypatch.setitem(ENCODER_SIZES, "base", {"width": 24, "depth": 1, "heads": 2})
    monkeypatch.setitem(VIT_SIZES, "ViT-B/16", {"patch_size": 4, "width": 24, "depth": 1, "heads": 3})
    config = ModelConfig(image=make_image_config(image_size=12), text=make_text_config(max_positions=8))
    model = randomize(build_dual_encoder(config, ROWS))
    stored = StoredModel("ernie_vil2", copy_arrays(model), Config(Model=config, Data={"max_length": 8}), TOKENS)
    write_model(stored, tmp_path / "there", layout)
    reread = read_model(tmp_path / "there").config.Model
    assert (reread.image.width, reread.image.heads, reread.text.width, reread.text.heads) == (24, 3, 24, 2)
    assert any("prepares images" in change for change in FORMATS.find(layout).find_changes(stored.config))


@pytest.mark.parametrize("layout", ["official", "paddlenlp", "ernie_vil2"])
def test_conversion_appears_whole_or_not_at_all(official, tmp_path, monkeypatch, layout):
    stored = read_model(official)
    module = "run" if layout == "ernie_vil2" else "official"

    def raise_full_disk(*_):
        assert not (tmp_path / "new").exists()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"ernie_vil2.models.weights.formats.{module}.write_model_integrity", raise_full_disk)
        with pytest.raises(OSError, match="No space left"):
            write_model(stored, tmp_path / "new", layout)
    assert [path.name for path in tmp_path.iterdir()] == ["official"]
    (tmp_path / "new").mkdir()  # an empty folder is as good as none
    write_model(stored, tmp_path / "new", layout)
    assert_same_bits(read_model(tmp_path / "new").arrays, stored.arrays)


@pytest.mark.parametrize("name", ["model.safetensors", "config.yaml"])
def test_truncated_file_is_named(official, tmp_path, name):
    write_model(read_model(official), tmp_path / "own", "ernie_vil2")
    content = (tmp_path / "own" / name).read_bytes()
    (tmp_path / "own" / name).write_bytes(content[:-4])
    with pytest.raises(ValueError, match=f"own: {name} has [0-9,]+ bytes"):
        read_model(tmp_path / "own")


def test_settings_that_a_format_changes_are_reported():
    model, _ = build_model()
    model = model.model_copy(update={"image": model.image.model_copy(update={"mean": [0.5, 0.5, 0.5]})})
    model_config = Config(Model=model, Data={"max_length": 7})
    release = ModelConfig(
        image=make_image_config(preprocessing="official"), text=make_text_config(tokenizer="official")
    )
    for config, layout, settings in (
        (model_config, "official", ["images", "transparency", "48 tokens", "mean", "width / 64"]),
        (model_config, "paddlenlp", ["epsilon 1e-12", "images", "transparency", "splits texts", "7 tokens"]),
        (Config(Model=release), "official", []),
    ):
        changes = FORMATS.find(layout).find_changes(config)
        assert len(changes) == len(settings)
        for setting, change in zip(settings, changes, strict=True):
            assert setting in change
