"""Names and shapes of the releases, against PaddleNLP's own model and by round trips."""

import json
import re

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import ErnieViLConfig, ErnieViLModel

from ernie_vil2.config import Config, ImageTowerConfig, ModelConfig, TextTowerConfig, ViewsConfig
from ernie_vil2.models import build_dual_encoder, set_weights
from ernie_vil2.models.model_files import StoredModel, changed_ways, read_model, write_model
from ernie_vil2.models.released import architecture, detect_format, from_ours, to_ours
from ernie_vil2.models.weight_files import read_weights, write_weights

TOKENS = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", *"一二三四"]
ROWS = len(TOKENS) + 3
SIZES = {"hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 96}


def same_bits(found, expected):
    return found.keys() == expected.keys() and all(
        (found[name].dtype, found[name].shape, found[name].tobytes()) == (array.dtype, array.shape, array.tobytes())
        for name, array in expected.items()
    )


def randomised(model, seed=0):
    """Weights of every kind far from their initial values, so that no part can be left out unseen."""
    rng = np.random.default_rng(seed)
    for name, value in model.state_dict().items():
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        value.set_value((centre + 0.3 * rng.normal(size=value.shape)).astype("float32"))
    return model.eval()


def own_model(image_width=24, text="ernie", image=None):
    config = ModelConfig(
        image=image or ImageTowerConfig(name="ViT", image_size=12, patch_size=4, width=image_width, depth=2, heads=3),
        text=TextTowerConfig(name=text, width=24, depth=2, heads=2, max_positions=8),
    )
    return config, randomised(build_dual_encoder(config, ROWS))


def arrays_of(model):
    return {name: value.numpy() for name, value in model.state_dict().items()}


@pytest.fixture
def paddlenlp(tmp_path):
    """A small model of PaddleNLP's and the folder that its save_pretrained wrote, with a vocabulary."""
    vision = {**SIZES, "num_hidden_layers": 2, "image_size": 12, "patch_size": 4}
    text = {**SIZES, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": ROWS, "max_position_embeddings": 8}
    model = randomised(ErnieViLModel(ErnieViLConfig(text_config=text, vision_config=vision)))
    folder = tmp_path / "paddlenlp"
    model.save_pretrained(str(folder))
    (folder / "vocab.txt").write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
    return model, folder


def inputs():
    images = np.random.default_rng(1).normal(size=(3, 3, 12, 12)).astype("float32")
    return paddle.to_tensor(images), paddle.to_tensor([[1, 5, 8, 2], [1, 7, 2, 0], [1, 2, 0, 0]])


def built(stored):
    model = build_dual_encoder(stored.config.Model, stored.vocab_size)
    set_weights(model, stored.arrays)
    return model.eval()


def unit(features):
    return features / np.linalg.norm(features, axis=1, keepdims=True)


@paddle.no_grad()
def test_embeddings_and_logits_are_paddlenlps(paddlenlp):
    theirs, folder = paddlenlp
    stored = read_model(folder)
    assert stored.layout == "paddlenlp" and stored.tokens == TOKENS and stored.vocab_size == ROWS
    ours = built(stored)
    images, ids = inputs()
    expected = theirs(input_ids=ids, pixel_values=images)
    image, text = ours.encode_image(images).numpy(), ours.encode_text(ids).numpy()
    np.testing.assert_allclose(image, unit(theirs.get_image_features(images).numpy()), atol=1e-5)
    np.testing.assert_allclose(text, unit(theirs.get_text_features(ids).numpy()), atol=1e-5)
    np.testing.assert_allclose(float(ours.logit_scale) * image @ text.T, expected.logits_per_image.numpy(), atol=1e-3)


@paddle.no_grad()
def test_paddlenlp_computes_the_same_from_what_is_written(paddlenlp, tmp_path):
    theirs, folder = paddlenlp
    write_model(read_model(folder), tmp_path / "own", "ernie_vil2")
    write_model(read_model(tmp_path / "own"), tmp_path / "back", "paddlenlp")
    again = ErnieViLModel.from_pretrained(str(tmp_path / "back")).eval()
    images, ids = inputs()
    found, expected = again(input_ids=ids, pixel_values=images), theirs(input_ids=ids, pixel_values=images)
    np.testing.assert_array_equal(found.logits_per_image.numpy(), expected.logits_per_image.numpy())
    np.testing.assert_array_equal(found.text_embeds.numpy(), expected.text_embeds.numpy())


def test_paddlenlps_processor_reads_what_is_written(tmp_path):
    from paddlenlp.transformers import ErnieViLProcessor

    config, model = own_model()
    mean = [0.1, 0.2, 0.3]
    config = config.model_copy(update={"image": config.image.model_copy(update={"mean": mean})})
    whole = Config(Model=config, Data={"max_length": 7})
    write_model(StoredModel("ernie_vil2", arrays_of(model), whole, TOKENS), tmp_path / "p", "paddlenlp")
    processor = ErnieViLProcessor.from_pretrained(str(tmp_path / "p"))
    assert processor.tokenizer("一四 x")["input_ids"] == [1, 5, 8, 4, 2]
    assert processor.image_processor.image_mean == mean
    found = processor(images=np.full([20, 15, 3], 255, np.uint8), return_tensors="np")["pixel_values"]
    assert found.shape == (1, 3, 12, 12)
    np.testing.assert_allclose(found[0, :, 0, 0], (1 - np.array(mean)) / config.image.std, rtol=1e-5)
    stored = read_model(tmp_path / "p")
    assert stored.config.Model.image.mean == mean and stored.config.Data.max_length == 7


@pytest.mark.parametrize("layout", ["official", "paddlenlp", "ernie_vil2"])
def test_a_round_trip_is_bit_exact(tmp_path, layout):
    config, model = own_model()
    stored = StoredModel("ernie_vil2", arrays_of(model), Config(Model=config, Data={"max_length": 8}), TOKENS)
    write_model(stored, tmp_path / "there", layout)
    there = read_model(tmp_path / "there", heads=(3, 2) if layout == "official" else None)
    assert there.layout == layout and there.tokens == TOKENS
    assert same_bits(there.arrays, stored.arrays)
    for field in ("patch_size", "width", "depth", "heads", "image_size"):
        assert getattr(there.config.Model.image, field) == getattr(config.image, field)
    for field in ("width", "depth", "heads", "max_positions"):
        assert getattr(there.config.Model.text, field) == getattr(config.text, field)
    write_model(there, tmp_path / "back", "ernie_vil2")
    assert same_bits(read_weights(tmp_path / "back/model.safetensors"), stored.arrays)


def test_names_shapes_and_temperature_of_the_formats():
    """Worked out by hand for width 24, patches of 4 x 4 on 12 x 12 (9 and the class), log(1 / 0.07) = 2.659."""
    _, model = own_model()
    model.log_logit_scale.set_value(np.log([1 / 0.07]).astype("float32"))
    ours = arrays_of(model)
    official, paddlenlp = from_ours(ours, "official"), from_ours(ours, "paddlenlp")
    assert len(official) == len(ours) and len(paddlenlp) == len(ours) + 2 * 2 * 2
    for arrays, layout in ((official, "official"), (paddlenlp, "paddlenlp"), (ours, "ernie_vil2")):
        assert detect_format(arrays) == layout
    shapes = {
        "visual.class_embedding": (1, 1, 24),
        "visual.positional_embedding": (1, 10, 24),
        "visual.patch_embed.proj.weight": (24, 3, 4, 4),
        "visual.blocks.1.attn.qkv.weight": (24, 72),
        "text_model.encoder_stack.block.1.ffn.i.weight": (24, 96),
        "text_model.pooler.bias": (24,),
        "vision_model.class_embedding": (24,),
        "vision_model.positional_embedding.weight": (10, 24),
        "vision_model.transformer.layers.1.self_attn.k_proj.weight": (24, 24),
        "text_model.encoder.layers.1.norm2.bias": (24,),
    }
    assert {name: {**official, **paddlenlp}[name].shape for name in shapes} == shapes
    np.testing.assert_allclose(official["contrastive_loss_mm.temperature_b"], [2.659260], rtol=1e-6)
    np.testing.assert_allclose(paddlenlp["temperature"], [2.659260], rtol=1e-6)
    keys = paddlenlp["vision_model.transformer.layers.1.self_attn.k_proj.weight"]
    np.testing.assert_array_equal(keys, ours["image.blocks.1.attn.qkv.weight"][:, 24:48])


def test_what_has_no_counterpart_keeps_its_name_and_is_reported(paddlenlp):
    _, folder = paddlenlp
    arrays = read_weights(folder / "model_state.pdparams")
    arrays["text_model.embeddings.token_type_embeddings.weight"] = np.zeros([2, 24], "float32")
    del arrays["vision_model.transformer.layers.0.self_attn.v_proj.bias"]
    write_weights(folder / "model_state.pdparams", arrays)
    stored = read_model(folder)
    model = build_dual_encoder(stored.config.Model, stored.vocab_size)
    with pytest.raises(ValueError, match=r"1 missing \(image.blocks.0.attn.qkv.bias\), 3 unexpected"):
        set_weights(model, stored.arrays)
    allow = ["image.blocks.0.attn.qkv.bias", "*token_type*", "vision_model.*.[qk]_proj.bias"]
    report = set_weights(model, stored.arrays, allow)
    assert report.missing == ("image.blocks.0.attn.qkv.bias",)


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ({"image_width": 12}, "image_projection.weight"),
        ({"text": "bert"}, "token_type_embeddings"),
        ({"image": ImageTowerConfig(name="PPLCNet_x0_25", image_size=32)}, "image.network"),
    ],
)
@pytest.mark.parametrize("layout", ["official", "paddlenlp"])
def test_a_model_that_a_release_cannot_hold_is_an_error(model, named, layout):
    with pytest.raises(ValueError, match=f"the {layout} format holds a ViT and an ERNIE.*{named}"):
        from_ours(arrays_of(own_model(**model)[1]), layout)


