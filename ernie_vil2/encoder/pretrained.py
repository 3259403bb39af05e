"""The calls that people know from PaddleNLP's models: save a model, and compute features of tensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import paddle

from ernie_vil2.data.tokenizer import LibraryTokenizer
from ernie_vil2.device.transfers import copy_to_host
from ernie_vil2.models.weights.format import StoredModel, write_model
from ernie_vil2.models.weights.formats.run import LAYOUT
from ernie_vil2.models.weights.integrity import add_golden, compute_golden, has_golden

if TYPE_CHECKING:
    from ernie_vil2.encoder import ErnieViL2
    from ernie_vil2.models import DualEncoder

SavedFormat = Literal["ernie_vil2", "paddlenlp"]


def save_encoder(encoder: ErnieViL2, folder: str | Path, layout: SavedFormat) -> list[str]:
    """Write weights, configuration, vocabulary and integrity file of a model as `ErnieViL2.save_pretrained` says.

    Returns:
        Notes for the user: where the model will behave differently in that format.
    """
    network = get_network(encoder, "save_pretrained")
    tokenizer = encoder.tokenizer
    stored = StoredModel(
        LAYOUT,
        {name: copy_to_host(value) for name, value in network.state_dict().items()},
        encoder.config,
        tokens=tokenizer.tokens,
        library_tokenizer=tokenizer if isinstance(tokenizer, LibraryTokenizer) else None,
    )
    notes = write_model(stored, folder, layout, compute_golden(encoder))
    if not has_golden(Path(folder)):
        # The layout changes what the model computes, so the folder records its own embeddings.
        add_golden(Path(folder), type(encoder).from_pretrained(folder))
    return notes


def compute_image_features(encoder: ErnieViL2, pixel_values: paddle.Tensor) -> paddle.Tensor:
    """Return the unnormalised embeddings of normalised pixels, see `ErnieViL2.get_image_features`."""
    network = get_network(encoder, "get_image_features")
    return network.image_projection(network.image(pixel_values))


def compute_text_features(encoder: ErnieViL2, input_ids: paddle.Tensor) -> paddle.Tensor:
    """Return the unnormalised embeddings of token ids, see `ErnieViL2.get_text_features`."""
    network = get_network(encoder, "get_text_features")
    return network.text_projection(network.text(input_ids))


def get_network(encoder: ErnieViL2, method: str) -> DualEncoder:
    """Return the Paddle model of an encoder.

    Raises:
        ValueError: it is an export, which holds graphs instead of layers, or its embeddings are cut.
    """
    if hasattr(encoder.backend, "whole"):
        raise ValueError(f"{method} needs the whole model: call it on the one without with_width({encoder.embed_dim})")
    network = getattr(encoder.backend, "model", None)
    if network is None:
        raise ValueError(
            f"{method} needs the Paddle model, and this encoder is {encoder.backend.name}: load the checkpoint that it "
            "was made of, with backend='paddle'"
        )
    return network
