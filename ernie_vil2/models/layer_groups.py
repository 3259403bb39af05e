"""One list of layer groups per tower, from its input to the joint space: what freezing and layer-wise rates go by."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from ernie_vil2.config import TuningConfig
from ernie_vil2.config.data import VIEWS_OF
from ernie_vil2.models.dual_encoder import DualEncoder

SHOWN = 12


def layer_groups(model: DualEncoder) -> dict[str, dict[str, list[str]]]:
    """For each tower the names of its parameters by layer group, first to last.

    The groups are `image.embeddings`, what comes before the first block; `image.blocks.0` and so on, each with what
    lies between it and the next; and `image.head`, what comes after the last block, and the projection; likewise
    `text.embeddings`, ... A group may be without parameters. A tower that lists no `blocks` is all head. The scalars of
    the loss are in no group.
    """
    groups = {}
    for tower in VIEWS_OF:
        layer, projection = getattr(model, tower), f"{tower}_projection"
        blocks = list(layer.blocks) if hasattr(layer, "blocks") else []
        names = {id(parameter): name for name, parameter in layer.named_parameters()}
        block_of = {names[id(one)]: number for number, block in enumerate(blocks) for one in block.parameters()}
        group = -1 if blocks else 0
        found: list[list[str]] = [[] for _ in range(len(blocks) + 2)]
        last = max((position for position, name in enumerate(names.values()) if name in block_of), default=-1)
        for position, name in enumerate(names.values()):
            group = block_of.get(name, group) if position <= last else len(blocks)
            found[group + 1].append(f"{tower}.{name}")
        found[-1] += [f"{projection}.{name}" for name, _ in getattr(model, projection).named_parameters()]
        keys = ["embeddings", *(f"blocks.{number}" for number in range(len(blocks))), "head"]
        groups[tower] = {f"{tower}.{key}": names for key, names in zip(keys, found, strict=True)}
    return groups


def rate_factors(model: DualEncoder, tuning: TuningConfig) -> dict[str, float]:
    """The factor of each parameter's learning rate: its tower's, times `layer_decay` for each group behind its own."""
    rates = {"image": tuning.image_rate, "text": tuning.text_rate}
    return {
        name: rates[tower] * tuning.layer_decay ** (len(groups) - 1 - group)
        for tower, groups in layer_groups(model).items()
        for group, names in enumerate(groups.values())
        for name in names
    }


def chosen_parameters(model: DualEncoder, patterns: Sequence[str]) -> set[str]:
    """The parameters that patterns name: each is the name of a layer group or of a parameter, or a glob of either.

    A group without parameters adds none: `image.embeddings` may be named whatever the tower.

    Raises:
        ValueError: a pattern names nothing; the message lists the groups.
    """
    groups: dict[str, list[str]] = {}
    for tower in layer_groups(model).values():
        groups |= tower
    every = [name for name, _ in model.named_parameters()]
    chosen = set()
    for pattern in patterns:
        named = [key for key in groups if fnmatchcase(key, pattern)]
        own = {name for key in named for name in groups[key]} | {name for name in every if fnmatchcase(name, pattern)}
        if not named and not own:
            known = [key for key, names in groups.items() if names]
            raise ValueError(f"{pattern} names no layer group and no parameter of this model; its groups are "
                             f"{', '.join(known[:SHOWN])}{', ...' * (len(known) > SHOWN)}")  # fmt: skip
        chosen |= own
    return chosen
