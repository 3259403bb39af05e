"""Text towers against a NumPy ERNIE and BERT written from the formula."""

import math

import numpy as np
import paddle
import pytest

from ernie_vil2.config import TextTowerConfig
from ernie_vil2.models import build_text_tower

IDS = np.array([[1, 7, 5, 9, 2], [1, 4, 2, 0, 0], [1, 2, 0, 0, 0]])


def build(name="ernie", **fields):
    paddle.seed(0)
    fields = {"width": 24, "depth": 2, "heads": 3, "max_positions": 8, **fields} if "-" not in name else fields
    return build_text_tower(TextTowerConfig(name=name, **fields), vocab_size=11)


def encode(tower, ids):
    tower.eval()
    with paddle.no_grad():
        return tower(paddle.to_tensor(ids)).numpy()


def randomise(tower, rng):
    """Every parameter random; what a norm sees so small that its epsilon shows."""
    for name, parameter in tower.named_parameters():
        scale = 0.005 if "_embeddings" in name else 0.05 if "norm" in name else 0.4
        parameter.set_value((scale * rng.normal(size=parameter.shape)).astype("float32"))


def reference(weights, ids, heads, epsilon, pooling="cls"):
    """Vaswani et al. 2017 with the LayerNorm after each sum, GELU and a tanh pooler (Devlin et al. 2019) or a mean.

    Padding is left out of the attention altogether.
    """
    weights = {name.removeprefix("network."): value.numpy().astype("float64") for name, value in weights.items()}
    layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layers."))

    def linear(x, name):
        return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        return (
            x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * weights[f"{name}.weight"] + weights[f"{name}.bias"]
        )

    def gelu(x):
        return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2

    def split(x):  # [L, width] to [heads, L, width / heads]
        return x.reshape(len(x), heads, -1).transpose(1, 0, 2)

    pooled = []
    for row in ids:
        row = row[row != 0]
        x = weights["embeddings.word_embeddings.weight"][row]
        x = x + weights["embeddings.position_embeddings.weight"][: len(row)]
        x = x + weights.get("embeddings.token_type_embeddings.weight", np.zeros((1, 1)))[0]
        x = norm(x, "embeddings.layer_norm")
        for i in range(layers):
            layer = f"encoder.layers.{i}"
            q, k, v = (split(linear(x, f"{layer}.self_attn.{part}_proj")) for part in "qkv")
            scores = np.exp(q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]))
            mixed = (scores / scores.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(x.shape)
            x = norm(x + linear(mixed, f"{layer}.self_attn.out_proj"), f"{layer}.norm1")
            x = norm(x + linear(gelu(linear(x, f"{layer}.linear1")), f"{layer}.linear2"), f"{layer}.norm2")
        pooled.append(np.tanh(linear(x[0], "pooler.dense")) if pooling == "cls" else x.mean(axis=0))
    return np.stack(pooled)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize(("name", "epsilon"), [("ernie", 1e-5), ("bert", 1e-12)])
def test_equals_the_formula(name, epsilon, pooling):
    tower = build(name, pooling=pooling)
    randomise(tower, np.random.default_rng(0))
    expected = reference(tower.state_dict(), IDS, heads=3, epsilon=epsilon, pooling=pooling)
    np.testing.assert_allclose(encode(tower, IDS), expected, atol=1e-5)


def test_ernie_has_neither_token_types_nor_tasks():
    names = [name for name, _ in build("ernie").named_parameters()]
    assert not [name for name in names if "type" in name or "task" in name]


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("name", ["ernie", "bert"])
def test_padding_changes_nothing(name, pooling):
    tower = build(name, pooling=pooling)
    padded = np.concatenate([IDS, np.zeros((3, 3), IDS.dtype)], axis=1)
    np.testing.assert_allclose(encode(tower, padded), encode(tower, IDS), atol=1e-6)
    np.testing.assert_allclose(encode(tower, IDS[2:, :2]), encode(tower, IDS)[2:], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "width", "depth", "heads"),
    [
        ("ernie-base", 768, 12, 12),
        ("ernie-large", 1024, 24, 16),
        ("bert-base", 768, 12, 12),
        ("bert-large", 1024, 24, 16),
    ],
)
def test_named_sizes(name, width, depth, heads, monkeypatch):
    import paddlenlp.transformers as nlp

    kind = "ErnieModel" if name.startswith("ernie") else "BertModel"
    model = getattr(nlp, kind)
    configs = []

    def shallow(config):
        configs.append(config.to_dict())
        config.num_hidden_layers = 1
        return model(config)

    monkeypatch.setattr(nlp, kind, shallow)
    tower = build(name)
    assert tower.width == width
    assert tower.network.encoder.layers[0].linear1.weight.shape == [width, 4 * width]
    assert (configs[0]["num_hidden_layers"], configs[0]["num_attention_heads"]) == (depth, heads)


def test_a_mean_has_no_weight_that_gets_no_gradient():
    tower = build(pooling="mean")
    tower(paddle.to_tensor(IDS)).sum().backward()
    assert [name for name, parameter in tower.named_parameters() if parameter.grad is None] == []


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"width \(24\) must be divisible by heads \(5\)"):
        build(heads=5)
    with pytest.raises(ValueError, match="texts of 9 tokens, but Model.text.max_positions is 8"):
        encode(build(), np.ones((1, 9), "int64"))
