"""The release of the paper's authors, and what both releases of ERNIE-ViL 2.0 share: names, shapes and settings.

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
from ernie_vil2.io.run_folder import CONFIG, MODEL, TOKENIZER, VOCABULARY
from ernie_vil2.models.dual_encoder import with_sizes
from ernie_vil2.models.weights.files import INDEX_SUFFIX, WeightFormat, detect_format, write_weights
from ernie_vil2.models.weights.format import (
    ERNIE_VIL_TYPE,
    WORD_EMBEDDING,
    Golden,
    ModelFiles,
    ReadOptions,
    StoredModel,
    check_no_dialect,
    find_first_file,
    make_stored_model,
    read_model_type,
)
from ernie_vil2.models.weights.integrity import write_model_integrity
from ernie_vil2.models.weights.name_table import Form, NameTable, Row
from ernie_vil2.models.weights.settings import Settings
from ernie_vil2.towers.transformer import Encoder, PublishedVit, Vit, text_variant

LENGTH = 48  # tokens of a text in the release's configuration
SETTINGS_NAMES = ("ernie_config.json", "ernie_config.base.json")  # the first is also what is written
# The official code fixes the image tower's heads; this key, which it ignores, keeps those of other models.
IMAGE_HEADS = "image_num_attention_heads"
HEAD_WIDTH = 64
TEXT_EPSILON = {"official": 1e-5, "paddlenlp": 1e-12, "ernie_vil2": 1e-5}
"""Of the text tower's LayerNorms; PaddleNLP's ErnieModel sets it so after its configuration has asked for 1e-5."""
Heads = tuple[int | None, int | None]
POSITIONS = "text.network.embeddings.position_embeddings.weight"
_PDPARAMS = ("model_state.pdparams", f"model_state.pdparams{INDEX_SUFFIX}", "model.pdparams")
_SAFETENSORS = (MODEL, f"{MODEL}{INDEX_SUFFIX}")

# Ours, official, PaddleNLP, and the form of PaddleNLP's, see `names`; official arrays have ours.
_ROWS: list[tuple[str, str, str, Form]] = [
    ("log_logit_scale", "contrastive_loss_mm.temperature_b", "temperature", "array"),
    ("image.cls_token", "visual.class_embedding", "vision_model.class_embedding", "token"),
    ("image.pos_embed", "visual.positional_embedding", "vision_model.positional_embedding.weight", "grid"),
    ("image.patch_embed.proj.weight", "visual.patch_embed.proj.weight", "vision_model.conv1.weight", "array"),
    (WORD_EMBEDDING, "text_model.word_emb.weight", "text_model.embeddings.word_embeddings.weight", "array"),
    (POSITIONS, "text_model.pos_emb.weight", "text_model.embeddings.position_embeddings.weight", "array"),
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
    """Return the arrays of a release by our names, bit for bit; what has no counterpart keeps its name."""
    if layout == "ernie_vil2":
        return dict(arrays)
    return dict(_names(arrays, layout, shaped=True).to_ours(arrays, is_complete=False))


def from_ours(arrays: Mapping[str, np.ndarray], layout: WeightFormat) -> dict[str, np.ndarray]:
    """Return arrays of ours by a release's names; raise ValueError if it cannot hold one, such as a projection."""
    try:
        return dict(_names(arrays, layout).to_theirs(arrays, is_complete=False))
    except ValueError as error:
        raise ValueError(
            f"the {layout} format holds a ViT and an ERNIE of one width and nothing more: {error}"
        ) from None


