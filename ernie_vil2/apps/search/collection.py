"""Items with their embeddings, searched by the product: what every form of a collection has in common."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Collection as Container
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from ernie_vil2.io.files import parse_json

Where = Mapping[str, Any]
"""Filter by field: the value, or the list of values, that an item's field must have, or bounds, as {">=": 3, "<": 10}.

Bounds are numbers or dates. A number admits numbers; a date, `2025-01-31` or longer in the order of ISO 8601, admits
texts that begin with a year, month and day.
"""
BOUNDS = ("<", "<=", ">", ">=")
SHOWN_FIELDS = 30
MOST_CONDITIONS = 1000  # values that a filter may name in all
MOST_FIELDS = 100  # fields that a filter may name; SQLite takes no condition of 1,000 parts
DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
MOST_VALUES = 200  # distinct values up to which a field is offered as a filter
SIDES = ("images", "texts")  # kinds of collections of an index
VERSION = 1  # of what an index says of itself and of how its folder is laid out
ROUNDING = 0.01  # by how much the length of an embedding may differ from 1; float16 rounds it by 0.0005 at most


@dataclass(frozen=True)
class Item:
    """An indexed image or text."""

    id: str  # unique in its collection
    digest: bytes  # of the content that was encoded; an item with an equal one need not be encoded again
    fields: Mapping[str, Any] = field(default_factory=dict)  # for people and for filters: captions, tags, licence, ...
    location: Sequence[Any] = ()  # where the content lies, see `search.locations`
    thumbnail: bytes | None = None  # a small image, WebP or PNG; None of a text


class Hit(NamedTuple):
    """An item that was found."""

    id: str
    score: float  # the cosine of its embedding and the query's
    text: str  # its fields as JSON
    digest: bytes = b""  # as of the item

    @property
    def fields(self) -> dict[str, Any]:
        return parse_json(self.text)

    def as_json(self) -> dict[str, Any]:
        """What answers of the command and of the server hold."""
        return {"id": self.id, "score": self.score, "fields": self.fields}


class Changeable(Protocol):
    """What filling needs of a collection."""

    def add(self, items: Sequence[Item], embeddings: np.ndarray) -> None:
        """Adds items, `[n, D]` float; one of an id that is there already replaces it. All of them or none."""

    def update(self, items: Sequence[Item]) -> None:
        """Gives items that are there other fields and locations; all else of them stays. All of them or none."""

    def remove(self, ids: Sequence[str]) -> int:
        """Removes the items of these ids, where there are such; returns how many there were."""

    def get(self, item: str) -> Item | None:
        """The item of an id, without its thumbnail where the index type keeps none."""

    def digests(self, ids: Sequence[str]) -> dict[str, bytes]:
        """The digests of those of these ids that are there."""

    def named(self, names: Container[str]) -> dict[str, list[Item]]:
        """For each name the items whose id is the name, or begins with it and " (", by id; without thumbnails."""


class Collection(Changeable, Protocol):
    """Items by id, each with an L2-normalised embedding of one width."""

    @property
    def version(self) -> object | None:
        """An object that is replaced when a change is noticed, so that answers may be kept for it; None: keep none."""
        return None

    @property
    def index_type(self) -> dict[str, Any]:
        """Name, recall and choices of what answers its queries, for JSON."""

    def __len__(self) -> int: ...

    def search(
        self, queries: np.ndarray, count: int, where: Where | None = None, width: int | None = None
    ) -> list[list[Hit]]:
        """For each query, `[Q, D]` float32, the closest `count` items among those that `where` admits, best first.

        With a width, candidates are found by the first numbers of the embeddings, and ranked by all.
        """

    def embedding(self, item: str) -> np.ndarray | None:
        """`[D]` float32 of the item of an id."""

    def field_names(self) -> list[str]:
        """The fields that items have."""

    def every(self) -> Iterator[Item]:
        """All items, without thumbnails."""

    def some(self, count: int) -> list[Item]:
        """Up to `count` items, spread evenly over the collection."""

    def texts(self, count: int) -> list[str]:
        """Up to `count` captions of items, each once, spread evenly over the collection: queries to tune on."""
        found = {
            value: None
            for item in self.some(4 * count)
            for name, value in item.fields.items()
            if name.startswith("caption") and isinstance(value, str) and value.strip()
        }
        return list(found)[:count]

    def sample(self, count: int) -> np.ndarray:
        """`[n, D]` float32: up to `count` of its embeddings."""

    def facets(self) -> dict[str, list[tuple[Any, int]]]:
        """Fields that are worth filtering by: for each its values and how many items have each, most frequent first."""

    def uncovered(self) -> float:
        """Share of the rows that are searched one by one, since the index type was built without them."""
        return 0.0

    def gone(self) -> float:
        """Share of the rows that are of no item any more."""
        return 0.0

    def build(
        self, index_type: str | None, queries: Callable[[], np.ndarray], recall: float, log: Callable[[str], None]
    ) -> None:
        """Makes searching fast; see `IndexType.build`. None: the index type that suits the number of rows."""

    def refresh(self) -> None:
        """Takes note of what other processes have changed since, where searches do not see it anyway."""
        return

    def close(self) -> None:
        """Gives back what is the collection's own."""
        return


