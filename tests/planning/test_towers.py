"""The cost of a row, measured on a few rows and blocks, equals that of the whole model and values by hand."""

import gc
from itertools import groupby

import paddle
import pytest
from paddle import nn
from paddle.base import core

from ernie_vil2.config import load_config
from ernie_vil2.data.tokenizer import WordPieceTokenizer
from ernie_vil2.device import runtime
from ernie_vil2.models import build_dual_encoder
from ernie_vil2.planning import towers
from ernie_vil2.planning.plan import advise_on_word_embedding
from ernie_vil2.planning.towers import RepeatedBlock, Towers, measure_row
from ernie_vil2.tasks.contrastive_step import recompute_blocks
from ernie_vil2.tasks.dropout import CounterBasedDropout
from ernie_vil2.tasks.task import apply_tuning

TEXT = ["Model.text.name=ernie", "Model.text.width=32", "Model.text.depth=4", "Model.text.heads=4"]

IMAGES = {
    "ViT": "{image_size: 32, name: ViT, patch_size: 8, width: 64, depth: 5, heads: 4}",
    "kept tokens": "{image_size: 32, name: ViT, patch_size: 8, width: 64, depth: 5, heads: 4, keep_tokens: 0.3}",
    "small image": "{image_size: 16, name: ViT, patch_size: 8, width: 64, depth: 5, heads: 4}",
    "EVA-02": "{image_size: 32, name: ViT, patch_size: 8, width: 64, depth: 5, heads: 4, variant: {mlp: swiglu, "
    "hidden: 170, activation: silu, rotary: {first_half: rows, grid: 16}, key_bias: false, attention_norm: true}}",
    "ResNet18": "{image_size: 64, name: ResNet18}",
    "RepVGG": "{image_size: 64, name: RepVGG, width: 16, depth: 1}",
    "ModifiedResNet": "{image_size: 64, name: ModifiedResNet, width: 16, layers: [2, 3, 2, 2], heads: 8, "
    "projection: 64}",
    "ConvNeXt": "{image_size: 64, name: ConvNeXt, width: 16, layers: [2, 2, 3, 1]}",
    "EfficientNetB0": "{image_size: 64, name: EfficientNetB0}",
}
ROWS = 16


def make_config(image="ViT", *overrides):
    return load_config(None, [f"Model.image={IMAGES[image]}", *TEXT, *overrides])


@pytest.fixture(autouse=True)
def set_device_as_in_training():
    """Set the device as a run does before it builds its model, whatever earlier tests have set."""
    runtime.set_device("cpu")


def build_model(config):
    text = config.Model.text
    model = build_dual_encoder(config.Model, WordPieceTokenizer(text.vocabulary, config.Data.max_length).vocab_size)
    model.train()
    return model


def make_recomputing_encoder(model):
    """Return a function that encodes images; all blocks of the model recompute from now on."""
    dropout = CounterBasedDropout(model, seed=0)
    recompute_blocks(model, dropout)

    def encode(batch):
        with dropout.use_keys({"image_1": paddle.arange(ROWS)}):
            return model.encode_image(batch)

    return encode


def measure_saved_bytes(encode, batch):
    """Return the bytes that a forward pass leaves in memory for each row, with its input."""
    embeddings = encode(batch)
    if not embeddings.stop_gradient:
        embeddings.sum().backward()  # the first use allocates buffers that stay
    del embeddings
    gc.collect()  # else Python may free earlier models, which lie in cycles, between the two measurements
    saved = []
    for rows in (batch, paddle.concat([batch, batch])):
        allocated_before = core.host_memory_stat_current_value("Allocated", 0)
        embeddings = encode(rows)
        saved.append(core.host_memory_stat_current_value("Allocated", 0) - allocated_before)
        del embeddings
    # The difference leaves out scaled copies of weights, which do not grow with the rows.
    return (saved[1] - saved[0] + batch.size * batch.element_size()) / len(batch)


