"""The names, shapes and settings of the two releases of ERNIE-ViL 2.0, and this package's own names.

`official`: the file of the paper's authors. `paddlenlp`: `ErnieViLModel` of PaddleNLP. `ernie_vil2`: `DualEncoder`
with a ViT, an ERNIE and no projection. All hold the same numbers; only PaddleNLP cuts the attention's input
projection into three and leaves out axes of size 1. All store the temperature as log(1 / tau).

Of the JSON files next to the weights, whatever the release's own code would obey is read, or refused by name where our
towers cannot do the same: two models of equal weights may differ in nothing else. Sizes are those of the weights, with
which the files must agree.
"""

import json
import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.config import Config, DataConfig, ModelConfig, ViewsConfig
from ernie_vil2.io.files import write_text
from ernie_vil2.models.weights.files import WeightFormat, detect_format
from ernie_vil2.models.weights.names import Form, Names, Row
from ernie_vil2.models.weights.settings import Settings
from ernie_vil2.towers.text import Encoder
from ernie_vil2.towers.vit import Vit

HEAD_WIDTH = 64
TEXT_EPSILON = {"official": 1e-5, "paddlenlp": 1e-12, "ernie_vil2": 1e-5}
"""Of the text tower's LayerNorms; PaddleNLP's ErnieModel sets it so after its configuration has asked for 1e-5."""
_POSITIONS = "text.network.embeddings.position_embeddings.weight"
WORDS = "text.network.embeddings.word_embeddings.weight"
"""Name of the word embedding, `[rows, width]`; it may have more rows than the vocabulary has tokens."""

OFFICIAL_LENGTH = 48  # tokens of a text in the official release's configuration
_OFFICIAL_NAMES = ("ernie_config.json", "ernie_config.base.json")  # the first is also what is written
# The official code fixes the image tower's heads; this key, which it ignores, keeps those of other models.
_IMAGE_HEADS = "image_num_attention_heads"
_SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
# What our towers compute. The text tower's layer_norm_eps is not in it: PaddleNLP's code sets 1e-12 whatever it says.
_TEXT_FACTS = {"hidden_act": "gelu", "type_vocab_size": 0, "use_task_id": False, "pad_token_id": 0}
_VISION_FACTS = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-6, "num_channels": 3}
_PROCESSOR_FACTS = {
    **dict.fromkeys(("do_center_crop", "do_convert_rgb", "do_normalize", "do_rescale", "do_resize"), True),
    "resample": 3,
    "image_processor_type": "ErnieViLImageProcessor",
}
_TOKENIZER_FACTS = {"do_lower_case": True, "tokenizer_class": "ErnieViLTokenizer"}

# Ours, official, PaddleNLP, and the form of PaddleNLP's, see `names`; official arrays have ours.
_ROWS: list[tuple[str, str, str, Form]] = [
    ("log_logit_scale", "contrastive_loss_mm.temperature_b", "temperature", "array"),
    ("image.cls_token", "visual.class_embedding", "vision_model.class_embedding", "token"),
    ("image.pos_embed", "visual.positional_embedding", "vision_model.positional_embedding.weight", "grid"),
    ("image.patch_embed.proj.weight", "visual.patch_embed.proj.weight", "vision_model.conv1.weight", "array"),
    (WORDS, "text_model.word_emb.weight", "text_model.embeddings.word_embeddings.weight", "array"),
    (_POSITIONS, "text_model.pos_emb.weight", "text_model.embeddings.position_embeddings.weight", "array"),
    ("image.ln_pre", "visual.norm_pre", "vision_model.ln_pre", "layer"),
    ("image.norm", "visual.norm_post", "vision_model.ln_post", "layer"),
    ("text.network.embeddings.layer_norm", "text_model.ln", "text_model.embeddings.layer_norm", "layer"),
    ("text.network.pooler.dense", "text_model.pooler", "text_model.pooler.dense", "layer"),
]
# Of a layer of the image tower: ours, which the official file has too, and PaddleNLP's.
_IMAGE_LAYER = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attn.qkv": "self_attn.{q,k,v}_proj",
    "attn.proj": "self_attn.out_proj",
    "mlp.fc1": "linear1",
    "mlp.fc2": "linear2",
}
# Of a layer of the text tower: ours, which PaddleNLP has too, and official.
_TEXT_LAYER = {
    "self_attn.q_proj": "attn.q",
    "self_attn.k_proj": "attn.k",
    "self_attn.v_proj": "attn.v",
    "self_attn.out_proj": "attn.o",
    "linear1": "ffn.i",
    "linear2": "ffn.o",
    "norm1": "ln1",
    "norm2": "ln2",
}
MOST_LAYERS = 1024


def to_ours(arrays: Mapping[str, np.ndarray], layout: WeightFormat) -> dict[str, np.ndarray]:
    """The arrays of a release by our names, bit for bit; what has no counterpart keeps its name."""
    if layout == "ernie_vil2":
        return dict(arrays)
    return dict(_names(arrays, layout, shaped=True).to_ours(arrays, whole=False))


