"""One batch of one source, as the loader makes it, with what a person wants to see of it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

import numpy as np

from ernie_vil2.config import Config, ViewsConfig
from ernie_vil2.config.view_names import IMAGE_VIEWS
from ernie_vil2.data.loader import read_batch
from ernie_vil2.data.samples import BadSample, Sample
from ernie_vil2.data.tokenizer import PAD_ID
from ernie_vil2.tasks.multi_view_rows import MultiViewRows
from ernie_vil2.views import tags_text

SHOWN = 6
"""Samples of a source that are looked at closely."""


@dataclass(frozen=True)
class ShownSample:
    """One sample with its views of one step.

    Attributes:
        name: the sample's.
        image_views: by name, `[H, W, 3]` uint8 RGB.
        tokens: of the text that was drawn, as the model reads them; none where no text is needed.
        captions, tags: what could have been drawn, by language; tags as a sentence. What there is not is missing.
        stored_bytes: of the image.
    """

    name: str
    image_views: dict[str, np.ndarray]
    tokens: list[str]
    captions: dict[str, str]
    tags: dict[str, str]
    stored_bytes: int


@dataclass(frozen=True)
class Preview:
    """What one batch of one source says of it.

    Attributes:
        read: rows.
        bad: (reason, name) of those that could not be used.
        remarks: (remark, name) on others.
        seconds: that reading took, with the start of the loader's processes.
        lengths: tokens of each text that was drawn.
        cut: texts that fill the longest length, so that they were most likely cut.
        unknown: tokens that the vocabulary lacks, over all texts.
        samples: the first that could be used.
    """

    read: int
    bad: list[tuple[str, str]]
    remarks: list[tuple[str, str]]
    seconds: float
    lengths: list[int]
    cut: int
    unknown: int
    samples: list[ShownSample]


def preview(make: MultiViewRows, config: Config, source: int, rows: int) -> Preview:
    """Reads the first samples of a source that training will see, with the views that it will see of them.

    Args:
        make: the rows, for a run of this configuration.
        source: number of the source.
        rows: samples to read.

    Raises:
        WorkerError: a loader process failed or was killed.
    """
    stream, tokenizer = make.stream, make.tokenizer
    places = stream.first_places(source, rows)
    began = time.monotonic()
    batch = read_batch(make, config, places)
    seconds = time.monotonic() - began
    texts = (
        [[number for number in row if number != PAD_ID] for row in batch["text"].tolist()] if "text" in batch else []
    )
    words = [[tokenizer.tokens[number] for number in row] for row in texts]
    samples = []
    for row, name in enumerate(batch["names"][:SHOWN]):
        sample = stream[places[int(batch["places"][row])]][1]
        images = {view: batch[view][row].numpy() for view in IMAGE_VIEWS if view in batch}
        captions, tags = _texts(sample, stream.views[source])
        samples.append(ShownSample(name, images, words[row] if words else [], captions, tags, len(sample.image)))
    return Preview(
        read=rows,
        bad=[tuple(each) for each in batch["bad"]],
        remarks=[tuple(each) for each in batch["remarks"]],
        seconds=seconds,
        lengths=[len(row) for row in texts],
        cut=sum(len(row) == tokenizer.max_length for row in texts),
        unknown=sum(Counter(row)["[UNK]"] for row in words),
        samples=samples,
    )


def _texts(sample: Sample, views: ViewsConfig) -> tuple[dict[str, str], dict[str, str]]:
    captions, tags = {}, {}
    for language in views.languages:
        try:
            captions[language] = sample.caption(language)
        except BadSample:
            pass
        if found := sample.tag_list(language):
            tags[language] = tags_text(found, language, views)
    return captions, tags
