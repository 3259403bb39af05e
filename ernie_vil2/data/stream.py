"""The endless stream of training samples: sources mixed by weight, each in its own order and its own epochs."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b
from os.path import basename
from typing import Any

import numpy as np

from ernie_vil2.config import Config, DataConfig, ViewsConfig
from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage
from ernie_vil2.data.decoding import ImageRemark
from ernie_vil2.data.order import Mixture, RowsByImage, SampleOrder, ShardOrder
from ernie_vil2.data.readers import MAX_OPEN_SHARDS, ShardedSource, open_sources
from ernie_vil2.data.readers.source import NUM_THREADS
from ernie_vil2.data.readers.splits import make_holdout_part
from ernie_vil2.data.samples import (
    BadSample,
    BadSampleReport,
    Sample,
    format_names,
    hash_id,
    is_blank,
    split_lines,
    text_key,
)
from ernie_vil2.data.selection import Selection, WeightedDraws, read_selection
from ernie_vil2.data.spec import DataSpec
from ernie_vil2.io.terminal import pluralize

LEAK_REMARK = "image that is scored too"

# Sources with more rows than this are not searched for the ids of scored images: a run would start a minute later.
MAX_ROWS_TO_COMPARE = 1_500_000


class SampleStream:
    """The samples of `Data.train` by their position in an endless stream.

    The sample at a position follows from the seed, the shards and their sizes, `Data.shuffle_buffer` and `Data.groups`.
    The rows of a global batch belong to one group after the other, and in every epoch each group has its own share of
    the shards.

    Args:
        config: the run's configuration.

    Attributes:
        names: for each source the name that people know it by.
        sources: the sources, in the same order.
        views: for each source the views of its samples: `Views` with the source's own settings.
        scored_contents: contents of the images that are scored, see `watch_for_leaks`; a sample with one of these
            images gets a remark.

    Raises:
        FileNotFoundError, ValueError: as `open_sources` and `read_selection`; or a source has fewer samples than there
            are groups.
    """

    def __init__(self, config: Config):
        data, seed = config.Data, config.Training.seed
        if not data.sources:
            raise ValueError("no data given: set Data.train to tar shards or another source (docs/data.md)")
        self._global_batch = config.Training.global_batch
        self._group_rows = config.Training.global_batch // data.groups  # a group's rows of a global batch

        # Name the sources; equal names get a number.
        self._data_names = [source.name for source in data.sources]
        self.names, self.views = [], []
        for number, source_config in enumerate(data.sources, 1):
            name = source_config.name
            if self._data_names.count(name) > 1:
                name = f"{name} ({number})"
            self.names.append(name)
            self.views.append(source_config.merge_views(config.Views))

        # Open them, and choose their samples.
        self._text_ids, self.sources = [], []
        for source_config in data.sources:
            spec = DataSpec.from_source(config, source_config)
            self._text_ids.append(spec.text_id)
            self.sources.append(open_sources(spec))
        if data.holdout:
            self.sources[0] = make_holdout_part(data.holdout, "train").select(self.sources[0])
        self._selections: list[Selection | None] = []
        for source_config, source in zip(data.sources, self.sources, strict=True):
            folder = source_config.select or data.select
            self._selections.append(read_selection(folder, source) if folder else None)

        # Order the shards of each source, then the samples of each group within them.
        self._units: list[RowsByImage | None] = [None] * len(self.sources)
        self._shard_orders = [self._order_shards(number, data.unit, seed) for number in range(len(self.sources))]
        self._num_samples = [shards.expected_samples for shards in self._shard_orders]
        for name, num_samples in zip(self.names, self._num_samples, strict=True):
            if num_samples < data.groups:
                raise ValueError(
                    f"{name}: {pluralize(num_samples, 'sample')} for {data.groups} groups; lower Data.groups"
                )
        self._data = data
        self._windows, self._orders = [], []
        for source, shards in zip(self.sources, self._shard_orders, strict=True):
            # Each group's window touches up to two shards more than it fills.
            source.max_open_shards += 2 * (data.groups - 1)
            window = _choose_window_size(shards.expected_samples, shards.num_shards, data)
            self._windows.append(window)
            self._orders.append(_order_samples(shards, window, data.groups))

        # Mix the sources.
        weights = []
        for source_config, num_samples in zip(data.sources, self._num_samples, strict=True):
            weights.append(source_config.weight or num_samples)
        self._mixtures = [Mixture(weights, seed, group) for group in range(data.groups)]
        self._fetched_windows: dict[tuple[int, int], tuple[int, int]] = {}  # by source and group: epoch and window
        self.scored_contents: frozenset[int] = frozenset()

    def _order_shards(self, number: int, unit: str, seed: int) -> ShardOrder:
        """Return the order of a source's shards, whose samples are its rows, its selected rows, or their images."""
        source, selection = self.sources[number], self._selections[number]
        sizes: Sequence[int] | np.ndarray = source.shard_sizes if selection is None else selection.shard_sizes
        units = None
        if unit == "image":
            names: Iterable[list[str | None]] = source.read_image_names()
            if selection is not None:
                names = selection.filter_rows(names, source.shard_sizes.tolist())
            units = self._units[number] = RowsByImage(names, seed, number)
            sizes = units.shard_sizes

        # Without weights below one nothing is drawn: every epoch has all samples.
        if selection is None or (selection.weights >= 1).all():
            return ShardOrder(sizes, seed, number)
        weights, ids = selection.weights, selection.ids
        if units is not None:  # an image is drawn with the largest probability of its rows
            weights, ids = units.max_by_unit(weights), units.max_by_unit(ids)
        return ShardOrder(sizes, seed, number, WeightedDraws(weights, ids, np.asarray(sizes), seed, number))

    def _locate(self, position: int) -> tuple[int, int, int]:
        """Return the number of the source, of the group, and the position in this group's stream of the source."""
        batch, row = divmod(position, self._global_batch)
        group, row = divmod(row, self._group_rows)
        source, source_position = self._mixtures[group][batch * self._group_rows + row]
        return source, group, source_position

    def find_sample(self, position: int) -> tuple[int, int]:
        """Return the number of the source, and the number of the sample in it."""
        source, group, source_position = self._locate(position)
        order, units, selection = self._orders[source][group], self._units[source], self._selections[source]
        number = order[source_position]
        if units is not None:  # from an image to its row in this epoch
            epoch = order.locate(source_position)[0]
            number = units.row(number, epoch)
        if selection is not None:  # from the selected pairs to the whole source
            number = int(selection.numbers[number])
        return source, number

    def __getitem__(self, position: int) -> tuple[int, Sample]:
        """Return the number of the source, and the sample; BadSample if it cannot be used."""
        source, number = self.find_sample(position)
        sample = self._read_sample(source, number)
        if self.scored_contents and hash_id("", sample.image) in self.scored_contents:
            warnings.warn(LEAK_REMARK, ImageRemark, stacklevel=1)
        return source, sample

    def _read_sample(self, source: int, number: int) -> Sample:
        sample, selection = self.sources[source][number], self._selections[source]
        return sample if selection is None else selection.edit(number, sample)

    def fetch_ahead(self, position: int) -> None:
        """Start to fetch the remote shards of a position's window and of the next one.

        To be called by the process that reads the stream from there on.
        """
        if not any(source.has_remote_shards for source in self.sources):
            return
        source, group, source_position = self._locate(position)
        order = self._orders[source][group]
        epoch, window, _ = order.locate(source_position)
        if self.sources[source].has_remote_shards and self._fetched_windows.get((source, group)) != (epoch, window):
            self._fetched_windows[source, group] = epoch, window
            shards, next_shards = order.window_shards(epoch, window), order.window_shards(epoch, window + 1)
            self.sources[source].fetch_ahead(group, shards, next_shards)

    def is_local(self, position: int) -> bool:
        """Return whether the sample at a position can be read without fetching its shard."""
        source, number = self.find_sample(position)
        return self.sources[source].is_local(number)

    def describe_location(self, position: int) -> str:
        """Return shard and row of the sample at a position, for a person who looks for it."""
        source, number = self.find_sample(position)
        return self.sources[source].describe_location(number)

    def ids(self, source: int, sample: Sample) -> tuple[int, int]:
        """Return the image and the text of a sample as numbers, by which the loss finds equal ones in a batch.

        Two samples share an image if source, image name and bytes are equal: in another data set the same name may mean
        another image. Two samples share a text if it is equal, in any data set; ids of texts are compared within one
        data set only.
        """
        data_name, long_caption = self._data_names[source], self.views[source].long_caption
        text = sample.text_name_without(long_caption) if long_caption else sample.text_name
        if self._text_ids[source]:
            text = f"{data_name}\n{text}"
        return hash_id(f"{data_name}\n{sample.image_name}", sample.image), hash_id(text)

    def iterate_samples(self) -> Iterator[tuple[int, Sample]]:
        """Yield every sample once, with the number of its source; samples that cannot be used are left out."""
        for source_number, source in enumerate(self.sources):
            selection = self._selections[source_number]
            numbers = range(len(source)) if selection is None else selection.numbers
            for number in map(int, numbers):
                with suppress(BadSample):
                    yield source_number, self._read_sample(source_number, number)

    def training_texts(self, max_samples: int) -> tuple[set[str], bool]:
        """Return the captions that training may see, as `text_key` makes them equal.

        Samples of shards that have to be fetched, and samples that cannot be used, are left out.

        Args:
            max_samples: number of samples to read at most.

        Returns:
            The captions, and whether all samples were read.
        """
        texts: set[str] = set()
        num_read, is_complete = 0, True
        for source_number, source in enumerate(self.sources):
            selection, views = self._selections[source_number], self.views[source_number]
            numbers = range(len(source)) if selection is None else selection.numbers
            for number in map(int, numbers):
                if num_read == max_samples:
                    return texts, False
                if not source.is_local(number):
                    is_complete = False
                    continue
                num_read += 1
                with suppress(BadSample):
                    texts |= _find_captions(self._read_sample(source_number, number), views)
        return texts, is_complete

    def first_positions(self, source: int, count: int) -> list[int]:
        """Return the first `count` positions of the first group that hold a sample of a source."""
        positions = []
        for position in self._mixtures[0].first_positions(source, count):
            batch, row = divmod(position, self._group_rows)
            positions.append(batch * self._global_batch + row)
        return positions

    @property
    def num_samples(self) -> int:
        """Samples of an epoch, over all sources; a mean where they are drawn."""
        return sum(self._num_samples)

    @property
    def shares(self) -> list[float]:
        """For each source its share of the stream."""
        quotas = self._mixtures[0].quotas
        return (quotas / quotas.sum()).tolist()

    def epochs(self, position: int) -> list[float]:
        """Return for each source its epochs before a position: 1.5 is every sample once and half of them twice."""
        batch, row = divmod(position, self._global_batch)
        source_positions = np.zeros(len(self.sources), np.int64)
        for group, mixture in enumerate(self._mixtures):
            group_row = min(max(row - group * self._group_rows, 0), self._group_rows)
            source_positions += mixture.source_positions(batch * self._group_rows + group_row)
        return (source_positions / self._num_samples).tolist()

    def state(self, position: int) -> dict[str, Any]:
        """Return the state of the stream for a checkpoint, as JSON: its position, and a description of its data."""
        sources = []
        epochs_of_sources = self.epochs(position)
        for name, epochs, window, source, selection in zip(
            self.names, epochs_of_sources, self._windows, self.sources, self._selections, strict=True
        ):
            content = _describe_content(source, selection)
            sources.append({"name": name, "epochs": epochs, "window": window, **content})
        return {"position": position, "sources": sources}

    def restore_state(self, state: dict[str, Any]) -> None:
        """Take over the order of a run that is continued; its position is not part of it.

        Args:
            state: as returned by `state`.

        Raises:
            ValueError: a source has other shards, shards of other sizes, or other content in them.
        """
        sources = zip(state["sources"], self.sources, self._selections, strict=True)
        for number, (saved, source, selection) in enumerate(sources):
            current = _describe_content(source, selection)
            if saved.get("selection") != current.get("selection"):
                raise ValueError(
                    f"the selection of {saved['name']} has changed since the checkpoint. Set Data.select to what the "
                    "curation had made then, or start a new run with another -o Training.output=..."
                )
            if any(saved[key] != value for key, value in current.items()):
                raise ValueError(
                    f"the data {saved['name']} has changed since the checkpoint: {_format_content(saved)} then, "
                    f"{_format_content(current)} now. Put the files back as they were, or start a new run with another "
                    "-o Training.output=..."
                )
            # Version 1.0 wrote no window, and chose it by all rows of the shards, whichever of them an epoch has.
            window = saved.get("window") or _choose_window_size(len(source), len(source.shards), self._data)
            if window != self._windows[number]:
                self._windows[number] = window
                self._orders[number] = _order_samples(self._shard_orders[number], window, self._data.groups)


