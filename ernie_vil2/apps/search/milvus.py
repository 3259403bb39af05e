"""The collections of an index in Milvus, or in milvus-lite, which is a Milvus in one folder of this machine.

Milvus shards, replicates and indexes by itself; what it holds is what the embedded form holds but for thumbnails,
which are read from where the images lie.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Collection as Container
from contextlib import contextmanager
from typing import Any

import numpy as np

from ernie_vil2.apps.search.collection import (
    SIDES,
    VERSION,
    Collection,
    DamagedIndex,
    Hit,
    Item,
    Where,
    are_unit,
    checked,
    counted_values,
)
from ernie_vil2.apps.search.integrity import check_about, item_of
from ernie_vil2.device.extras import require
from ernie_vil2.io.files import OtherVersion, check_version
from ernie_vil2.registry import unknown

LONGEST_ID = 1024
BATCH = 1000
NAMES = 100  # names that are looked for in one query
LARGEST_SCORE = 1.1  # of unit vectors, of which Milvus may keep 8-bit numbers
_ITEM = ["id", "digest", "fields", "location"]
INDEXES = {"exact": ("FLAT", {}), "ivf": ("IVF_SQ8", {"nlist": 1024})}
"""Milvus's own index types for ours."""
_CONSISTENT = "Strong"  # what was added is found by the next search


class MilvusStore:
    """An index in Milvus, whose collections a writer makes where they are not there; OSError if nothing answers.

    The address is `http://host:19530/NAME`, or the path of a `.db` of milvus-lite; NAME may be left out: `index`.
    """

    def __init__(self, address: str, writable: bool):
        require("an index in Milvus", "pymilvus")
        from pymilvus import MilvusClient

        uri, self.name = address, "index"
        if address.startswith("http"):
            scheme, _, rest = address.partition("://")
            host, _, name = rest.partition("/")
            uri, self.name = f"{scheme}://{host}", name or self.name
        try:
            self._client = MilvusClient(uri)
        except Exception as error:  # pymilvus has no common class for what can go wrong on the way
            raise OSError(f"{address}: no Milvus answers there ({error})") from error
        self.writable, self._address = writable, address
        self.about: dict[str, Any] = {}
        self.folder = None
        if self._client.has_collection(self._name("about")):
            self._client.load_collection(self._name("about"))
            found = self._client.query(self._name("about"), filter="id == 0", output_fields=["about"])
            if found:
                self.about = self._checked_about(found[0]["about"])
        elif not writable:
            raise FileNotFoundError(f"{address}: no index {self.name} there; build one with ernie-vil2 search build")

    def __str__(self) -> str:
        return self._address

    def _checked_about(self, about: Any) -> dict[str, Any]:
        name = f"{self._address}: about"
        version = about.get("version") if isinstance(about, dict) else None
        try:
            check_version(version, VERSION, name, "drop its collections and build the index again")
        except OtherVersion as error:
            raise DamagedIndex(str(error)) from None
        return check_about(about, (), name)

    def describe(self, about: dict[str, Any]) -> None:
        name = self._name("about")
        if not self.about:
            self._client.create_collection(name, dimension=2, consistency_level=_CONSISTENT)
        self._client.upsert(name, {"id": 0, "vector": [0.0, 1.0], "about": about})
        self.about = about

    def discard(self) -> None:
        for kind in ("about", *SIDES):
            self._client.drop_collection(self._name(kind))

    def collection(self, kind: str) -> MilvusCollection | None:
        name = self._name(kind)
        if not self._client.has_collection(name):
            if not self.writable:
                return None
            self._create(name)
        self._client.load_collection(name)
        return MilvusCollection(self._client, name, self.about["width"])

    @contextmanager
    def compacted(self, kind: str, collection: MilvusCollection) -> Iterator[MilvusCollection]:
        yield collection  # Milvus drops what is gone by itself

    def replaced(self) -> bool:
        return False  # a cluster names its collections, whatever lies behind a name

    def close(self) -> None:
        self._client.close()
        if not self._address.startswith("http"):
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(self._address)  # another process may open the folder now

    def _name(self, part: str) -> str:
        return f"ernie_vil2_{self.name}_{part}"

    def _create(self, name: str) -> None:
        from pymilvus import DataType, MilvusClient

        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=LONGEST_ID)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self.about["width"])
        for field in ("digest", "location"):
            schema.add_field(field, DataType.VARCHAR, max_length=65535)
        schema.add_field("fields", DataType.JSON)
        indexes = self._client.prepare_index_params()
        indexes.add_index("vector", index_type="FLAT", metric_type="IP")
        self._client.create_collection(name, schema=schema, index_params=indexes, consistency_level=_CONSISTENT)


