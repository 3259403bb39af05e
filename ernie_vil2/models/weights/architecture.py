"""`Model.like`: the architecture of a training's model, taken from another model, whose weights it may start from."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ernie_vil2.config import Config, ConfigError, validated
from ernie_vil2.config.model import of_own_module, without_suite
from ernie_vil2.data.tokenizer import ERNIE_VOCABULARY
from ernie_vil2.models.weights.stored import read_model

WEIGHTS = "weights"
"""In `Model.like`: the model that `Model.weights` names."""
_SIZES = ("patch_size", "width", "depth", "heads")


def with_model_like(config: Config) -> Config:
    """The configuration with what `Model.like` names put in: towers and joint space, vocabulary and rules of the
    tokeniser, preprocessing of images, and the length of texts. What the configuration sets itself stays.

    Raises:
        ConfigError: there is no model, it brings no vocabulary or a tower of a module of its own, or what it has and
            what the configuration sets do not go together.
    """
    like = config.Model.like
    if like is None:
        return config
    if like == WEIGHTS:
        if config.Model.weights is None:
            raise ConfigError("Model.like=weights takes the towers from Model.weights, which names no model: set "
                              "-o Model.weights=... to the model that training starts from")  # fmt: skip
        like = config.Model.weights
    taken, longest = _described(like)
    tree, own = config.model_dump(), config.model_dump(exclude_unset=True)
    for tower in ("image", "text"):
        given = own["Model"].pop(tower, {})
        if without_suite(given.get("name", taken[tower]["name"])) != without_suite(taken[tower]["name"]):
            taken[tower] |= dict.fromkeys(_SIZES)
        elif of_own_module(taken[tower]["name"]) and "name" not in given:
            raise ConfigError(f"Model.like={like}: its {tower} tower {taken[tower]['name']} is of a module of its own; "
                              f"to have that imported, name it yourself in Model.{tower}.name")  # fmt: skip
        taken[tower] |= given
    tree["Model"] = {**taken, **own["Model"], "like": None}
    if "max_length" not in own.get("Data", {}):
        tree["Data"]["max_length"] = longest
    if "resize" not in own.get("Views", {}):
        tree["Views"]["resize"] = max(tree["Views"]["resize"], taken["image"]["image_size"])
    return validated(tree, f"Model.like={like}")


def _described(like: str) -> tuple[dict[str, Any], int]:
    model, longest = _read(like)
    return {key: dict(value) if isinstance(value, dict) else value for key, value in model.items()}, longest


@lru_cache(maxsize=1)  # a plan asks again for every piece of advice
def _read(like: str) -> tuple[dict[str, Any], int]:
    """A model's part of a configuration without its initial weights, and tokens of a text."""
    try:
        stored = read_model(like)
    except (OSError, ValueError) as error:
        raise ConfigError(f"Model.like: {error}") from None
    if stored.tokens is None:
        raise ConfigError(f"Model.like: {like}: no vocab.txt next to it, without which its words have no ids")
    weights: dict[str, Any] = {"weights": True, "image": {"weights"}, "text": {"weights"}, "allow": True}
    model = stored.config.Model.model_dump(exclude=weights)
    model["text"]["vocabulary"] = None if stored.vocabulary == ERNIE_VOCABULARY else str(stored.vocabulary)
    return model, stored.config.Data.max_length