def _find_captions(sample: Sample, views: ViewsConfig) -> set[str]:
    """Return the captions from which a sample's views are drawn, as `text_key` makes them equal."""
    captions = set()
    for language in views.languages:
        with suppress(BadSample):
            captions.add(sample.caption(language))
        if views.long_caption:
            captions.add(sample.long_caption(views.long_caption, language) or "")
    if views.caption_lines:
        for caption in list(captions):
            captions.update(split_lines(caption))
    return {text_key(caption) for caption in captions if not is_blank(caption)}


def _choose_window_size(num_samples: int, num_shards: int, data: DataConfig) -> int:
    """Return the samples of one group's window.

    The windows of all groups together fill two shards less than a process keeps open, because a window touches up to
    two shards more than it fills.

    Args:
        num_samples: samples of an epoch, which may be few of the shards' rows.
        num_shards: shards that have samples.
        data: gives the largest window of all groups, and their number.
    """
    max_samples = max(1, num_samples * (MAX_OPEN_SHARDS - 2) // num_shards)
    return max(1, min(data.shuffle_buffer, max_samples) // data.groups)


def _order_samples(shards: ShardOrder, window: int, num_groups: int) -> list[SampleOrder]:
    """Return for each group the order of its samples."""
    return [SampleOrder(shards, window, group, num_groups) for group in range(num_groups)]


def _describe_content(source: ShardedSource, selection: Selection | None) -> dict[str, Any]:
    """Return the sizes of a source and digests: of its shards' names and sizes, of their content, of the selection."""
    lines = [f"{basename(shard.name)}\t{len(shard)}\n" for shard in source.shards]  # noqa: PTH119  -- paths as they are written
    digest = blake2b("".join(lines).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    content: dict[str, Any] = {
        "samples": len(source),
        "shards": len(source.shards),
        "digest": digest,
        "content": source.fingerprint,
    }
    if selection is not None:
        content["selection"] = selection.digest
    return content


def _format_content(content: dict[str, Any]) -> str:
    return (
        f"{pluralize(content['samples'], 'sample')} in {pluralize(content['shards'], 'shard')} "
        f"(names and sizes: {content['digest']}, content: {content['content']})"
    )


def watch_for_leaks(stream: SampleStream, benchmarks: Iterable[Benchmark]) -> list[str]:
    """Let a stream remark on samples whose image, byte for byte, is scored, and compare image ids at once.

    Ids are compared where a source knows them without reading its images. Equal ids in two data sets need not mean the
    same image; equal bytes do.

    Returns:
        Lines for people; none if no ids are equal.
    """
    unique_images = {}  # benchmarks may share images, which need to be read only once
    for benchmark in benchmarks:
        unique_images.update({id(image): image for image in benchmark.images})
    images = list(unique_images.values())
    if not images:
        return []
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        contents = set(threads.map(_hash_image, images))
    stream.scored_contents = frozenset(content for content in contents if content is not None)

    scored_ids = {image.id for image in images}
    lines = []
    for name, source in zip(stream.names, stream.sources, strict=True):
        if not source.has_image_names or len(source) > MAX_ROWS_TO_COMPARE:
            continue
        common_ids: dict[str, None] = {}  # a set that keeps its order
        for names_of_shard in source.read_image_names():
            for image_name in names_of_shard:
                if image_name is not None and image_name in scored_ids:
                    common_ids[image_name] = None
        if common_ids:
            examples = list(common_ids)[: BadSampleReport.MAX_NAMES]
            lines.append(f"leakage: of {pluralize(len(scored_ids), 'scored image')} "
                         f"{format_names(len(common_ids), examples)} have the ids of training "
                         f"images of {name}; equal content is counted as the run reads it")  # fmt: skip
    return lines


def _hash_image(image: BenchmarkImage) -> int | None:
    try:
        return hash_id("", image.read())
    except (OSError, BadSample):
        return None
