"""Chinese-CLIP's own files: `clip_cn_vit-b-16.pt` and others, and the checkpoints of its training.

Sizes come from the shapes of the arrays. The number of heads, which no shape shows, is in `model_configs/*.json` of the
authors' package; if these files do not lie next to the weights, the model must have a published size.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.config import ModelConfig
from ernie_vil2.models.weights.families.bert import (
    NO_POOLER,
    TEXT_LENGTH,
    check_vit,
    describe_text_tower,
    make_bert_rows,
)
from ernie_vil2.models.weights.families.checkpoint import (
    choose_image_size,
    count_blocks,
    find_checkpoint,
    find_grid_side,
    get_shape,
    is_checkpoint,
)
from ernie_vil2.models.weights.families.clip import ACTIVATIONS, CLIP_MEAN, CLIP_STD, POSITION_IDS
from ernie_vil2.models.weights.families.family import Dialect, Family, Folder, Towers
from ernie_vil2.models.weights.families.open_clip import BATCH_COUNT, make_image_rows, make_resnet
from ernie_vil2.models.weights.format import StoredModel
from ernie_vil2.models.weights.name_table import Row
from ernie_vil2.models.weights.settings import Settings
from ernie_vil2.models.weights.write_back import MODEL_CONFIGS
from ernie_vil2.towers.base import ImageTowerConfig, ImageVariant, TextVariant
from ernie_vil2.towers.convolution import ModifiedResNet
from ernie_vil2.towers.layers.convolution import REDUCTION
from ernie_vil2.towers.transformer import Transformer, Vit, get_image_variant

# Keys of the authors' settings that no shape of an array shows.
_SHAPELESS_TEXT_KEYS = (
    "text_num_attention_heads",
    "text_hidden_act",
    "text_hidden_dropout_prob",
    "text_attention_probs_dropout_prob",
)
_SHAPELESS_VISION_KEYS = ("vision_head_width",)

# Width of an attention head in the published models, by the width of a transformer of images or texts, and by the
# channels of a ResNet's first stage (RN50).
_TRANSFORMER_HEAD_WIDTHS = {768: 64, 1024: 64, 1280: 80}
_RESNET_HEAD_WIDTHS = {64: 64}
# Our layers that are one layer, Wqkv, in files of a training with FlashAttention.
_QKV_LAYERS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def _configure(folder: Folder) -> Towers:
    arrays, path = folder.arrays, folder.weights
    if "bert.embeddings.word_embeddings.weight" not in arrays:
        raise ValueError(
            f"{path}: not a file of Chinese-CLIP, which has bert.*; a checkpoint of OpenCLIP needs its "
            "open_clip_config.json next to it"
        )
    positions, width = get_shape(arrays, "bert.embeddings.position_embeddings.weight", 2, path)
    depth = count_blocks(arrays, "bert.encoder.layer.")
    text = _read_sizes(path, {"text_hidden_size": width}, ("text_num_hidden_layers", depth), _SHAPELESS_TEXT_KEYS)
    hidden, _ = get_shape(arrays, "bert.encoder.layer.0.intermediate.dense.weight", 2, path)
    token_types, _ = get_shape(arrays, "bert.embeddings.token_type_embeddings.weight", 2, path)
    _, embed_dim = get_shape(arrays, "text_projection", 2, path)
    if "visual.class_embedding" in arrays:
        image = _read_vit(arrays, path)
    else:
        image = _read_resnet(arrays, path, embed_dim)
    default_heads = width // _find_head_width(text, width, _TRANSFORMER_HEAD_WIDTHS)
    text_tower = Transformer(
        name="transformer",
        width=width,
        depth=depth,
        heads=text.read_int("text_num_attention_heads", default_heads),
        max_positions=positions,
        pooling="first",
        dropout=text.read_probability("text_hidden_dropout_prob", 0.1),
        attention_dropout=text.read_probability("text_attention_probs_dropout_prob", 0.1),
        epsilon=1e-12,
        variant=TextVariant(
            norm="after",
            hidden=hidden,
            activation=text.read_choice("text_hidden_act", "gelu", ACTIVATIONS),
            token_types=token_types,
            mask="padding",
        ),
    )
    model = ModelConfig(
        image=image,
        text=text_tower,
        embed_dim=embed_dim,
        projections="text" if isinstance(image, ModifiedResNet) else "both",
    )
    return Towers(model, min(TEXT_LENGTH, positions))


def _read_vit(arrays: Mapping[str, np.ndarray], path: Path) -> ImageTowerConfig:
    width, _, patch_size, _ = get_shape(arrays, "visual.conv1.weight", 4, path)
    tokens, _ = get_shape(arrays, "visual.positional_embedding", 2, path)
    hidden, _ = get_shape(arrays, "visual.transformer.resblocks.0.mlp.c_fc.weight", 2, path)
    depth = count_blocks(arrays, "visual.transformer.resblocks.")
    side = find_grid_side(tokens, True, "visual.positional_embedding", path)
    sizes = {"vision_width": width, "vision_patch_size": patch_size}
    vision = _read_sizes(path, sizes, ("vision_layers", depth), _SHAPELESS_VISION_KEYS, (patch_size, side))
    head_width = vision.read_int("vision_head_width", _find_head_width(vision, width, _TRANSFORMER_HEAD_WIDTHS))
    if width % head_width:
        raise vision.make_error("vision_head_width", f"it does not divide the width, {width}")
    return Vit(
        name="ViT",
        image_size=choose_image_size(vision, "image_resolution", patch_size, side),
        patch_size=patch_size,
        width=width,
        depth=depth,
        heads=width // head_width,
        mean=CLIP_MEAN,
        std=CLIP_STD,
        variant=ImageVariant(hidden=hidden, epsilon=1e-5),
    )


def _read_resnet(arrays: Mapping[str, np.ndarray], path: Path, embed_dim: int) -> ImageTowerConfig:
    width = get_shape(arrays, "visual.conv3.weight", 4, path)[0]
    tokens, _ = get_shape(arrays, "visual.attnpool.positional_embedding", 2, path)
    layers = [count_blocks(arrays, f"visual.layer{stage}.") for stage in (1, 2, 3, 4)]
    # The grid is pooled; the mean has the place of a class token.
    side = find_grid_side(tokens, True, "visual.attnpool.positional_embedding", path)
    sizes = {"vision_width": width}
    vision = _read_sizes(path, sizes, ("vision_layers", layers), _SHAPELESS_VISION_KEYS, (REDUCTION, side))
    head_width = vision.read_int("vision_head_width", _find_head_width(vision, width, _RESNET_HEAD_WIDTHS))
    if 32 * width % head_width:
        raise vision.make_error("vision_head_width", f"it does not divide 32 times the width, {width}")
    return make_resnet(
        choose_image_size(vision, "image_resolution", REDUCTION, side), layers, width, head_width, embed_dim
    )


def _read_sizes(
    weights: Path,
    sizes: Mapping[str, int | list[int]],
    depth: tuple[str, int | list[int]],
    shapeless_keys: Sequence[str],
    grid: tuple[int, int] | None = None,
) -> Settings:
    """Read the authors' settings of a tower from `model_configs`, if these lie next to the weights.

    Several files may describe towers of the same width; the one that fits best is chosen.

    Args:
        weights: the weight file.
        sizes: sizes of the arrays by the authors' keys; settings with another size describe another tower.
        depth: key and number of blocks; settings with this number are preferred.
        shapeless_keys: keys that no shape shows; all settings that describe the tower must agree in these.
        grid: side of a patch in pixels and of the image in patches; settings of this image size are preferred.

    Returns:
        The settings; empty ones if no file describes such a tower.

    Raises:
        ValueError: a size is no number, no settings fit the arrays, or several settings contradict each other.
    """
    candidates: list[Settings] = []
    rejected: list[Settings] = []
    main_key = next(iter(sizes))
    for path in sorted(weights.parent.glob("model_configs/*.json")):
        settings = Settings.from_file(path)
        if main_key not in settings.values:
            continue  # settings of the other tower
        stated_sizes = {key: _read_stated_size(settings, key) for key in sizes if key in settings.values}
        if all(size == sizes[key] for key, size in stated_sizes.items()):
            candidates.append(settings)
        else:
            rejected.append(settings)
    if rejected and not candidates:
        raise rejected[0].make_error(main_key, f"its weights say {', '.join(f'{key} {sizes[key]}' for key in sizes)}")
    if not candidates:
        return Settings(weights, {})

    # Narrow them down, first by depth, then by image size.
    depth_key, num_blocks = depth
    matches = []
    for settings in candidates:
        if depth_key in settings.values and _read_stated_size(settings, depth_key) == num_blocks:
            matches.append(settings)
    candidates = matches or candidates
    if grid is not None:
        patch_size, side = grid
        matches = []
        for settings in candidates:
            if settings.read_int("image_resolution", patch_size) // patch_size == side:
                matches.append(settings)
        if matches:
            candidates, shapeless_keys = matches, [*shapeless_keys, "image_resolution"]

    first = candidates[0]
    for settings in candidates[1:]:
        for key in shapeless_keys:
            if settings.values.get(key) != first.values.get(key):
                raise settings.make_error(
                    key, f"{first.path.name} describes the same tower differently; remove one of the two"
                )
    return first


def _find_head_width(settings: Settings, width: int, published: Mapping[int, int]) -> int:
    """Return the width of a head that the settings do not state: 64, or without settings that of a published model."""
    if settings.values:
        return 64  # the default of the authors' code
    if width not in published:
        raise ValueError(
            f"{settings.path}: a tower of width {width} is not one of the published models, and no shape shows its "
            "attention heads: put the authors' model_configs/*.json of it next to the file"
        )
    return published[width]


def _read_stated_size(settings: Settings, key: str) -> int | list[int] | None:
    """Return a size in the settings; the blocks of a ResNet's stages are a list, or a text that shows one."""
    value = settings.values[key]
    if key == "vision_layers" and isinstance(value, str | list):
        layers = re.findall(r"\d+", value) if isinstance(value, str) else value
        # Of a few digits: Python refuses to convert thousands of them.
        if len(layers) != 4 or not all(re.fullmatch(r"\d{1,9}", str(count)) for count in layers):
            raise settings.make_error(key, "a number, or those of the four stages of a ResNet are expected")
        return [int(count) for count in layers]
    if key == "vision_patch_size" and value is None:  # a ResNet has none
        return None
    return settings.read_int(key, 0)


