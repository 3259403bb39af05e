"""Chinese-CLIP's own files (`clip_cn_vit-b-16.pt` and checkpoints of its training): sizes are those of the arrays.

The number of heads, which no shape shows, is in `model_configs/*.json` of the authors' package, if these lie next to
the file; without them heads are 64 wide, and 80 in H/14.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.config import ImageTowerConfig, ModelConfig, TextTowerConfig
from ernie_vil2.config.model import ImageVariant, TextVariant
from ernie_vil2.models.towers.convolution import REDUCTION
from ernie_vil2.models.weights.families.bert import LENGTH, NO_POOLER, bert_rows
from ernie_vil2.models.weights.families.clip import ACTIVATIONS, CLIP_MEAN, CLIP_STD, POSITION_IDS
from ernie_vil2.models.weights.families.family import Family, Folder
from ernie_vil2.models.weights.families.open_clip import COUNTED, image_rows, resnet_tower
from ernie_vil2.models.weights.names import Row
from ernie_vil2.models.weights.settings import Settings

_HEAD_WIDTHS = {1280: 80}
_SPLIT = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def _configure(folder: Folder) -> tuple[ModelConfig, int]:
    arrays, path = folder.arrays, folder.weights
    if "bert.embeddings.word_embeddings.weight" not in arrays:
        raise ValueError(
            f"{path}: not a file of Chinese-CLIP, which has bert.*; a checkpoint of OpenCLIP needs its "
            "open_clip_config.json next to it"
        )
    positions, text_width = _shape(arrays, "bert.embeddings.position_embeddings.weight", 2, path)
    text = _sizes(path, {"text_hidden_size": text_width})
    hidden, _ = _shape(arrays, "bert.encoder.layer.0.intermediate.dense.weight", 2, path)
    _, dim = _shape(arrays, "text_projection", 2, path)
    image = (_vit if "visual.class_embedding" in arrays else _resnet)(arrays, path, dim)
    return ModelConfig(
        image=image,
        text=TextTowerConfig(
            name="transformer",
            width=text_width,
            depth=_depth(arrays, "bert.encoder.layer."),
            heads=text.count("text_num_attention_heads", max(1, text_width // 64)),
            max_positions=positions,
            pooling="first",
            dropout=text.share("text_hidden_dropout_prob", 0.1),
            attention_dropout=text.share("text_attention_probs_dropout_prob", 0.1),
            epsilon=1e-12,
            variant=TextVariant(
                norm="after",
                hidden=hidden,
                activation=text.choice("text_hidden_act", "gelu", ACTIVATIONS),
                token_types=_shape(arrays, "bert.embeddings.token_type_embeddings.weight", 2, path)[0],
                mask="padding",
            ),
        ),
        embed_dim=dim,
        projections="text" if image.layers else "always",
    ), min(LENGTH, positions)


def _vit(arrays: Mapping[str, np.ndarray], path: Path, dim: int) -> ImageTowerConfig:
    width, _, size, _ = _shape(arrays, "visual.conv1.weight", 4, path)
    tokens, _ = _shape(arrays, "visual.positional_embedding", 2, path)
    hidden, _ = _shape(arrays, "visual.transformer.resblocks.0.mlp.c_fc.weight", 2, path)
    vision = _sizes(path, {"vision_width": width, "vision_patch_size": size})
    return ImageTowerConfig(
        name="ViT",
        image_size=round((tokens - 1) ** 0.5) * size,
        patch_size=size,
        width=width,
        depth=_depth(arrays, "visual.transformer.resblocks."),
        heads=width // vision.count("vision_head_width", _HEAD_WIDTHS.get(width, 64)),
        mean=CLIP_MEAN,
        std=CLIP_STD,
        variant=ImageVariant(hidden=hidden, epsilon=1e-5),
    )


def _resnet(arrays: Mapping[str, np.ndarray], path: Path, dim: int) -> ImageTowerConfig:
    width = _shape(arrays, "visual.conv3.weight", 4, path)[0]
    cells, _ = _shape(arrays, "visual.attnpool.positional_embedding", 2, path)
    head = _sizes(path, {"vision_width": width}).count("vision_head_width", 64)
    layers = [_depth(arrays, f"visual.layer{stage}.") for stage in (1, 2, 3, 4)]
    return resnet_tower(round((cells - 1) ** 0.5) * REDUCTION, layers, width, head, dim)


def _sizes(weights: Path, expected: Mapping[str, int]) -> Settings:
    """The authors' settings of a tower of these sizes, if they lie next to the weights."""
    for path in sorted(weights.parent.glob("model_configs/*.json")):
        settings = Settings.read(path)
        if all(settings.values.get(key) == size for key, size in expected.items()):
            return settings
    return Settings(weights, {})


def _shape(arrays: Mapping[str, np.ndarray], name: str, axes: int, path: Path) -> tuple[int, ...]:
    shape: tuple[int, ...] = arrays[name].shape if name in arrays else ()
    if len(shape) != axes:
        raise ValueError(f"{path}: {name} is missing or has the shape {list(shape)}; {axes} axes are expected")
    return shape


def _depth(arrays: Mapping[str, Any], start: str) -> int:
    return len({name.removeprefix(start).partition(".")[0] for name in arrays if name.startswith(start)})


def _rows(model: ModelConfig, dialect: Mapping[str, str], has: Collection[str]) -> list[Row]:
    images: list[Row] = [*image_rows(model.image), ("text_projection.weight", "text_projection", "array")]
    texts = bert_rows("bert.")
    # As its training with FlashAttention spells them.
    if "visual.transformer.resblocks.0.attn.Wqkv.weight" in has:
        images = [(ours, theirs.replace("in_proj_*", "Wqkv"), form) for ours, theirs, form in images]
    layer, ours = "bert.encoder.layer.N.attention.", "text.network.encoder.layers.N."
    if "bert.encoder.layer.0.attention.self.Wqkv.weight" in has:
        texts = [row for row in texts if not row[0].endswith((*_SPLIT, "self_attn.out_proj"))]
        texts += [
            (f"{ours}self_attn.{{q,k,v}}_proj", f"{layer}self.Wqkv", "linear"),
            (f"{ours}self_attn.out_proj", f"{layer}self.out_proj", "linear"),
        ]
    return [*images, *texts]


CN_CLIP = Family(
    "Chinese-CLIP (own file)",
    _configure,
    _rows,
    tokenizer="cn_clip",
    preprocessing="cn_clip",
    dialects={"tokenizer": ("stored", "bert"), "preprocessing": ("stored", "transformers")},
    settings="",
    layout="chinese-clip",
    unused={"*.position_ids": POSITION_IDS, "bert.pooler.*": NO_POOLER, "*.num_batches_tracked": COUNTED},
    weights=lambda folder: found[0] if len(found := sorted(folder.glob("*.pt"))) == 1 else None,
)