class MilvusCollection(Collection):
    """A collection of Milvus, which itself indexes what comes and drops what is gone; who else writes is not known."""

    def __init__(self, client: Any, name: str, width: int):
        self._client, self._name, self.width = client, name, width

    @property
    def index_type(self) -> dict[str, Any]:
        """What Milvus says of its index."""
        return {"name": "milvus"} | dict(self._client.describe_index(self._name, "vector"))

    def __len__(self) -> int:
        return self._client.query(self._name, output_fields=["count(*)"])[0]["count(*)"]

    def add(self, items: Sequence[Item], embeddings: np.ndarray) -> None:
        embeddings = checked(embeddings, len(items), self.width, np.float32)
        rows = {item.id: _row(item, vector.tolist()) for item, vector in zip(items, embeddings, strict=True)}
        self._client.upsert(self._name, list(rows.values()))

    def update(self, items: Sequence[Item]) -> None:
        for start in range(0, len(items), BATCH):
            part = {item.id: item for item in items[start : start + BATCH]}
            there = self._client.get(self._name, ids=list(part), output_fields=["vector"])
            self._client.upsert(self._name, [_row(part[row["id"]], list(map(float, row["vector"]))) for row in there])

    def remove(self, ids: Sequence[str]) -> int:
        there = len(self.digests(ids))
        if there:
            self._client.delete(self._name, ids=list(ids))
        return there

    def search(
        self, queries: np.ndarray, count: int, where: Where | None = None, width: int | None = None
    ) -> list[list[Hit]]:
        if width is not None:
            raise ValueError("Milvus searches whole embeddings: leave out the width, or build an index of this width")
        queries = np.asarray(queries, np.float32).reshape(-1, self.width)
        count = min(count, len(self))
        if not count:
            return [[] for _ in queries]
        found = self._client.search(
            self._name,
            queries.tolist(),
            limit=count,
            filter=_expression(where or {}),
            output_fields=["fields", "digest"],
        )
        return [[self._hit(hit["id"], hit["distance"], hit["entity"]) for hit in hits] for hits in found]

    def get(self, item: str) -> Item | None:
        found = self._client.get(self._name, ids=[item], output_fields=_ITEM)
        return self._item(found[0]) if found else None

    def embedding(self, item: str) -> np.ndarray | None:
        found = self._client.get(self._name, ids=[item], output_fields=["vector"])
        if not found:
            return None
        embedding = np.asarray(found[0]["vector"], np.float32)
        if embedding.shape != (self.width,) or not are_unit(embedding[None]).all():
            raise DamagedIndex(f"Milvus, {self._name}: the embedding of {item[:100]!r} is not a unit vector")
        return embedding

    def digests(self, ids: Sequence[str]) -> dict[str, bytes]:
        digests = {}
        for start in range(0, len(ids), BATCH):
            for row in self._client.get(self._name, ids=list(ids[start : start + BATCH]), output_fields=["digest"]):
                digests[row["id"]] = self._digest(row["digest"])
        return digests

    def named(self, names: Container[str]) -> dict[str, list[Item]]:
        found: dict[str, list[Item]] = {name: [] for name in names}
        names = list(names)
        for start in range(0, len(names), NAMES):
            part = names[start : start + NAMES]
            ranges = " or ".join(
                f"id == {_quoted(name)} or (id > {_quoted(f'{name} (')} and id < {_quoted(f'{name} )')})"
                for name in part
            )
            items = [self._item(row) for row in self._client.query(self._name, filter=ranges, output_fields=_ITEM)]
            for name in part:
                own = (item for item in items if item.id == name or item.id.startswith(f"{name} ("))
                found[name] = sorted(own, key=lambda item: item.id)
        return found

    def field_names(self) -> list[str]:
        return sorted({name for row in self._rows(["fields"]) for name in row["fields"]})

    def every(self) -> Iterator[Item]:
        return map(self._item, self._rows(_ITEM))

    def some(self, count: int) -> list[Item]:
        return [self._item(row) for row in self._client.query(self._name, limit=count, output_fields=_ITEM)]

    def sample(self, count: int) -> np.ndarray:
        found = self._client.query(self._name, limit=count, output_fields=["vector"])
        return np.asarray([row["vector"] for row in found], np.float32).reshape(-1, self.width)

    def facets(self) -> dict[str, list[tuple[Any, int]]]:
        return counted_values(row["fields"] for row in self._rows(["fields"]))

    def build(
        self, index_type: str | None, queries: Callable[[], np.ndarray], recall: float, log: Callable[[str], None]
    ) -> None:
        if index_type is not None:
            if index_type not in INDEXES:
                raise unknown("index type in Milvus", index_type, INDEXES)
            kind, parameters = INDEXES[index_type]
            self._client.release_collection(self._name)
            if self._client.list_indexes(self._name):
                self._client.drop_index(self._name, "vector")
            indexes = self._client.prepare_index_params()
            indexes.add_index("vector", index_type=kind, metric_type="IP", params=parameters)
            self._client.create_index(self._name, indexes)
            self._client.load_collection(self._name)
        log(f"Milvus keeps its own index: {self.index_type['index_type']}")

    def _hit(self, one: str, score: float, entity: dict[str, Any]) -> Hit:
        fields = entity["fields"]
        if not abs(score) <= LARGEST_SCORE or not isinstance(fields, dict):
            raise DamagedIndex(f"Milvus, {self._name}: {one[:100]!r} has the score {score} or fields of another form")
        return Hit(one, score, json.dumps(fields), self._digest(entity["digest"]))

    def _item(self, row: dict[str, Any]) -> Item:
        digest, fields = self._digest(row["digest"]), json.dumps(row["fields"])
        return item_of(row["id"], digest, fields, row["location"], None, f"Milvus, {self._name}")

    def _digest(self, text: str) -> bytes:
        try:
            return bytes.fromhex(text)
        except ValueError as error:
            raise DamagedIndex(f"Milvus, {self._name}: a digest is {text[:100]!r}") from error

    def _rows(self, fields: list[str]) -> Iterator[dict[str, Any]]:
        iterator = self._client.query_iterator(self._name, batch_size=BATCH, output_fields=fields)
        while batch := iterator.next():
            yield from batch
        iterator.close()


def _expression(where: Where) -> str:
    """A filter in Milvus's language; strings are quoted as JSON quotes them."""
    parts = []
    for name, wanted in where.items():
        field = f"fields[{_quoted(name)}]"
        if isinstance(wanted, dict):
            # Milvus compares values of one type only. Of texts, dates are those that begin with a digit.
            parts += [f"{field} {bound} {_quoted(limit)}" for bound, limit in wanted.items()]
            if any(isinstance(limit, str) for limit in wanted.values()):
                parts.append(f'{field} >= "0" and {field} < ":"')
            continue
        values = wanted if isinstance(wanted, list) else [wanted]
        # Not `in`: milvus-lite knows it of plain fields only.
        parts.append(" or ".join(f"{field} == {_quoted(value)}" for value in values))
    return " and ".join(f"({part})" for part in parts)


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _row(item: Item, vector: list[float]) -> dict[str, Any]:
    return {
        "id": item.id,
        "vector": vector,
        "digest": item.digest.hex(),
        "fields": dict(item.fields),
        "location": json.dumps(list(item.location)),
    }
