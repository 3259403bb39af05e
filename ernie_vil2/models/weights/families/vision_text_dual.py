"""`VisionTextDualEncoderModel` of transformers: CLIP's image tower or a ViT, with a BERT or a RoBERTa.

Both projections follow the poolers of the towers: a linear layer and tanh in BERT, RoBERTa and ViT.
"""

from collections.abc import Collection

from ernie_vil2.config import ModelConfig
from ernie_vil2.models.weights.families.bert import make_bert_rows, read_text_tower
from ernie_vil2.models.weights.families.clip import (
    CLIP_MEAN,
    CLIP_STD,
    POSITION_IDS,
    make_image_rows,
    read_image_tower,
    read_mlp,
    read_sizes,
)
from ernie_vil2.models.weights.families.family import Dialect, Family, Folder, Towers, count_words
from ernie_vil2.models.weights.families.siglip import HALF
from ernie_vil2.models.weights.name_table import Row
from ernie_vil2.models.weights.settings import Settings
from ernie_vil2.towers.base import ImageTowerConfig, ImageVariant
from ernie_vil2.towers.transformer import Vit, get_image_variant

_CLIP_TOWER = "vision_model."  # prefix of the names in CLIP's image tower
# Preprocessing by the beginning of the name of an image processor, and by the type of the image tower.
_PROCESSORS = {"ViT": "vit", "CLIP": "clip"}
_PREPROCESSING = {"vit": "vit", "clip_vision_model": "clip"}
_ROBERTAS = ("roberta", "xlm-roberta")
# Class of a tokenizer, without the "Fast" of its second implementation, and type of a text tower; and their rules.
_TOKENIZERS = (("BertTokenizer", "bert", "bert"), ("XLMRobertaTokenizer", "xlm-roberta", "xlm_roberta"))
# No class, or the one of any tokenizer.json: in transformers 4, and in transformers 5.
_GENERAL_TOKENIZERS = ("None", "PreTrainedTokenizerFast", "TokenizersBackend")


def _configure(folder: Folder) -> Towers:
    settings = folder.settings
    vision, text = settings.open_section("vision_config"), settings.open_section("text_config")
    is_clip = vision.read_choice("model_type", None, {"vit": False, "clip_vision_model": True})
    is_roberta = text.read_choice("model_type", None, {"bert": False, **dict.fromkeys(_ROBERTAS, True)})
    for section, is_known in ((vision, is_clip), (text, is_roberta)):
        if is_known is None:
            raise section.make_error("model_type", "it must say what the tower is")
    image = read_image_tower(vision) if is_clip else _read_vit(vision)
    if _find_preprocessing(folder) == "vit":
        image = image.model_copy(update={"mean": HALF, "std": HALF})
    else:
        image = image.model_copy(update={"mean": CLIP_MEAN, "std": CLIP_STD})

    # RoBERTa counts positions from the row after that of the padding token.
    padding = text.read_token_id("pad_token_id", 1 if is_roberta else 0, count_words(folder))
    first_position = padding + 1 if is_roberta else 0
    positions = text.read_int("max_position_embeddings", 512, minimum=first_position + 1)
    tower = read_text_tower(
        text,
        read_sizes(text, 768, 12, 12),
        positions,
        1e-12,
        "cls",
        **read_mlp(text, 3072, "gelu"),
        token_types=text.read_int("type_vocab_size", 2),
        first_position=first_position,
        padding=padding,
    )
    model = ModelConfig(image=image, text=tower, embed_dim=settings.read_int("projection_dim", 512), projections="both")
    return Towers(model, positions - first_position)


def _read_vit(vision: Settings) -> ImageTowerConfig:
    sizes = read_sizes(vision, 768, 12, 12)
    vision.check_values(num_channels=3, qkv_bias=True, pooler_act="tanh", pooler_output_size=sizes["width"])
    return Vit(
        name="ViT",
        image_size=vision.read_int("image_size", 224),
        patch_size=vision.read_int("patch_size", 16),
        **sizes,
        variant=ImageVariant(
            **read_mlp(vision, 3072, "gelu"),
            epsilon=vision.read_epsilon("layer_norm_eps", 1e-12),
            patch_bias=True,
            input_norm=False,
            pooling="tanh",
        ),
    )