@pytest.mark.parametrize("layout", ["official", "paddlenlp"])
def test_a_mean_of_states_fits_no_release(layout, tmp_path):
    config = Config(Model=ModelConfig(text=TextTowerConfig(pooling="mean")))
    with pytest.raises(ValueError, match=f"the {layout} format pools texts by their"):
        write_model(StoredModel("ernie_vil2", {}, config, ["[PAD]"]), tmp_path / "new", layout)
    assert not (tmp_path / "new").exists()


def test_sizes_are_read_from_the_shapes():
    config, model = own_model()
    official = from_ours(arrays_of(model), "official")
    with pytest.raises(ValueError, match="width, 24, is no multiple of 64: give the number of its heads"):
        architecture(official)
    found = architecture(official, heads=(3, 2))
    assert found.image.preprocessing == "official" and found.text.epsilon == 1e-5
    assert found.image.image_size == 12 and found.image.depth == found.text.depth == 2
    assert architecture(to_ours(official, "official"), (3, 2), "paddlenlp").text.epsilon == 1e-12
    wide = {
        "visual.patch_embed.proj.weight": np.zeros([128, 3, 4, 4]),
        "visual.positional_embedding": np.zeros([1, 10, 128]),
        "visual.blocks.0.mlp.fc1.weight": np.zeros([128, 512]),
        "text_model.pos_emb.weight": np.zeros([8, 192]),
        "text_model.encoder_stack.block.0.ffn.i.weight": np.zeros([192, 768]),
    }
    found = architecture(wide)
    assert (found.image.heads, found.text.heads) == (2, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"visual.positional_embedding": None}, "not whole: image.pos_embed is missing"),
        ({"visual.positional_embedding": np.zeros([1, 9, 24])}, "8 patches"),
        ({"visual.positional_embedding": np.zeros([24])}, "3 axes are expected"),
        ({"visual.blocks.0.mlp.fc1.weight": np.zeros([24, 48])}, "not four times as wide"),
    ],
)
def test_shapes_that_no_such_model_has(changes, message):
    official = from_ours(arrays_of(own_model()[1]), "official")
    arrays = {name: array for name, array in {**official, **changes}.items() if array is not None}
    with pytest.raises(ValueError, match=message):
        architecture(arrays, heads=(3, 2))


