"""PE-Core's own files: `PE-Core-B16-224.pt` and others (Perception Encoder, Bolya et al. 2025, arXiv 2504.13181).

Sizes come from the shapes of the arrays. Heads, which no shape shows, are those of the five published models by the
width of the tower. For other sizes, `pe_config.json` next to the file has the fields of the authors' classes `PEConfig`
(under `vision`) and `PETextConfig` (under `text`).
"""

from collections.abc import Collection
from pathlib import Path

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
from ernie_vil2.models.weights.families.family import Dialect, Family, Folder, Towers
from ernie_vil2.models.weights.families.open_clip import make_image_rows, make_text_rows
from ernie_vil2.models.weights.families.timm_towers import PE_POOLING_HEADS
from ernie_vil2.models.weights.name_table import Row
from ernie_vil2.models.weights.settings import Settings
from ernie_vil2.models.weights.write_back import PE_SETTINGS
from ernie_vil2.towers.base import ImageTowerConfig, ImageVariant, Rotary
from ernie_vil2.towers.transformer import Vit, get_image_variant

_PROBE = "visual.attn_pool.probe"
_POSITIONS = "visual.positional_embedding"
# Number of heads by the width of a tower of PE-Core T, S, B, L or G. Heads of all text towers are 64 wide.
_IMAGE_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1536: 16}
_TEXT_HEADS = {512: 8, 1024: 16, 1280: 20}
# Fields of `PEConfig` that change what is computed; only these values, of all PE-Cores, are implemented.
_REQUIRED_VALUES = {
    "ls_init_value": None,
    "use_abs_posemb": True,
    "use_rope2d": True,
    "pool_type": "attn",
    "use_ln_pre": True,
    "use_ln_post": True,
}
_VISION_KEYS = "patch_size width layers heads mlp_ratio output_dim drop_path image_size use_cls_token attn_pooler_heads"
_TEXT_KEYS = "context_length width heads layers output_dim mlp_ratio vocab_size"


def _configure(folder: Folder) -> Towers:
    arrays, path = folder.arrays, folder.weights
    settings_file = path.with_name(PE_SETTINGS)
    vision, text = Settings(path, {}), Settings(path, {})
    if settings_file.is_file():
        settings = Settings.from_file(settings_file)
        vision, text = settings.open_section("vision"), settings.open_section("text")
        vision.check_keys([*_VISION_KEYS.split(), *_REQUIRED_VALUES])
        vision.check_values(**_REQUIRED_VALUES)
        text.check_keys(_TEXT_KEYS.split())
    _, embed_dim = get_shape(arrays, "visual.proj", 2, path)
    for section in (vision, text):
        section.check_sizes({"output_dim": embed_dim})
    text_tower = read_openai_text_tower(arrays, "", path, text, _TEXT_HEADS)
    model = ModelConfig(image=_read_vit(folder, vision), text=text_tower, embed_dim=embed_dim, projections="both")
    return Towers(model, text_tower.max_positions)


def _read_vit(folder: Folder, vision: Settings) -> ImageTowerConfig:
    arrays, path = folder.arrays, folder.weights
    width, _, patch_size, _ = get_shape(arrays, "visual.conv1.weight", 4, path)
    positions, _ = get_shape(arrays, _POSITIONS, 2, path)
    blocks = "visual.transformer.resblocks."
    hidden, _ = get_shape(arrays, f"{blocks}0.mlp.c_fc.weight", 2, path)
    pooling_hidden, _ = get_shape(arrays, "visual.attn_pool.mlp.c_fc.weight", 2, path)
    depth = count_blocks(arrays, blocks)
    has_class_token = "visual.class_embedding" in arrays
    sizes = {"width": width, "patch_size": patch_size, "layers": depth, "use_cls_token": has_class_token}
    vision.check_sizes(sizes)
    return Vit(
        name="ViT",
        image_size=choose_image_size(
            vision, "image_size", patch_size, find_grid_side(positions, has_class_token, _POSITIONS, path)
        ),
        patch_size=patch_size,
        width=width,
        depth=depth,
        heads=find_head_count(vision, "heads", width, _IMAGE_HEADS),
        mean=[0.5] * 3,
        std=[0.5] * 3,
        variant=ImageVariant(
            hidden=hidden,
            activation="gelu",
            epsilon=1e-5,
            # Rows and columns are counted from 1 where there is a class token, which is at 0. The authors' code
            # stretches no positions: larger images have more of them.
            rotary=Rotary(first_half="columns", start=int(has_class_token)),
            class_token=has_class_token,
            pooling="attention",
            pooling_heads=vision.read_int("attn_pooler_heads", PE_POOLING_HEADS),
            pooling_hidden=pooling_hidden,
        ),
    )


def _make_rows(model: ModelConfig, dialect: Dialect, array_names: Collection[str]) -> list[Row]:
    theirs = "visual.attn_pool."
    rows: list[Row] = [
        ("image.attn_pool.probe", _PROBE, "equal"),
        # in_proj_weight and in_proj_bias hold queries, keys and values together; ours are split into q and kv.
        ("image.attn_pool.{q,kv}", f"{theirs}attn.in_proj_*", "linear"),
        ("image.attn_pool.proj", f"{theirs}attn.out_proj", "linear"),
        ("image.attn_pool.norm", f"{theirs}layernorm", "weight_bias"),
        ("image.attn_pool.mlp.fc1", f"{theirs}mlp.c_fc", "linear"),
        ("image.attn_pool.mlp.fc2", f"{theirs}mlp.c_proj", "linear"),
    ]
    variant = get_image_variant(model.image)
    for row in make_image_rows(model.image):
        if row[0] != "image.cls_token" or (variant is not None and variant.class_token):
            rows.append(row)
    return [*rows, *make_text_rows(""), ("text_projection.weight", "text_projection", "equal")]


def _is_pe_core(path: Path) -> bool:
    return _PROBE in read_array_names(path)


PE_CORE = Family(
    "PE-Core (own file)",
    _configure,
    _make_rows,
    tokenizer="open_clip",
    preprocessing="pe_core",
    settings_file="",  # none is needed: `pe_config.json` is optional
    layout="pe-core",
    is_family=_is_pe_core,
    find_weights=find_checkpoint,
)