def _find_preprocessing(folder: Folder) -> str:
    """Return the preprocessing by the class of the image processor; if none is named, by the image tower."""
    path = folder.weights.with_name("preprocessor_config.json")
    new_path = folder.weights.with_name("processor_config.json")
    processor = Settings(path, {})
    if path.is_file():
        processor = Settings.from_file(path)
    elif new_path.is_file():
        processor = Settings.from_file(new_path).open_optional_section("image_processor")
    for key in ("image_processor_type", "feature_extractor_type"):
        name = processor.values.get(key)
        if name is None:
            continue
        for beginning, kind in _PROCESSORS.items():
            if str(name).startswith(beginning):
                return kind
        raise processor.make_error(key, "only image processors of ViT and CLIP are supported")
    vision = folder.settings.open_section("vision_config")
    return _PREPROCESSING[vision.values["model_type"]]


def _find_rules(folder: Folder) -> str:
    """Return the rules by the class of the tokenizer, because some RoBERTas have BERT's; else by the text tower."""
    path = folder.weights.with_name("tokenizer_config.json")
    settings = Settings.from_file(path) if path.is_file() else Settings(path, {})
    tokenizer_class = str(settings.values.get("tokenizer_class"))
    text = folder.settings.open_section("text_config")
    for name, kind, rules in _TOKENIZERS:
        if tokenizer_class.removesuffix("Fast") == name:
            return rules
        if tokenizer_class in _GENERAL_TOKENIZERS and text.values["model_type"] == kind:
            return rules
    raise settings.make_error("tokenizer_class", "only tokenizers of BERT and XLM-R are supported")


def _make_rows(model: ModelConfig, dialect: Dialect, array_names: Collection[str]) -> list[Row]:
    variant = get_image_variant(model.image)
    rows: list[Row] = [
        *make_bert_rows("text_model."),
        ("text.network.pooler.dense", "text_model.pooler.dense", "linear"),
    ]
    if variant is not None and variant.pooling == "tanh":
        return [*rows, *_make_vit_rows()]
    # CLIPVisionModel of transformers 4 has the tower in an attribute; that of transformers 5 is the tower.
    is_nested = f"{_CLIP_TOWER}{_CLIP_TOWER}embeddings.class_embedding" in array_names
    for ours, theirs, form in make_image_rows():
        prefix = _CLIP_TOWER if is_nested and theirs.startswith(_CLIP_TOWER) else ""
        rows.append((ours, f"{prefix}{theirs}", form))
    return rows


def _make_vit_rows() -> list[Row]:
    embeddings, layers = "vision_model.embeddings.", "vision_model.encoder.layer.N."
    return [
        ("log_logit_scale", "logit_scale", "scalar"),
        ("image_projection.weight", "visual_projection.weight", "transposed"),
        ("text_projection.weight", "text_projection.weight", "transposed"),
        ("image.cls_token", f"{embeddings}cls_token", "equal"),
        ("image.pos_embed", f"{embeddings}position_embeddings", "equal"),
        ("image.patch_embed.proj", f"{embeddings}patch_embeddings.projection", "weight_bias"),
        ("image.blocks.N.norm1", f"{layers}layernorm_before", "weight_bias"),
        ("image.blocks.N.norm2", f"{layers}layernorm_after", "weight_bias"),
        ("image.blocks.N.attn.qkv", f"{layers}attention.attention.{{query,key,value}}", "linear"),
        ("image.blocks.N.attn.proj", f"{layers}attention.output.dense", "linear"),
        ("image.blocks.N.mlp.fc1", f"{layers}intermediate.dense", "linear"),
        ("image.blocks.N.mlp.fc2", f"{layers}output.dense", "linear"),
        ("image.norm", "vision_model.layernorm", "weight_bias"),
        ("image.pooler", "vision_model.pooler.dense", "linear"),
    ]


VISION_TEXT_DUAL = Family(
    "VisionTextDualEncoder",
    _configure,
    _make_rows,
    tokenizer=_find_rules,
    preprocessing=_find_preprocessing,
    unused={"*.position_ids": POSITION_IDS},
)
