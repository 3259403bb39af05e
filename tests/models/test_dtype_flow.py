"""Under mixed precision every tower computes its products in 16 bits, and attention gets one type of 16 bits.

A GPU's kernels of attention take one type alone, and Paddle chooses the kernel by the types of queries, keys and values
before it converts them. A single tensor of float32 in between, and the rest of a block is computed in float32.
"""

from typing import Literal, get_args, get_origin

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.nn import functional as F

from benchmarks.mixed_precision import emulate_mixed_precision
from ernie_vil2.config import LoraConfig, TuningConfig
from ernie_vil2.tasks.contrastive_step import DirectStep
from ernie_vil2.tasks.task import apply_tuning, prepare_attention
from ernie_vil2.towers import ImageTowerConfig, TextTowerConfig
from ernie_vil2.towers.base import BACKBONE, OWN, ImageVariant, TextVariant
from ernie_vil2.towers.layers import attention as attention_module
from ernie_vil2.towers.layers.attention import Attention
from ernie_vil2.towers.layers.blocks import PostNormBlock, PreNormBlock
from tests.support.steps import build_model_and_loss, make_config
from tests.support.towers import Cropping

# Sizes of all towers, by the names of their fields. A tower with a required field of another name needs a line here.
TINY = {
    "image_size": 32, "patch_size": 16, "width": 32, "depth": 1, "heads": 2, "layers": [1, 1, 1, 1], "projection": 24,
    "max_positions": 8,
}  # fmt: skip
# What some of the registered names stand for; Cropping is a tower that only tests have.
EXAMPLES = {BACKBONE: "paddleclas:EfficientNetB0", OWN: f"{Cropping.__module__}:{Cropping.__name__}"}
VARIANTS = {"NaFlex": {"class_token": False, "pooling": "attention"}}  # it has no class token
COMPANIONS = {"class_token": {"pooling": "mean"}}  # what else a choice other than the default needs
LAYERS = nn.Linear | nn.Conv1D | nn.Conv2D | nn.BatchNorm | nn.BatchNorm1D | nn.BatchNorm2D
STATES = nn.LayerNorm | PreNormBlock | PostNormBlock
ROWS = 3


def list_towers(config_class):
    """Return tiny settings of every registered tower by name, of those that a suite can build in both ways."""
    towers = {}
    for name in config_class.registry:
        if name == OWN and config_class is TextTowerConfig:
            continue  # a user's tower of texts may compute anything; one of images is tested for its convolutions
        example = EXAMPLES.get(name, name)
        sizes = {size: TINY[size] for size in config_class.find_kind(example).required_fields()}
        # ViT-B/16 becomes a ViT of these sizes, and so is the same as "ViT".
        variant = {"variant": VARIANTS[name]} if name in VARIANTS else {}
        config = config_class.read({"name": example, **sizes, **variant}).with_sizes()
        settings = variant | {size: value for size, value in TINY.items() if size in type(config).model_fields}
        for builder in ("native", "suite"):
            built_name = config.built_by(builder).name
            towers[built_name] = {"name": built_name, **settings}
    return towers


def list_variants(variant_class):
    """Return a variant for every choice that differs from the default."""
    variants = []
    for name, field in variant_class.model_fields.items():
        choices = [True, False] if field.annotation is bool else []
        if get_origin(field.annotation) is Literal:
            choices = get_args(field.annotation)
        variants += [{name: choice, **COMPANIONS.get(name, {})} for choice in choices if choice != field.default]
    return variants


def name_variant(settings):
    return str({name: value for name, value in settings.items() if name not in ("name", *TINY)})


IMAGE_TOWERS, TEXT_TOWERS = list_towers(ImageTowerConfig), list_towers(TextTowerConfig)
VIT, TRANSFORMER = IMAGE_TOWERS["ViT"], TEXT_TOWERS["transformer"]
VITS = [VIT | {"drop_path": 0.5}, VIT | {"keep_tokens": 0.5}]
for variant in (*list_variants(ImageVariant), {"head": 24}, {"rotary": {"first_half": "rows"}}):
    VITS.append(VIT | {"variant": variant})
VITS.append(VIT | {"keep_tokens": 0.5, "variant": {"rotary": {"first_half": "rows"}}})
TRANSFORMERS = []
for variant in (*list_variants(TextVariant), {"head_activation": "gelu"}, {"norm": "after", "token_types": 2}):
    TRANSFORMERS.append(TRANSFORMER | {"variant": {"head": 24, **variant}})
