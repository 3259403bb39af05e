"""Release of the paper's authors, and what both releases of ERNIE-ViL 2.0 share: names, shapes and settings.

`official` is the file of the paper's authors, `paddlenlp` the `ErnieViLModel` of PaddleNLP, and `ernie_vil2` our
`DualEncoder` with a ViT, an ERNIE and no projection. All three hold the same numbers, with the temperature as
log(1 / tau). Only PaddleNLP splits the input projection of the attention in three, and leaves out axes of size 1.

From the JSON files next to the weights, every setting is read that the release's own code would obey. If our towers
cannot do the same, the setting is refused by its name, so that no model is loaded with other outputs than its release
has. Sizes come from the weights, and the files must agree with them.
"""

import json
import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from ernie_vil2.config import Config, DataConfig, ModelConfig, ViewsConfig
from ernie_vil2.config.load import describe_problems
from ernie_vil2.io.files import write_text
from ernie_vil2.io.run_folder import CONFIG, MODEL, TOKENIZER, VOCABULARY
from ernie_vil2.models.dual_encoder import with_sizes
from ernie_vil2.models.weights.files import INDEX_SUFFIX, WeightFormat, detect_format, write_weights
from ernie_vil2.models.weights.format import (
    ERNIE_VIL_TYPE,
    WORD_EMBEDDING,
    GoldenEmbeddings,
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
from ernie_vil2.models.weights.torch_files import TORCH_SUFFIXES
from ernie_vil2.towers.base import ImageVariant
from ernie_vil2.towers.transformer import Encoder, PublishedVit, Vit, get_image_variant, get_text_variant

TEXT_LENGTH = 48  # tokens of a text in the authors' configuration
SETTINGS_FILES = ("ernie_config.json", "ernie_config.base.json")  # names that are read; the first one is written
# Our own key for the heads of the image tower. The authors' code has none: it ignores the key and uses width / 64.
IMAGE_HEADS_KEY = "image_num_attention_heads"
HEAD_WIDTH = 64  # width of an attention head where no file says how many heads there are
# Epsilon of the text tower's LayerNorms. PaddleNLP's ErnieModel sets 1e-12 although its configuration says 1e-5.
TEXT_EPSILONS = {"official": 1e-5, "paddlenlp": 1e-12, "ernie_vil2": 1e-5}
Heads = tuple[int | None, int | None]  # attention heads of the image and of the text tower; None: width / 64
POSITION_EMBEDDING = "text.network.embeddings.position_embeddings.weight"
# In order of preference, if a folder has several.
_PDPARAMS_FILES = ("model_state.pdparams", f"model_state.pdparams{INDEX_SUFFIX}", "model.pdparams")
_SAFETENSORS_FILES = (MODEL, f"{MODEL}{INDEX_SUFFIX}")

# Our name, the official name, PaddleNLP's name, and the form of PaddleNLP's array (see `name_table`). Official arrays
# have our form.
_ROWS: list[tuple[str, str, str, Form]] = [
    ("log_logit_scale", "contrastive_loss_mm.temperature_b", "temperature", "equal"),
    ("image.cls_token", "visual.class_embedding", "vision_model.class_embedding", "token"),
    ("image.pos_embed", "visual.positional_embedding", "vision_model.positional_embedding.weight", "grid"),
    ("image.patch_embed.proj.weight", "visual.patch_embed.proj.weight", "vision_model.conv1.weight", "equal"),
    (WORD_EMBEDDING, "text_model.word_emb.weight", "text_model.embeddings.word_embeddings.weight", "equal"),
    (POSITION_EMBEDDING, "text_model.pos_emb.weight", "text_model.embeddings.position_embeddings.weight", "equal"),
    ("image.ln_pre", "visual.norm_pre", "vision_model.ln_pre", "weight_bias"),
    ("image.norm", "visual.norm_post", "vision_model.ln_post", "weight_bias"),
    ("text.network.embeddings.layer_norm", "text_model.ln", "text_model.embeddings.layer_norm", "weight_bias"),
    ("text.network.pooler.dense", "text_model.pooler", "text_model.pooler.dense", "weight_bias"),
]
# Layers in a block of the image tower: PaddleNLP's name by ours; the official names are ours.
_IMAGE_LAYER = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attn.qkv": "self_attn.{q,k,v}_proj",
    "attn.proj": "self_attn.out_proj",
    "mlp.fc1": "linear1",
    "mlp.fc2": "linear2",
}
# Layers in a block of the text tower: the official name by ours; PaddleNLP's names are ours.
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
MAX_LAYERS = 1024  # bounds the table of names, because block numbers come from the names in a file


