"""Counts without weights against counts of a model that runs, and against values worked out by hand."""

import gc

import paddle
import pytest
from paddle import nn
from paddle.base import core
from paddle.nn import functional as F

from ernie_vil2 import runtime
from ernie_vil2.config import load_config
from ernie_vil2.data.tokenizer import Tokenizer
from ernie_vil2.models import build_dual_encoder
from ernie_vil2.planning.census import count
from ernie_vil2.planning.graph import ROWS, Graph, Op, trace
from ernie_vil2.planning.precision import reduced
from ernie_vil2.planning.towers import Towers
from ernie_vil2.tasks.dropout import CounterBasedDropout
from ernie_vil2.tasks.recompute import recompute_blocks

TEXT = ["Model.text.name=ernie", "Model.text.width=32", "Model.text.depth=2", "Model.text.heads=4"]
VIT = ["image_size=32", "name=ViT", "patch_size=8", "width=64", "depth=2", "heads=4"]
IMAGES = {
    "ViT": VIT,
    "ResNet18": ["image_size=64", "name=ResNet18"],
    "RepVGG": ["image_size=64", "name=RepVGG", "width=16", "depth=1"],
    "EfficientNetB0": ["image_size=64", "name=EfficientNetB0"],
}


def configuration(image="ViT", *more):
    return load_config(None, [f"Model.image.{size}" for size in IMAGES[image]] + TEXT + list(more))


@pytest.fixture(autouse=True)
def as_in_training():
    """What a run sets before it builds its model, whatever earlier tests have set."""
    runtime.set_device("cpu")


def bytes_in_use():
    return core.host_memory_stat_current_value("Allocated", 0)


def bytes_kept(encode, batch):
    """What a forward leaves in memory, with its input."""
    encode(batch).sum().backward()  # what is allocated once, at the first use, is none of it
    gc.collect()  # nor is what earlier models left in cycles, which Python may free while this one runs
    before = bytes_in_use()
    embeddings = encode(batch)
    kept = bytes_in_use() - before
    del embeddings
    return kept + batch.size * batch.element_size()


@pytest.mark.parametrize("name", IMAGES)
def test_a_tower_without_weights_is_counted_like_one_that_runs(name):
    config = configuration(name)
    towers = Towers(config, on_cpu=True)
    text = config.Model.text
    model = build_dual_encoder(config.Model, Tokenizer(text.vocabulary, config.Data.max_length).vocab_size)
    model.train()
    assert not any(parameter._is_initialized() for parameter in towers.model.parameters())
    trained = [parameter for parameter in model.parameters() if not parameter.stop_gradient]
    assert towers.sizes.parameters == sum(parameter.size for parameter in trained)
    rows, side = 16, config.Model.image.image_size
    for kind, encode, batch in (
        ("image", model.encode_image, paddle.randn([rows, 3, side, side])),
        ("text", model.encode_text, paddle.randint(1, 1000, [rows, config.Data.max_length])),
    ):
        kept = bytes_kept(encode, batch) / rows
        assert towers.census(kind, "float32").kept == pytest.approx(kept, rel=0.05), kind


def test_operations_of_a_vit_by_hand():
    tokens, patches, width, mlp = 17, 16, 64, 256
    block = tokens * width * (4 * width + 2 * mlp) + 2 * tokens**2 * width
    projection = width * 32  # to the text tower's width
    products = patches * 3 * 8 * 8 * width + 2 * block + projection
    assert Towers(configuration()).census("image", "float32").flops == 2 * products


def test_convolutions_count_alike_in_both_forms():
    """On CPU those of patches are matrix products."""
    config = configuration("EfficientNetB0")
    on_gpu, on_cpu = (Towers(config, on_cpu=on_cpu).census("image", "float32") for on_cpu in (False, True))
    assert on_gpu.flops == on_cpu.flops


class Perceptron(nn.Layer):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4))

    def encode(self, batch):
        return self.layers(batch)


