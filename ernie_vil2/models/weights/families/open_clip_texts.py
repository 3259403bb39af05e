"""Text towers of transformers within folders of OpenCLIP: XLM-R, RoBERTa and BERT, and the encoder of NLLB.

The folder names the tower (`hf_model_name`), the pooling and the projection. Sizes are those of the arrays.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ernie_vil2.config import ModelConfig
from ernie_vil2.models.weights.families.bert import make_bert_rows
from ernie_vil2.models.weights.families.family import Folder
from ernie_vil2.models.weights.name_table import Row
from ernie_vil2.models.weights.settings import Settings
from ernie_vil2.towers.base import Pooling, TextTowerConfig, TextVariant
from ernie_vil2.towers.transformer import Transformer, get_text_variant

_NETWORK = "text.transformer."  # prefix of the arrays of such a tower
HEAD_WIDTH = 64  # of every published XLM-R, RoBERTa and BERT from tiny (128 wide) to large (1024 wide)


class TextKind(NamedTuple):
    """What is known from the name of a model of transformers, and not from the shapes of its weights.

    Attributes:
        title: name for people.
        epsilon: epsilon of the LayerNorms.
        padding: id of the padding token.
        first_position: row of the position embedding that belongs to the first token.
        token_types: rows of the token type embedding, which tell apart a RoBERTa and a BERT.
    """

    title: str
    epsilon: float
    padding: int
    first_position: int
    token_types: int


_ROBERTA = TextKind("RoBERTa", epsilon=1e-5, padding=1, first_position=2, token_types=1)
_BERT = TextKind("BERT", epsilon=1e-12, padding=0, first_position=0, token_types=2)
_POOLING: dict[str, Pooling] = {
    "mean_pooler": "mean",
    "cls_pooler": "cls",
    "cls_last_hidden_state_pooler": "first",
}
NLLBS = ("facebook/nllb-200-distilled-600M", "facebook/nllb-200-distilled-1.3B")
"""The NLLBs (Costa-jussà et al. 2022, arXiv 2207.04672) of OpenCLIP's configurations, 1024 wide, of 16 heads."""
NLLB_WIDTH = 1024
NLLB_POSITIONS = 1024  # `max_position_embeddings` of both
_NLLB_POOLING: dict[str, Pooling] = {**_POOLING, "cls_pooler": "first"}  # it has no pooler of its own


class LibraryText(NamedTuple):
    """Text tower of transformers.

    Attributes:
        tower: its configuration.
        text_length: longest text in tokens.
        has_projection: whether a projection follows the tower.
    """

    tower: TextTowerConfig
    text_length: int
    has_projection: bool


def read_library_text(text: Settings, embed_dim: int, folder: Folder) -> LibraryText:
    """Describe a text tower of transformers by its name and its arrays.

    Args:
        text: settings of the tower.
        embed_dim: width of the joint space.
        folder: the folder.

    Raises:
        ValueError: the kind of the tower is not supported, or name and arrays contradict each other.
    """
    if text.values["hf_model_name"] in NLLBS:
        return _read_nllb(text, embed_dim, folder)
    arrays = folder.arrays
    word_shape = _find_shape(text, arrays, "embeddings.word_embeddings.weight")
    position_shape = _find_shape(text, arrays, "embeddings.position_embeddings.weight")
    hidden_shape = _find_shape(text, arrays, "encoder.layer.0.intermediate.dense.weight")
    type_shape = _find_shape(text, arrays, "embeddings.token_type_embeddings.weight")
    kind = _find_kind(text, type_shape[0])
    width, positions = word_shape[1], position_shape[0]
    text_length = text.read_int("context_length", 77)
    if text_length > positions - kind.first_position:
        raise text.make_error("context_length", f"its weights have positions for {positions - kind.first_position}")
    layers = f"{_NETWORK}encoder.layer."
    blocks = {name.removeprefix(layers).partition(".")[0] for name in arrays if name.startswith(layers)}

    projection = _read_projection(text, width, embed_dim)
    tower = Transformer(
        name="transformer",
        width=width,
        depth=len(blocks),
        heads=_read_heads(text, width),
        max_positions=positions,
        pooling=text.read_choice("hf_pooler_type", "mean", _POOLING),
        # The configuration of the named model, which is not in the folder, has 0.1 for both, as all published ones.
        dropout=0.1,
        attention_dropout=0.1,
        epsilon=kind.epsilon,
        variant=TextVariant(
            norm="after",
            hidden=hidden_shape[0],
            activation="gelu",
            token_types=kind.token_types,
            first_position=kind.first_position,
            mask="padding",
            padding=kind.padding,
            **_describe_head(projection, width, embed_dim),
        ),
    )
    return LibraryText(tower, text_length, projection is not None)