def from_ours(arrays: Mapping[str, np.ndarray], layout: WeightFormat) -> dict[str, np.ndarray]:
    """The inverse of `to_ours`; ValueError if the release cannot hold an array, as of a projection."""
    if layout == "ernie_vil2":
        return dict(arrays)
    try:
        return dict(_names(arrays, layout).to_theirs(arrays, whole=False))
    except ValueError as error:
        raise ValueError(
            f"the {layout} format holds a ViT and an ERNIE of one width and nothing more: {error}"
        ) from None


def _names(arrays: Mapping[str, np.ndarray], layout: WeightFormat, shaped: bool = False) -> Names:
    """The table of names for the layers whose numbers are in those of the arrays, which may be a stranger's; `shaped`:
    official arrays may lack axes of size 1, as PaddleNLP's do."""
    official = layout == "official"
    rows: list[Row] = [
        (ours, one, form if shaped or form == "layer" else "array") if official else (ours, other, form)
        for ours, one, other, form in _ROWS
    ]
    image, text = "vision_model.transformer.layers.N.", "text_model.encoder.layers.N."
    if official:
        image, text = "visual.blocks.N.", "text_model.encoder_stack.block.N."
    rows += [
        (f"image.blocks.N.{ours}", image + (ours if official else other), "layer")
        for ours, other in _IMAGE_LAYER.items()
    ]
    rows += [
        (f"text.network.encoder.layers.N.{ours}", text + (one if official else ours), "layer")
        for ours, one in _TEXT_LAYER.items()
    ]
    numbers = dict.fromkeys(found[1] for name in arrays if (found := re.search(r"\.(\d+)\.", name)))
    return Names(rows, {"": list(islice(numbers, MOST_LAYERS))})


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
        image=Vit(
            name="ViT",
            image_size=side * patch_size,
            patch_size=patch_size,
            width=width,
            depth=_depth(arrays, "image.blocks."),
            heads=_heads(image_heads, width, "image"),
            preprocessing=layout,
        ),
        text=Encoder(
            name="ernie",
            width=text_width,
            depth=_depth(arrays, "text.network.encoder.layers."),
            heads=_heads(text_heads, text_width, "text"),
            max_positions=positions,
            epsilon=TEXT_EPSILON[layout],
            tokenizer="paddlenlp" if layout == "paddlenlp" else "official",
        ),
    )


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


def read_official(weights: Path, arrays: Mapping[str, np.ndarray], heads: tuple[int, int] | None) -> Config:
    """The configuration of an official model, from its arrays by our names and the JSON file of its text tower, which
    may be missing: then heads are `heads`, or width / 64. ValueError if they do not belong together."""
    found = [path for path in map(weights.with_name, _OFFICIAL_NAMES) if path.is_file()]
    settings = Settings.read(found[0]) if found else Settings(weights, {})
    settings.check_facts(hidden_act="gelu", has_pooler=True)
    heads_in_file = settings.count(_IMAGE_HEADS, None), settings.count("num_attention_heads", None)
    model = _architecture(weights, arrays, heads or heads_in_file, "official")
    settings.check_sizes(_text_sizes(model, len(arrays[WORDS])), {})
    return _config(_with_dropout(model, settings), OFFICIAL_LENGTH)


def read_paddlenlp(weights: Path, arrays: Mapping[str, np.ndarray], heads: tuple[int, int] | None) -> Config:
    """The configuration of a PaddleNLP folder, from its arrays by our names and its JSON files; ValueError if one is
    missing, or they do not belong together."""
    paths = [weights.with_name(f"{name}config.json") for name in ("", "preprocessor_", "tokenizer_")]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise ValueError(f"{weights.parent}: {', '.join(missing)} missing next to PaddleNLP's weights; without that it "
                         "is another model: copy the whole folder")  # fmt: skip
    whole, processor, tokenizer = map(Settings.read, paths)
    text, vision = whole.within("text_config"), whole.within("vision_config")
    heads_in_file = vision.count("num_attention_heads", 12), text.count("num_attention_heads", 12)
    model = _architecture(weights, arrays, heads or heads_in_file, "paddlenlp")
    text.check_facts(**_TEXT_FACTS)
    vision.check_facts(**_VISION_FACTS)
    defaults = {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072}
    text_sizes = _text_sizes(model, len(arrays[WORDS])) | {"intermediate_size": 4 * model.text.sizes["width"]}
    text.check_sizes(text_sizes, defaults | {"vocab_size": 40_000, "max_position_embeddings": 2048})
    model = _with_image_size(model, vision.count("image_size", 224))
    vision.check_sizes(_vision_sizes(model), defaults | {"image_size": 224, "patch_size": 16})
    tokenizer.check_facts(**_TOKENIZER_FACTS)
    longest = tokenizer.count("model_max_length", model.text.max_positions, least=3)
    return _config(_with_dropout(_with_preprocessing(model, processor), text), longest)


