"""Towers by name: `[B, 3, H, W]` images or `[B, L]` token ids to `[B, width]` features.

A kind of tower is a configuration with `build`, in a file here, and a line of a registry in `base`; what it builds is
in `layers`. PaddleClas and PaddleNLP build those whose name begins with `paddleclas:` and `paddlenlp:`. A tower of a
user's own is named `module:Class`, or by what one of the registries was given it for: a Layer that is built from its
section of the configuration (a text tower from that and the size of the vocabulary), says its output width as `width`,
and may list as `blocks` the parts that recomputation runs twice (docs/extending.md).
"""

from ernie_vil2.towers.base import IMAGE_TOWERS, TEXT_TOWERS, ImageTowerConfig, TextTowerConfig, strip_suite_prefix

__all__ = ["IMAGE_TOWERS", "TEXT_TOWERS", "ImageTowerConfig", "TextTowerConfig", "strip_suite_prefix"]
