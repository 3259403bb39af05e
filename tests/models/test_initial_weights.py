"""Initial weights: what PaddleNLP and PaddleClas have trained gives the same features in a tower here."""

import numpy as np
import paddle
import pytest

from ernie_vil2.config import Config, ModelConfig, load_config
from ernie_vil2.models import build_dual_encoder
from ernie_vil2.models.weights.files import read_weights, write_weights
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


def source_folder(path, model, tokens=TOKENS):
    path.mkdir()
    write_weights(path / "model_state.pdparams", copy_arrays(model))
    (path / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return str(path)


def ernie(rows=9, model=transformers.ErnieModel, **settings):
    return randomize(model(transformers.ErnieConfig(**{**SIZES, "vocab_size": rows, **settings})))


def text(vocabulary, weights=None, name="ernie", **fields):
    sizes = {"width": 24, "depth": 2, "heads": 2, "max_positions": 8, **fields}
    return make_text_config(name=name, vocabulary=vocabulary, weights=weights and str(weights), **sizes)


def image(weights=None, size=12, name="ViT", **fields):
    if name == "ViT":
        fields = {"patch_size": 4, "width": 24, "depth": 1, "heads": 2, **fields}
    return make_image_config(name=name, image_size=size, weights=weights and str(weights), **fields)


def build(vocabulary, image_config=None, text_config=None, **fields):
    paddle.seed(0)
    config = ModelConfig(image=image_config or image(), text=text_config or text(vocabulary), **fields)
    return config, build_dual_encoder(config, len(TOKENS)).eval()


def features(model, ids=IDS):
    with paddle.no_grad():
        return model(paddle.to_tensor(ids))[1].numpy()


@pytest.mark.parametrize(
    ("prefix", "types"),
    [
        ("", {"type_vocab_size": 0}),
        ("ernie.", {"type_vocab_size": 4, "use_task_id": True, "task_type_vocab_size": 3}),
    ],
)
def test_an_ernie_gives_its_own_features(tmp_path, vocabulary, types, prefix):
    """Token type 0 and task type 0 are part of what ERNIE computes and must not be lost; epsilon is PaddleNLP's."""
    source = ernie(**types)
    folder = source_folder(tmp_path / "ernie", source)
    arrays = {prefix + name: array for name, array in copy_arrays(source).items()}
    write_weights(tmp_path / "ernie/model_state.pdparams", {**arrays, "cls.predictions.bias": np.zeros(3, "float32")})
    config, model = build(vocabulary, text_config=text(vocabulary, folder, epsilon=1e-12))
    (report,) = load_initial_weights(model, config)
    np.testing.assert_allclose(encode(model.text, IDS), features(source), atol=1e-5)
    assert report.missing == () and report.unexpected == ("network.cls.predictions.bias",)
    assert report.notes[0] == f"Model.text.weights: {folder}"
    assert any("the first 8 of 16 positions" in note for note in report.notes)
    assert sum("type 0 was added to the positions" in note for note in report.notes) == len(types) // 3 * 2


def test_a_bert_gives_its_own_features(tmp_path, vocabulary):
    config = transformers.BertConfig(**SIZES, vocab_size=len(TOKENS), type_vocab_size=2)
    source = randomize(transformers.BertModel(config))
    folder = source_folder(tmp_path / "bert", source)
    config, model = build(vocabulary, text_config=text(vocabulary, folder, "bert"))
    (report,) = load_initial_weights(model, config)
    np.testing.assert_allclose(encode(model.text, IDS), features(source), atol=1e-5)
    assert any("2 of 16 types" in note for note in report.notes)


def test_words_are_matched_by_token(tmp_path, vocabulary):
    """Another order, more rows than tokens, as in ERNIE 3.0, and a word that the source lacks."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "四", "##x", "二", "一"]
    source = ernie(rows=12, type_vocab_size=0)
    folder = source_folder(tmp_path / "ernie", source, tokens)
    config, model = build(vocabulary, text_config=text(vocabulary, folder, epsilon=1e-12))
    before = copy_arrays(model)["text.network.embeddings.word_embeddings.weight"]
    (report,) = load_initial_weights(model, config)
    sentence = ["[CLS]", "一", "四", "二", "[SEP]"]
    expected = features(source, [[tokens.index(token) for token in sentence]])
    np.testing.assert_allclose(encode(model.text, [[TOKENS.index(t) for t in sentence]]), expected, atol=1e-5)
    after = copy_arrays(model)["text.network.embeddings.word_embeddings.weight"]
    np.testing.assert_array_equal(after[TOKENS.index("三")], before[TOKENS.index("三")])
    assert "word embeddings: 8 of 9 tokens found in the source's vocabulary" in report.notes


def test_other_sizes_are_an_error_unless_allowed(tmp_path, vocabulary):
    folder = source_folder(tmp_path / "ernie", ernie(type_vocab_size=0))
    config, model = build(vocabulary, text_config=text(vocabulary, folder, width=32))
    with pytest.raises(ValueError, match=r"Model.text.weights: .*array .*24.*, model .*32.*Model.like="):
        load_initial_weights(model, config)
    deeper = text(vocabulary, folder, depth=3)
    config, model = build(vocabulary, text_config=deeper)
    with pytest.raises(ValueError, match=r"16 missing \(network.encoder.layers.2.*Model.allow"):
        load_initial_weights(model, config)
    allowed, model = build(vocabulary, text_config=deeper, allow=["*.layers.2.*"])
    (report,) = load_initial_weights(model, allowed)
    assert len(report.missing) == 16


def test_weights_of_a_paddleclas_network(tmp_path, vocabulary):
    from paddleclas.ppcls.arch.backbone import PPLCNet_x0_25

    paddle.seed(5)
    source = PPLCNet_x0_25(class_num=10)
    write_weights(tmp_path / "w.pdparams", copy_arrays(source))
    config, model = build(vocabulary, image(tmp_path / "w.pdparams", 32, "PPLCNet_x0_25"))
    (report,) = load_initial_weights(model, config)
    assert report.missing == () and report.unexpected == ("network.fc.weight", "network.fc.bias")
    images = paddle.randn([2, 3, 32, 32])
    source.eval()
    with paddle.no_grad():
        logits = model.image(images) @ source.fc.weight + source.fc.bias
        np.testing.assert_allclose(logits.numpy(), source(images).numpy(), atol=1e-5)


def test_names_that_nobody_publishes(monkeypatch, vocabulary):
    def offline(*_):
        raise OSError("no network")

    monkeypatch.setattr("paddlenlp.utils.download.resolve_file_path", offline)
    for image_config, text_config, error, culprit in (
        (image("paddleclas"), None, ValueError, "Model.image.weights: .* ViT"),
        (None, text(vocabulary, "ernie-9"), FileNotFoundError, "ernie-9: .*no network"),
        (image("nowhere.pdparams"), None, FileNotFoundError, "nowhere.pdparams"),
    ):
        config, model = build(vocabulary, image_config, text_config)
        with pytest.raises(error, match=culprit):
            load_initial_weights(model, config)


def test_an_ernie_by_its_paddlenlp_name(tmp_path, monkeypatch, vocabulary):
    source = ernie(type_vocab_size=0)
    folder = source_folder(tmp_path / "cache", source)
    asked = {}

    def resolve(name, file):
        asked[name] = [*asked.get(name, []), file]
        return f"{folder}/{'vocab.txt' if 'vocab' in file else 'model_state.pdparams'}"

    monkeypatch.setattr("paddlenlp.utils.download.resolve_file_path", resolve)
    config, model = build(vocabulary, text_config=text(vocabulary, "ernie-3.0-base-zh", epsilon=1e-12))
    load_initial_weights(model, config)
    np.testing.assert_allclose(encode(model.text, IDS), features(source), atol=1e-5)
    (files,) = asked.values()
    assert [file.rpartition("/")[2] for file in files] == ["ernie_3.0_base_zh.pdparams", "ernie_3.0_base_zh_vocab.txt"]


def bicubic(old, new):
    """Keys 1981 with a = -0.75 along one axis, `[new, old]`: pixel centres coincide, the border is repeated."""
    matrix = np.zeros([new, old])
    for row in range(new):
        row_number = (row + 0.5) * old / new - 0.5
        for tap in range(int(np.floor(row_number)) - 1, int(np.floor(row_number)) + 3):
            x = abs(row_number - tap)
            near = 1.25 * x**3 - 2.25 * x**2 + 1
            far = -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
            matrix[row, min(max(tap, 0), old - 1)] += near if x <= 1 else far
    return matrix


@pytest.mark.parametrize("side", [5, 2])
def test_position_embeddings_go_to_another_image_size(tmp_path, vocabulary, side):
    arrays = copy_arrays(randomize(image().build()))
    write_weights(tmp_path / "w.safetensors", arrays)
    config, model = build(vocabulary, image(tmp_path / "w.safetensors", size=4 * side))
    (report,) = load_initial_weights(model, config)
    found, before = model.image.pos_embed.numpy()[0], arrays["pos_embed"][0]
    np.testing.assert_array_equal(found[0], before[0])
    matrix = bicubic(3, side)
    expected = np.einsum("yr,xc,rcd->yxd", matrix, matrix, before[1:].reshape(3, 3, 24)).reshape(-1, 24)
    np.testing.assert_allclose(found[1:], expected, atol=1e-5)
    assert f"position embeddings: from a grid of 3 x 3 to {side} x {side}, bicubic" in report.notes


@pytest.mark.parametrize("layout", ["official", "ernie_vil2"])
def test_an_ernie_vil2_starts_the_whole_model_or_one_tower(tmp_path, vocabulary, layout):
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

    config, model = build(vocabulary, image(weights), text(vocabulary, weights))
    assert len(load_initial_weights(model, config)) == 2
    towers = {name: array for name, array in copy_arrays(model).items() if name != "log_logit_scale"}
    assert all(np.array_equal(array, expected[name]) for name, array in towers.items())


def test_a_training_starts_from_them_once(tmp_path, shapes, capfd):
    """A run takes them at its start and prints the report; a resumed run goes on from its checkpoint."""
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
    weights.unlink()
    resumed = Trainer(config, resume=True)
    saved = read_weights(tmp_path / "run/checkpoints/step_00000001/model.safetensors")
    np.testing.assert_array_equal(resumed.model.image.pos_embed.numpy(), saved["image.pos_embed"])
