"""Sample sources as a benchmark: the official TSV, and tar shards."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from hashlib import blake2b
from pathlib import Path

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText, Collector
from ernie_vil2.data.sources import Source, open_sources


def read_sources(files: Iterable[Path], language: str = "", text_id: str | None = None) -> Benchmark:
    """The samples of tar shards and official TSV files, in the order given.

    Images are distinct by image name, texts by text name (`Data.text_id`); the fields of the sample that comes first
    stay with them. All samples are read once here; an image is read again when it is asked for.

    Args:
        language: of the captions; a sample without a caption in it is not used.
        text_id: JSON field that names the text; None: the captions name it.

    Raises:
        FileNotFoundError, ValueError: as `open_sources`; no sample could be used.
    """
    files = list(files)
    source = open_sources(map(str, files), text_id)
    collector = Collector()
    for index in range(len(source)):
        with collector.entry():
            sample = source[index]
            image = BenchmarkImage(sample.image_name, partial(_image, source, index), sample.fields)
            text = BenchmarkText(sample.text_name, sample.caption(language), sample.fields)
            collector.add_sample(image, blake2b(sample.image).digest(), text, sample.image_name)
    return collector.benchmark(files[0].stem, files)


def _image(source: Source, index: int) -> bytes:
    return source[index].image