def _names(arrays: Mapping[str, np.ndarray], layout: WeightFormat, shaped: bool = False) -> NameTable:
    """Return the table of names for the layers whose numbers are in those of the arrays, which may be a stranger's.

    Args:
        shaped: whether official arrays may lack axes of size 1, as PaddleNLP's do.
    """
    rows: list[Row] = []
    if layout == "official":
        for ours, official, _, form in _ROWS:
            rows.append((ours, official, form if shaped or form == "layer" else "array"))
        image_names, text_names = {ours: ours for ours in _IMAGE_LAYER}, _TEXT_LAYER
        image, text = "visual.blocks.N.", "text_model.encoder_stack.block.N."
    else:
        rows += [(ours, paddlenlp, form) for ours, _, paddlenlp, form in _ROWS]
        image_names, text_names = _IMAGE_LAYER, {ours: ours for ours in _TEXT_LAYER}
        image, text = "vision_model.transformer.layers.N.", "text_model.encoder.layers.N."
    rows += [(f"image.blocks.N.{ours}", f"{image}{theirs}", "layer") for ours, theirs in image_names.items()]
    rows += [
        (f"text.network.encoder.layers.N.{ours}", f"{text}{theirs}", "layer") for ours, theirs in text_names.items()
    ]

    matches = [re.search(r"\.(\d+)\.", name) for name in arrays]
    numbers = dict.fromkeys(match[1] for match in matches if match)
    return NameTable(rows, {"": list(islice(numbers, MOST_LAYERS))})


def architecture(arrays: Mapping[str, np.ndarray], heads: Heads, layout: WeightFormat) -> ModelConfig:
    """Return the model that arrays belong to, from their shapes, with what a release does around them.

    That is its preprocessing, its tokenizer's rules and the epsilon of its text tower.

    Args:
        arrays: by our names.
        heads: attention heads of the image and of the text tower, which no shape shows; None for either: width / 64.

    Raises:
        ValueError: arrays are missing or of shapes that no such model has, or the heads do not divide a width.
    """
    # [width, 3, patch, patch]
    width, channels, patch_size, _ = _shape(arrays, "image.patch_embed.proj.weight", 4)
    _, tokens, _ = _shape(arrays, "image.pos_embed", 3)
    side = round((tokens - 1) ** 0.5)
    if side * side != tokens - 1 or channels != 3:
        raise ValueError(f"a ViT of {tokens - 1} patches and {channels} channels; a square of 3 channels is expected")
    positions, text_width = _shape(arrays, POSITIONS, 2)
    _shape(arrays, WORD_EMBEDDING, 2)
    for name, narrow in (("image.blocks.0.mlp.fc1", width), ("text.network.encoder.layers.0.linear1", text_width)):
        if _shape(arrays, f"{name}.weight", 2) != (narrow, 4 * narrow):
            raise ValueError(f"{name} is not four times as wide as its tower")
    image_heads, text_heads = heads
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
    """Return the number of layers, of which none may be missing: a name alone must not make a model deep."""
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


def find_arrays(path: Path) -> Path | None:
    """Return the file of the arrays in a folder, or the index of its shards; None if there is none."""
    if path.is_file():
        return path
    has_settings = (path / "config.json").is_file() or (path / CONFIG).is_file()
    return find_first_file(path, (*_PDPARAMS, *(_SAFETENSORS if has_settings else ())))


