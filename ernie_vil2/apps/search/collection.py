"""The interface of a collection: items with their embeddings, searched by inner product.

`search.local_collection` implements it with files, `search.milvus` with Milvus.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Collection as Container
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from ernie_vil2.io.files import is_number, parse_json

Filter = Mapping[str, Any]
"""Conditions by field: the value of the field, a list of allowed values, or bounds such as {">=": 3, "<": 10}.

A bound is a number or a date. A number is compared with numbers. A date, such as `2025-01-31` with or without a time
(ISO 8601), is compared with texts that begin with a year, month and day.
"""
BOUND_OPERATORS = ("<", "<=", ">", ">=")
DATE_PATTERN = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
# Bounds of a filter, which a stranger may send. SQLite takes no condition of 1,000 terms; a field can take two terms.
MAX_FILTER_VALUES = 1000
MAX_FIELDS = 100  # also of an item that is sent to the API
MAX_LISTED_FIELDS = 30  # field names in an error message
MAX_FACET_VALUES = 200  # a field with more distinct values is no useful choice of the page, and is not counted on

MAX_BOUND = 2**53  # of a number in a range; JavaScript has no larger whole numbers

KINDS = ("images", "texts")  # the collections that an index may have
VERSION = 1  # format of the description and of the folder of an index
NORM_TOLERANCE = 0.01  # largest deviation of an embedding's length from 1; rounding to float16 makes 0.0005 at most


@dataclass(frozen=True)
class Item:
    """An indexed image or text."""

    id: str  # unique in its collection
    digest: bytes  # of the encoded content; an item with an equal digest is not encoded again
    fields: Mapping[str, Any] = field(default_factory=dict)  # shown, and used by filters: captions, tags, license, ...
    location: Sequence[Any] = ()  # where the content lies, see `search.locations`
    thumbnail: bytes | None = None  # a small WebP or PNG; None for a text


class Hit(NamedTuple):
    """An item in the answer to a query."""

    id: str
    score: float  # cosine similarity of item and query
    fields_json: str  # as JSON, because the server passes most of them on unparsed
    digest: bytes = b""  # as in `Item`
    has_words: bool = False  # whether the query asked for words and the item was found by them

    @property
    def fields(self) -> dict[str, Any]:
        return parse_json(self.fields_json)

    def as_json(self) -> dict[str, Any]:
        """Return the hit as the command prints it."""
        content = {"id": self.id, "score": self.score, "fields": self.fields}
        return content | {"words": True} if self.has_words else content


class WordQueries(NamedTuple):
    """The words that the items of an answer contain, next to its embeddings.

    texts: for each query the words as a text; an item contains all of them. Empty: none.
    weight: factor of the ranks by names and words when they are fused with those by meaning, see `search.fusion`.
    threshold: smallest cosine of the items that do not contain the words and are fused with those that do; None: any.
    """

    texts: Sequence[str]
    weight: float = 1.0
    threshold: float | None = None


class EditableItems(Protocol):
    """The methods of a collection that adding and updating items needs; a dry run has a stand-in for it."""

    def add(self, items: Sequence[Item], embeddings: np.ndarray) -> None:
        """Add all of the items or none, with embeddings `[n, D]` float; an item with the same id is replaced.

        Raises:
            ValueError: an embedding is not a finite vector of unit length and of width D.
        """

    def update(self, items: Sequence[Item]) -> None:
        """Set the fields and locations of existing items, all of them or none; everything else of them stays."""

    def remove(self, ids: Sequence[str]) -> int:
        """Remove the items with these ids, ignoring unknown ids, and return how many were removed."""

    def get(self, item_id: str) -> Item | None:
        """Return an item or None; without its thumbnail if the collection stores none."""

    def get_digests(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Return the digests of the items with these ids; unknown ids are left out."""

    def find_by_name(self, names: Container[str]) -> dict[str, list[Item]]:
        """Return for each name the items whose id is the name, or begins with it and " (".

        The items are sorted by id and have no thumbnails.
        """


