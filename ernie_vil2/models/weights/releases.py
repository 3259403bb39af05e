"""The names and shapes of the two releases of ERNIE-ViL 2.0, and this package's own.

`official`: the file of the paper's authors. `paddlenlp`: `ErnieViLModel` of PaddleNLP. `ernie_vil2`: `DualEncoder`
with a ViT, an ERNIE and no projection. All hold the same numbers; only PaddleNLP cuts the attention's input
projection into three and leaves out axes of size 1. All store the temperature as log(1 / tau).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

import numpy as np

from ernie_vil2.config import ImageTowerConfig, ModelConfig, TextTowerConfig
from ernie_vil2.io.terminal import printable
from ernie_vil2.models.weights.files import WeightFormat, detect_format

HEAD_WIDTH = 64
TEXT_EPSILON = {"official": 1e-5, "paddlenlp": 1e-12, "ernie_vil2": 1e-5}
"""Of the text tower's LayerNorms; PaddleNLP's ErnieModel sets it so after its configuration has asked for 1e-5."""
_POSITIONS = "text.network.embeddings.position_embeddings.weight"
WORDS = "text.network.embeddings.word_embeddings.weight"
"""Name of the word embedding, `[rows, width]`; it may have more rows than the vocabulary has tokens."""

# ours, official, PaddleNLP. N is the layer's number. Names without a last part have a weight and a bias.
_ARRAYS = [
    ("log_logit_scale", "contrastive_loss_mm.temperature_b", "temperature"),
    ("image.cls_token", "visual.class_embedding", "vision_model.class_embedding"),
    ("image.pos_embed", "visual.positional_embedding", "vision_model.positional_embedding.weight"),
    ("image.patch_embed.proj.weight", "visual.patch_embed.proj.weight", "vision_model.conv1.weight"),
    (WORDS, "text_model.word_emb.weight", "text_model.embeddings.word_embeddings.weight"),
    (_POSITIONS, "text_model.pos_emb.weight", "text_model.embeddings.position_embeddings.weight"),
]
_LAYERS = [
    ("image.ln_pre", "visual.norm_pre", "vision_model.ln_pre"),
    ("image.norm", "visual.norm_post", "vision_model.ln_post"),
    ("image.blocks.N.norm1", "visual.blocks.N.norm1", "vision_model.transformer.layers.N.norm1"),
    ("image.blocks.N.norm2", "visual.blocks.N.norm2", "vision_model.transformer.layers.N.norm2"),
    ("image.blocks.N.attn.qkv", "visual.blocks.N.attn.qkv", "vision_model.transformer.layers.N.self_attn.qkv"),
    ("image.blocks.N.attn.proj", "visual.blocks.N.attn.proj", "vision_model.transformer.layers.N.self_attn.out_proj"),
    ("image.blocks.N.mlp.fc1", "visual.blocks.N.mlp.fc1", "vision_model.transformer.layers.N.linear1"),
    ("image.blocks.N.mlp.fc2", "visual.blocks.N.mlp.fc2", "vision_model.transformer.layers.N.linear2"),
    ("text.network.embeddings.layer_norm", "text_model.ln", "text_model.embeddings.layer_norm"),
    ("text.network.pooler.dense", "text_model.pooler", "text_model.pooler.dense"),
]
# Of a layer of the text tower: ours, which PaddleNLP's are too, and official.
_TEXT_LAYER = [
    ("self_attn.q_proj", "attn.q"),
    ("self_attn.k_proj", "attn.k"),
    ("self_attn.v_proj", "attn.v"),
    ("self_attn.out_proj", "attn.o"),
    ("linear1", "ffn.i"),
    ("linear2", "ffn.o"),
    ("norm1", "ln1"),
    ("norm2", "ln2"),
]
_COLUMN = {"official": 1, "paddlenlp": 2}


def to_ours(arrays: Mapping[str, np.ndarray], layout: WeightFormat) -> dict[str, np.ndarray]:
    """The arrays of a release by our names, bit for bit; what has no counterpart keeps its name."""
    if layout == "ernie_vil2":
        return dict(arrays)
    if layout == "paddlenlp":
        arrays = _with_joined_projections(arrays)
    names = _names(layout)
    ours = {}
    for name, array in arrays.items():
        template, number = _template(name)
        own = names.get(template)
        if own == "image.cls_token":
            array = array.reshape(1, 1, -1)
        elif own == "image.pos_embed" and array.ndim == 2:
            array = array[None]
        ours[name if own is None else own.replace("N", number)] = array
    return ours


def from_ours(arrays: Mapping[str, np.ndarray], layout: WeightFormat) -> dict[str, np.ndarray]:
    """The inverse of `to_ours`.

    Raises:
        ValueError: the release cannot hold an array, for example a projection or a network that is not a ViT.
    """
    if layout == "ernie_vil2":
        return dict(arrays)
    names = {own: theirs for theirs, own in _names(layout).items()}
    lacking = [name for name in arrays if _template(name)[0] not in names]
    if lacking:
        raise ValueError(
            f"the {layout} format holds a ViT and an ERNIE of one width and nothing more; it cannot hold "
            f"{', '.join(printable(name, longest=100) for name in lacking[:5])}{', ...' * (len(lacking) > 5)}"
        )
    theirs = {}
    for name, array in arrays.items():
        template, number = _template(name)
        target = names[template].replace("N", number)
        if layout == "official":
            theirs[target] = array
        elif template in ("image.cls_token", "image.pos_embed"):
            theirs[target] = array.reshape(array.shape[-1] if template == "image.cls_token" else array.shape[1:])
        elif ".attn.qkv." in template:
            for part, piece in zip("qkv", np.split(array, 3, axis=-1), strict=True):
                theirs[target.replace(".qkv.", f".{part}_proj.")] = piece
        else:
            theirs[target] = array
    return theirs


def architecture(
    arrays: Mapping[str, np.ndarray],
    heads: tuple[int | None, int | None] | None = None,
    layout: WeightFormat | None = None,
) -> ModelConfig:
    """The model that arrays of a release belong to, read from their shapes, with what the release does around them:
    its preprocessing, its tokenizer's rules and the epsilon of its text tower.

    Args:
        arrays: by a release's names or ours.
        heads: attention heads of the image and of the text tower, which no shape shows; None for either: width / 64.
        layout: the release whose ways the model keeps; None: the one whose names the arrays have.

    Raises:
        ValueError: arrays are missing or of shapes that no such model has, or the heads do not divide a width.
    """
    found = detect_format(arrays)
    layout, arrays = layout or found, to_ours(arrays, found)
    # [width, 3, patch, patch]
    width, channels, patch_size, _ = _shape(arrays, "image.patch_embed.proj.weight", 4)
    _, tokens, _ = _shape(arrays, "image.pos_embed", 3)
    side = round((tokens - 1) ** 0.5)
    if side * side != tokens - 1 or channels != 3:
        raise ValueError(f"a ViT of {tokens - 1} patches and {channels} channels; a square of 3 channels is expected")
    positions, text_width = _shape(arrays, _POSITIONS, 2)
    _shape(arrays, WORDS, 2)
    for name, narrow in (("image.blocks.0.mlp.fc1", width), ("text.network.encoder.layers.0.linear1", text_width)):
        if _shape(arrays, f"{name}.weight", 2) != (narrow, 4 * narrow):
            raise ValueError(f"{name} is not four times as wide as its tower")
    image_heads, text_heads = heads or (None, None)
    return ModelConfig(
        image=ImageTowerConfig(
            name="ViT",
            image_size=side * patch_size,
            patch_size=patch_size,
            width=width,
            depth=_depth(arrays, "image.blocks."),
            heads=_heads(image_heads, width, "image"),
            preprocessing=layout,
        ),
        text=TextTowerConfig(
            name="ernie",
            width=text_width,
            depth=_depth(arrays, "text.network.encoder.layers."),
            heads=_heads(text_heads, text_width, "text"),
            max_positions=positions,
            epsilon=TEXT_EPSILON[layout],
            tokenizer="paddlenlp" if layout == "paddlenlp" else "official",
        ),
    )


@cache
def _names(layout: WeightFormat) -> dict[str, str]:
    """Our names by those of a release, with N for a layer's number."""
    text = [
        (f"text.network.encoder.layers.N.{own}", f"text_model.encoder_stack.block.N.{official}",
         f"text_model.encoder.layers.N.{own}")
        for own, official in _TEXT_LAYER
    ]  # fmt: skip
    layers = [tuple(f"{name}.{part}" for name in row) for row in _LAYERS + text for part in ("weight", "bias")]
    return {row[_COLUMN[layout]]: row[0] for row in _ARRAYS + layers}