def test_weights_of_another_model_are_refused(tmp_path):
    with pytest.raises(ValueError, match="not the weights of an ERNIE-ViL 2.0.*the first are stem.weight"):
        detect_format({"stem.weight": np.zeros(1)})
    with pytest.raises(FileNotFoundError, match="no model here"):
        read_model(tmp_path)


@pytest.mark.parametrize(
    ("file", "keys", "value", "message"),
    [
        ("config.json", ["text_config", "hidden_act"], "relu", "text_config.hidden_act is 'relu'"),
        ("config.json", ["text_config", "type_vocab_size"], 4, "text_config.type_vocab_size is 4"),
        ("config.json", ["vision_config", "layer_norm_eps"], 1e-5, "vision_config.layer_norm_eps is 1e-05"),
        ("preprocessor_config.json", ["resample"], 2, "preprocessor_config.json: resample is 2"),
        ("preprocessor_config.json", ["do_normalize"], False, "do_normalize is False"),
        ("preprocessor_config.json", ["size"], 10, "size 10 and crop_size None; the model takes 12"),
    ],
)
def test_a_paddlenlp_folder_of_another_kind_is_refused(paddlenlp, file, keys, value, message):
    path = paddlenlp[1] / file
    settings = json.loads(path.read_text()) if path.exists() else {}
    section = settings[keys[0]] if len(keys) > 1 else settings
    section[keys[-1]] = value
    path.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=re.escape(message)):
        read_model(paddlenlp[1])