def to_ours(arrays: Mapping[str, np.ndarray], layout: WeightFormat) -> dict[str, np.ndarray]:
    """Return the arrays of a release by our names, bit for bit; arrays without a counterpart keep their names."""
    if layout == "ernie_vil2":
        return dict(arrays)
    table = _make_name_table(arrays, layout, may_lack_axes=True)
    return dict(table.to_ours(arrays, is_complete=False))


def from_ours(arrays: Mapping[str, np.ndarray], layout: WeightFormat) -> dict[str, np.ndarray]:
    """Return our arrays by the names of a release.

    Raises:
        ValueError: the release has no place for an array, such as a projection.
    """
    try:
        return dict(_make_name_table(arrays, layout).to_theirs(arrays, is_complete=False))
    except ValueError as error:
        raise ValueError(
            f"the {layout} format holds a ViT and an ERNIE of one width and nothing more: {error}"
        ) from None


def _make_name_table(arrays: Mapping[str, np.ndarray], layout: WeightFormat, may_lack_axes: bool = False) -> NameTable:
    """Return the table of names for the blocks that the arrays have.

    Args:
        arrays: arrays by our names or by those of the release.
        layout: name of the release.
        may_lack_axes: whether official arrays may be without axes of size 1, as PaddleNLP's are.
    """
    rows: list[Row] = []
    if layout == "official":
        for ours, official, _, paddlenlp_form in _ROWS:
            uses_paddlenlp_form = may_lack_axes or paddlenlp_form == "weight_bias"
            rows.append((ours, official, paddlenlp_form if uses_paddlenlp_form else "equal"))
        image_names, text_names = {ours: ours for ours in _IMAGE_LAYER}, _TEXT_LAYER
        image_block, text_block = "visual.blocks.N.", "text_model.encoder_stack.block.N."
    else:
        for ours, _, paddlenlp, form in _ROWS:
            rows.append((ours, paddlenlp, form))
        image_names, text_names = _IMAGE_LAYER, {ours: ours for ours in _TEXT_LAYER}
        image_block, text_block = "vision_model.transformer.layers.N.", "text_model.encoder.layers.N."
    for ours, theirs in image_names.items():
        rows.append((f"image.blocks.N.{ours}", f"{image_block}{theirs}", "weight_bias"))
    for ours, theirs in text_names.items():
        rows.append((f"text.network.encoder.layers.N.{ours}", f"{text_block}{theirs}", "weight_bias"))

    # Block numbers are taken from the names: the depth of the towers is not known yet.
    numbers: dict[str, None] = {}
    for name in arrays:
        match = re.search(r"\.(\d+)\.", name)
        if match:
            numbers[match[1]] = None
    return NameTable(rows, {"": list(islice(numbers, MAX_LAYERS))})


