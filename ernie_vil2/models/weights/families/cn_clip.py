"""Chinese-CLIP's own files (`clip_cn_vit-b-16.pt` and checkpoints of its training): sizes are those of the arrays.

The number of heads, which no shape shows, is in `model_configs/*.json` of the authors' package, if these lie next to
the file; without them the file must be of a published size.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.config import ModelConfig
from ernie_vil2.models.weights.families.bert import LENGTH, NO_POOLER, bert_rows, check_vit, text_settings
from ernie_vil2.models.weights.families.clip import ACTIVATIONS, CLIP_MEAN, CLIP_STD, POSITION_IDS
from ernie_vil2.models.weights.families.family import TORCH_SUFFIXES, Family, Folder
from ernie_vil2.models.weights.families.open_clip import COUNTED, image_rows, resnet_tower
from ernie_vil2.models.weights.format import StoredModel
from ernie_vil2.models.weights.name_table import Row
from ernie_vil2.models.weights.settings import Settings
from ernie_vil2.models.weights.write_back import MODEL_CONFIGS
from ernie_vil2.towers.base import ImageTowerConfig, ImageVariant, TextVariant
from ernie_vil2.towers.convolution import ModifiedResNet
from ernie_vil2.towers.layers.convolution import REDUCTION
from ernie_vil2.towers.transformer import Transformer, Vit, image_variant

_TEXT_FACTS = (
    "text_num_attention_heads",
    "text_hidden_act",
    "text_hidden_dropout_prob",
    "text_attention_probs_dropout_prob",
)
_VISION_FACTS = ("vision_head_width",)
_TRANSFORMERS = {768: 64, 1024: 64, 1280: 80}
"""Width of a head by the width of a transformer, of images or texts, in the published models."""
_RESNETS = {64: 64}
"""Likewise of a ResNet by the channels of its first stage: RN50."""
_SPLIT = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def _configure(folder: Folder) -> tuple[ModelConfig, int]:
    arrays, path = folder.arrays, folder.weights
    if "bert.embeddings.word_embeddings.weight" not in arrays:
        raise ValueError(
            f"{path}: not a file of Chinese-CLIP, which has bert.*; a checkpoint of OpenCLIP needs its "
            "open_clip_config.json next to it"
        )
    positions, text_width = _shape(arrays, "bert.embeddings.position_embeddings.weight", 2, path)
    depth = _depth(arrays, "bert.encoder.layer.")
    text = _read_sizes(path, {"text_hidden_size": text_width}, ("text_num_hidden_layers", depth), _TEXT_FACTS)
    hidden, _ = _shape(arrays, "bert.encoder.layer.0.intermediate.dense.weight", 2, path)
    _, dim = _shape(arrays, "text_projection", 2, path)
    image = (_vit if "visual.class_embedding" in arrays else _resnet)(arrays, path, dim)
    return ModelConfig(
        image=image,
        text=Transformer(
            name="transformer",
            width=text_width,
            depth=depth,
            heads=text.read_count(
                "text_num_attention_heads", text_width // _head_width(text, text_width, _TRANSFORMERS)
            ),
            max_positions=positions,
            pooling="first",
            dropout=text.read_probability("text_hidden_dropout_prob", 0.1),
            attention_dropout=text.read_probability("text_attention_probs_dropout_prob", 0.1),
            epsilon=1e-12,
            variant=TextVariant(
                norm="after",
                hidden=hidden,
                activation=text.read_choice("text_hidden_act", "gelu", ACTIVATIONS),
                token_types=_shape(arrays, "bert.embeddings.token_type_embeddings.weight", 2, path)[0],
                mask="padding",
            ),
        ),
        embed_dim=dim,
        projections="text" if isinstance(image, ModifiedResNet) else "always",
    ), min(LENGTH, positions)


def _vit(arrays: Mapping[str, np.ndarray], path: Path, dim: int) -> ImageTowerConfig:
    width, _, size, _ = _shape(arrays, "visual.conv1.weight", 4, path)
    tokens, _ = _shape(arrays, "visual.positional_embedding", 2, path)
    hidden, _ = _shape(arrays, "visual.transformer.resblocks.0.mlp.c_fc.weight", 2, path)
    depth, side = _depth(arrays, "visual.transformer.resblocks."), round((tokens - 1) ** 0.5)
    sizes = {"vision_width": width, "vision_patch_size": size}
    vision = _read_sizes(path, sizes, ("vision_layers", depth), _VISION_FACTS, (size, side))
    head_width = vision.read_count("vision_head_width", _head_width(vision, width, _TRANSFORMERS))
    if width % head_width:
        raise vision.make_error("vision_head_width", f"it does not divide the width, {width}")
    return Vit(
        name="ViT",
        image_size=_image_size(vision, size, side),
        patch_size=size,
        width=width,
        depth=depth,
        heads=width // head_width,
        mean=CLIP_MEAN,
        std=CLIP_STD,
        variant=ImageVariant(hidden=hidden, epsilon=1e-5),
    )


def _resnet(arrays: Mapping[str, np.ndarray], path: Path, dim: int) -> ImageTowerConfig:
    width = _shape(arrays, "visual.conv3.weight", 4, path)[0]
    cells, _ = _shape(arrays, "visual.attnpool.positional_embedding", 2, path)
    layers, side = [_depth(arrays, f"visual.layer{stage}.") for stage in (1, 2, 3, 4)], round((cells - 1) ** 0.5)
    sizes = {"vision_width": width}
    vision = _read_sizes(path, sizes, ("vision_layers", layers), _VISION_FACTS, (REDUCTION, side))
    head_width = vision.read_count("vision_head_width", _head_width(vision, width, _RESNETS))
    if 32 * width % head_width:
        raise vision.make_error("vision_head_width", f"it does not divide 32 times the width, {width}")
    return resnet_tower(_image_size(vision, REDUCTION, side), layers, width, head_width, dim)


def _read_sizes(
    weights: Path,
    sizes: Mapping[str, int | list[int]],
    depth: tuple[str, int | list[int]],
    facts: Sequence[str],
    grid: tuple[int, int] | None = None,
) -> Settings:
    """Read the authors' settings of a tower from `model_configs`, if these lie next to the weights.

    Args:
        sizes: sizes of the arrays by the authors' keys; settings with another one describe another tower.
        depth: likewise number of blocks; settings with it go before those without.
        facts: keys that no shape shows; where several settings describe the tower, they must agree in these.
        grid: side of a patch in pixels, and of the image in patches; settings of that image size go before others.

    Raises:
        ValueError: a size is no number, no settings are of this tower, or they contradict each other.
    """
    candidates: list[Settings] = []
    rejected: list[Settings] = []
    main_key = next(iter(sizes))
    for path in sorted(weights.parent.glob("model_configs/*.json")):
        settings = Settings.from_file(path)
        # The settings of one tower lie in a file without those of the other.
        if main_key in settings.values:
            stated = {key: _stated_size(settings, key) for key in sizes if key in settings.values}
            fits = all(stated[key] == sizes[key] for key in stated)
            (candidates if fits else rejected).append(settings)
    if rejected and not candidates:
        raise rejected[0].make_error(main_key, f"its weights say {', '.join(f'{key} {sizes[key]}' for key in sizes)}")
    if not candidates:
        return Settings(weights, {})

    key, blocks = depth
    of_depth = [settings for settings in candidates if key in settings.values and _stated_size(settings, key) == blocks]
    candidates = of_depth or candidates
    if grid is not None:
        patch, side = grid
        of_size = [
            settings for settings in candidates if settings.read_count("image_resolution", patch) // patch == side
        ]
        if of_size:
            candidates, facts = of_size, [*facts, "image_resolution"]
    first = candidates[0]
    for settings in candidates[1:]:
        for key in facts:
            if settings.values.get(key) != first.values.get(key):
                raise settings.make_error(
                    key, f"{first.path.name} describes the same tower otherwise; remove one of both"
                )
    return first


def _head_width(settings: Settings, width: int, published: Mapping[int, int]) -> int:
    """Return the width of a head where no settings give it: in the authors' code 64, of a published model its own."""
    if settings.values:
        return 64
    if width not in published:
        raise ValueError(
            f"{settings.path}: a tower of width {width} is not one of the published models, and no shape shows its "
            "attention heads: put the authors' model_configs/*.json of it next to the file"
        )
    return published[width]