class Collection(EditableItems, Protocol):
    """Items with unique ids, each with an L2-normalised embedding of width D."""

    @property
    def version(self) -> object | None:
        """Object that is replaced when a change is noticed: answers may be cached for it. None: do not cache."""
        return None

    @property
    def index_type(self) -> dict[str, Any]:
        """Name, recall and parameters of the index type that answers the queries, for JSON."""

    def __len__(self) -> int: ...

    def search(
        self,
        queries: np.ndarray,
        count: int,
        where: Filter | None = None,
        width: int | None = None,
        words: WordQueries | None = None,
    ) -> list[list[Hit]]:
        """Return for each query the closest items that satisfy a filter, best first.

        Args:
            queries: `[Q, D]` float32.
            count: hits per query; fewer if fewer items satisfy the filter.
            where: the filter; None: all items.
            width: if set, candidates are found by the first `width` numbers of the embeddings and ranked by all.
            words: if set, items that contain the words of a query are found too, and both rankings are fused.

        Raises:
            DamagedIndex: what is read does not fit together.
            ValueError: words are given, and the collection has none.
        """

    def get_embedding(self, item_id: str) -> np.ndarray | None:
        """Return the embedding of an item, `[D]` float32, or None."""

    def field_names(self) -> list[str]:
        """Return the names of all fields that any item has, sorted."""

    def iterate_items(self) -> Iterator[Item]:
        """Yield all items, without thumbnails."""

    def sample_items(self, count: int) -> list[Item]:
        """Return up to `count` items, spread evenly over the collection."""

    def sample_captions(self, count: int) -> list[str]:
        """Return up to `count` distinct captions, spread evenly over the collection: queries to tune with."""
        captions: dict[str, None] = {}
        for item in self.sample_items(4 * count):  # some have no caption, and others the same one
            for name, value in item.fields.items():
                if name.startswith("caption") and isinstance(value, str) and value.strip():
                    captions[value] = None
        return list(captions)[:count]

    def sample_embeddings(self, count: int) -> np.ndarray:
        """Return up to `count` embeddings, `[n, D]` float32."""

    def summarize_fields(self) -> "FieldSummary":
        """Return the fields worth filtering by, with their values."""

    def uncovered_share(self) -> float:
        """Return the share of rows that the index type does not cover, so that they are searched one by one."""
        return 0.0

    def removed_share(self) -> float:
        """Return the share of rows whose items were removed or replaced."""
        return 0.0

    def build_index_type(
        self, index_type: str | None, queries: Callable[[], np.ndarray], recall: float, log: Callable[[str], None]
    ) -> None:
        """Build an index type, see `IndexType.build`; None chooses one by the number of rows."""

    def refresh(self) -> None:
        """Read what other processes have committed, unless every search sees it anyway."""
        return

    def close(self) -> None:
        """Release the resources of the collection."""
        return


class DamagedIndex(ValueError):  # noqa: N818  -- named by what has happened
    """Damaged files of an index; the message names them."""


class FieldSummary(NamedTuple):
    """Fields of a collection that are worth filtering by.

    facets: fields with few values, as pairs of a value and its number of items, most frequent first.
    ranges: smallest and largest number of the fields with many values, some of which are numbers.
    """

    facets: dict[str, list[tuple[Any, int]]]
    ranges: dict[str, tuple[float, float]]


def summarize_fields(fields_of_items: Iterable[Mapping[str, Any]]) -> FieldSummary:
    """Return the summary of the fields of all items."""
    counters: dict[str, Counter] = {}
    ranges: dict[str, tuple[float, float]] = {}
    for fields in fields_of_items:
        for name, value in fields.items():
            counter = counters.setdefault(name, Counter())
            # One value above the limit is counted, which shows that the field has too many.
            if isinstance(value, str | bool | int) and len(counter) <= MAX_FACET_VALUES:
                counter[value] += 1
            if is_number(value, -MAX_BOUND, MAX_BOUND):
                low, high = ranges.get(name, (value, value))
                ranges[name] = min(low, value), max(high, value)

    # A field with one value distinguishes nothing, and one with too many is no choice.
    facets = {}
    for name, counter in counters.items():
        if 1 < len(counter) <= MAX_FACET_VALUES:
            facets[name] = counter.most_common()
    wide_ranges = {name: bounds for name, bounds in ranges.items() if name not in facets and bounds[0] < bounds[1]}
    return FieldSummary(facets, wide_ranges)


