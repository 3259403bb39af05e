"""FG-CLIP 2 (Xie et al. 2025, arXiv 2510.10921): SigLIP 2 NaFlex with three ways of reading a text.

Its folders carry code, which is read by nobody here. The dialect `text` is how texts are read: `short` as SigLIP 2 (64
tokens), `box` the same with the head for captions of regions, `long` (196 tokens) with positions and a head of their
own. The three share all else, and a model here has one of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ernie_vil2.config import ModelConfig
from ernie_vil2.models.weights.families.clip import POSITION_IDS, TEXT_ROWS
from ernie_vil2.models.weights.families.family import Family, Folder
from ernie_vil2.models.weights.families.siglip import configure, image_rows
from ernie_vil2.models.weights.names import SPLICE, Row

_HEADS = {"short": "text_model.head", "box": "boxtext_head", "long": "longtext_head"}
_EMBEDDINGS = "text_model.embeddings.position_embedding"


def _configure(folder: Folder) -> tuple[ModelConfig, int]:
    model, short = configure(folder)
    text = folder.settings.part("text_config")
    kept, longest = text.count("keep_len", SPLICE), text.count("longtext_len", 196)
    if kept != SPLICE:
        raise text.refusal("keep_len", f"only models that keep {SPLICE} positions are read")
    if folder.dialect["text"] != "long":
        return model, short
    return model.model_copy(update={"text": model.text.model_copy(update={"max_positions": longest})}), longest


def _rows(model: ModelConfig, dialect: Mapping[str, str], has: Collection[str]) -> list[Row]:
    positions = "text.network.embeddings.position_embeddings.weight"
    long: list[Row] = [(positions, f"{_EMBEDDINGS}_{{ori,res}}.weight", "spliced")]
    return [
        *image_rows("linear"),
        *(row for row in TEXT_ROWS if dialect["text"] != "long" or row[0] != positions),
        *(long if dialect["text"] == "long" else ()),
        ("text.head", _HEADS[dialect["text"]], "linear"),
    ]


FGCLIP_2 = Family(
    "FG-CLIP 2",
    _configure,
    _rows,
    tokenizer="siglip2",
    preprocessing="fgclip2",
    unused={
        "*.position_ids": POSITION_IDS,
        "dense_feature_head.*": "it makes features of single patches, which a dual encoder does not compare",
        "text_model.head.*": "of the dialect text=short",
        "boxtext_head.*": "of the dialect text=box",
        "longtext_head.*": "of the dialect text=long",
        f"{_EMBEDDINGS}.weight": "positions of the dialects text=short and box",
        f"{_EMBEDDINGS}_*": "positions of the dialect text=long",
    },
    dialects={"text": ("short", "box", "long")},
)
