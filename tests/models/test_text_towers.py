"""The native text towers against NumPy ones written from the formula."""

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

from tests.support import tower_formulas as formulas
from tests.support.towers import encode, make_text_config

IDS = np.array([[1, 7, 5, 9, 2], [1, 4, 2, 0, 0], [1, 2, 0, 0, 0]])


def build(name="ernie", **fields):
    paddle.seed(0)
    fields = {"width": 24, "depth": 2, "heads": 3, "max_positions": 8, **fields} if "-" not in name else fields
    return make_text_config(name=name, **fields).build(vocab_size=11)


def transformer(pooling, epsilon=1e-5, dropout=0.0, **variant):
    variant = {"norm": "after", "mask": "padding", **variant}
    return build("transformer", pooling=pooling, epsilon=epsilon, dropout=dropout, attention_dropout=dropout,
                 variant=variant)  # fmt: skip


def randomise(tower, rng):
    """Every parameter random; what a norm sees so small that its epsilon shows."""
    for name, parameter in tower.named_parameters():
        scale = 0.005 if "_embeddings" in name else 0.05 if "norm" in name else 0.4
        parameter.set_value((scale * rng.normal(size=parameter.shape)).astype("float32"))


def pooler(its, states, row):
    return np.tanh(its.linear(states[0], "network.pooler.dense"))


def mean(its, states, row):
    return states.mean(axis=0)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize(("name", "epsilon"), [("ernie", 1e-5), ("bert", 1e-12)])
def test_equals_the_formula(name, epsilon, pooling):
    tower = build(name, pooling=pooling)
    randomise(tower, np.random.default_rng(0))
    expected = formulas.compute_text_features(tower.state_dict(), IDS, 3, epsilon, pooler if pooling == "cls" else mean)
    np.testing.assert_allclose(encode(tower, IDS), expected, atol=1e-5)
    padded = np.concatenate([IDS, np.zeros((3, 3), IDS.dtype)], axis=1)
    np.testing.assert_allclose(encode(tower, padded), expected, atol=1e-5)
    tower(paddle.to_tensor(IDS)).sum().backward()
    assert [name for name, parameter in tower.named_parameters() if parameter.grad is None] == []


OTHERS = {
    "CLIP": ({"norm": "before", "mask": "causal", "pooling": "end", "end": 2, "activation": "quick_gelu"},
             lambda its, states, row: states[list(row).index(2)]),
    "old CLIP": ({"norm": "before", "mask": "causal", "pooling": "largest"},
                 lambda its, states, row: states[row.argmax()]),
    "SigLIP": ({"norm": "before", "mask": "none", "pooling": "last", "activation": "gelu_tanh", "epsilon": 1e-6,
                "hidden": 40, "head": 10}, lambda its, states, row: states[-1]),
    "Chinese-CLIP": ({"token_types": 2, "epsilon": 1e-12, "pooling": "first"},
                     lambda its, states, row: states[0]),
    "AltCLIP": ({"token_types": 1, "pooling": "first", "head": 10, "head_norm": True},
                lambda its, states, row: states[0]),
    "RoBERTa": ({"token_types": 1, "pooling": "first", "first_position": 2, "padding": 1, "mask": "padding"},
                lambda its, states, row: states[0]),
    "XLM-R in OpenCLIP": ({"token_types": 1, "pooling": "mean", "first_position": 2, "padding": 1, "head": 10,
                           "head_bias": False, "head_activation": "gelu_tanh"}, mean),
    "BERT's pooler": ({"token_types": 2, "pooling": "cls", "epsilon": 1e-12}, pooler),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_texts_of_other_families_equal_the_formula(name):
    options, pooled = OTHERS[name]
    tower = transformer(**options)
    randomise(tower, np.random.default_rng(0))
    ids = IDS if options.get("padding") is None else np.array([[0, 7, 5, 9, 2], [0, 4, 2, 1, 1], [0, 2, 1, 1, 1]])
    keys = ("activation", "mask", "padding", "first_position", "head_activation")
    given = {key: options[key] for key in keys if key in options}
    expected = formulas.compute_text_features(tower.state_dict(), ids, 3, options.get("epsilon", 1e-5), pooled, **given)
    assert tower.width == expected.shape[1]
    np.testing.assert_allclose(encode(tower, ids), expected, atol=1e-5)
    features = tower(paddle.to_tensor(ids))
    (features * paddle.randn(features.shape)).sum().backward()
    assert [name for name, parameter in tower.named_parameters() if parameter.grad is None] == []


def test_dropout_of_a_tower_with_norms_before(monkeypatch):
    """Published ones have none. It is drawn for the embeddings, and in each block for the attention weights and what
    attention and MLP add; features in evaluation are those without it."""
    paddle.seed(0)
    options = {"norm": "before", "mask": "causal", "pooling": "largest"}
    tower, plain = (transformer(**options, dropout=rate) for rate in (0.3, 0.0))
    plain.set_state_dict(tower.state_dict())
    np.testing.assert_array_equal(encode(tower, IDS), encode(plain, IDS))
    drawn, draw = [], F.dropout
    monkeypatch.setattr(F, "dropout", lambda x, p, **options: drawn.append((p, x.shape)) or draw(x, p, **options))
    tower.train()
    rows, length = IDS.shape
    first, second = (tower(paddle.to_tensor(IDS)).numpy() for _ in range(2))
    states, weights = (0.3, [rows, length, 24]), (0.3, [rows, 3, length, length])
    assert drawn == [states, *[weights, states, states] * 2] * 2
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.parametrize(("size", "width", "depth", "heads"), [("base", 768, 12, 12), ("large", 1024, 24, 16)])
def test_named_sizes(size, width, depth, heads):
    for family in ("ernie", "bert"):
        with paddle.LazyGuard():
            tower = build(f"{family}-{size}")
        assert tower.width == width and len(tower.blocks) == depth and tower.blocks[0].self_attn.heads == heads
        assert tower.network.encoder.layers[0].linear1.weight.shape == [width, 4 * width]


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"width \(24\) .* heads \(5\)"):
        build(heads=5)
    with pytest.raises(ValueError, match="Model.text.max_positions is 8"):
        encode(build(), np.ones((1, 9), "int64"))
