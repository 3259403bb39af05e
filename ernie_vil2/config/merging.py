"""What an override of a whole section leaves of it: `-o 'Model.image={name: ViT, width: 64}'`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ernie_vil2.config.model import HeadConfig, ImageTowerConfig, TextTowerConfig
from ernie_vil2.config.schema import LossConfig

SIZES = ("patch_size", "width", "depth", "heads", "layers", "projection")


class Kinds(NamedTuple):
    """Of a section of several kinds: the key that says which it is, its default, and what all kinds have."""

    key: str
    default: str
    common: tuple[str, ...]


SECTIONS = {
    "Model.image": Kinds(
        "name",
        ImageTowerConfig.model_fields["name"].default,
        ("image_size", "mean", "std", "preprocessing", "background"),
    ),
    "Model.text": Kinds(
        "name",
        TextTowerConfig.model_fields["name"].default,
        ("max_positions", "vocabulary", "tokenizer", "dropout", "attention_dropout"),
    ),
    "Head": Kinds("kind", HeadConfig.model_fields["kind"].default, ("dropout", "rate")),
    "Loss": Kinds(
        "kind", LossConfig.model_fields["kind"].default, ("weights", "max_logit_scale", "duplicates", "tile")
    ),
}


def merged(section: str, before: Any, value: Any) -> tuple[Any, str | None]:
    """A section as an override leaves it, and a sentence for people; None where the override says all of it.

    One of the same kind changes only what it names, and weights do not outlive the sizes that they fit.
    One of another kind keeps what every kind has: not the sizes and weights of a tower, nor where a loss starts. Values
    that are not such a section are replaced.

    Args:
        section: its name, as `Model.image`.
        before: what the file, or an earlier override, says of it.
        value: what the override says.
    """
    kinds = SECTIONS.get(section)
    if kinds is None or not isinstance(before, Mapping) or not isinstance(value, Mapping):
        return value, None
    was = before.get(kinds.key, kinds.default)
    now = value.get(kinds.key, was)
    others = [name for name in before if name not in value and name != kinds.key]
    if now != was:
        dropped = [name for name in others if name not in kinds.common]
    elif any(name in value and value[name] != before.get(name) for name in SIZES):
        dropped = [name for name in others if name == "weights" and kinds.key == "name"]
    else:
        dropped = []
    kept = [name for name in others if name not in dropped]
    result = {kinds.key: now} if kinds.key in before else {}
    result |= {name: before[name] for name in kept} | dict(value)
    parts = [f"{what} {_shown(before, names)}" for what, names in (("keeps", kept), ("drops", dropped)) if names]
    change = f"{was} becomes {now}" if now != was else str(was)
    return result, f"{section} ({change}) {' and '.join(parts)}" if parts else None


def _shown(values: Mapping[str, Any], names: Iterable[str]) -> str:
    return ", ".join(f"{name}: {values[name]}" for name in names)