def _template(name: str) -> tuple[str, str]:
    """A name with N for the layer's number, and the number; equal layers differ in nothing else."""
    number = re.search(r"\.(\d+)\.", name)
    return (name, "") if number is None else (name.replace(number[0], ".N.", 1), number[1])


def _with_joined_projections(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """PaddleNLP's image arrays with the projections to queries, keys and values side by side, where all are there."""
    joined = dict(arrays)
    for name in arrays:
        if name.startswith("vision_model.") and ".q_proj." in name:
            parts = [name.replace(".q_proj.", f".{part}_proj.") for part in "qkv"]
            if all(part in arrays for part in parts):
                joined[name.replace(".q_proj.", ".qkv.")] = np.concatenate([joined.pop(p) for p in parts], axis=-1)
    return joined


def _shape(arrays: Mapping[str, np.ndarray], name: str, axes: int) -> tuple[int, ...]:
    if name not in arrays:
        raise ValueError(f"the weights are not whole: {name} is missing")
    shape = arrays[name].shape
    if len(shape) != axes or 0 in shape:
        raise ValueError(f"{name} has the shape {list(shape)}; {axes} axes are expected, none of them empty")
    return shape


def _depth(arrays: Mapping[str, np.ndarray], prefix: str) -> int:
    """The number of layers, of which none may be missing: a name alone must not make a model deep."""
    layers = {name.removeprefix(prefix).partition(".")[0] for name in arrays if name.startswith(prefix)}
    missing = {str(layer) for layer in range(len(layers))} - layers
    if missing:
        raise ValueError(f"the weights are not whole: {prefix}{min(missing, key=int)} is missing")
    return len(layers)


def _heads(heads: int | None, width: int, kind: str) -> int:
    if heads is None and width % HEAD_WIDTH:
        raise ValueError(f"the {kind} tower's width, {width}, is not a multiple of 64: give the number of its heads")
    if heads is not None and (heads < 1 or width % heads):
        raise ValueError(f"{heads} attention heads do not divide the {kind} tower's width, {width}")
    return heads or width // HEAD_WIDTH