class Release:
    """A release of ERNIE-ViL 2.0, in which a model is an array file and a few settings.

    Attributes:
        title, layout: name of the release.
        settings: file that describes the text tower, or the model.
        weights: name of the file of the arrays that is written.
    """

    title: str
    layout: WeightFormat
    settings: str
    weights: str
    dialects: Mapping[str, tuple[str, ...]] = {}

    def recognise(self, files: ModelFiles) -> Path | None:
        weights = find_arrays(files.path)
        if weights is None:
            return None
        # Arrays of other people's models have such names, too: CLIP's in transformers, and those of OpenCLIP.
        if weights.suffix != ".pdparams" and read_model_type(weights.parent) not in (None, ERNIE_VIL_TYPE):
            return None
        arrays = files.read(weights)
        try:
            return weights if detect_format(arrays) == self.layout else None
        except ValueError:
            return None

    def read(self, files: ModelFiles, options: ReadOptions) -> StoredModel:
        weights = files.weights
        check_no_dialect(weights, options)
        try:
            ours = to_ours(files.read(weights), self.layout)
        except ValueError as error:
            raise ValueError(f"{weights}: {error}") from None
        config = self.configure(weights, ours, options.heads)
        return make_stored_model(self.layout, ours, config, weights, options.vocabulary)

    def write(self, model: StoredModel, folder: Path, origin: Path | None, golden: Golden) -> list[str]:
        if model.tokens is None:
            raise ValueError("the model has no vocabulary next to it: name its vocabulary file")
        if text_variant(model.config.Model.text) is not None:
            raise ValueError(
                f"the {self.layout} format holds the towers of ERNIE-ViL 2.0, not those of another dual encoder"
            )
        if model.config.Model.text.pooling != "cls":
            raise ValueError(f"the {self.layout} format pools texts by their [CLS] state, this model by their mean")
        arrays = from_ours(model.arrays, self.layout)
        if model.library_tokenizer is not None:
            raise ValueError(f"the {self.layout} format holds the words of a vocab.txt, this model has a {TOKENIZER}")

        write_text(folder / VOCABULARY, "\n".join(self.vocabulary_lines(model.tokens)) + "\n")
        write_weights(folder / self.weights, arrays)
        config = model.config.model_copy(update={"Model": with_sizes(model.config.Model)})
        for name, content in self.settings_files(config, model.vocab_size).items():
            write_text(folder / name, json.dumps(content, ensure_ascii=False, indent=2) + "\n")

        notes = self.changes(model.config)
        written = self.configure(folder / self.weights, model.arrays, None)
        names = sorted(path.name for path in folder.iterdir())
        write_model_integrity(folder, written, names, None if notes else golden)
        return notes

    def configure(self, weights: Path, arrays: Mapping[str, np.ndarray], heads: tuple[int, int] | None) -> Config:
        """Return the configuration of a model from its arrays, by our names, and the files next to them.

        Raises:
            ValueError: a file is missing or damaged, or they do not belong together.
        """
        raise NotImplementedError

    def settings_files(self, config: Config, vocab_size: int) -> dict[str, dict[str, Any]]:
        """Return the JSON files that go with a model of this configuration, by name."""
        raise NotImplementedError

    def vocabulary_lines(self, tokens: list[str]) -> list[str]:
        """Return the lines of the vocabulary file."""
        return tokens

    def changes(self, config: Config) -> list[str]:
        """Return in what a model computes otherwise once it is in this format, which fixes it; a sentence each."""
        model = with_sizes(config.Model)
        image, text = model.image, model.text
        changes = []
        if text.epsilon != TEXT_EPSILON[self.layout]:
            changes.append(
                f"the {self.layout} code computes the text tower's LayerNorms with epsilon "
                f"{TEXT_EPSILON[self.layout]:g}, this model has {text.epsilon:g}: embeddings change slightly"
            )
        if image.preprocessing != self.layout:
            changes.append(
                f"the {self.layout} code prepares images in its own way, this model's is {image.preprocessing}: "
                "pixels change slightly"
            )
        if image.preprocessing == "ernie_vil2":
            changes.append(f"the {self.layout} code drops transparency, under which this model sees {image.background}")
        if text.tokenizer != self.layout:
            changes.append(
                f"the {self.layout} code splits texts by its own rules, this model's are {text.tokenizer}: ids "
                "change for symbols such as © and for special tokens within a text"
            )
        return changes


def architecture_of(weights: Path, arrays: Mapping[str, np.ndarray], heads: Heads, layout: WeightFormat) -> ModelConfig:
    """Return what `architecture` does; its errors name the file of the weights."""
    try:
        return architecture(arrays, heads, layout)
    except ValueError as error:
        raise ValueError(f"{weights}: {error}") from None


def text_sizes(model: ModelConfig, vocab_size: int) -> dict[str, int]:
    """Return the sizes of a text tower by the releases' keys."""
    return {
        "hidden_size": model.text.sizes["width"],
        "max_position_embeddings": model.text.max_positions,
        "num_hidden_layers": model.text.sizes["depth"],
        "vocab_size": vocab_size,
    }


