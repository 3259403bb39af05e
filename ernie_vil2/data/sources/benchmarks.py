"""From a benchmark to samples that are trained on, and from samples to a benchmark that is scored."""

from __future__ import annotations

from functools import partial
from hashlib import blake2b
from pathlib import Path

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText, Collector
from ernie_vil2.data.rows import is_id
from ernie_vil2.data.samples import BadSample, Reason, Sample
from ernie_vil2.data.sources.layout import ImageFolders, Layout, Options
from ernie_vil2.data.sources.locations import Location
from ernie_vil2.data.sources.source import Shard, Source, Sources

TEXT_ID = "text_id"
"""Field that names a text in tables and in Chinese-CLIP's files."""


class BenchmarkSource:
    """The pairs of a benchmark as samples: an image with five texts is five of them. Equal texts have one name.

    What the annotations hold that cannot be used stands behind the pairs, as bad samples.

    Args:
        benchmark: as it was read.
        name: of its annotation file.
    """

    def __init__(self, benchmark: Benchmark, name: str):
        self.name, self.files = name, benchmark.files
        self._benchmark = benchmark
        rows = benchmark.rows
        self._bad = [
            (reason, rows.names[reason][min(place, len(rows.names[reason]) - 1)])
            for reason, count in rows.counts.items()
            for place in range(count)
        ]

    def __len__(self) -> int:
        return len(self._benchmark.pairs) + len(self._bad)

    def __getitem__(self, index: int) -> Sample:
        pairs = self._benchmark.pairs
        if index >= len(pairs):
            raise BadSample(*self._bad[index - len(pairs)])
        image_row, text_row = pairs[index].tolist()
        image, text = self._benchmark.images[image_row], self._benchmark.texts[text_row]
        return Sample(image.id, text.text, image.read(), {"": text.text}, fields={**image.fields, **text.fields})

    def release(self) -> None:
        """Nothing is held open."""


def read_benchmark(layout: Layout, annotations: Path, options: Options) -> Benchmark:
    """The split of a published benchmark. Annotations are read once, here; an image is read when it is asked for.

    Raises:
        FileNotFoundError: there is no such folder of images, or none of the images is found.
        ValueError: a file is malformed as a whole, or no image or text could be used.
    """
    if layout.image_folders is None:
        return layout.read(annotations, options.split, ImageFolders([], []))
    here = [folder for folder in (options.root, annotations.parent) if folder.is_dir()]
    roots = [options.images] if options.images else list(dict.fromkeys(here))
    folders = ImageFolders(roots, layout.image_folders)
    benchmark = layout.read(annotations, options.split, folders)
    folders.require(benchmark.images)
    return benchmark


def open_shard(layout: Layout, place: Location, options: Options) -> Shard:
    """A shard of samples, or a benchmark as one; errors as of the layout's source and of `read_benchmark`."""
    if layout.open:
        return layout.open(place, options)
    return BenchmarkSource(read_benchmark(layout, Path(place.name), options), place.name)


def benchmark_of(source: Sources, name: str, language: str = "") -> Benchmark:
    """The samples of a source as a benchmark, in their order.

    Images are distinct by image name, texts by the field `text_id` or, without it, by text name; the fields of the
    sample that comes first stay with them. All samples are read once here; an image is read again when it is asked for.

    Args:
        name: of the benchmark.
        language: of the captions; a sample without a caption in it is not used.

    Raises:
        ValueError: no sample could be used.
    """
    collector = Collector()
    for index in range(len(source)):
        with collector.entry():
            sample = source[index]
            image = BenchmarkImage(sample.image_name, partial(_image, source, index), sample.fields)
            text = BenchmarkText(_text_id(sample), sample.caption(language), sample.fields)
            collector.add_sample(image, blake2b(sample.image).digest(), text, sample.image_name)
    files = (file for shard in source.shards for path in shard.files
             for file in ([path] if path.is_file() else sorted(path.glob("*/data.mdb"))))  # fmt: skip
    return collector.benchmark(name, list(files))


def _text_id(sample: Sample) -> str:
    value = sample.fields.get(TEXT_ID)
    if value is None:
        return sample.text_name
    if not is_id(value):
        raise BadSample(Reason.MALFORMED_ROW, f"{sample.image_name}, {TEXT_ID}")
    return str(value)


def _image(source: Source, index: int) -> bytes:
    return source[index].image