def infer_architecture(arrays: Mapping[str, np.ndarray], heads: Heads, layout: WeightFormat) -> ModelConfig:
    """Return the towers that arrays belong to, inferred from their shapes.

    Preprocessing, rules of the tokenizer and epsilon of the text tower are those of the release.

    Args:
        arrays: arrays by our names.
        heads: attention heads of the image and of the text tower, which no shape shows; None for width / 64.
        layout: name of the release.

    Raises:
        ValueError: arrays are missing or have shapes that no such model has, or the heads do not divide a width.
    """
    # The kernel is [width, 3, patch, patch], the position embedding [1, tokens, width].
    width, channels, patch_size, _ = _get_shape(arrays, "image.patch_embed.proj.weight", 4)
    _, tokens, _ = _get_shape(arrays, "image.pos_embed", 3)
    side = round((tokens - 1) ** 0.5)  # one token is the class token
    if side * side != tokens - 1 or channels != 3:
        raise ValueError(f"a ViT of {tokens - 1} patches and {channels} channels; a square of 3 channels is expected")
    positions, text_width = _get_shape(arrays, POSITION_EMBEDDING, 2)
    _get_shape(arrays, WORD_EMBEDDING, 2)
    mlps = (("image.blocks.0.mlp.fc1", width), ("text.network.encoder.layers.0.linear1", text_width))
    for layer, tower_width in mlps:
        if _get_shape(arrays, f"{layer}.weight", 2) != (tower_width, 4 * tower_width):
            raise ValueError(f"{layer} is not four times as wide as its tower")
    image_heads, text_heads = heads
    return ModelConfig(
        image=Vit(
            name="ViT",
            image_size=side * patch_size,
            patch_size=patch_size,
            width=width,
            depth=_count_layers(arrays, "image.blocks."),
            heads=_choose_heads(image_heads, width, "image"),
            preprocessing=layout,
        ),
        text=Encoder(
            name="ernie",
            width=text_width,
            depth=_count_layers(arrays, "text.network.encoder.layers."),
            heads=_choose_heads(text_heads, text_width, "text"),
            max_positions=positions,
            epsilon=TEXT_EPSILONS[layout],
            tokenizer="paddlenlp" if layout == "paddlenlp" else "official",
        ),
    )


def _get_shape(arrays: Mapping[str, np.ndarray], name: str, num_axes: int) -> tuple[int, ...]:
    if name not in arrays:
        raise ValueError(
            f"{name} is missing: the weights are not whole, or those of another dual encoder, whose settings "
            "(config.json, open_clip_config.json) must lie next to them"
        )
    shape = arrays[name].shape
    if len(shape) != num_axes or 0 in shape:
        raise ValueError(f"{name} has the shape {list(shape)}; {num_axes} axes are expected, none of them empty")
    return shape


def _count_layers(arrays: Mapping[str, np.ndarray], prefix: str) -> int:
    """Return the number of layers; raise ValueError if their numbers have a gap."""
    layers = {name.removeprefix(prefix).partition(".")[0] for name in arrays if name.startswith(prefix)}
    missing = {str(layer) for layer in range(len(layers))} - layers
    if missing:
        raise ValueError(f"the weights are not whole: {prefix}{min(missing, key=int)} is missing")
    return len(layers)


def _choose_heads(heads: int | None, width: int, kind: str) -> int:
    if heads is None and width % HEAD_WIDTH:
        raise ValueError(f"the {kind} tower's width, {width}, is not a multiple of 64: give the number of its heads")
    if heads is not None and (heads < 1 or width % heads):
        raise ValueError(f"{heads} attention heads do not divide the {kind} tower's width, {width}")
    return heads or width // HEAD_WIDTH


def find_arrays(path: Path) -> Path | None:
    """Return the file of the arrays in a folder, or the index of its shards; None if there is none."""
    if path.is_file():
        return path
    names = list(_PDPARAMS_FILES)
    # In a folder without settings only .pdparams files count, because a .safetensors file may be anything.
    if (path / "config.json").is_file() or (path / CONFIG).is_file():
        names += _SAFETENSORS_FILES
    return find_first_file(path, names)


