"""The endless stream of training samples: sources mixed by weight, each in its own order and its own epochs."""

from __future__ import annotations

from hashlib import blake2b
from os.path import basename
from typing import Any

from ernie_vil2.config import Config
from ernie_vil2.data.mixture import Mixture
from ernie_vil2.data.order import SampleOrder
from ernie_vil2.data.samples import Sample, content_id
from ernie_vil2.data.sources import HELD_SHARDS, Sources, open_sources
from ernie_vil2.wording import counted


class SampleStream:
    """The samples of `Data.train` by their place in the stream, which goes on without end.

    Which sample stands at a place follows from the seed, the shards with their sizes, and `Data.shuffle_buffer`.

    Args:
        config: the run's.

    Attributes:
        names: for each source what a person knows it by.
        views: for each source the views of its samples: `Views` with what the source has of its own.

    Raises:
        FileNotFoundError, ValueError: as `open_sources`.
    """

    def __init__(self, config: Config):
        data, seed = config.Data, config.Training.seed
        if not data.sources:
            raise ValueError("no data given: set Data.train to tar shards or another source (docs/data.md)")
        self._data = [source.name for source in data.sources]
        self.names = [
            name if self._data.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(self._data, 1)
        ]
        self.views = [source.views(config.Views) for source in data.sources]
        self._text_ids = [source.text_id or data.text_id for source in data.sources]
        self._sources = [
            open_sources(source.data, text_id, source.split, source.images)
            for source, text_id in zip(data.sources, self._text_ids, strict=True)
        ]
        self._orders = [
            SampleOrder(source.shard_sizes, seed, number, min(data.shuffle_buffer, _held_samples(source)))
            for number, source in enumerate(self._sources)
        ]
        weights = [source.weight or order.samples for source, order in zip(data.sources, self._orders, strict=True)]
        self._mixture = Mixture(weights, seed)

    def __getitem__(self, place: int) -> tuple[int, Sample]:
        """The source's number and the sample; BadSample if it cannot be used."""
        source, own_place = self._mixture[place]
        return source, self._sources[source][self._orders[source][own_place]]

    def where(self, place: int) -> str:
        """Shard and row of the sample at a place, for a person who looks for it."""
        source, own_place = self._mixture[place]
        return self._sources[source].place(self._orders[source][own_place])

    def ids(self, source: int, sample: Sample) -> tuple[int, int]:
        """Image and text as numbers. What one data set calls an image says nothing of another's; captions do.

        Samples are of one image if they are of one source, and its name and its bytes are the same.
        """
        data = self._data[source]
        text = f"{data}\n{sample.text_name}" if self._text_ids[source] else sample.text_name
        return content_id(f"{data}\n{sample.image_name}", sample.image), content_id(text)

    def first_places(self, source: int, count: int) -> list[int]:
        """The first `count` places of the stream at which a source stands."""
        return self._mixture.first_places(source, count)

    @property
    def shares(self) -> list[float]:
        """For each source its share of the stream."""
        return (self._mixture.quotas / self._mixture.quotas.sum()).tolist()

    def epochs(self, place: int) -> list[float]:
        """For each source how often its samples stand before a place: 1.5 is each once and half of them twice."""
        own_places = self._mixture.places(place)
        return [own_place / order.samples for own_place, order in zip(own_places, self._orders, strict=True)]

    def position(self, place: int) -> dict[str, Any]:
        """What a checkpoint holds of the stream, for JSON: the place it has come to, and what its data is."""
        contents = map(_content, self._sources)
        return {
            "place": place,
            "sources": [
                {"name": name, "epochs": epochs, **content}
                for name, epochs, content in zip(self.names, self.epochs(place), contents, strict=True)
            ],
        }

    def check(self, position: dict[str, Any]) -> None:
        """Makes sure that a run goes on with the data it began with.

        Args:
            position: as `position` gave it.

        Raises:
            ValueError: a source has other shards, shards of other sizes, or other content in them.
        """
        for then, source in zip(position["sources"], self._sources, strict=True):
            now = _content(source)
            # Earlier checkpoints know nothing of the content.
            if any(then.get(key, value) != value for key, value in now.items()):
                raise ValueError(
                    f"the data {then['name']} has changed since the checkpoint: {_say(then)} then, {_say(now)} now. "
                    "Put the files back as they were, or start a new run with another -o Training.output=..."
                )


def _held_samples(sources: Sources) -> int:
    """Samples of as many shards as a process holds, less the two that a window of them may touch beyond."""
    return max(1, len(sources) * (HELD_SHARDS - 2) // len(sources.shards))


def _content(sources: Sources) -> dict[str, Any]:
    """Number of samples and shards, and digests of the shards' names and sizes in their order, and of their content."""
    lines = (f"{basename(shard.name)}\t{len(shard)}\n" for shard in sources.shards)
    digest = blake2b("".join(lines).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    return {"samples": len(sources), "shards": len(sources.shards), "digest": digest, "content": sources.fingerprint}


def _say(content: dict[str, Any]) -> str:
    return (
        f"{counted(content['samples'], 'sample')} in {counted(content['shards'], 'shard')} "
        f"(names and sizes: {content['digest']}, content: {content.get('content', 'unknown')})"
    )
