"""Towers by name: `[B, 3, H, W]` images or `[B, L]` token ids to `[B, width]` features.

A family of towers is a file here and a line below. `paddleclas:NAME` and `paddlenlp:NAME` are built by these libraries.
A tower of a user's own is named `module:Class`, or by what one of the registries below was given it for: a Layer that
is built from its section of the configuration (a text tower from that and the size of the vocabulary), says its output
width as `width`, and may list as `blocks` the parts that recomputation runs twice (docs/extending.md).
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from paddle import nn

from ernie_vil2.config import ImageTowerConfig, ModelConfig, TextTowerConfig
from ernie_vil2.config.model import IMAGE_SIZES, OWN_TOWERS, TEXT_SIZES, VIT_SIZES, is_own_tower, without_suite
from ernie_vil2.io.terminal import print_once
from ernie_vil2.models.towers import suite
from ernie_vil2.models.towers.convolution import ModifiedResNet, RepVGG
from ernie_vil2.models.towers.encoders import NaFlexTransformer, TextTransformer, VisionTransformer
from ernie_vil2.registry import Registry

T = TypeVar("T")


class Towers(Registry[T]):
    """A registry of which the configuration learns the names that it does not know, as those of towers that have the
    sizes they like."""

    def __init__(self, kind: str, entries: Mapping[str, T], known: Collection[str]):
        super().__init__(kind, entries)
        OWN_TOWERS.update(entries.keys() - known)

    def __setitem__(self, name: str, tower: T) -> None:
        OWN_TOWERS.add(name)
        super().__setitem__(name, tower)


IMAGE_TOWERS: Towers[Callable[[ImageTowerConfig], nn.Layer]] = Towers(
    "image tower",
    {
        **dict.fromkeys(("ViT", *VIT_SIZES), VisionTransformer),
        "NaFlex": NaFlexTransformer,
        "RepVGG": RepVGG,
        "ModifiedResNet": ModifiedResNet,
    },
    {*IMAGE_SIZES, *VIT_SIZES},
)
"""By name; every other name is one of PaddleClas's."""
TEXT_TOWERS: Towers[Callable[[TextTowerConfig, int], nn.Layer]] = Towers(
    "text tower", dict.fromkeys(("ernie", "bert", "transformer"), TextTransformer), TEXT_SIZES
)
"""By the first part of the name."""


def build_image_tower(config: ImageTowerConfig) -> nn.Layer:
    """The tower that `config` names, randomly initialised; of one that PaddleClas builds and that is not installed the
    native one, where there is one. ValueError if there is none, or its sizes do not fit each other."""
    if is_own_tower(config.name):
        return _own(IMAGE_TOWERS.find(config.name), config.name, config)
    if "patch_size" in (sizes := config.sizes):
        if sizes["patch_size"] > config.image_size:
            raise ValueError(f"patch_size ({sizes['patch_size']}) is larger than image_size ({config.image_size})")
        _check_divides("width", sizes["width"], "heads", sizes["heads"])
    name = _installed(config.name)
    build = IMAGE_TOWERS.get(name, suite.build_backbone)
    return _complete(build(config.model_copy(update={"name": without_suite(name)})), name)


def build_text_tower(config: TextTowerConfig, vocab_size: int) -> nn.Layer:
    """Likewise for `vocab_size` tokens, and PaddleNLP."""
    if is_own_tower(config.name):
        return _own(TEXT_TOWERS.find(config.name), config.name, config, vocab_size)
    if heads := config.sizes["heads"]:
        _check_divides("Model.text: width", config.sizes["width"], "heads", heads)
    name = _installed(config.name)
    build = TEXT_TOWERS.get(name.partition("-")[0], suite.build_encoder)
    return _complete(build(config.model_copy(update={"name": without_suite(name)}), vocab_size), name)


def _check_divides(name: str, size: int, divisor: str, by: int) -> None:
    if size % by:
        raise ValueError(f"{name} ({size}) must be divisible by {divisor} ({by})")


def as_installed(config: ModelConfig) -> ModelConfig:
    """The configuration with native towers instead of those whose library is missing, which is reported; from then
    on the names alone say who builds a tower."""
    image, text = (own.model_copy(update={"name": _installed(own.name)}) for own in (config.image, config.text))
    return config.model_copy(update={"image": image, "text": text, "implementation": None})


def _installed(name: str) -> str:
    if (native := native_instead(name)) is None:
        return name
    print_once(f"{name.partition(':')[0]} is not installed: this package's own {native} replaces {name}, with the same "
               "parameters and, to rounding, numbers")  # fmt: skip
    return native


def native_instead(name: str) -> str | None:
    """The native tower that replaces a named one, if the library that should build it is missing."""
    library, colon, bare = name.partition(":")
    towers: dict[str, Mapping[str, Any]] = {"paddleclas": IMAGE_TOWERS, "paddlenlp": TEXT_TOWERS}
    known = towers.get(library, {}) if colon else {}
    there = bare in known or bare.partition("-")[0] in known
    return bare if there and not suite.installed(library) else None


def _own(tower: object, name: str, *arguments: Any) -> nn.Layer:
    if not (isinstance(tower, type) and issubclass(tower, nn.Layer)):
        raise ValueError(f"{name} is not a class of paddle.nn.Layer")
    return _complete(tower(*arguments), name)


def _complete(tower: nn.Layer, name: str) -> nn.Layer:
    if not isinstance(getattr(tower, "width", None), int):
        raise ValueError(f"{name} does not say its output width: set self.width")
    if not hasattr(tower, "blocks"):
        tower.blocks = []  # nothing to recompute
    return tower