@pytest.mark.parametrize(
    "name", ["ViT", "kept tokens", *(pytest.param(name, marks=pytest.mark.slow) for name in list(IMAGES)[3:])]
)
def test_saved_bytes_equal_those_of_the_whole_model(name):
    config = make_config(name)
    towers, model = Towers(config), build_model(config)
    trained = [parameter.size for parameter in model.parameters() if not parameter.stop_gradient]
    assert sorted(towers.parameter_sizes) == sorted(trained)
    assert sum(towers.tower_parameters.values()) + 1 == sum(trained), "the towers and the temperature"
    side = config.Model.image.image_size
    for kind, encode, batch in (
        ("image", model.encode_image, paddle.randn([ROWS, 3, side, side])),
        ("text", model.encode_text, paddle.randint(1, 1000, [ROWS, config.Data.max_length])),
    ):
        assert towers.row_cost(kind).saved == pytest.approx(measure_saved_bytes(encode, batch), rel=0.05), kind


TUNINGS = {
    "frozen tower": "freeze=[text.*]",
    "frozen embeddings": "freeze=[image.patch*, image.pos*, image.cls*, image.ln_pre*, text.network.embeddings.*]",
    "frozen blocks": "freeze=['image.blocks.[012].*', text.network.embeddings.*, 'text.network.encoder.layers.[01].*']",
    "LoRA": "lora={rank: 2, layers: [image.blocks.*.qkv, text.*_proj]}",
    "LoRA of the middle": "lora={rank: 2, layers: [image.blocks.2.*, text.network.encoder.layers.1.*]}",
}


@pytest.mark.parametrize("name", TUNINGS)
def test_saved_bytes_equal_those_of_the_tuned_model(name):
    config = make_config("ViT", f"Tuning.{TUNINGS[name]}")
    towers, model = Towers(config), build_model(config)
    apply_tuning(model, config.Tuning)
    images, texts = paddle.randn([ROWS, 3, 32, 32]), paddle.randint(1, 1000, [ROWS, config.Data.max_length])
    saved = {"image": measure_saved_bytes(model.encode_image, images)}
    saved["text"] = measure_saved_bytes(model.encode_text, texts)
    for kind, saved_bytes in saved.items():
        assert towers.row_cost(kind).saved == pytest.approx(saved_bytes, rel=0.05), kind

    recomputed_bytes = measure_saved_bytes(make_recomputing_encoder(model), images)
    # The plan may leave out the input of the first trained block, of 17 tokens, which recomputation keeps.
    assert towers.row_cost("image", recompute=True).saved == pytest.approx(recomputed_bytes, abs=1.05 * 4 * 17 * 64)


@pytest.mark.parametrize("name", ["ViT", pytest.param("EfficientNetB0", marks=pytest.mark.slow)])
def test_recomputed_bytes_equal_those_of_the_whole_model(name):
    config = make_config(name)
    model, side = build_model(config), config.Model.image.image_size
    saved = measure_saved_bytes(make_recomputing_encoder(model), paddle.randn([ROWS, 3, side, side]))
    assert Towers(config).row_cost("image", recompute=True).saved == pytest.approx(saved, rel=0.05)


# Of sixteen patches 0.3 are 4.8; four go on, with the class token.
@pytest.mark.parametrize(("name", "tokens"), [("ViT", 17), ("kept tokens", 5)])
def test_operations_of_a_vit_equal_those_by_hand(name, tokens):
    patches, width, mlp, depth = 16, 64, 256, 5
    block = tokens * width * (4 * width + 2 * mlp) + 2 * tokens**2 * width
    # Of the last block only the class token goes on: it alone has a query, and passes the layers after attention.
    last_block = tokens * width * 3 * width + 2 * tokens * width + width * (width + 2 * mlp)
    projection = width * 32  # to the text tower's width
    products = patches * 3 * 8 * 8 * width + (depth - 1) * block + last_block + projection
    assert Towers(make_config(name)).row_cost("image").flops == 2 * products


