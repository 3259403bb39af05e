"""EVA-02-CLIP's own files: `EVA02_CLIP_B_psz16_s8B.pt` and others (Sun et al. 2023, arXiv 2303.15389).

Sizes come from the shapes of the arrays. Heads, which no shape shows, are in `model_configs/*.json` of the authors'
package; if these files do not lie next to the weights, both towers must have the width of a published model.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from ernie_vil2.config import ModelConfig
from ernie_vil2.models.weights.families.checkpoint import (
    choose_image_size,
    count_blocks,
    find_checkpoint,
    find_grid_side,
    find_head_count,
    get_shape,
    read_array_names,
    read_openai_text_tower,
)
from ernie_vil2.models.weights.families.clip import CLIP_MEAN, CLIP_STD
from ernie_vil2.models.weights.families.family import Dialect, Family, Folder, Towers
from ernie_vil2.models.weights.families.open_clip import make_text_rows
from ernie_vil2.models.weights.families.timm_towers import make_eva02_variant
from ernie_vil2.models.weights.name_table import Row
from ernie_vil2.models.weights.settings import Settings
from ernie_vil2.models.weights.write_back import MODEL_CONFIGS
from ernie_vil2.towers.base import ImageTowerConfig
from ernie_vil2.towers.transformer import Vit

_BLOCKS = "visual.blocks."
_QUERY_BIAS = f"{_BLOCKS}0.attn.q_bias"  # an array of its own in all EVA-CLIPs, and in no other family
_GATE = f"{_BLOCKS}0.mlp.w1.weight"
# Heads by the width of a tower, of EVA-02-CLIP B and L; all are 64 wide.
_IMAGE_HEADS = {768: 12, 1024: 16}
_TEXT_HEADS = {512: 8, 768: 12}
GRID = 16  # rows and columns to which positions are stretched; `pt_hw_seq_len` of the published models
# Settings of the image tower that change what is computed; only these values, of EVA-02-CLIP B and L, are implemented.
_REQUIRED_VALUES = {
    "rope": True,
    "intp_freq": True,
    "naiveswiglu": True,
    "subln": True,
    "qkv_bias": True,
    "postnorm": False,
    "global_average_pool": False,
    "ls_init_value": None,
}
_VISION_KEYS = "image_size layers width head_width patch_size mlp_ratio pt_hw_seq_len"
_TEXT_KEYS = "context_length vocab_size width heads layers"
# Settings that choose among ways of computing the same, or matter in training only.
_OTHER_KEYS = "eva_model_name drop_path_rate patch_dropout xattn fusedLN"


def _configure(folder: Folder) -> Towers:
    arrays, path = folder.arrays, folder.weights
    if _GATE not in arrays:
        raise ValueError(
            f"{path}: an EVA-CLIP without SwiGLU, such as EVA-01 or EVA-02-CLIP E; supported are EVA-02-CLIP B and L"
        )
    _, embed_dim = get_shape(arrays, _find_text_prefix(arrays) + "text_projection", 2, path)
    width, _, patch_size, _ = get_shape(arrays, "visual.patch_embed.proj.weight", 4, path)
    sizes = {"width": width, "patch_size": patch_size, "layers": count_blocks(arrays, _BLOCKS)}
    vision, text = _read_settings(path, sizes)
    text_tower = read_openai_text_tower(arrays, _find_text_prefix(arrays), path, text, _TEXT_HEADS)
    image = _read_vit(arrays, path, vision, sizes)
    model = ModelConfig(image=image, text=text_tower, embed_dim=embed_dim, projections="text")
    return Towers(model, text_tower.max_positions)


def _find_text_prefix(names: Collection[str]) -> str:
    return "text." if "text.token_embedding.weight" in names else ""


def _read_settings(path: Path, sizes: Mapping[str, int]) -> tuple[Settings, Settings]:
    """Return the authors' settings of both towers, from the file of `model_configs` that fits; empty ones without any.

    Args:
        path: the weight file.
        sizes: sizes of the image tower by the authors' keys.

    Raises:
        ValueError: no file fits the weights, or the files that fit contradict each other.
    """
    candidates: list[tuple[Settings, Settings]] = []
    rejected: list[Settings] = []
    for settings_file in sorted(path.parent.glob(f"{MODEL_CONFIGS}/*.json")):
        settings = Settings.from_file(settings_file)
        vision, text = settings.open_section("vision_cfg"), settings.open_section("text_cfg")
        if all(vision.values.get(key, size) == size for key, size in sizes.items()):
            settings.check_values(quick_gelu=False)
            candidates.append((vision, text))
        else:
            rejected.append(vision)
    if not candidates:
        if rejected:
            rejected[0].check_sizes(sizes)
        return Settings(path, {}), Settings(path, {})

    # EVA-01-CLIP B/16 has the sizes of EVA-02-CLIP B/16, but no SwiGLU, which the weights have.
    matches = [sections for sections in candidates if sections[0].values.get("naiveswiglu")]
    candidates = matches or candidates

    # Several files may describe towers that differ in the size of the images alone, such as L/14 and L/14-336.
    vision, text = candidates[0]
    for next_vision, next_text in candidates[1:]:
        for settings, next_settings, key in ((vision, next_vision, "head_width"), (text, next_text, "heads")):
            if settings.values.get(key) != next_settings.values.get(key):
                raise next_settings.make_error(key, f"{settings.path.name} describes the same tower differently")
    vision.check_keys([*_VISION_KEYS.split(), *_REQUIRED_VALUES, *_OTHER_KEYS.split()])
    vision.check_values(**_REQUIRED_VALUES)
    text.check_keys([*_TEXT_KEYS.split(), *_OTHER_KEYS.split()])
    return vision, text


def _read_vit(
    arrays: Mapping[str, np.ndarray], path: Path, vision: Settings, sizes: Mapping[str, int]
) -> ImageTowerConfig:
    width, patch_size = sizes["width"], sizes["patch_size"]
    _, positions, _ = get_shape(arrays, "visual.pos_embed", 3, path)
    hidden, _ = get_shape(arrays, _GATE, 2, path)
    head, _ = get_shape(arrays, "visual.head.weight", 2, path)
    if vision.values:
        head_width = vision.read_int("head_width", 64)  # the default of the authors' code
        if width % head_width:
            raise vision.make_error("head_width", f"it does not divide the width, {width}")
        heads = width // head_width
    else:
        heads = find_head_count(vision, "heads", width, _IMAGE_HEADS)
    side = find_grid_side(positions, True, "visual.pos_embed", path)
    return Vit(
        name="ViT",
        image_size=choose_image_size(vision, "image_size", patch_size, side),
        patch_size=patch_size,
        width=width,
        depth=sizes["layers"],
        heads=heads,
        mean=CLIP_MEAN,
        std=CLIP_STD,
        variant=make_eva02_variant(hidden, head, vision.read_int("pt_hw_seq_len", GRID)),
    )


def _make_rows(model: ModelConfig, dialect: Dialect, array_names: Collection[str]) -> list[Row]:
    ours, prefix = "image.blocks.N.", _find_text_prefix(array_names)
    rows: list[Row] = [
        ("log_logit_scale", "logit_scale", "scalar"),
        ("image.cls_token", "visual.cls_token", "equal"),
        ("image.pos_embed", "visual.pos_embed", "equal"),
        ("image.patch_embed.proj", "visual.patch_embed.proj", "weight_bias"),
        (f"{ours}norm1", f"{_BLOCKS}N.norm1", "weight_bias"),
        (f"{ours}norm2", f"{_BLOCKS}N.norm2", "weight_bias"),
        (f"{ours}attn.norm", f"{_BLOCKS}N.attn.inner_attn_ln", "weight_bias"),
        (f"{ours}attn.out_proj", f"{_BLOCKS}N.attn.proj", "linear"),
        (f"{ours}mlp.gate", f"{_BLOCKS}N.mlp.w1", "linear"),
        (f"{ours}mlp.fc1", f"{_BLOCKS}N.mlp.w2", "linear"),
        (f"{ours}mlp.norm", f"{_BLOCKS}N.mlp.ffn_ln", "weight_bias"),
        (f"{ours}mlp.fc2", f"{_BLOCKS}N.mlp.w3", "linear"),
        ("image.norm", "visual.norm", "weight_bias"),
        ("image.head", "visual.head", "linear"),
        ("text_projection.weight", f"{prefix}text_projection", "equal"),
    ]
    for letter in "qkv":
        rows.append((f"{ours}attn.{letter}_proj.weight", f"{_BLOCKS}N.attn.{letter}_proj.weight", "transposed"))
    for letter in "qv":
        rows.append((f"{ours}attn.{letter}_proj.bias", f"{_BLOCKS}N.attn.{letter}_bias", "equal"))
    return [*rows, *make_text_rows(prefix)]


def _is_eva_clip(path: Path) -> bool:
    return _QUERY_BIAS in read_array_names(path)


EVA_CLIP = Family(
    "EVA-CLIP (own file)",
    _configure,
    _make_rows,
    tokenizer="open_clip",
    preprocessing="eva_clip",
    settings_file="",  # none is needed: `model_configs` are optional
    layout="eva-clip",
    is_family=_is_eva_clip,
    find_weights=find_checkpoint,
    unused={"*rope.freqs_*": "angles of rotary positions in float16, which the authors' code does not read either"},
)