def _read_nllb(text: Settings, embed_dim: int, folder: Folder) -> LibraryText:
    """Describe the encoder of an NLLB, of M2M-100's kind: norms before, sinusoids as positions, no token types."""
    width = _find_shape(text, folder.arrays, "embed_tokens.weight")[1]
    if width not in (NLLB_WIDTH, text.values.get("width")):
        raise text.make_error(
            "hf_model_name", f"it is {NLLB_WIDTH} wide, its weights {width}; give width and heads next to it"
        )
    text_length = text.read_int("context_length", 77)
    if text_length > NLLB_POSITIONS:
        raise text.make_error("context_length", f"it has positions for {NLLB_POSITIONS}")
    layers = f"{_NETWORK}layers."
    blocks = {name.removeprefix(layers).partition(".")[0] for name in folder.arrays if name.startswith(layers)}
    projection, first_position = _read_projection(text, width, embed_dim), 2
    tower = Transformer(
        name="transformer",
        width=width,
        depth=len(blocks),
        heads=_read_heads(text, width),
        max_positions=NLLB_POSITIONS + first_position,
        pooling=text.read_choice("hf_pooler_type", "mean", _NLLB_POOLING),
        # Defaults of M2M-100, as for the other kinds.
        dropout=0.1,
        attention_dropout=0.1,
        epsilon=1e-5,
        variant=TextVariant(
            norm="before",
            hidden=_find_shape(text, folder.arrays, "layers.0.fc1.weight")[0],
            activation="relu",
            positions="sinusoids",
            scaled_words=True,
            first_position=first_position,
            mask="padding",
            padding=1,
            **_describe_head(projection, width, embed_dim),
        ),
    )
    return LibraryText(tower, text_length, projection is not None)


def _read_projection(text: Settings, width: int, embed_dim: int) -> str | None:
    projection = "mlp"
    if "hf_proj_type" in text.values:
        projection = text.values["hf_proj_type"]
    if projection not in ("mlp", "linear", None) or (projection is None and width != embed_dim):
        raise text.make_error(
            "hf_proj_type", f"known are mlp, linear and, where states are {embed_dim} wide, null; they are {width} wide"
        )
    return projection


def _describe_head(projection: str | None, width: int, embed_dim: int) -> dict[str, Any]:
    """Return the fields of a variant for a projection; an MLP is a head with an activation, and a linear projection."""
    if projection != "mlp":
        return {}
    return {"head": (width + embed_dim) // 2, "head_bias": False, "head_activation": "gelu"}


def _find_shape(text: Settings, arrays: Mapping[str, np.ndarray], name: str) -> tuple[int, int]:
    array = arrays.get(f"{_NETWORK}{name}")
    if array is None or array.ndim != 2:
        raise text.make_error(
            "hf_model_name",
            f"only XLM-R, RoBERTa, BERT and NLLB are supported, but the weights hold no matrix {_NETWORK}{name}",
        )
    return array.shape[0], array.shape[1]


def _find_kind(text: Settings, token_types: int) -> TextKind:
    """Return the kind of a model by its name, such as xlm-roberta-base or microsoft/BiomedNLP-BiomedBERT-base.

    Of the five types of models that OpenCLIP takes from transformers, only these two have the arrays of a BERT. A name
    such as chinese-roberta-wwm-ext, which is that of a BERT, contradicts the number of token types.
    """
    name = text.values["hf_model_name"]
    words = name.lower() if isinstance(name, str) else ""
    kind = None
    if "roberta" in words:
        kind = _ROBERTA
    elif "bert" in words:
        kind = _BERT
    if kind is None:
        raise text.make_error(
            "hf_model_name", f"a name with roberta or bert in it is expected, or one of {', '.join(NLLBS)}"
        )
    if token_types != kind.token_types:
        raise text.make_error(
            "hf_model_name", f"a {kind.title} has {kind.token_types} token types, but its weights have {token_types}"
        )
    return kind


def _read_heads(text: Settings, width: int) -> int:
    """Return the number of heads: `heads`, where it stands next to the width of the arrays, else by `HEAD_WIDTH`.

    OpenCLIP ignores both settings here, so that a folder may hold the defaults of its own towers, 512 and 8.
    """
    if text.values.get("width") == width and "heads" in text.values:
        return text.read_int("heads", 8)
    if width % HEAD_WIDTH:
        raise text.make_error("hf_model_name", f"its weights are {width} wide; give width and heads next to it")
    return width // HEAD_WIDTH


def is_library_text(model: ModelConfig) -> bool:
    """Return whether the text tower of a model of OpenCLIP is one of transformers."""
    variant = get_text_variant(model.text)
    return variant is not None and (variant.norm == "after" or variant.positions == "sinusoids")


def make_library_text_rows(model: ModelConfig) -> list[Row]:
    """Return the rows of a text tower of transformers, and of its projection."""
    variant = get_text_variant(model.text)
    is_nllb = variant is not None and variant.positions == "sinusoids"
    rows = _make_nllb_rows() if is_nllb else make_bert_rows(_NETWORK)
    if model.text.pooling == "cls":
        rows.append(("text.network.pooler.dense", f"{_NETWORK}pooler.dense", "linear"))
    if variant is not None and variant.head:
        rows.append(("text.head.weight", "text.proj.0.weight", "transposed"))
        rows.append(("text_projection.weight", "text.proj.2.weight", "transposed"))
    elif model.projections in ("both", "text"):
        rows.append(("text_projection.weight", "text.proj.weight", "transposed"))
    return rows


def _make_nllb_rows() -> list[Row]:
    ours, theirs = "text.network.encoder.layers.N.", f"{_NETWORK}layers.N."
    return [
        ("text.network.embeddings.word_embeddings.weight", f"{_NETWORK}embed_tokens.weight", "equal"),
        (f"{ours}norm1", f"{theirs}self_attn_layer_norm", "weight_bias"),
        (f"{ours}norm2", f"{theirs}final_layer_norm", "weight_bias"),
        (f"{ours}attn.qkv", f"{theirs}self_attn.{{q,k,v}}_proj", "linear"),
        (f"{ours}attn.proj", f"{theirs}self_attn.out_proj", "linear"),
        (f"{ours}mlp.fc1", f"{theirs}fc1", "linear"),
        (f"{ours}mlp.fc2", f"{theirs}fc2", "linear"),
        ("text.network.norm", f"{_NETWORK}layer_norm", "weight_bias"),
    ]