for pooling in get_args(TextTowerConfig.model_fields["pooling"].annotation):
    TRANSFORMERS.append(TRANSFORMER | {"pooling": pooling, "variant": {"end": 3}})


@pytest.fixture
def flow(monkeypatch):
    """Run steps under emulated O1 on the layers of a GPU, and record the types in layers and in attention."""
    monkeypatch.setenv("ERNIE_VIL2_RUNTIME", "-layers")
    with emulate_mixed_precision():
        yield Flow(monkeypatch)


class Flow:
    """Types of the tensors that a model computes.

    Attributes:
        layers: names of linear layers, convolutions and batch norms, with the type of the output of every call.
        states: names of LayerNorms and of towers' blocks, with the type of the output of every call.
        attention: types of queries, keys, values and mask in every call of attention, where the product or the fused
            kernel takes them.
    """

    def __init__(self, monkeypatch):
        self.layers, self.states, self.attention, self._names = [], [], [], {}
        call_layer, fused, attend = nn.Layer.__call__, F.scaled_dot_product_attention, Attention.attend
        packed = F.flash_attn_qkvpacked

        def record_layer(layer, *inputs, **options):
            output = call_layer(layer, *inputs, **options)
            if isinstance(layer, LAYERS) and id(layer) in self._names:
                self.layers.append((self._names[id(layer)], output.dtype))
            if isinstance(layer, STATES) and id(layer) in self._names:
                self.states.append((self._names[id(layer)], output.dtype))
            return output

        def record_fused(q, k, v, attn_mask=None, **options):
            self.attention.append([tensor.dtype for tensor in (q, k, v, attn_mask) if tensor is not None])
            return fused(q, k, v, attn_mask=attn_mask, **options)

        def record_packed(qkv, *arguments, **options):
            self.attention.append([qkv.dtype])
            return packed(qkv, *arguments, **options)

        def record_plain(attention, q, k, v, mask):
            # The plain formula first multiplies queries by keys, and at last weights, which are float32, by values.
            types = [v.dtype]

            def record_product(x, y, **options):
                types.extend([x.dtype, y.dtype])
                return matmul(x, y, **options)

            matmul = paddle.matmul
            with pytest.MonkeyPatch.context() as patches:
                patches.setattr(paddle, "matmul", record_product)
                output = attend(attention, q, k, v, mask)
            self.attention.append(types[:3])
            return output

        monkeypatch.setattr(nn.Layer, "__call__", record_layer)
        monkeypatch.setattr(F, "scaled_dot_product_attention", record_fused)
        # As on a GPU; on a CPU Paddle computes the plain formula.
        monkeypatch.setattr(attention_module, "has_qkv_kernel", lambda qkv: qkv.dtype == paddle.bfloat16)
        monkeypatch.setattr(F, "flash_attn_qkvpacked", record_packed)
        monkeypatch.setattr(Attention, "attend", record_plain)

    def compute_step(self, image, text, mode):
        """Compute a step of a model with these towers, as on a GPU."""
        dropout = {"dropout": 0.1, "attention_dropout": 0.1}
        config = make_config(
            f"Model.image={image}", f"Model.text={dropout | text}", "Model.embed_dim=20", "Loss.duplicates=ignored",
            "Training.precision=bfloat16", f"Training.dropout={'native' if mode == 'native' else 'counter'}",
            f"Training.global_batch={ROWS}", f"Training.residual={'reduced' if mode == 'reduced' else 'float32'}",
        )  # fmt: skip
        model, loss = build_model_and_loss(config)
        if mode == "LoRA":
            apply_tuning(model, TuningConfig(lora=LoraConfig(rank=1, layers=["*"])))
        with pytest.MonkeyPatch.context() as patches:
            patches.setattr(paddle, "get_device", lambda: "gpu:0")
            prepare_attention(model, config.Training)
        self._names = {id(layer): name for name, layer in model.named_sublayers()}

        rng = np.random.default_rng(0)
        images = [paddle.to_tensor(rng.integers(0, 256, [ROWS, 32, 32, 3], np.uint8)) for _ in range(2)]
        texts = [paddle.to_tensor(rng.integers(0, 50, [ROWS, 8])) for _ in range(2)]
        views = dict(zip(("image_1", "image_2", "text_1", "text_2"), images + texts, strict=True))
        step = DirectStep(model, loss, config)
        step.forward(views, rng.integers(0, 8, [ROWS, 2]), np.arange(ROWS), 0)
        step.backward()


