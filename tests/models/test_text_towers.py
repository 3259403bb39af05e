"""The native text towers, compared with NumPy ones that are written from the formula."""

from itertools import pairwise

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

from benchmarks.mixed_precision import emulate_mixed_precision
from ernie_vil2.towers.layers import attention as attention_module
from ernie_vil2.towers.layers import transformer
from ernie_vil2.towers.layers.attention import Attention
from tests.support import tower_formulas as formulas
from tests.support.towers import encode, make_text_config

IDS = np.array([[1, 7, 5, 9, 2], [1, 4, 2, 0, 0], [1, 2, 0, 0, 0]])


def build(name="ernie", **fields):
    paddle.seed(0)
    if "-" not in name:  # "ernie-base" has its sizes
        fields = {"width": 24, "depth": 2, "heads": 3, "max_positions": 8, **fields}
    return make_text_config(name=name, **fields).build(vocab_size=11)


def build_transformer(pooling, epsilon=1e-5, dropout=0.0, **variant):
    variant = {"norm": "after", "mask": "padding", **variant}
    return build("transformer", pooling=pooling, epsilon=epsilon, dropout=dropout, attention_dropout=dropout,
                 variant=variant)  # fmt: skip


def randomise(tower, rng):
    """Set every parameter to random values, with inputs of norms so small that their epsilon shows."""
    for name, parameter in tower.named_parameters():
        if "_embeddings" in name:
            scale = 0.005
        elif "norm" in name:
            scale = 0.05
        else:
            scale = 0.4
        parameter.set_value((scale * rng.normal(size=parameter.shape)).astype("float32"))


def apply_pooler(formulas, states, row):
    return np.tanh(formulas.linear(states[0], "network.pooler.dense"))


def compute_mean(formulas, states, row):
    return states.mean(axis=0)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize(("name", "epsilon"), [("ernie", 1e-5), ("bert", 1e-12)])
def test_ernie_and_bert_equal_the_formula(name, epsilon, pooling):
    tower = build(name, pooling=pooling)
    randomise(tower, np.random.default_rng(0))
    pooled = apply_pooler if pooling == "cls" else compute_mean
    expected = formulas.compute_text_features(tower.state_dict(), IDS, 3, epsilon, pooled)
    np.testing.assert_allclose(encode(tower, IDS), expected, atol=1e-5)
    padded = np.concatenate([IDS, np.zeros((3, 3), IDS.dtype)], axis=1)
    np.testing.assert_allclose(encode(tower, padded), expected, atol=1e-5)
    tower(paddle.to_tensor(IDS)).sum().backward()
    assert [name for name, parameter in tower.named_parameters() if parameter.grad is None] == []


