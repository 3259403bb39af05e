"""The release of the paper's authors: a `.pdparams` file, its vocabulary, and the settings of its text tower."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.config import Config
from ernie_vil2.models.dual_encoder import with_sizes
from ernie_vil2.models.weights.format import WORDS
from ernie_vil2.models.weights.formats.release import (
    HEAD_WIDTH,
    Release,
    architecture_of,
    release_config,
    text_settings,
    text_sizes,
    with_dropout,
)
from ernie_vil2.models.weights.settings import Settings
from ernie_vil2.towers.vit import PublishedVit

LENGTH = 48  # tokens of a text in the release's configuration
SETTINGS_NAMES = ("ernie_config.json", "ernie_config.base.json")  # the first is also what is written
# The official code fixes the image tower's heads; this key, which it ignores, keeps those of other models.
IMAGE_HEADS = "image_num_attention_heads"


class Official(Release):
    """Arrays with the names of the authors' code; the file may have any name."""

    title = layout = "official"
    settings = SETTINGS_NAMES[0]
    weights = "model.pdparams"

    def configure(self, weights: Path, arrays: Mapping[str, np.ndarray], heads: tuple[int, int] | None) -> Config:
        """Return the configuration of a model from its arrays and the settings of its text tower.

        The settings may be missing: then heads are `heads`, or width / 64.
        """
        paths = [path for path in map(weights.with_name, SETTINGS_NAMES) if path.is_file()]
        settings = Settings.read(paths[0]) if paths else Settings(weights, {})
        settings.check_facts(hidden_act="gelu", has_pooler=True)
        heads_in_file = settings.count(IMAGE_HEADS, None), settings.count("num_attention_heads", None)
        model = architecture_of(weights, arrays, heads or heads_in_file, self.layout)
        settings.check_sizes(text_sizes(model, len(arrays[WORDS])), {})
        return release_config(with_dropout(model, settings), LENGTH)

    def vocabulary_lines(self, tokens: list[str]) -> list[str]:
        return [f"{token}\t{number}" for number, token in enumerate(tokens)]

    def settings_files(self, config: Config, vocab_size: int) -> dict[str, dict[str, Any]]:
        model = config.Model
        text = {**text_settings(model, vocab_size), "sent_type_vocab_size": 4, IMAGE_HEADS: model.image.sizes["heads"]}
        return {SETTINGS_NAMES[0]: dict(sorted(text.items()))}

    def changes(self, config: Config) -> list[str]:
        changes = super().changes(config)
        model, longest = with_sizes(config.Model), config.Data.max_length
        image = model.image
        if longest != min(LENGTH, model.text.max_positions):
            changes.append(f"the official configuration cuts texts at {LENGTH} tokens, this model at {longest}")
        if image.image_size % image.sizes["patch_size"]:
            changes.append(
                "the official file knows the size of images by their whole patches, this model's have "
                f"{image.image_size} pixels a side: pixels change slightly"
            )
        if (image.mean, image.std) != (PublishedVit().mean, PublishedVit().std):
            changes.append(
                "the official code normalises images by ImageNet's mean and deviation, this model by "
                f"{image.mean} and {image.std}: embeddings change"
            )
        if image.sizes["heads"] * HEAD_WIDTH != image.sizes["width"]:
            changes.append(
                f"the official code fixes the image tower's attention heads at its width / {HEAD_WIDTH}, this "
                f"model has {image.sizes['heads']} for {image.sizes['width']}: embeddings change"
            )
        return changes


OFFICIAL = Official()