def test_broken_files_beside_the_weights(paddlenlp):
    folder = paddlenlp[1]
    (folder / "vocab.txt").write_text("\n".join([*TOKENS, *"abcdef"]), encoding="utf-8")
    with pytest.raises(ValueError, match=f"{ROWS} rows of words, but .*vocab.txt has 15 tokens"):
        read_model(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json: not valid JSON"):
        read_model(folder)


def test_nothing_is_overwritten_and_a_vocabulary_is_needed(tmp_path):
    config, model = own_model()
    stored = StoredModel("ernie_vil2", arrays_of(model), Config(Model=config, Data={"max_length": 8}), TOKENS)
    (tmp_path / "kept").write_text("x")
    with pytest.raises(FileExistsError, match="name another folder"):
        write_model(stored, tmp_path, "official")
    with pytest.raises(ValueError, match="no vocabulary"):
        write_model(StoredModel("ernie_vil2", stored.arrays, stored.config, None), tmp_path / "new", "official")
    assert not (tmp_path / "new").exists()


def test_a_large_image_size_makes_a_valid_configuration(tmp_path):
    arrays = from_ours(arrays_of(own_model()[1]), "official")
    arrays["visual.positional_embedding"] = np.zeros([1, 1 + 70 * 70, 24], "float32")
    write_weights(tmp_path / "model.pdparams", arrays)
    config = read_model(tmp_path / "model.pdparams", heads=(3, 2)).config
    assert (config.Model.image.image_size, config.Views.resize) == (280, 280)
    assert config.Views.blur == ViewsConfig().blur and config.Data.max_length == 8


def test_what_a_format_fixes_is_said():
    config, _ = own_model()
    assert changed_ways(config, "ernie_vil2") == []
    official, paddlenlp = changed_ways(config, "official"), changed_ways(config, "paddlenlp")
    assert len(official) == 1 and "prepares images" in official[0]
    assert len(paddlenlp) == 2 and "epsilon 1e-12, this model has 1e-05" in paddlenlp[0]
