"""Initial weights: models of PaddleNLP and PaddleClas give the same features in a tower of this package."""

import numpy as np
import paddle
import pytest

from ernie_vil2.config import Config, ModelConfig, load_config
from ernie_vil2.models import build_dual_encoder
from ernie_vil2.models.weights.files import WeightMismatch, read_weights, write_weights
from ernie_vil2.models.weights.format import StoredModel, write_model
from ernie_vil2.models.weights.initial import load_initial_weights
from tests.support.towers import copy_arrays, encode, make_image_config, make_text_config, randomize
from tests.support.trainings import list_tiny_overrides

transformers = pytest.importorskip("paddlenlp.transformers", reason="PaddleNLP is not installed")

TOKENS = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", *"一二三四"]
SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96,
         "max_position_embeddings": 16}  # fmt: skip
IDS = [[1, 5, 8, 2], [1, 7, 2, 0]]


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "ours.txt"
    path.write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
    return str(path)


def write_source(path, model, tokens=TOKENS):
    path.mkdir()
    write_weights(path / "model_state.pdparams", copy_arrays(model))
    (path / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return str(path)


def make_ernie(rows=9, **settings):
    return randomize(transformers.ErnieModel(transformers.ErnieConfig(**{**SIZES, "vocab_size": rows, **settings})))


def make_text(vocabulary, weights=None, name="ernie", **fields):
    sizes = {"width": 24, "depth": 2, "heads": 2, "max_positions": 8, **fields}
    return make_text_config(name=name, vocabulary=vocabulary, weights=weights and str(weights), **sizes)


def make_image(weights=None, size=12, name="ViT", **fields):
    if name == "ViT":
        fields = {"patch_size": 4, "width": 24, "depth": 1, "heads": 2, **fields}
    return make_image_config(name=name, image_size=size, weights=weights and str(weights), **fields)


def build(vocabulary, image_config=None, text_config=None, **fields):
    paddle.seed(0)
    config = ModelConfig(image=image_config or make_image(), text=text_config or make_text(vocabulary), **fields)
    return config, build_dual_encoder(config, len(TOKENS)).eval()


def encode_with_paddlenlp(model, ids=IDS):
    with paddle.no_grad():
        return model(paddle.to_tensor(ids))[1].numpy()


@pytest.mark.parametrize(
    ("prefix", "types", "num_added_types"),
    [
        ("", {"type_vocab_size": 0}, 0),
        # Token type 0 and task type 0 are added to every embedding of ERNIE, and must not be lost.
        ("ernie.", {"type_vocab_size": 4, "use_task_id": True, "task_type_vocab_size": 3}, 2),
    ],
)
def test_ernie_gives_the_features_of_paddlenlp(tmp_path, vocabulary, types, prefix, num_added_types):
    source = make_ernie(**types)
    folder = write_source(tmp_path / "ernie", source)
    arrays = {prefix + name: array for name, array in copy_arrays(source).items()}
    write_weights(tmp_path / "ernie/model_state.pdparams", {**arrays, "cls.predictions.bias": np.zeros(3, "float32")})
    config, model = build(vocabulary, text_config=make_text(vocabulary, folder, epsilon=1e-12))  # PaddleNLP's epsilon
    (report,) = load_initial_weights(model, config)
    np.testing.assert_allclose(encode(model.text, IDS), encode_with_paddlenlp(source), atol=1e-5)
    assert report.missing == () and report.unexpected == ("network.cls.predictions.bias",)
    assert report.notes[0] == f"Model.text.weights: {folder}"
    assert any("the first 8 of 16 positions" in note for note in report.notes)
    assert sum("type 0 was added to the positions" in note for note in report.notes) == num_added_types


def test_bert_gives_the_features_of_paddlenlp(tmp_path, vocabulary):
    config = transformers.BertConfig(**SIZES, vocab_size=len(TOKENS), type_vocab_size=2)
    source = randomize(transformers.BertModel(config))
    folder = write_source(tmp_path / "bert", source)
    config, model = build(vocabulary, text_config=make_text(vocabulary, folder, "bert"))
    (report,) = load_initial_weights(model, config)
    np.testing.assert_allclose(encode(model.text, IDS), encode_with_paddlenlp(source), atol=1e-5)
    assert any("2 of 16 types" in note for note in report.notes)


def test_words_are_matched_by_token(tmp_path, vocabulary):
    # Another order of the tokens, more rows than tokens (as in ERNIE 3.0), and a word that the source lacks.
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "四", "##x", "二", "一"]
    source = make_ernie(rows=12, type_vocab_size=0)
    folder = write_source(tmp_path / "ernie", source, tokens)
    config, model = build(vocabulary, text_config=make_text(vocabulary, folder, epsilon=1e-12))
    initial_words = copy_arrays(model)["text.network.embeddings.word_embeddings.weight"]
    (report,) = load_initial_weights(model, config)
    sentence = ["[CLS]", "一", "四", "二", "[SEP]"]
    source_ids = [tokens.index(token) for token in sentence]
    ids = [TOKENS.index(token) for token in sentence]
    np.testing.assert_allclose(encode(model.text, [ids]), encode_with_paddlenlp(source, [source_ids]), atol=1e-5)
    words = copy_arrays(model)["text.network.embeddings.word_embeddings.weight"]
    np.testing.assert_array_equal(words[TOKENS.index("三")], initial_words[TOKENS.index("三")])
    assert "word embeddings: 8 of 9 tokens found in the source's vocabulary" in report.notes