class DamagedIndex(ValueError):  # noqa: N818  -- named by what has happened
    """Damaged files of an index; the message names them."""


def counted_values(items: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[Any, int]]]:
    """See `Collection.facets`, of the fields of all items."""
    counts: dict[str, Counter] = {}
    for fields in items:
        for name, value in fields.items():
            found = counts.setdefault(name, Counter())
            if isinstance(value, str | bool | int) and len(found) <= MOST_VALUES:
                found[value] += 1
    return {name: found.most_common() for name, found in counts.items() if 1 < len(found) <= MOST_VALUES}


def are_unit(embeddings: np.ndarray) -> np.ndarray:
    """bool `[n]`: which rows of `[n, D]` are finite and of unit length."""
    # A sum of squares that overflows is not 1 either.
    squares = np.einsum("nd,nd->n", embeddings, embeddings, dtype=np.float32, casting="unsafe")
    with np.errstate(invalid="ignore"):
        return np.abs(np.sqrt(squares) - 1) <= ROUNDING


def checked(embeddings: np.ndarray, count: int, width: int, dtype: type) -> np.ndarray:
    """Embeddings of `count` items as `[count, width]` of a type; ValueError if they are not that, or not unit."""
    embeddings = np.asarray(embeddings, dtype)
    if embeddings.shape != (count, width):
        raise ValueError(f"{count} items need embeddings [{count}, {width}], got {list(embeddings.shape)}")
    if not np.isfinite(embeddings).all():
        raise ValueError("embeddings that are not finite cannot be indexed; is the checkpoint whole?")
    if not are_unit(embeddings).all():
        raise ValueError("embeddings that are not of unit length cannot be indexed; divide each by its length")
    return embeddings


def _check_bounds(name: str, bounds: Mapping[str, Any]) -> None:
    """ValueError for bounds other than numbers or dates."""
    if not bounds or any(bound not in BOUNDS for bound in bounds):
        raise ValueError(
            f"the filter {name} takes a text, a number, true or false, a list of these, or bounds by "
            f"{', '.join(BOUNDS)}"
        )
    for limit in bounds.values():
        number = isinstance(limit, int | float) and not isinstance(limit, bool) and math.isfinite(limit)
        if not (number or (isinstance(limit, str) and DATE.match(limit))):
            raise ValueError(f"the bound of {name} is {limit!r}: give a number, or a date such as 2025-01-31")


def check_names(where: Where, names: Sequence[str]) -> None:
    """ValueError for a field that no item has."""
    if unknown := [name for name in where if name not in names]:
        known = f"fields: {', '.join(names[:SHOWN_FIELDS])}{', ...' * (len(names) > SHOWN_FIELDS)}"
        raise ValueError(f"no item has a field {unknown[0]}; {known if names else 'none has any field'}")


def check_filter(where: Where) -> None:
    """ValueError for what no index type can be asked."""
    if len(where) > MOST_FIELDS:
        raise ValueError(f"a filter of {len(where):,} fields; at most {MOST_FIELDS} are taken")
    conditions = 0
    for name, value in where.items():
        if isinstance(value, dict):
            _check_bounds(name, value)
            values = list(value.values())
        else:
            values = value if isinstance(value, list) else [value]
        conditions += len(values)
        if not all(isinstance(one, str | int | float | bool) for one in values):
            raise ValueError(f"the filter {name} takes a text, a number, true or false, a list of these, or bounds")
        if any(isinstance(one, int) and not -(2**63) <= one < 2**63 for one in values):
            raise ValueError(f"the filter {name} takes whole numbers of 64 bits")
        if '"' in name or "\0" in name:
            raise ValueError(f"no field is called {name}")
    if conditions > MOST_CONDITIONS:
        raise ValueError(f"a filter of {conditions:,} values; at most {MOST_CONDITIONS:,} are taken")
