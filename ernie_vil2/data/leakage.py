"""Images that are trained on although they are scored: found by their ids before a run, by their content in it."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage
from ernie_vil2.data.readers.source import THREADS
from ernie_vil2.data.samples import BadSample, BadSampleReport, content_id, first_names
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.io.terminal import counted

MOST_ROWS = 1_500_000
"""Of training data, beyond which ids are not compared: a run would begin a minute later."""


def watch(stream: SampleStream, scored: Iterable[Benchmark]) -> list[str]:
    """Lets a stream remark on samples whose image, byte for byte, is scored; compares the ids at once.

    Ids are compared where the source knows them without reading its images. What is called alike in two data sets need
    not be the same image; equal content is.

    Returns:
        Lines for people, none if nothing is called alike.
    """
    images = {id(image): image for benchmark in scored for image in benchmark.images}.values()
    if not images:
        return []
    with ThreadPoolExecutor(THREADS) as threads:
        stream.scored = frozenset(threads.map(_content, images)) - {None}
    ids = {image.id for image in images}
    lines = []
    for name, source in zip(stream.names, stream.sources, strict=True):
        if source.names_images and len(source) <= MOST_ROWS:
            alike = list(dict.fromkeys(image for names in source.image_names() for image in names if image in ids))
            if alike:
                lines.append(f"leakage: of {counted(len(ids), 'scored image')} "
                             f"{first_names(len(alike), alike[: BadSampleReport.NAMES])} have the ids of training "
                             f"images of {name}; equal content is counted as the run reads it")  # fmt: skip
    return lines


def _content(image: BenchmarkImage) -> int | None:
    try:
        return content_id("", image.read())
    except (OSError, BadSample):
        return None