def are_unit_vectors(embeddings: np.ndarray) -> np.ndarray:
    """Return which rows of `[n, D]` are finite and have unit length, bool `[n]`."""
    # float32 is enough: a sum of squares that overflows to infinity is not 1 either.
    squares = np.einsum("nd,nd->n", embeddings, embeddings, dtype=np.float32, casting="unsafe")
    with np.errstate(invalid="ignore"):
        return np.abs(np.sqrt(squares) - 1) <= NORM_TOLERANCE


def validate_embeddings(embeddings: np.ndarray, count: int, width: int, dtype: type) -> np.ndarray:
    """Return embeddings of `count` items as `[count, width]` of a type; ValueError if they are not unit vectors."""
    embeddings = np.asarray(embeddings, dtype)
    if embeddings.shape != (count, width):
        raise ValueError(f"{count} items need embeddings [{count}, {width}], got {list(embeddings.shape)}")
    if not np.isfinite(embeddings).all():
        raise ValueError("embeddings that are not finite cannot be indexed; is the checkpoint damaged?")
    if not are_unit_vectors(embeddings).all():
        raise ValueError("embeddings that are not of unit length cannot be indexed; divide each by its length")
    return embeddings


def check_field_names(where: Filter, names: Sequence[str]) -> None:
    """Raise ValueError if a filter names a field that no item has."""
    unknown_names = [name for name in where if name not in names]
    if not unknown_names:
        return
    if not names:
        raise ValueError(f"no item has a field {unknown_names[0]}; none has any field")
    listed_names = ", ".join(names[:MAX_LISTED_FIELDS])
    ellipsis = ", ..." if len(names) > MAX_LISTED_FIELDS else ""
    raise ValueError(f"no item has a field {unknown_names[0]}; fields: {listed_names}{ellipsis}")


def check_filter(where: Filter) -> None:
    """Raise ValueError for a filter that is too large or that no index type supports."""
    if len(where) > MAX_FIELDS:
        raise ValueError(f"the filter has {len(where):,} fields; at most {MAX_FIELDS} are allowed")
    num_values = 0
    for name, condition in where.items():
        # The first two cannot be written in a JSON path of every SQLite, and half of a surrogate pair in no database.
        if '"' in name or "\0" in name or not _is_unicode(name):
            raise ValueError(f"no field is called {name!r}")
        if isinstance(condition, dict):
            values = list(condition.values())
        elif isinstance(condition, list):
            values = condition
        else:
            values = [condition]
        num_values += len(values)

        for value in values:
            if not isinstance(value, str | int | float | bool):
                raise ValueError(f"the filter {name} takes a text, a number, true or false, a list of these, or bounds")
            # Whole numbers of SQLite have 64 bits.
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise ValueError(f"the filter {name} takes whole numbers of 64 bits")
            if isinstance(value, str) and not _is_unicode(value):
                raise ValueError(f"the filter {name} takes texts in Unicode, which {value[:100]!r} is not")
        if isinstance(condition, dict):
            _check_bounds(name, condition)
    if num_values > MAX_FILTER_VALUES:
        raise ValueError(f"the filter has {num_values:,} values; at most {MAX_FILTER_VALUES:,} are allowed")


def _is_unicode(text: str) -> bool:
    """Return whether a text has no half of a surrogate pair, which JSON can write as an escape."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_bounds(name: str, bounds: Mapping[str, Any]) -> None:
    """Raise ValueError for bounds that are neither numbers nor dates; whole numbers must have 64 bits."""
    if not bounds or any(operator not in BOUND_OPERATORS for operator in bounds):
        raise ValueError(
            f"the filter {name} takes a text, a number, true or false, a list of these, or bounds with "
            f"{', '.join(BOUND_OPERATORS)}"
        )
    for limit in bounds.values():
        is_finite_number = isinstance(limit, int | float) and not isinstance(limit, bool) and math.isfinite(limit)
        is_date = isinstance(limit, str) and DATE_PATTERN.match(limit)
        if not (is_finite_number or is_date):
            raise ValueError(f"the bound of {name} is {limit!r}: use a number, or a date such as 2025-01-31")
