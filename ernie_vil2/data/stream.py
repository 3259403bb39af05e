"""The endless stream of training samples: sources mixed by weight, each in its own order and its own epochs."""

import warnings
from collections.abc import Iterable, Sequence
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
from ernie_vil2.data.readers.splits import holdout_part
from ernie_vil2.data.samples import BadSample, BadSampleReport, Sample, content_id, first_names, is_blank, text_key
from ernie_vil2.data.selection import Draws, Selected, read_selection
from ernie_vil2.data.spec import DataSpec
from ernie_vil2.io.terminal import counted

SCORED = "image that is scored too"  # remark on a sample
MOST_ROWS = 1_500_000
"""Of training data, beyond which their ids are not compared with scored ones: a run would begin a minute later."""


class SampleStream:
    """The samples of `Data.train` by their position in the stream, which goes on without end.

    Which sample is at a position follows from the seed, the shards with their sizes, `Data.shuffle_buffer` and
    `Data.groups`: the rows of a global batch are of one group after the other, and a group has its own part of the
    shards in every epoch.

    Args:
        config: the run's.

    Attributes:
        names: for each source what a person knows it by.
        sources: what is read, in the same order.
        views: for each source the views of its samples: `Views` with what the source has of its own.
        scored: contents of the images that are scored, see `watch`; a sample with one of them is remarked on.

    Raises:
        FileNotFoundError, ValueError: as `open_sources` and `read_selection`; a source has fewer samples than there are
            groups.
    """

    def __init__(self, config: Config):
        data, seed = config.Data, config.Training.seed
        self._batch, self._share = config.Training.global_batch, config.Training.global_batch // data.groups
        if not data.sources:
            raise ValueError("no data given: set Data.train to tar shards or another source (docs/data.md)")
        self._data = [source.name for source in data.sources]
        self.names = [
            name if self._data.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(self._data, 1)
        ]
        self.views = [source.views(config.Views) for source in data.sources]
        specs = [DataSpec.of_source(config, source) for source in data.sources]
        self._text_ids = [spec.text_id for spec in specs]
        self.sources = [open_sources(spec) for spec in specs]
        if data.holdout:
            self.sources[0] = holdout_part(data.holdout, "train").select(self.sources[0])
        selections = [source.select or data.select for source in data.sources]
        self._selected = [
            read_selection(select, source) if select else None
            for select, source in zip(selections, self.sources, strict=True)
        ]
        self._units: list[RowsByImage | None] = [None] * len(self.sources)
        shard_orders = [self._shards_of(number, data.unit, seed) for number in range(len(self.sources))]
        self._samples = [shards.expected for shards in shard_orders]
        for name, samples in zip(self.names, self._samples, strict=True):
            if samples < data.groups:
                raise ValueError(f"{name}: {counted(samples, 'sample')} for {data.groups} groups; lower Data.groups")
        self._orders: list[list[SampleOrder]] = []
        for number, source in enumerate(self.sources):
            source.max_open_shards += 2 * (data.groups - 1)  # a window touches two beyond those that it fills
            shards, window = shard_orders[number], _window(source, data)
            self._orders.append([SampleOrder(shards, window, group, data.groups) for group in range(data.groups)])
        weights = [source.weight or samples for source, samples in zip(data.sources, self._samples, strict=True)]
        self._mixtures = [Mixture(weights, seed, group) for group in range(data.groups)]
        self._ahead: dict[tuple[int, int], tuple[int, int]] = {}
        self.scored: frozenset[int] = frozenset()

    def _shards_of(self, number: int, unit: str, seed: int) -> ShardOrder:
        """The order of a source's shards, whose samples are rows, those selected of them, or the images of these."""
        source, selected = self.sources[number], self._selected[number]
        sizes: Sequence[int] | np.ndarray = source.shard_sizes if selected is None else selected.shard_sizes
        units = None
        if unit == "image":
            names: Iterable[list[str | None]] = source.read_image_names()
            if selected is not None:
                names = selected.of_each(names, source.shard_sizes.tolist())
            units = self._units[number] = RowsByImage(names, seed, number)
            sizes = units.shard_sizes
        if selected is None or (selected.weights >= 1).all():
            return ShardOrder(sizes, seed, number)
        weights, ids = (
            values if units is None else units.largest(values) for values in (selected.weights, selected.ids)
        )
        return ShardOrder(sizes, seed, number, Draws(weights, ids, np.asarray(sizes), seed, number))

    def _locate(self, position: int) -> tuple[int, int, int]:
        """The source's number, the group's, and the position in this group's stream of the source."""
        batch, row = divmod(position, self._batch)
        group, row = divmod(row, self._share)
        source, own_position = self._mixtures[group][batch * self._share + row]
        return source, group, own_position

    def _numbered(self, position: int) -> tuple[int, int]:
        """The source's number, and that of the sample in it."""
        source, group, own_position = self._locate(position)
        order, units, selected = self._orders[source][group], self._units[source], self._selected[source]
        number = order[own_position]
        if units is not None:
            number = units.row(number, order.window(own_position)[0])
        return source, number if selected is None else int(selected.numbers[number])

    def __getitem__(self, position: int) -> tuple[int, Sample]:
        """The source's number and the sample; BadSample if it cannot be used."""
        source, number = self._numbered(position)
        sample = self.sources[source][number]
        if self.scored and content_id("", sample.image) in self.scored:
            warnings.warn(SCORED, ImageRemark, stacklevel=1)
        return source, sample

    def fetch_ahead(self, position: int) -> None:
        """Begins to fetch the shards of a position's window and of the next, where they lie elsewhere.

        It is for the process that reads on from there to call.
        """
        if not any(source.has_remote_shards for source in self.sources):
            return
        source, group, own_position = self._locate(position)
        order = self._orders[source][group]
        epoch, window, _ = order.window(own_position)
        if self.sources[source].has_remote_shards and self._ahead.get((source, group)) != (epoch, window):
            self._ahead[source, group] = epoch, window
            windows = order.window_shards(epoch, window), order.window_shards(epoch, window + 1)
            self.sources[source].fetch_ahead(group, *windows)

    def is_here(self, position: int) -> bool:
        """Whether the sample at a position can be read without fetching its shard."""
        source, number = self._numbered(position)
        return self.sources[source].is_local(number)

    def where(self, position: int) -> str:
        """Shard and row of the sample at a position, for a person who looks for it."""
        source, number = self._numbered(position)
        return self.sources[source].where(number)

    def ids(self, source: int, sample: Sample) -> tuple[int, int]:
        """Image and text as numbers. What one data set calls an image says nothing of another's; captions do.

        Samples are of one image if they are of one source, and its name and its bytes are the same.
        """
        data, long = self._data[source], self.views[source].long_caption
        text = sample.text_name_without(long) if long else sample.text_name
        text = f"{data}\n{text}" if self._text_ids[source] else text
        return content_id(f"{data}\n{sample.image_name}", sample.image), content_id(text)

    def training_texts(self, most_samples: int) -> tuple[set[str], bool]:
        """Return the captions that training may see, as `text_key` makes them equal.

        Samples of shards that have to be fetched, and those that cannot be used, are left out.

        Args:
            most_samples: after so many the others are not read.

        Returns:
            The captions, and whether they are those of all samples.
        """
        texts: set[str] = set()
        num_read, is_complete = 0, True
        for source, selected, views in zip(self.sources, self._selected, self.views, strict=True):
            numbers = range(len(source)) if selected is None else selected.numbers
            for number in map(int, numbers):
                if num_read == most_samples:
                    return texts, False
                if not source.is_local(number):
                    is_complete = False
                    continue
                num_read += 1
                with suppress(BadSample):
                    texts |= _captions_of_views(source[number], views)
        return texts, is_complete

    def first_positions(self, source: int, count: int) -> list[int]:
        """The first `count` positions of the first group at which there is a sample of a source."""
        positions = self._mixtures[0].first_positions(source, count)
        return [position // self._share * self._batch + position % self._share for position in positions]

    @property
    def samples(self) -> int:
        """Of an epoch, over all sources; on average, where they are drawn."""
        return sum(self._samples)

    @property
    def shares(self) -> list[float]:
        """For each source its share of the stream."""
        quotas = self._mixtures[0].quotas
        return (quotas / quotas.sum()).tolist()

    def epochs(self, position: int) -> list[float]:
        """For each source how often its samples come before a position: 1.5 is each once and half of them twice."""
        batch, row = divmod(position, self._batch)
        own_positions = np.sum(
            [
                mixture.positions(batch * self._share + min(max(row - group * self._share, 0), self._share))
                for group, mixture in enumerate(self._mixtures)
            ],
            axis=0,
        )
        return (own_positions / self._samples).tolist()

    def state(self, position: int) -> dict[str, Any]:
        """What a checkpoint holds of the stream, for JSON: the position it has come to, and what its data is."""
        contents = map(_content, self.sources, self._selected)
        return {
            "position": position,
            "sources": [
                {"name": name, "epochs": epochs, **content}
                for name, epochs, content in zip(self.names, self.epochs(position), contents, strict=True)
            ],
        }

    def check(self, state: dict[str, Any]) -> None:
        """Makes sure that a run goes on with the data it began with.

        Args:
            state: as `state` gave it.

        Raises:
            ValueError: a source has other shards, shards of other sizes, or other content in them.
        """
        for then, source, selected in zip(state["sources"], self.sources, self._selected, strict=True):
            now = _content(source, selected)
            if then.get("selection") != now.get("selection"):
                raise ValueError(
                    f"the selection of {then['name']} has changed since the checkpoint. Set Data.select to what the "
                    "curation had made then, or start a new run with another -o Training.output=..."
                )
            if any(then[key] != value for key, value in now.items()):
                raise ValueError(
                    f"the data {then['name']} has changed since the checkpoint: {_say(then)} then, {_say(now)} now. "
                    "Put the files back as they were, or start a new run with another -o Training.output=..."
                )


def _captions_of_views(sample: Sample, views: ViewsConfig) -> set[str]:
    """Return the captions of a sample of which its views are made, as `text_key` makes them equal."""
    captions = set()
    for language in views.languages:
        captions.add(sample.captions.get(language) or sample.captions.get("") or "")
        if views.long_caption:
            captions.add(sample.long_caption(views.long_caption, language) or "")
    if views.caption_lines:
        captions |= {line for caption in captions for line in caption.splitlines()}
    return {text_key(caption) for caption in captions if not is_blank(caption)}


def _window(sources: ShardedSource, data: DataConfig) -> int:
    """Samples of a window of one group: all groups' fill no more shards than a process keeps open, less two."""
    most = max(1, len(sources) * (MAX_OPEN_SHARDS - 2) // len(sources.shards))
    return max(1, min(data.shuffle_buffer, most) // data.groups)


def _content(sources: ShardedSource, selected: Selected | None) -> dict[str, Any]:
    """Number of samples and shards, and digests of the shards' names and sizes in their order, and of their content.

    Of a selection also its digest.
    """
    lines = (f"{basename(shard.name)}\t{len(shard)}\n" for shard in sources.shards)  # noqa: PTH119  -- paths as they are written
    digest = blake2b("".join(lines).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    content = {"samples": len(sources), "shards": len(sources.shards), "digest": digest}
    selection = {} if selected is None else {"selection": selected.digest}
    return content | {"content": sources.fingerprint} | selection


def _say(content: dict[str, Any]) -> str:
    return (
        f"{counted(content['samples'], 'sample')} in {counted(content['shards'], 'shard')} "
        f"(names and sizes: {content['digest']}, content: {content['content']})"
    )


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
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        found = threads.map(_content_of_image, images)
        stream.scored = frozenset(content for content in found if content is not None)
    ids = {image.id for image in images}
    lines = []
    for name, source in zip(stream.names, stream.sources, strict=True):
        if source.has_image_names and len(source) <= MOST_ROWS:
            alike = list(dict.fromkeys(image for names in source.read_image_names() for image in names if image in ids))
            if alike:
                lines.append(f"leakage: of {counted(len(ids), 'scored image')} "
                             f"{first_names(len(alike), alike[: BadSampleReport.NAMES])} have the ids of training "
                             f"images of {name}; equal content is counted as the run reads it")  # fmt: skip
    return lines


def _content_of_image(image: BenchmarkImage) -> int | None:
    try:
        return content_id("", image.read())
    except (OSError, BadSample):
        return None