def test_sizes_that_differ_are_refused_unless_allowed(tmp_path, vocabulary):
    folder = write_source(tmp_path / "ernie", make_ernie(type_vocab_size=0))
    config, model = build(vocabulary, text_config=make_text(vocabulary, folder, width=32))
    with pytest.raises(ValueError, match=r"Model.text.weights: .*array .*24.*, model .*32.*Model.like="):
        load_initial_weights(model, config)
    deeper = make_text(vocabulary, folder, depth=3)
    config, model = build(vocabulary, text_config=deeper)
    with pytest.raises(ValueError, match=r"16 missing \(network.encoder.layers.2.*Model.allow"):
        load_initial_weights(model, config)
    config, model = build(vocabulary, text_config=deeper, allow=["*.layers.2.*"])
    (report,) = load_initial_weights(model, config)
    assert len(report.missing) == 16


def test_network_of_paddleclas_gives_its_features(tmp_path, vocabulary):
    from paddleclas.ppcls.arch.backbone import PPLCNet_x0_25

    paddle.seed(5)
    source = PPLCNet_x0_25(class_num=10)
    write_weights(tmp_path / "w.pdparams", copy_arrays(source))
    config, model = build(vocabulary, make_image(tmp_path / "w.pdparams", 32, "PPLCNet_x0_25"))
    (report,) = load_initial_weights(model, config)
    assert report.missing == () and report.unexpected == ("network.fc.weight", "network.fc.bias")
    images = paddle.randn([2, 3, 32, 32])
    source.eval()
    with paddle.no_grad():
        logits = model.image(images) @ source.fc.weight + source.fc.bias
        np.testing.assert_allclose(logits.numpy(), source(images).numpy(), atol=1e-5)


def test_unpublished_names_are_refused(monkeypatch, vocabulary):
    def raise_no_network(*_):
        raise OSError("no network")

    monkeypatch.setattr("paddlenlp.utils.download.resolve_file_path", raise_no_network)
    for image_config, text_config, error, culprit in (
        (make_image("paddleclas"), None, ValueError, "Model.image.weights: .* ViT"),
        (None, make_text(vocabulary, "ernie-9"), FileNotFoundError, "ernie-9: .*no network"),
        (make_image("nowhere.pdparams"), None, FileNotFoundError, "nowhere.pdparams"),
    ):
        config, model = build(vocabulary, image_config, text_config)
        with pytest.raises(error, match=culprit):
            load_initial_weights(model, config)


