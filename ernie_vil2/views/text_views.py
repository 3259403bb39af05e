"""Text views: the caption, or the object tags behind a prompt (paper, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ernie_vil2.config import ViewsConfig

if TYPE_CHECKING:
    from ernie_vil2.data.samples import Sample


def tags_text(tags: Sequence[str], language: str, views: ViewsConfig) -> str:
    """Object tags as a sentence: prompt, then the tags, as in "The picture contains red car, tree"."""
    return views.prompts[language] + views.separators[language].join(tags)


def draw_text(sample: Sample, views: ViewsConfig, rng: np.random.Generator) -> str:
    """The text that stands for the sample in this step.

    A language is drawn by its weight, then caption or tags by `tag_probability`; a sample without
    tags gives its caption, or one of the lines of it where these are `caption_lines`. The dropout of
    the text tower, not this function, makes two views of it.

    Raises:
        BadSample: the sample has neither tags nor caption in the language.
    """
    languages = list(views.languages)
    weights = np.array(list(views.languages.values()))
    language = languages[rng.choice(len(languages), p=weights / weights.sum())]
    use_tags = rng.random() < views.tag_probability
    tags = sample.tag_list(language)
    if use_tags and tags:
        order = rng.permutation(len(tags)) if views.shuffle_tags else range(len(tags))
        return tags_text([tags[i] for i in order], language, views)
    if not views.caption_lines:
        return sample.caption(language)
    lines = sample.caption_lines(language)
    return lines[rng.integers(len(lines))]