def official_files(config: Config, vocab_size: int) -> dict[str, dict[str, Any]]:
    """The JSON files that go with a model of this configuration in the official format, by name."""
    model = config.Model
    text = {**_text_settings(model, vocab_size), "sent_type_vocab_size": 4, _IMAGE_HEADS: model.image.sizes["heads"]}
    return {_OFFICIAL_NAMES[0]: dict(sorted(text.items()))}


def paddlenlp_files(config: Config, vocab_size: int) -> dict[str, dict[str, Any]]:
    """The JSON files that go with a model of this configuration in PaddleNLP's format, by name."""
    model, size = config.Model, config.Model.image.image_size
    text = {
        **_text_settings(model, vocab_size),
        **_TEXT_FACTS,
        "intermediate_size": 4 * model.text.sizes["width"],
        "layer_norm_eps": 1e-12,
        "model_type": "ernie_vil_text_model",
    }
    vision = {
        **_vision_sizes(model),
        **_VISION_FACTS,
        "model_type": "ernie_vil_vision_model",
        "num_attention_heads": model.image.sizes["heads"],
    }
    return {
        "config.json": {
            "architectures": ["ErnieViLModel"],
            "model_type": "ernie_vil",
            "text_config": text,
            "vision_config": vision,
        },
        "preprocessor_config.json": {
            **_PROCESSOR_FACTS,
            "crop_size": {"height": size, "width": size},
            "image_mean": model.image.mean,
            "image_std": model.image.std,
            "rescale_factor": 1 / 255,
            "size": {"shortest_edge": size},
        },
        "tokenizer_config.json": {**_TOKENIZER_FACTS, "model_max_length": config.Data.max_length, **_SPECIAL_TOKENS},
        "special_tokens_map.json": _SPECIAL_TOKENS,
    }


def write_files(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes JSON files by their name."""
    for name, content in files.items():
        write_text(folder / name, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def _architecture(
    weights: Path, arrays: Mapping[str, np.ndarray], heads: tuple[int | None, int | None], layout: WeightFormat
) -> ModelConfig:
    try:
        return architecture(arrays, heads, layout)
    except ValueError as error:
        raise ValueError(f"{weights}: {error}") from None


def _text_sizes(model: ModelConfig, vocab_size: int) -> dict[str, int]:
    return {
        "hidden_size": model.text.sizes["width"],
        "max_position_embeddings": model.text.max_positions,
        "num_hidden_layers": model.text.sizes["depth"],
        "vocab_size": vocab_size,
    }


def _text_settings(model: ModelConfig, vocab_size: int) -> dict[str, Any]:
    return {
        **_text_sizes(model, vocab_size),
        "attention_probs_dropout_prob": model.text.attention_dropout,
        "hidden_act": "gelu",
        "hidden_dropout_prob": model.text.dropout,
        "initializer_range": 0.02,
        "num_attention_heads": model.text.sizes["heads"],
        "task_type_vocab_size": 3,
    }


def _vision_sizes(model: ModelConfig) -> dict[str, int]:
    sizes = model.image.sizes
    return {
        "hidden_size": sizes["width"],
        "image_size": model.image.image_size,
        "intermediate_size": 4 * sizes["width"],
        "num_hidden_layers": sizes["depth"],
        "patch_size": sizes["patch_size"],
    }


def _with_image_size(model: ModelConfig, size: int) -> ModelConfig:
    """Return the model for images of that size, if they have as many whole patches as its weights say."""
    patch = model.image.sizes["patch_size"]
    if size // patch != model.image.image_size // patch:
        return model
    return model.model_copy(update={"image": model.image.model_copy(update={"image_size": size})})


def _with_dropout(model: ModelConfig, text: Settings) -> ModelConfig:
    shares = {
        "dropout": text.share("hidden_dropout_prob", 0.1),
        "attention_dropout": text.share("attention_probs_dropout_prob", 0.1),
    }
    return model.model_copy(update={"text": model.text.model_copy(update=shares)})


def _with_preprocessing(model: ModelConfig, processor: Settings) -> ModelConfig:
    """The model with the mean and deviation of PaddleNLP's image processor."""
    processor.check_facts(**_PROCESSOR_FACTS)
    side, image = model.image.image_size, model.image
    normalisation = processor.normalisation(image.mean, image.std)
    for key, shapes in {
        "size": (side, {"shortest_edge": side}), "crop_size": (side, {"height": side, "width": side})
    }.items():  # fmt: skip
        if processor.values.get(key, 224) not in shapes:
            raise processor.refusal(key, f"the model takes {side} pixels")
    return model.model_copy(update={"image": image.model_copy(update=normalisation)})


def _config(model: ModelConfig, longest: int) -> Config:
    return Config(
        Model=model,
        Views=ViewsConfig(resize=max(model.image.image_size, ViewsConfig().resize)),
        Data=DataConfig(max_length=min(longest, model.text.max_positions)),
    )