def test_ernie_loads_by_its_name_in_paddlenlp(tmp_path, monkeypatch, vocabulary):
    source = make_ernie(type_vocab_size=0)
    folder = write_source(tmp_path / "cache", source)
    requests = []

    def resolve(name, file):
        requests.append((name, file.rpartition("/")[2]))
        return f"{folder}/{'vocab.txt' if 'vocab' in file else 'model_state.pdparams'}"

    monkeypatch.setattr("paddlenlp.utils.download.resolve_file_path", resolve)
    config, model = build(vocabulary, text_config=make_text(vocabulary, "ernie-3.0-base-zh", epsilon=1e-12))
    load_initial_weights(model, config)
    np.testing.assert_allclose(encode(model.text, IDS), encode_with_paddlenlp(source), atol=1e-5)
    assert len({name for name, _ in requests}) == 1
    assert [file for _, file in requests] == ["ernie_3.0_base_zh.pdparams", "ernie_3.0_base_zh_vocab.txt"]


def make_bicubic_matrix(old, new):
    """Return the matrix `[new, old]` of a bicubic resize along one axis: Keys 1981 with a = -0.75.

    The centres of pixels coincide, and the border is repeated.
    """
    matrix = np.zeros([new, old])
    for row in range(new):
        position = (row + 0.5) * old / new - 0.5
        for tap in range(int(np.floor(position)) - 1, int(np.floor(position)) + 3):
            x = abs(position - tap)
            if x <= 1:
                weight = 1.25 * x**3 - 2.25 * x**2 + 1
            else:
                weight = -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
            matrix[row, min(max(tap, 0), old - 1)] += weight
    return matrix


@pytest.mark.parametrize("side", [5, 2])
def test_position_embeddings_are_resized_for_larger_images(tmp_path, vocabulary, side):
    arrays = copy_arrays(randomize(make_image().build()))
    write_weights(tmp_path / "w.safetensors", arrays)
    config, model = build(vocabulary, make_image(tmp_path / "w.safetensors", size=4 * side))
    (report,) = load_initial_weights(model, config)
    positions, source_positions = model.image.pos_embed.numpy()[0], arrays["pos_embed"][0]
    np.testing.assert_array_equal(positions[0], source_positions[0])  # the class token has no place in the grid
    matrix = make_bicubic_matrix(3, side)
    source_grid = source_positions[1:].reshape(3, 3, 24)
    expected = np.einsum("yr,xc,rcd->yxd", matrix, matrix, source_grid).reshape(-1, 24)
    np.testing.assert_allclose(positions[1:], expected, atol=1e-5)
    assert f"position embeddings: from a grid of 3 x 3 to {side} x {side}, bicubic" in report.notes