def test_kept_tokens_need_the_memory_of_a_smaller_image():
    # Four patches of sixteen, and all four of an image of a quarter of the pixels, are as many in the blocks.
    block_bytes, embedding_bytes = {}, {}
    for name in ("kept tokens", "small image"):
        towers = Towers(make_config(name))
        plain, recomputed = (towers.row_cost("image", recompute=recompute).saved for recompute in (False, True))
        # Recomputed blocks keep a result of five tokens each.
        block_bytes[name] = plain - recomputed
        embedding_bytes[name] = plain - block_bytes[name] - 5 * (4 * 5 * 64)
    assert block_bytes["kept tokens"] == pytest.approx(block_bytes["small image"], rel=0.02)
    # Before the blocks are all pixels, and the sixteen patches of which tokens are gathered.
    assert embedding_bytes["kept tokens"] > embedding_bytes["small image"] + 4 * 3 * (32**2 - 16**2)


class TwoTensorBlock(nn.Layer):
    """A block that takes and returns two tensors."""

    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(64, width)

    def forward(self, batch, extra):
        return self.linear(batch).tanh(), extra


def test_cost_of_a_perceptron_equals_that_by_hand():
    blocks = nn.LayerList([TwoTensorBlock(64) for _ in range(5)] + [TwoTensorBlock(32)])
    repeats = [RepeatedBlock(*equal_blocks) for _, equal_blocks in groupby(blocks, key=str)]
    assert [repeat.count for repeat in repeats] == [5, 1]

    def encode(batch):
        extra = batch[:, :8]
        for block in blocks:
            batch, extra = block(batch, extra)
        return batch

    cost, _ = measure_row(encode, paddle.rand([1, 64]), repeats, flops=1.0)
    # The backward pass needs the input and the result of each tanh. It works on less than four rows of gradients.
    assert cost.saved == pytest.approx(4 * (64 * (1 + 5) + 32), rel=0.05)
    assert 0 < cost.work < 4 * 64 * 4


@pytest.mark.parametrize(("measured_bytes", "steps"), [(1, [1, 2, 3]), (2**60, [1, 16, 24])])
def test_towers_of_large_rows_run_few_of_them(monkeypatch, measured_bytes, steps):
    monkeypatch.setattr(towers, "MEASURED_BYTES", measured_bytes)
    linear, batch_sizes = nn.Linear(8, 8), []

    def encode(batch):
        batch_sizes.append(len(batch))
        return linear(batch).tanh()

    measure_row(encode, paddle.rand([1, 8]), [], flops=1.0)
    assert sorted(batch_sizes) == steps


def test_half_precision_saves_memory_but_no_operations():
    towers = Towers(make_config())
    for kind in ("image", "text"):
        full, half = (towers.row_cost(kind, precision) for precision in ("float32", "bfloat16"))
        assert 0.5 < half.saved / full.saved < 0.8
        assert (half.flops, half.work) == (full.flops, full.work)


def test_shares_go_to_the_emptiest_rank():
    towers = Towers(make_config())
    towers.parameter_sizes = [3, 5, 2, 4, 3]
    # In order of size 5, 4, 3, 3, 2; over two ranks 5 + 3 and 4 + 3 + 2.
    assert [towers.largest_share(ranks) for ranks in (1, 2, 5)] == [17, 9, 5]
    assert towers.divide_parameters(2) == [[5, 3], [4, 3, 2]]


def test_plan_advises_to_trim_a_large_vocabulary():
    # SigLIP 2 B has 256,000 words of 768 numbers among 375 million parameters.
    (remark,) = advise_on_word_embedding(256_000 * 768, 375e6)
    assert "197 of 375 million" in remark
    assert not list(advise_on_word_embedding(40_000 * 768, 207e6))
    assert not list(advise_on_word_embedding(40_000 * 64, 3e6))
    assert Towers(make_config()).num_word_embedding_parameters == 39_980 * 32