def _stated_size(settings: Settings, key: str) -> int | list[int] | None:
    """Return a size that a file states; the blocks of a ResNet's stages are a list, or a text of one."""
    value = settings.values[key]
    if key == "vision_layers" and isinstance(value, str | list):
        blocks = re.findall(r"\d+", value) if isinstance(value, str) else value
        if len(blocks) != 4 or not all(str(count).isdecimal() for count in blocks):
            raise settings.make_error(key, "a number, or those of the four stages of a ResNet are expected")
        return [int(count) for count in blocks]
    if key == "vision_patch_size" and value is None:  # of a ResNet
        return None
    return settings.read_count(key, 0)


def _image_size(vision: Settings, patch: int, side: int) -> int:
    """Return the side of the images in pixels: as the settings have it, if so many patches fit into it."""
    size = vision.read_count("image_resolution", patch * side)
    return size if size // patch == side else patch * side


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


def _settings_of(model: StoredModel) -> dict[str, Any]:
    """Return the files of a Chinese-CLIP for its authors' own code."""
    check_vit(model, CN_CLIP.layout)
    config, words = model.config.Model, model.vocab_size
    variant = image_variant(config.image)
    sizes = config.image.sizes
    if variant is not None and variant.hidden not in (None, 4 * sizes["width"]):
        raise ValueError(
            "Chinese-CLIP's own code makes the image tower's MLPs four times as wide as the tower; this "
            f"model's are {variant.hidden} wide, its tower {sizes['width']}"
        )
    of_text = {f"text_{key}": value for key, value in text_settings(config).items()}
    of_images = {
        "embed_dim": config.embed_dim,
        "image_resolution": config.image.image_size,
        "vision_layers": sizes["depth"],
        "vision_width": sizes["width"],
        "vision_head_width": sizes["width"] // sizes["heads"],
        "vision_patch_size": sizes["patch_size"],
    }
    return {
        f"{MODEL_CONFIGS}/ViT.json": of_images,
        f"{MODEL_CONFIGS}/RoBERTa.json": {"vocab_size": words, "text_initializer_range": 0.02, **of_text},
    }


def _is_checkpoint(path: Path) -> bool:
    """Return whether a file is one of PyTorch, or a folder holds one."""
    return any(path.glob("*.pt")) if path.is_dir() else path.suffix in TORCH_SUFFIXES


CN_CLIP = Family(
    "Chinese-CLIP (own file)",
    _configure,
    _rows,
    tokenizer="cn_clip",
    preprocessing="cn_clip",
    dialects={"tokenizer": ("stored", "bert"), "preprocessing": ("stored", "transformers")},
    settings="",
    layout="chinese-clip",
    is_family=_is_checkpoint,
    make_settings=_settings_of,
    weights_name="clip_cn.pt",
    sister="chinese_clip",
    unused={"*.position_ids": POSITION_IDS, "bert.pooler.*": NO_POOLER, "*.num_batches_tracked": COUNTED},
    find_weights=lambda folder: found[0] if len(found := sorted(folder.glob("*.pt"))) == 1 else None,
)