@pytest.mark.parametrize(
    ("precision", "kept", "fixed"),
    [
        # The input, what GELU takes and what it gives. All weights are kept, but are no activations.
        ("float32", 4 * (8 + 16 + 16), 0),
        # The same in two bytes, the input in a copy; and both matrices in copies.
        ("bfloat16", 2 * (8 + 16 + 16), 2 * (8 * 16 + 16 * 4)),
    ],
)
def test_a_perceptron_by_hand(precision, kept, fixed):
    with paddle.LazyGuard():
        model = Perceptron()
    graph = trace(model, model.encode, [8], "float32")
    census = count(graph if precision == "float32" else reduced(graph))
    assert graph.rows == ROWS
    assert census.flops == 2 * (8 * 16 + 16 * 4)
    assert (census.kept, census.fixed) == (kept, fixed)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_reduced_precision_equals_paddles_own_where_its_cpu_build_has_the_kernels(kind, monkeypatch):
    towers = Towers(configuration())
    model = towers.model
    encode, shape, dtype = {
        "image": (model.encode_image, [3, 32, 32], "float32"),
        "text": (model.encode_text, [48], "int64"),
    }[kind]

    def linear(x, weight, bias=None, name=None):
        """One operation, as on a GPU: in a trace the sum of the two would be in float32."""
        product = paddle.matmul(x, weight)
        return product if bias is None else product + bias.astype(product.dtype)

    def mixed(batch):
        with paddle.amp.auto_cast(enable=True, dtype="bfloat16"):
            return encode(batch)

    monkeypatch.setattr(F, "linear", linear)
    theirs = count(trace(model, mixed, shape, dtype))
    ours = towers.census(kind, "bfloat16")
    # They differ in one result a row: what the text's last tanh gives, Paddle keeps in 16 bits here.
    assert abs(ours.kept - theirs.kept) <= 4 * model.embed_dim and ours.fixed == theirs.fixed
    assert ours.kept < 0.75 * towers.census(kind, "float32").kept


def test_kept_and_peak_of_a_graph_by_hand():
    """0 is the input, 1 a weight, 3 a view of 2; backward reads 3 (that is 2) and the weight, not 0 or 4."""
    graph = Graph(
        rows=1,
        forward=[Op("data", [], [0]), Op("matmul", [0, 1], [2]), Op("reshape", [2], [3]), Op("tanh", [3], [4])],
        backward=[Op("tanh_grad", [3, 5], [6]), Op("matmul_grad", [6, 1], [7, 8])],
        nbytes={0: 10, 1: 1000, 2: 20, 3: 20, 4: 30, 5: 30, 6: 40, 7: 50, 8: 1000},
        views={3: 2},
        fixed={1},
        results={8},
    )
    census = count(graph)
    # At the most, 6 and 7 are in use together; 2 is gone by then. Gradients of parameters are counted elsewhere.
    assert (census.kept, census.work, census.fixed) == (20, 90 - 20, 0)


def test_the_process_is_left_in_dynamic_mode():
    Towers(configuration()).census("text", "float32")
    assert paddle.in_dynamic_mode()


def test_recomputed_blocks_keep_their_inputs():
    """Two blocks: of 1 to 2 (within) to 3, and of 3 to 4 to 5; backward reads what is within, and 5."""
    chain = [Op("op", [value], [value + 1]) for value in range(1, 6)]
    graph = Graph(
        rows=1,
        forward=[Op("data", [], [1]), *chain],
        backward=[Op("grad", [5, 4], [7]), Op("grad", [7, 2], [8])],
        nbytes={1: 1, 2: 20, 3: 300, 4: 40, 5: 5, 6: 1, 7: 1, 8: 1},
        blocks=[(1, 3), (3, 5)],
    )
    census = count(graph)
    assert census.kept == 20 + 40 + 5
    # The last block's result is no block's input, and backward outside of the blocks reads it.
    assert census.kept_recomputed == 1 + 300 + 5
    assert census.work_recomputed - census.work == 40


@pytest.mark.parametrize("name, strided_views", [("ViT", False), ("ViT", True), ("ResNet18", False)])
def test_recomputation_is_counted_like_one_that_runs(name, strided_views):
    """With views, a ViT's last block keeps its result for the class token; without them, the token alone is kept."""
    paddle.set_flags({"FLAGS_use_stride_kernel": strided_views})
    config = configuration(name)
    towers = Towers(config, on_cpu=not strided_views)
    text = config.Model.text
    model = build_dual_encoder(config.Model, Tokenizer(text.vocabulary, config.Data.max_length).vocab_size)
    model.train()
    dropout = CounterBasedDropout(model, seed=0)
    recompute_blocks(model, dropout)
    rows, side = 16, config.Model.image.image_size

    def encode(batch):
        with dropout.rows({"image_1": paddle.arange(rows)}):
            return model.encode_image(batch)

    kept = bytes_kept(encode, paddle.randn([rows, 3, side, side])) / rows
    assert towers.census("image", "float32").kept_recomputed == pytest.approx(kept, rel=0.05)