def check_flow(flow, image, text, mode="plain"):
    flow.compute_step(image, text, mode)
    assert flow.layers and not [name for name, dtype in flow.layers if dtype != paddle.bfloat16]
    assert all(set(types) == {paddle.bfloat16} for types in flow.attention)
    # Attention of towers that PaddleNLP builds is not recorded, that of the ViT is.
    assert image is not VIT or flow.attention
    # A norm after a mean gets float32 by default; an option of 16 bits holds for every block and norm.
    expected = {paddle.bfloat16} if mode == "reduced" else {paddle.float32}
    assert {dtype for _, dtype in flow.states} <= expected and (flow.states or image is not VIT)


@pytest.mark.parametrize("mode", ["plain", "LoRA", "native", "reduced"])
@pytest.mark.parametrize("image", IMAGE_TOWERS.values(), ids=IMAGE_TOWERS)
def test_image_towers_compute_in_16_bits(flow, image, mode):
    check_flow(flow, image, TRANSFORMER, mode)


@pytest.mark.parametrize("mode", ["plain", "LoRA", "native", "reduced"])
@pytest.mark.parametrize("text", TEXT_TOWERS.values(), ids=TEXT_TOWERS)
def test_text_towers_compute_in_16_bits(flow, text, mode):
    check_flow(flow, VIT, text, mode)


@pytest.mark.parametrize("image", VITS, ids=name_variant)
@pytest.mark.parametrize("mode", ["plain", "reduced"])
def test_variants_of_the_vit_compute_in_16_bits(flow, image, mode):
    check_flow(flow, image, TRANSFORMER, mode)


@pytest.mark.parametrize("text", TRANSFORMERS, ids=name_variant)
@pytest.mark.parametrize("mode", ["plain", "reduced"])
def test_variants_of_the_transformer_compute_in_16_bits(flow, text, mode):
    check_flow(flow, VIT, text, mode)


WHITE_LISTS = [None, {"depthwise_conv2d"}, {"layer_norm"}]
OPERATIONS = {
    "matmul": lambda x, maps: x @ x,
    "convolution": lambda x, maps: F.conv2d(maps, maps),
    "convolution with bias": lambda x, maps: F.conv2d(maps, maps, x[0]),
    "depthwise convolution": lambda x, maps: F.conv2d(maps, maps[:, :1], groups=4),
    "one dimension": lambda x, maps: F.conv1d(maps[0], maps[0]),
    "softmax": lambda x, maps: F.softmax(x),
    "layer norm": lambda x, maps: F.layer_norm(x, 4, x[0], x[0]),
    "sum with float32": lambda x, maps: x + paddle.ones([4, 4]),
    "product with float32": lambda x, maps: x * paddle.ones([1]),
    "product with a number": lambda x, maps: 2.0 * x,
    "embedding": lambda x, maps: F.embedding(paddle.ones([1, 2], "int64"), x),
    "concatenation": lambda x, maps: paddle.concat([x, x]),
    "concatenation with float32": lambda x, maps: paddle.concat([x, paddle.ones([4, 4])]),
    "gelu": lambda x, maps: F.gelu(x),
    "dropout": lambda x, maps: F.dropout(x, 0.5),
    "mean": lambda x, maps: x.mean(),
    "sum": lambda x, maps: x.sum(),
    "square": lambda x, maps: x.square(),
    "pooling": lambda x, maps: F.avg_pool2d(maps, 2),
    "resizing": lambda x, maps: F.interpolate(maps, size=[2, 2], mode="bilinear"),
}


@pytest.mark.parametrize("white_list", WHITE_LISTS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_emulation_has_the_types_of_paddles_graphs(dtype, white_list):
    # In a graph Paddle converts tensors without asking for the device.
    def compute_types(operations):
        tensors = [paddle.ones(shape).astype(dtype) for shape in ([4, 4], [4, 4, 4, 4])]
        with paddle.amp.auto_cast(dtype="bfloat16", custom_white_list=white_list):
            return {name: operation(*tensors).dtype for name, operation in operations.items()}

    with emulate_mixed_precision():
        emulated = compute_types(OPERATIONS)
    with paddle.pir_utils.IrGuard(), paddle.static.program_guard(paddle.static.Program(), paddle.static.Program()):
        expected = compute_types(OPERATIONS)
    assert emulated == expected
