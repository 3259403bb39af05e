"""Models between models: means of their weights.

Along the path from a model to what fine-tuning has made of it, the new task is learned before the old one is lost
(WiSE-FT, Wortsman et al. 2021, arXiv 2109.01903); the mean of several fine-tunings of one model is often better than
each (soups, Wortsman et al. 2022, arXiv 2203.05482).
"""

from collections.abc import Iterator, Sequence

import numpy as np

from ernie_vil2.config import differences
from ernie_vil2.models.dual_encoder import with_sizes
from ernie_vil2.models.weights.format import StoredModel
from ernie_vil2.models.weights.integrity import OF_TRAINING


def check_alike(models: Sequence[StoredModel], names: Sequence[str]) -> None:
    """ValueError if models cannot be mixed: other weights by name or shape, other settings, another vocabulary."""
    first = models[0]
    for model, name in zip(models[1:], names[1:], strict=True):
        if why := next(_differences(first, model), None):
            raise ValueError(f"{names[0]} and {name} cannot be mixed: {why}; mix a model with its own fine-tunings")


def mixture(models: Sequence[StoredModel], shares: Sequence[float]) -> dict[str, np.ndarray]:
    """The mean of weights with these shares, which add up to 1, in float64; a share of 1 gives a model bit for bit.

    Running statistics of batch norms and the temperature, as its log, are averaged too.
    """
    mixed = {}
    for name, array in models[0].arrays.items():
        parts = [share * model.arrays[name].astype(np.float64) for model, share in zip(models, shares, strict=True)]
        mixed[name] = sum(parts[1:], parts[0]).astype(array.dtype)
    return mixed


def _differences(first: StoredModel, other: StoredModel) -> Iterator[str]:
    forms = [with_sizes(model.config.Model).model_dump(exclude=OF_TRAINING) for model in (first, other)]
    for key, (one, another) in differences(*forms, prefix="Model."):
        yield f"{key} is {one} in one and {another} in the other"
    for name in sorted(first.arrays.keys() ^ other.arrays.keys()):
        yield f"only one of them has the weight {name}"
    for name, array in first.arrays.items():
        if array.shape != other.arrays[name].shape:
            yield f"{name} is {list(array.shape)} in one and {list(other.arrays[name].shape)} in the other"
    if first.tokens != other.tokens:
        yield "they have other vocabularies, so that equal ids are other words"