# Options of a tower, and its pooling in NumPy.
FAMILIES = {
    "CLIP": ({"norm": "before", "mask": "causal", "pooling": "end", "end": 2, "activation": "quick_gelu"},
             lambda formulas, states, row: states[list(row).index(2)]),
    "old CLIP": ({"norm": "before", "mask": "causal", "pooling": "largest_id"},
                 lambda formulas, states, row: states[row.argmax()]),
    "SigLIP": ({"norm": "before", "mask": "none", "pooling": "last", "activation": "gelu_tanh", "epsilon": 1e-6,
                "hidden": 40, "head": 10}, lambda formulas, states, row: states[-1]),
    "Chinese-CLIP": ({"token_types": 2, "epsilon": 1e-12, "pooling": "first"},
                     lambda formulas, states, row: states[0]),
    "AltCLIP": ({"token_types": 1, "pooling": "first", "head": 10, "head_norm": True},
                lambda formulas, states, row: states[0]),
    "RoBERTa": ({"token_types": 1, "pooling": "first", "first_position": 2, "padding": 1, "mask": "padding"},
                lambda formulas, states, row: states[0]),
    "XLM-R in OpenCLIP": ({"token_types": 1, "pooling": "mean", "first_position": 2, "padding": 1, "head": 10,
                           "head_bias": False, "head_activation": "gelu_tanh"}, compute_mean),
    "NLLB": ({"norm": "before", "positions": "sinusoids", "scaled_words": True, "activation": "relu",
              "first_position": 2, "padding": 1, "pooling": "first"}, lambda formulas, states, row: states[0]),
    "BERT's pooler": ({"token_types": 2, "pooling": "cls", "epsilon": 1e-12}, apply_pooler),
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_towers_of_other_families_equal_the_formula(name):
    options, pooled = FAMILIES[name]
    tower = build_transformer(**options)
    randomise(tower, np.random.default_rng(0))
    ids = IDS
    if "padding" in options:  # RoBERTa begins texts with 0 and fills them with 1
        # A text may spell out a padding token, which takes no position in a RoBERTa.
        ids = np.array([[0, 7, 5, 9, 2], [0, 4, 1, 9, 2], [0, 2, 1, 1, 1]])
    epsilon = options.get("epsilon", 1e-5)
    keys = ("activation", "mask", "padding", "first_position", "head_activation")
    settings = {key: options[key] for key in keys if key in options}
    if options.get("scaled_words"):
        settings["word_scale"] = 24**0.5
    expected = formulas.compute_text_features(tower.state_dict(), ids, 3, epsilon, pooled, **settings)
    assert tower.width == expected.shape[1]
    np.testing.assert_allclose(encode(tower, ids), expected, atol=1e-5)
    features = tower(paddle.to_tensor(ids))
    (features * paddle.randn(features.shape)).sum().backward()
    assert [name for name, parameter in tower.named_parameters() if parameter.grad is None] == []


POOLINGS = {"cls": "padding", "mean": "padding", "first": "padding", "end": "causal", "largest_id": "causal"}


@pytest.mark.parametrize(
    ("pooling", "variant", "is_padded"),
    [
        *((pooling, {"mask": mask, "end": 2}, True) for pooling, mask in POOLINGS.items()),
        ("mean", {"mask": "padding", "positions": "sinusoids"}, True),
        ("end", {"mask": "causal", "end": 2, "norm": "before"}, True),
        ("cls", {"mask": "none"}, False),
        ("last", {"mask": "causal"}, False),
    ],
)
def test_texts_of_eight_tokens_have_the_features_of_shorter(monkeypatch, pooling, variant, is_padded):
    # The tower has positions for seven tokens, as CLIP's has 77.
    variant = {"norm": "after", **variant}
    options = {"dropout": 0.0, "attention_dropout": 0.0, "max_positions": 7}
    tower = build("transformer", pooling=pooling, epsilon=1e-5, variant=variant, **options)
    randomise(tower, np.random.default_rng(0))
    lengths, results = [], []
    attend = Attention.attend

    def record_length(attention, q, k, *arguments):
        lengths.append(k.shape[2])
        return attend(attention, q, k, *arguments)

    monkeypatch.setattr(Attention, "attend", record_length)
    for pads in (False, True):
        if pads:  # as on a GPU
            monkeypatch.setattr(transformer, "align_length", transformer.pad_to_multiple)
        features = tower(paddle.to_tensor(IDS))
        (features * features).sum().backward()
        gradients = [parameter.grad.numpy() for parameter in tower.parameters() if parameter.grad is not None]
        results.append([features.numpy(), *gradients])
        tower.clear_gradients()
    assert lengths == [5] * 2 + [8 if is_padded else 5] * 2
    for expected, actual in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-5 * max(1, abs(expected).max()))


def attend_text_by_text(q, k, v, starts, key_starts, max_length, max_key_length, scale, training):
    """Stand in for Paddle's kernel: attend with queries `[T, heads, d]` of each text to its own keys and values."""
    starts = starts.tolist()
    assert starts == key_starts.tolist() and max(np.diff(starts)) <= max_length == max_key_length and not training
    outputs = []
    for start, end in pairwise(starts):
        q_text, k_text, v_text = (tensor[start:end].transpose([1, 0, 2]) for tensor in (q, k, v))
        weights = F.softmax(scale * q_text @ k_text.transpose([0, 2, 1]))
        outputs.append((weights @ v_text).transpose([1, 0, 2]))
    return paddle.concat(outputs), None