class Release:
    """Release of ERNIE-ViL 2.0: a file of arrays and a few settings.

    Attributes:
        title: name of the release; a `Format` may differ in title and layout, a release does not.
        layout: the same name.
        settings_file: name of the file that describes the text tower, or the model.
        weights: name of the weight file that `write` makes.
        dialects: none.
    """

    title: str
    layout: WeightFormat
    settings_file: str
    weights: str
    dialects: Mapping[str, tuple[str, ...]] = {}

    def recognise(self, files: ModelFiles) -> Path | None:
        weights = find_arrays(files.path)
        if weights is None or weights.suffix in TORCH_SUFFIXES:
            return None
        # CLIP in transformers and models of OpenCLIP have arrays with such names, too.
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
            arrays = to_ours(files.read(weights), self.layout)
        except ValueError as error:
            raise ValueError(f"{weights}: {error}") from None
        try:
            config = self.configure(weights, arrays, options.heads)
        except ValidationError as error:
            raise ValueError(
                str(describe_problems(error, f"{weights} has sizes of a model that is not built"))
            ) from None
        return make_stored_model(self.layout, arrays, config, weights, options.vocabulary)

    def write(self, model: StoredModel, folder: Path, origin: Path | None, golden: GoldenEmbeddings) -> list[str]:
        # Refuse what the release cannot hold. A variant of a tower may have the arrays of the released one, and compute
        # something else with them.
        if model.tokens is None:
            raise ValueError("the model has no vocabulary next to it: name its vocabulary file")
        towers = model.config.Model
        image_variant, text_variant = get_image_variant(towers.image), get_text_variant(towers.text)
        if text_variant is not None or image_variant not in (None, ImageVariant()):
            raise ValueError(
                f"the {self.layout} format holds the towers of ERNIE-ViL 2.0, not those of another dual encoder"
            )
        if towers.text.pooling != "cls":
            raise ValueError(f"the {self.layout} format pools texts by their [CLS] state, this model by their mean")
        arrays = from_ours(model.arrays, self.layout)
        if model.library_tokenizer is not None:
            raise ValueError(f"the {self.layout} format holds the words of a vocab.txt, this model has a {TOKENIZER}")

        write_text(folder / VOCABULARY, "\n".join(self.make_vocabulary_lines(model.tokens)) + "\n")
        write_weights(folder / self.weights, arrays)
        config = model.config.model_copy(update={"Model": with_sizes(model.config.Model)})
        for name, content in self.make_settings(config, model.vocab_size).items():
            write_text(folder / name, json.dumps(content, ensure_ascii=False, indent=2) + "\n")

        # The golden embeddings are those of the model here; they are left out if the release's code computes others.
        notes = self.find_changes(model.config)
        written_config = self.configure(folder / self.weights, model.arrays, None)
        names = sorted(path.name for path in folder.iterdir())
        write_model_integrity(folder, written_config, names, None if notes else golden)
        return notes

    def configure(self, weights: Path, arrays: Mapping[str, np.ndarray], heads: tuple[int, int] | None) -> Config:
        """Return the configuration of a model.

        Args:
            weights: file of the arrays, next to the settings.
            arrays: the arrays by our names.
            heads: attention heads of the image and of the text tower; None: as the settings say.

        Raises:
            ValueError: a file is missing or damaged, or they do not belong together.
        """
        raise NotImplementedError

    def make_settings(self, config: Config, vocab_size: int) -> dict[str, dict[str, Any]]:
        """Return the content of the JSON files for a model, by name."""
        raise NotImplementedError

    def make_vocabulary_lines(self, tokens: list[str]) -> list[str]:
        """Return the lines of the vocabulary file."""
        return tokens

    def find_changes(self, config: Config) -> list[str]:
        """Return a sentence on each setting of a model that the release's code replaces by a fixed one."""
        model = with_sizes(config.Model)
        image, text = model.image, model.text
        changes = []
        if text.epsilon != TEXT_EPSILONS[self.layout]:
            changes.append(
                f"the {self.layout} code computes the text tower's LayerNorms with epsilon "
                f"{TEXT_EPSILONS[self.layout]:g}, this model has {text.epsilon:g}: embeddings change slightly"
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

    def infer_architecture(self, weights: Path, arrays: Mapping[str, np.ndarray], heads: Heads) -> ModelConfig:
        """Return the towers that arrays belong to; errors name the file of the weights."""
        try:
            return infer_architecture(arrays, heads, self.layout)
        except ValidationError:  # a ValueError, too; `read` describes it
            raise
        except ValueError as error:
            raise ValueError(f"{weights}: {error}") from None


def describe_text_sizes(model: ModelConfig, vocab_size: int) -> dict[str, int]:
    """Return the sizes of a text tower by the keys of the releases."""
    return {
        "hidden_size": model.text.sizes["width"],
        "max_position_embeddings": model.text.max_positions,
        "num_hidden_layers": model.text.sizes["depth"],
        "vocab_size": vocab_size,
    }


def describe_text_tower(model: ModelConfig, vocab_size: int) -> dict[str, Any]:
    """Return all settings of a text tower by the keys of the releases."""
    return {
        **describe_text_sizes(model, vocab_size),
        "attention_probs_dropout_prob": model.text.attention_dropout,
        "hidden_act": "gelu",
        "hidden_dropout_prob": model.text.dropout,
        "initializer_range": 0.02,  # as in the released files; only training from scratch would use it
        "num_attention_heads": model.text.sizes["heads"],
        "task_type_vocab_size": 3,  # as in the released files; the towers have no task embedding
    }


def with_dropout(model: ModelConfig, text: Settings) -> ModelConfig:
    """Return the model with the dropout that the settings of its text tower name."""
    rates = {
        "dropout": text.read_probability("hidden_dropout_prob", 0.1),
        "attention_dropout": text.read_probability("attention_probs_dropout_prob", 0.1),
    }
    return model.model_copy(update={"text": model.text.model_copy(update=rates)})


def make_config(model: ModelConfig, text_length: int) -> Config:
    """Return the configuration of a model that cuts texts at `text_length` tokens, or at its number of positions."""
    return Config(
        Model=model,
        Views=ViewsConfig(resize=max(model.image.image_size, ViewsConfig().resize)),
        Data=DataConfig(max_length=min(text_length, model.text.max_positions)),
    )


class Official(Release):
    """Arrays with the names of the authors' code; the file may have any name."""

    title = layout = "official"
    settings_file = SETTINGS_FILES[0]
    weights = "model.pdparams"

    def configure(self, weights: Path, arrays: Mapping[str, np.ndarray], heads: tuple[int, int] | None) -> Config:
        """Return the configuration of a model from its arrays and the settings of its text tower.

        The settings may be missing: the number of heads is then `heads`, or width / 64.
        """
        paths = [path for path in map(weights.with_name, SETTINGS_FILES) if path.is_file()]
        settings = Settings.from_file(paths[0]) if paths else Settings(weights, {})
        settings.check_values(hidden_act="gelu", has_pooler=True)
        stored_heads = settings.read_int(IMAGE_HEADS_KEY, None), settings.read_int("num_attention_heads", None)
        model = self.infer_architecture(weights, arrays, heads or stored_heads)
        settings.check_sizes(describe_text_sizes(model, len(arrays[WORD_EMBEDDING])))
        return make_config(with_dropout(model, settings), TEXT_LENGTH)

    def make_vocabulary_lines(self, tokens: list[str]) -> list[str]:
        return [f"{token}\t{token_id}" for token_id, token in enumerate(tokens)]

    def make_settings(self, config: Config, vocab_size: int) -> dict[str, dict[str, Any]]:
        settings = describe_text_tower(config.Model, vocab_size)
        settings["sent_type_vocab_size"] = 4  # as in the released file; our tower has no such embedding
        settings[IMAGE_HEADS_KEY] = config.Model.image.sizes["heads"]
        return {SETTINGS_FILES[0]: dict(sorted(settings.items()))}

    def find_changes(self, config: Config) -> list[str]:
        changes = super().find_changes(config)
        model, text_length = with_sizes(config.Model), config.Data.max_length
        image = model.image
        if text_length != min(TEXT_LENGTH, model.text.max_positions):
            changes.append(
                f"the official configuration cuts texts at {TEXT_LENGTH} tokens, this model at {text_length}"
            )
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
