"""A model without the rows of its word embedding that some texts never use."""

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ernie_vil2.data.tokenizer_files import LibraryTokenizer
from ernie_vil2.data.trimming import trimmed
from ernie_vil2.models.weights.format import WORDS, StoredModel
from ernie_vil2.towers.transformer import text_variant


def named_ids(model: StoredModel) -> set[int]:
    """The ids that a model's configuration names, which must be kept."""
    variant = text_variant(model.config.Model.text)
    named = [] if variant is None else [variant.padding, variant.end]
    return {number for number in named if number is not None}


def trim(model: StoredModel, kept: Sequence[int], source: str | os.PathLike | None = None) -> StoredModel:
    """The model with the rows `kept` of its vocabulary, ascending; all else is unchanged.

    Embeddings of texts whose ids are all among `kept` are the same to the last bit. `source`, where the model is from,
    is what `hand_back.origin_of` finds if it is the folder of another family.
    """
    config = model.config
    tokenizer = trimmed(model.tokenizer(config.Data.max_length), list(kept))
    positions = {number: position for position, number in enumerate(kept)}
    text = config.Model.text
    variant = text_variant(text)
    if variant is not None:
        ids = {"padding": positions[variant.padding], "end": positions.get(variant.end)}  # type: ignore[arg-type]
        text = text.model_copy(update={"variant": variant.model_copy(update=ids)})
    text = text.model_copy(update={"vocabulary": None})
    weights = config.Model.weights or (str(source) if source and model.family else None)
    arrays = dict(model.arrays)
    arrays[WORDS] = np.ascontiguousarray(arrays[WORDS][list(kept)])
    return replace(
        model,
        layout="ernie_vil2",
        arrays=arrays,
        config=config.model_copy(update={"Model": config.Model.model_copy(update={"text": text, "weights": weights})}),
        tokens=tokenizer.tokens,
        library=tokenizer if isinstance(tokenizer, LibraryTokenizer) else None,
        vocabulary=None,
        family=None,
    )