@pytest.mark.parametrize("variant", [{}, {"norm": "before"}], ids=["SplitAttention", "FusedQkvAttention"])
@pytest.mark.parametrize("pooling", ["cls", "mean", "first"])
def test_texts_without_padding_equal_padded_texts(monkeypatch, pooling, variant):
    tower = build_transformer(pooling, **variant)
    randomise(tower, np.random.default_rng(0))
    expected = encode(tower, IDS)
    numbers = []

    def record_tokens(q, *arguments, **options):
        numbers.append(q.shape[0])
        return attend_text_by_text(q, *arguments, **options)

    monkeypatch.setattr(attention_module, "flash_attn_unpadded", record_tokens)
    monkeypatch.setattr(type(tower), "_attends_by_text", lambda tower, ids: True)
    np.testing.assert_allclose(encode(tower, IDS), expected, atol=1e-5)
    # Where the first token is pooled, it alone is computed in the last of two blocks.
    num_packed_blocks = 2 if pooling == "mean" else 1
    assert numbers == [np.count_nonzero(IDS)] * num_packed_blocks
    # Nothing is packed where no text is padded.
    encode(tower, IDS[:1])
    assert len(numbers) == num_packed_blocks


def test_padding_is_left_out_by_kernels_of_gpus_only(monkeypatch):
    tower, ids = build_transformer("cls"), paddle.to_tensor(IDS)
    tower.eval()
    monkeypatch.setattr(transformer, "has_flash_attention", lambda x, head_width: head_width == 8)
    with emulate_mixed_precision():
        assert not tower._attends_by_text(ids)  # in float32
        with paddle.amp.auto_cast(dtype="bfloat16"):
            assert tower._attends_by_text(ids)
            tower.fuse_attention(False)
            assert not tower._attends_by_text(ids)
            tower.fuse_attention()
            tower.train()
            assert not tower._attends_by_text(ids)
            tower.eval()
            monkeypatch.undo()
            assert not tower._attends_by_text(ids)  # on a CPU


def test_dropout_of_pre_norm_tower_is_drawn_in_order(monkeypatch):
    # Published towers of this kind have no dropout, so there is no other implementation to compare with.
    paddle.seed(0)
    options = {"norm": "before", "mask": "causal", "pooling": "largest_id"}
    tower, plain_tower = build_transformer(**options, dropout=0.3), build_transformer(**options, dropout=0.0)
    plain_tower.set_state_dict(tower.state_dict())
    np.testing.assert_array_equal(encode(tower, IDS), encode(plain_tower, IDS))

    calls, apply_dropout = [], F.dropout

    def record_and_apply(x, p, **options):
        calls.append((p, x.shape))
        return apply_dropout(x, p, **options)

    monkeypatch.setattr(F, "dropout", record_and_apply)
    tower.train()
    first_features, second_features = tower(paddle.to_tensor(IDS)).numpy(), tower(paddle.to_tensor(IDS)).numpy()
    rows, length = IDS.shape
    states, weights = (0.3, [rows, length, 24]), (0.3, [rows, 3, length, length])
    block_calls = [weights, states, states]  # for the attention weights, and the outputs of attention and MLP
    assert calls == [states, *block_calls, *block_calls] * 2  # two calls; the first states are the embeddings
    assert np.abs(first_features - second_features).max() > 1e-3


@pytest.mark.parametrize(("size", "width", "depth", "heads"), [("base", 768, 12, 12), ("large", 1024, 24, 16)])
def test_named_towers_have_their_published_sizes(size, width, depth, heads):
    for family in ("ernie", "bert"):
        with paddle.LazyGuard():
            tower = build(f"{family}-{size}")
        assert tower.width == width and len(tower.blocks) == depth and tower.blocks[0].self_attn.heads == heads
        assert tower.network.encoder.layers[0].linear1.weight.shape == [width, 4 * width]


def test_tower_refuses_heads_and_texts_that_do_not_fit():
    with pytest.raises(ValueError, match=r"width \(24\) .* heads \(5\)"):
        build(heads=5)
    with pytest.raises(ValueError, match="sinusoids need an even width of at least 4, not 27"):
        build("transformer", width=27, pooling="first", variant={"positions": "sinusoids"})
    with pytest.raises(ValueError, match="Model.text.max_positions .* 8"):
        encode(build(), np.ones((1, 9), "int64"))
    # Two of the eight positions come before the first token.
    with pytest.raises(ValueError, match="7 tokens.* has room for 6"):
        encode(build("transformer", pooling="first", variant={"first_position": 2}), np.ones((1, 7), "int64"))