@pytest.mark.parametrize(
    "positions",
    [
        np.zeros([1, 1, 24], "float32"),  # a class token without patches
        np.zeros([1, 0, 24], "float32"),
        np.zeros([2, 17, 24], "float32"),  # two grids
        np.zeros([1, 17, 24], "int64"),
    ],
)
def test_image_positions_that_cannot_be_resized_are_named(tmp_path, vocabulary, positions):
    arrays = copy_arrays(make_image().build())
    write_weights(tmp_path / "w.safetensors", {**arrays, "pos_embed": positions})
    config, model = build(vocabulary, make_image(tmp_path / "w.safetensors"))
    with pytest.raises(WeightMismatch, match="pos_embed: array"):
        load_initial_weights(model, config)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("position_embeddings", np.zeros([0, 24], "float32")),
        ("position_embeddings", np.zeros([2, 24], "int64")),
        ("word_embeddings", np.zeros([9, 24], "int64")),
        ("word_embeddings", np.float32(0)),
        ("token_type_embeddings", np.zeros([0, 24], "float32")),
        ("token_type_embeddings", np.zeros([24], "float32")),
        ("token_type_embeddings", np.zeros([4, 1], "float32")),
        ("token_type_embeddings", np.float32(0)),
    ],
)
def test_text_embeddings_that_cannot_be_adapted_are_named(tmp_path, vocabulary, name, array):
    arrays = copy_arrays(make_text(vocabulary).build(len(TOKENS)))
    arrays[f"network.embeddings.{name}.weight"] = np.asarray(array)
    for folder, tokens in (("with_vocabulary", [*TOKENS, "五"]), ("without", None)):
        source = tmp_path / folder
        source.mkdir()
        write_weights(source / "model_state.pdparams", arrays)
        if tokens:
            (source / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
        config, model = build(vocabulary, text_config=make_text(vocabulary, source))
        with pytest.raises(WeightMismatch, match=name):
            load_initial_weights(model, config)


def test_initial_weights_of_a_failed_training_are_refused(tmp_path, vocabulary):
    arrays = copy_arrays(make_image().build())
    arrays["norm.bias"][3] = np.nan
    write_weights(tmp_path / "w.safetensors", arrays)
    config, model = build(vocabulary, make_image(tmp_path / "w.safetensors"))
    with pytest.raises(ValueError, match=r"Model\.image\.weights: norm\.bias"):
        load_initial_weights(model, config)


@pytest.mark.parametrize("layout", ["official", "ernie_vil2"])
def test_weights_of_a_model_start_all_or_one_tower(tmp_path, vocabulary, layout):
    config, source = build(vocabulary)
    randomize(source)
    stored = StoredModel("ernie_vil2", copy_arrays(source), Config(Model=config, Data={"max_length": 8}), TOKENS)
    write_model(stored, tmp_path / "model", layout)
    weights = str(tmp_path / "model")
    expected = copy_arrays(source)

    config, model = build(vocabulary, weights=weights)
    (report,) = load_initial_weights(model, config)
    assert report.missing == report.unexpected == ()
    assert all(np.array_equal(array, expected[name]) for name, array in copy_arrays(model).items())

    config, model = build(vocabulary, make_image(weights), make_text(vocabulary, weights))
    assert len(load_initial_weights(model, config)) == 2
    towers = {name: array for name, array in copy_arrays(model).items() if name != "log_logit_scale"}
    assert all(np.array_equal(array, expected[name]) for name, array in towers.items())


@pytest.mark.parametrize(
    "image",
    [
        {"name": "ModifiedResNet", "width": 8, "layers": [1, 1, 1, 1], "heads": 4, "projection": 24},
        {"name": "ConvNeXt", "width": 8, "layers": [1, 1, 1, 1]},
    ],
    ids=lambda image: image["name"],
)
def test_towers_of_other_families_start_from_a_model_of_ours(tmp_path, vocabulary, image):
    # The head of the text tower lies outside of its `network`, as all layers of these image towers do.
    text = {"name": "transformer", "pooling": "first", "variant": {"head": 24}}
    config, model = build(vocabulary, make_image(size=32, **image), make_text(vocabulary, **text), embed_dim=24)
    folder = tmp_path / "model"
    stored = StoredModel("ernie_vil2", copy_arrays(model), Config(Model=config, Data={"max_length": 8}), TOKENS)
    write_model(stored, folder, "ernie_vil2")
    for image_weights, text_weights in ((folder, None), (None, folder)):
        new_image, new_text = make_image(image_weights, 32, **image), make_text(vocabulary, text_weights, **text)
        config, new_model = build(vocabulary, new_image, new_text, embed_dim=24)
        tower = new_model.image if image_weights else new_model.text
        (report,) = load_initial_weights(new_model, config)
        assert {*report.matched} == {*tower.state_dict()} and not report.unexpected


def test_resumed_training_does_not_load_initial_weights(tmp_path, shapes, capfd):
    from ernie_vil2.training.trainer import Trainer

    weights = tmp_path / "w.pdparams"
    overrides = [*list_tiny_overrides(shapes, tmp_path / "run"), "Training.steps=1", f"Model.image.weights={weights}"]
    config = load_config(None, overrides)
    source = randomize(config.Model.image.build())
    write_weights(weights, copy_arrays(source))
    trainer = Trainer(config)
    assert "initial weights\n  Model.image.weights: " in capfd.readouterr().out
    np.testing.assert_array_equal(trainer.model.image.pos_embed.numpy(), source.pos_embed.numpy())
    assert trainer.fit()
    weights.unlink()  # a resumed run goes on from its checkpoint, and needs them no more
    resumed = Trainer(config, resume=True)
    saved = read_weights(tmp_path / "run/checkpoints/step_00000001/model.safetensors")
    np.testing.assert_array_equal(resumed.model.image.pos_embed.numpy(), saved["image.pos_embed"])