def text_settings(model: ModelConfig, vocab_size: int) -> dict[str, Any]:
    """Return the settings of a text tower by the releases' keys."""
    return {
        **text_sizes(model, vocab_size),
        "attention_probs_dropout_prob": model.text.attention_dropout,
        "hidden_act": "gelu",
        "hidden_dropout_prob": model.text.dropout,
        "initializer_range": 0.02,
        "num_attention_heads": model.text.sizes["heads"],
        "task_type_vocab_size": 3,
    }


def with_dropout(model: ModelConfig, text: Settings) -> ModelConfig:
    """Return the model with the dropout that the settings of its text tower name."""
    shares = {
        "dropout": text.read_probability("hidden_dropout_prob", 0.1),
        "attention_dropout": text.read_probability("attention_probs_dropout_prob", 0.1),
    }
    return model.model_copy(update={"text": model.text.model_copy(update=shares)})


def release_config(model: ModelConfig, longest: int) -> Config:
    """Return the configuration of a model that reads texts of so many tokens, or as many as it has positions."""
    return Config(
        Model=model,
        Views=ViewsConfig(resize=max(model.image.image_size, ViewsConfig().resize)),
        Data=DataConfig(max_length=min(longest, model.text.max_positions)),
    )


class Official(Release):
    """Arrays with the names of the authors' code; the file may have any name."""

    title = layout = "official"
    settings = SETTINGS_NAMES[0]
    weights = "model.pdparams"

    def configure(self, weights: Path, arrays: Mapping[str, np.ndarray], heads: tuple[int, int] | None) -> Config:
        """Return the configuration of a model from its arrays and the settings of its text tower.

        The settings may be missing: then heads are `heads`, or width / 64.
        """
        paths = [path for path in map(weights.with_name, SETTINGS_NAMES) if path.is_file()]
        settings = Settings.from_file(paths[0]) if paths else Settings(weights, {})
        settings.check_values(hidden_act="gelu", has_pooler=True)
        heads_in_file = settings.read_count(IMAGE_HEADS, None), settings.read_count("num_attention_heads", None)
        model = architecture_of(weights, arrays, heads or heads_in_file, self.layout)
        settings.check_sizes(text_sizes(model, len(arrays[WORD_EMBEDDING])), {})
        return release_config(with_dropout(model, settings), LENGTH)

    def vocabulary_lines(self, tokens: list[str]) -> list[str]:
        return [f"{token}\t{number}" for number, token in enumerate(tokens)]

    def settings_files(self, config: Config, vocab_size: int) -> dict[str, dict[str, Any]]:
        model = config.Model
        text = {**text_settings(model, vocab_size), "sent_type_vocab_size": 4, IMAGE_HEADS: model.image.sizes["heads"]}
        return {SETTINGS_NAMES[0]: dict(sorted(text.items()))}

    def changes(self, config: Config) -> list[str]:
        changes = super().changes(config)
        model, longest = with_sizes(config.Model), config.Data.max_length
        image = model.image
        if longest != min(LENGTH, model.text.max_positions):
            changes.append(f"the official configuration cuts texts at {LENGTH} tokens, this model at {longest}")
        if image.image_size % image.sizes["patch_size"]:
            changes.append(
                "the official file knows the size of images by their whole patches, this model's have "
                f"{image.image_size} pixels a side: pixels change slightly"
            )
        if (image.mean, image.std) != (PublishedVit().mean, PublishedVit().std):
            changes.append(
                "the official code normalises images by ImageNet's mean and deviation, this model by "
                f"{image.mean} and {image.std}: embeddings change"
            )
        if image.sizes["heads"] * HEAD_WIDTH != image.sizes["width"]:
            changes.append(
                f"the official code fixes the image tower's attention heads at its width / {HEAD_WIDTH}, this "
                f"model has {image.sizes['heads']} for {image.sizes['width']}: embeddings change"
            )
        return changes


OFFICIAL = Official()