def _make_rows(model: ModelConfig, dialect: Dialect, array_names: Collection[str]) -> list[Row]:
    images: list[Row] = [*make_image_rows(model.image), ("text_projection.weight", "text_projection", "equal")]
    texts = make_bert_rows("bert.")
    # Training with FlashAttention gives the attention layers other names.
    if "visual.transformer.resblocks.0.attn.Wqkv.weight" in array_names:
        images = [(ours, theirs.replace("in_proj_*", "Wqkv"), form) for ours, theirs, form in images]
    layer, ours = "bert.encoder.layer.N.attention.", "text.network.encoder.layers.N."
    if "bert.encoder.layer.0.attention.self.Wqkv.weight" in array_names:
        texts = [row for row in texts if not row[0].endswith((*_QKV_LAYERS, "self_attn.out_proj"))]
        texts += [
            (f"{ours}self_attn.{{q,k,v}}_proj", f"{layer}self.Wqkv", "linear"),
            (f"{ours}self_attn.out_proj", f"{layer}self.out_proj", "linear"),
        ]
    return [*images, *texts]


def _make_settings(model: StoredModel) -> dict[str, Any]:
    """Return the files of a Chinese-CLIP for its authors' own code, by name."""
    check_vit(model, CN_CLIP.layout)
    config = model.config.Model
    sizes = config.image.sizes
    variant = get_image_variant(config.image)
    if variant is not None and variant.hidden not in (None, 4 * sizes["width"]):
        raise ValueError(
            "Chinese-CLIP's own code makes the image tower's MLPs four times as wide as the tower; this "
            f"model's are {variant.hidden} wide, its tower {sizes['width']}"
        )
    vision_settings = {
        "embed_dim": config.embed_dim,
        "image_resolution": config.image.image_size,
        "vision_layers": sizes["depth"],
        "vision_width": sizes["width"],
        "vision_head_width": sizes["width"] // sizes["heads"],
        "vision_patch_size": sizes["patch_size"],
    }
    text_settings = {"vocab_size": model.vocab_size, "text_initializer_range": 0.02}
    for key, value in describe_text_tower(config).items():
        text_settings[f"text_{key}"] = value
    return {f"{MODEL_CONFIGS}/ViT.json": vision_settings, f"{MODEL_CONFIGS}/RoBERTa.json": text_settings}


CN_CLIP = Family(
    "Chinese-CLIP (own file)",
    _configure,
    _make_rows,
    tokenizer="cn_clip",
    preprocessing="cn_clip",
    dialects={"tokenizer": ("stored", "bert"), "preprocessing": ("stored", "transformers")},
    settings_file="",  # none is needed: `model_configs` are optional
    layout="chinese-clip",
    is_family=is_checkpoint,
    make_settings=_make_settings,
    weights_name="clip_cn.pt",
    twin_format="chinese_clip",
    unused={"*.position_ids": POSITION_IDS, "bert.pooler.*": NO_POOLER, "*.num_batches_tracked": BATCH_COUNT},
    find_weights=find_checkpoint,
)
