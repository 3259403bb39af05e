"""The collections of an index in Milvus, or in milvus-lite, which is a Milvus in a folder of this machine.

Milvus shards, replicates and indexes by itself. It stores what a folder stores, except for thumbnails: the images are
read from their locations instead.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Collection as Container
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.apps.search.collection import (
    KINDS,
    VERSION,
    Collection,
    DamagedIndex,
    FieldSummary,
    Filter,
    Hit,
    Item,
    WordQueries,
    are_unit_vectors,
    summarize_fields,
    validate_embeddings,
)
from ernie_vil2.apps.search.integrity import check_metadata, parse_item
from ernie_vil2.device.extras import require
from ernie_vil2.io.files import OtherVersion, check_version
from ernie_vil2.registry import unknown_name

MAX_ID_LENGTH = 1024  # a VARCHAR of Milvus has a fixed bound; names of files have 255 bytes
MAX_TEXT_LENGTH = 65_535  # the largest that Milvus allows
BATCH_SIZE = 1000  # items of one request; Milvus limits the bytes of a message
MAX_NAMES_PER_QUERY = 100  # each takes three conditions of one expression
MAX_SCORE = 1.1  # of unit vectors; above 1, because Milvus may store them as 8-bit numbers
ITEM_FIELDS = ["id", "digest", "fields", "location"]
INDEX_TYPES = {"exact": ("FLAT", {}), "ivf": ("IVF_SQ8", {"nlist": 1024})}  # ours as those of Milvus, with parameters
# Of texts in expressions. JSON has more, such as \\u0000, which milvus-lite does not read.
_ESCAPES = str.maketrans({'"': r"\"", "\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"})
CONSISTENCY = "Strong"  # a search sees everything that was added before
# All clients of a folder of milvus-lite use one server, which runs in this process and must end with the last of them.
_num_lite_clients: Counter[str] = Counter()  # by absolute path, as milvus-lite knows its servers
_lite_lock = threading.Lock()


class MilvusStore:
    """An index in Milvus; a writer creates missing collections.

    Args:
        address: `http://host:19530/NAME`, or the path of a `.db` of milvus-lite; without NAME: `index`.
        writable: whether the index will be changed.

    Raises:
        DamagedIndex: the description of the index is of another form.
        FileNotFoundError: there is no such index, and it is not opened to be written.
        OSError: no Milvus answers.
        ValueError: NAME cannot be the name of an index.
    """

    def __init__(self, address: str, writable: bool):
        require("an index in Milvus", "pymilvus")
        from pymilvus import MilvusClient

        # The name of the index is the path of the address; milvus-lite has a folder of its own for each index.
        uri, self.name = address, "index"
        self._is_server = address.startswith(("http://", "https://"))
        if self._is_server:
            scheme, _, location = address.partition("://")
            host, _, name = location.partition("/")
            uri, self.name = f"{scheme}://{host}", name or self.name
            if not re.fullmatch(r"\w+", self.name, re.ASCII):  # it becomes part of the names of collections
                raise ValueError(f"{address}: the name {self.name!r} of an index in Milvus takes a-z, A-Z, 0-9 and _")
        missing = f"{address}: no index {self.name} there; build one with ernie-vil2 search build"
        if not (self._is_server or writable or Path(address).exists()):  # milvus-lite would create the file
            raise FileNotFoundError(missing)
        try:
            self._client = _Client(MilvusClient(uri) if self._is_server else _open_lite(address), address)
        except Exception as error:  # the exceptions of pymilvus and grpc have no common class
            raise OSError(f"{address}: no Milvus answers there ({error})") from error
        self.writable, self._address = writable, address
        self.metadata: dict[str, Any] = {}
        self.folder = None
        try:
            self.metadata = self._read_metadata()
            if not (self.metadata or writable):
                raise FileNotFoundError(missing)
        except BaseException:
            self.close()
            raise

    def __str__(self) -> str:
        return self._address

    def _read_metadata(self) -> dict[str, Any]:
        """Return the description of the index; empty if it is new."""
        name = self._collection_name("metadata")
        if not self._client.has_collection(name):
            return {}
        self._client.load_collection(name)
        records = self._client.query(name, filter="id == 0", output_fields=["metadata"])
        return self._check_metadata(records[0]["metadata"]) if records else {}

    def _check_metadata(self, metadata: Any) -> dict[str, Any]:
        name = f"{self._address}: metadata"
        version = metadata.get("version") if isinstance(metadata, dict) else None
        try:
            check_version(version, VERSION, name, "drop its collections and build the index again")
        except OtherVersion as error:
            raise DamagedIndex(str(error)) from None
        return check_metadata(metadata, (), name)

    def write_metadata(self, metadata: dict[str, Any]) -> None:
        name = self._collection_name("metadata")
        if not self._client.has_collection(name):  # a writer that was killed may have created it
            self._client.create_collection(name, dimension=2, consistency_level=CONSISTENCY)
        self._client.upsert(name, {"id": 0, "vector": [0.0, 1.0], "metadata": metadata})  # Milvus demands a vector
        self.metadata = metadata

    def discard(self) -> None:
        for kind in ("metadata", *KINDS):
            self._client.drop_collection(self._collection_name(kind))

    def collection(self, kind: str) -> MilvusCollection | None:
        name = self._collection_name(kind)
        if not self._client.has_collection(name):
            if not self.writable:
                return None
            self._create_collection(name)
        self._client.load_collection(name)
        return MilvusCollection(self._client, name, self.metadata["width"])

    @contextmanager
    def compact(self, kind: str, collection: MilvusCollection) -> Iterator[MilvusCollection]:
        yield collection  # Milvus drops removed rows by itself

    def detect_replacement(self) -> bool:
        return False  # collections have names, and a name always means the current one

    def close(self) -> None:
        if self._is_server:
            self._client.close()
        else:
            _close_lite(self._client, self._address)

    def _collection_name(self, kind: str) -> str:
        return f"ernie_vil2_{self.name}_{kind}"

    def _create_collection(self, name: str) -> None:
        from pymilvus import DataType, MilvusClient

        # Digest and location are texts, because Milvus has no binary scalars. A collection begins with an exact index.
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=MAX_ID_LENGTH)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self.metadata["width"])
        for field in ("digest", "location"):
            schema.add_field(field, DataType.VARCHAR, max_length=MAX_TEXT_LENGTH)
        schema.add_field("fields", DataType.JSON)
        indexes = self._client.prepare_index_params()
        indexes.add_index("vector", index_type="FLAT", metric_type="IP")
        self._client.create_collection(name, schema=schema, index_params=indexes, consistency_level=CONSISTENCY)


class _Client:
    """A client of pymilvus whose errors are OSError with the address: Milvus does not answer, or refuses a value."""

    def __init__(self, client: Any, address: str):
        self._client, self._address = client, address

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            with self.translate_errors():
                return method(*arguments, **options)

        return call

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        from pymilvus import MilvusException

        try:
            yield
        except MilvusException as error:
            raise OSError(f"{self._address}: {error.message}") from error


def _open_lite(folder: str) -> Any:
    from pymilvus import MilvusClient

    with _lite_lock:
        client = MilvusClient(folder)
        _num_lite_clients[os.path.abspath(folder)] += 1  # noqa: PTH100  -- resolve() would follow links
    return client


def _close_lite(client: Any, folder: str) -> None:
    from milvus_lite.server_manager import server_manager_instance

    path = os.path.abspath(folder)  # noqa: PTH100  -- resolve() would follow links
    with _lite_lock:
        client.close()
        _num_lite_clients[path] -= 1
        if not _num_lite_clients[path]:
            server_manager_instance.release_server(path)  # otherwise it would keep the folder locked


class MilvusCollection(Collection):
    """A collection of Milvus. It has no version, since nothing tells when another client writes to it."""

    def __init__(self, client: Any, name: str, width: int):
        self._client, self._name, self.width = client, name, width

    @property
    def index_type(self) -> dict[str, Any]:
        """Description of the index by Milvus."""
        return {"name": "milvus"} | dict(self._client.describe_index(self._name, "vector"))

    def __len__(self) -> int:
        return self._client.query(self._name, output_fields=["count(*)"])[0]["count(*)"]

    def add(self, items: Sequence[Item], embeddings: np.ndarray) -> None:
        embeddings = validate_embeddings(embeddings, len(items), self.width, np.float32)
        rows = {}  # by id, so that the last item with an id wins
        for item, vector in zip(items, embeddings, strict=True):
            rows[item.id] = _make_row(item, vector.tolist())
        self._client.upsert(self._name, list(rows.values()))

    def update(self, items: Sequence[Item]) -> None:
        for start in range(0, len(items), BATCH_SIZE):
            batch = {item.id: item for item in items[start : start + BATCH_SIZE]}
            stored_rows = self._find(batch, ["vector"])
            # An upsert replaces whole rows, so the vectors are read and written back.
            rows = [_make_row(batch[row["id"]], list(map(float, row["vector"]))) for row in stored_rows]
            self._client.upsert(self._name, rows)

    def remove(self, ids: Sequence[str]) -> int:
        existing_ids = list(self.get_digests(ids))
        for start in range(0, len(existing_ids), BATCH_SIZE):
            self._client.delete(self._name, filter=_match_ids(existing_ids[start : start + BATCH_SIZE]))
        return len(existing_ids)

    def search(
        self,
        queries: np.ndarray,
        count: int,
        where: Filter | None = None,
        width: int | None = None,
        words: WordQueries | None = None,
    ) -> list[list[Hit]]:
        if words is not None:
            raise ValueError("an index in Milvus has no words: leave them out, or build an index in a folder")
        if width is not None:
            raise ValueError("Milvus searches whole embeddings: leave out the width, or build an index of this width")
        queries = np.asarray(queries, np.float32).reshape(-1, self.width)
        count = min(count, len(self))
        if not count:
            return [[] for _ in queries]
        answers = self._client.search(
            self._name,
            queries.tolist(),
            limit=count,
            filter=_make_expression(where or {}),
            output_fields=["fields", "digest"],
        )
        # The answer may come from a stranger's Milvus, and is checked like the files of a folder.
        hits_of_queries = []
        for hits in answers:
            hits_of_queries.append([self._parse_hit(hit["id"], hit["distance"], hit["entity"]) for hit in hits])
        return hits_of_queries

    def get(self, item_id: str) -> Item | None:
        rows = self._find([item_id], ITEM_FIELDS)
        return self._parse_item(rows[0]) if rows else None

    def get_embedding(self, item_id: str) -> np.ndarray | None:
        rows = self._find([item_id], ["vector"])
        if not rows:
            return None
        embedding = np.asarray(rows[0]["vector"], np.float32)
        if embedding.shape != (self.width,) or not are_unit_vectors(embedding[None]).all():
            raise DamagedIndex(f"Milvus, {self._name}: the embedding of {item_id[:100]!r} is not a unit vector")
        return embedding

    def get_digests(self, ids: Sequence[str]) -> dict[str, bytes]:
        digests = {}
        for start in range(0, len(ids), BATCH_SIZE):
            for row in self._find(ids[start : start + BATCH_SIZE], ["digest"]):
                digests[row["id"]] = self._parse_digest(row["digest"])
        return digests

    def find_by_name(self, names: Container[str]) -> dict[str, list[Item]]:
        items_of_names: dict[str, list[Item]] = {name: [] for name in names}
        names = list(names)
        for start in range(0, len(names), MAX_NAMES_PER_QUERY):
            batch = names[start : start + MAX_NAMES_PER_QUERY]
            conditions = []
            for name in batch:
                # ")" follows "(" in the order of characters: the range holds ids that begin with the name and " (".
                lower, upper = _quote(f"{name} ("), _quote(f"{name} )")
                conditions.append(f"id == {_quote(name)} or (id > {lower} and id < {upper})")
            rows = self._client.query(self._name, filter=" or ".join(conditions), output_fields=ITEM_FIELDS)
            items = sorted(map(self._parse_item, rows), key=lambda item: item.id)
            for item in items:
                for name in batch:
                    if item.id == name or item.id.startswith(f"{name} ("):
                        items_of_names[name].append(item)
        return items_of_names

    def field_names(self) -> list[str]:
        names: set[str] = set()
        for row in self._iterate_rows(["fields"]):
            names.update(row["fields"])
        return sorted(names)

    def iterate_items(self) -> Iterator[Item]:
        return map(self._parse_item, self._iterate_rows(ITEM_FIELDS))

    def sample_items(self, count: int) -> list[Item]:
        rows = self._client.query(self._name, limit=count, output_fields=ITEM_FIELDS)
        return [self._parse_item(row) for row in rows]

    def sample_embeddings(self, count: int) -> np.ndarray:
        rows = self._client.query(self._name, limit=count, output_fields=["vector"])
        return np.asarray([row["vector"] for row in rows], np.float32).reshape(-1, self.width)

    def summarize_fields(self) -> FieldSummary:
        return summarize_fields(row["fields"] for row in self._iterate_rows(["fields"]))

    def build_index_type(
        self, index_type: str | None, queries: Callable[[], np.ndarray], recall: float, log: Callable[[str], None]
    ) -> None:
        if index_type is not None:
            if index_type not in INDEX_TYPES:
                raise unknown_name("index type in Milvus", index_type, INDEX_TYPES)
            milvus_type, parameters = INDEX_TYPES[index_type]
            self._client.release_collection(self._name)  # a loaded collection cannot change its index
            if self._client.list_indexes(self._name):
                self._client.drop_index(self._name, "vector")
            indexes = self._client.prepare_index_params()
            indexes.add_index("vector", index_type=milvus_type, metric_type="IP", params=parameters)
            self._client.create_index(self._name, indexes)
            self._client.load_collection(self._name)
        log(f"Milvus keeps its own index: {self.index_type['index_type']}")

    def _find(self, ids: Iterable[str], fields: list[str]) -> list[dict[str, Any]]:
        # Not `get`, which puts the ids into its expression as they are: one with a quote in it is an error, or worse.
        return self._client.query(self._name, filter=_match_ids(ids), output_fields=fields)

    def _parse_hit(self, item_id: str, score: float, entity: dict[str, Any]) -> Hit:
        fields = entity["fields"]
        is_score = abs(score) <= MAX_SCORE  # not NaN either
        if not is_score or not isinstance(fields, dict):
            raise DamagedIndex(
                f"Milvus, {self._name}: {item_id[:100]!r} has the score {score} or fields of another form"
            )
        return Hit(item_id, score, json.dumps(fields), self._parse_digest(entity["digest"]))

    def _parse_item(self, row: dict[str, Any]) -> Item:
        digest, fields = self._parse_digest(row["digest"]), json.dumps(row["fields"])
        return parse_item(row["id"], digest, fields, row["location"], None, f"Milvus, {self._name}")

    def _parse_digest(self, text: str) -> bytes:
        try:
            return bytes.fromhex(text)
        except ValueError as error:
            raise DamagedIndex(f"Milvus, {self._name}: a digest is {text[:100]!r}") from error

    def _iterate_rows(self, fields: list[str]) -> Iterator[dict[str, Any]]:
        with self._client.translate_errors():
            iterator = self._client.query_iterator(self._name, batch_size=BATCH_SIZE, output_fields=fields)
            while batch := iterator.next():
                yield from batch
            iterator.close()


def _make_expression(where: Filter) -> str:
    """Return a filter in the language of Milvus."""
    clauses = []
    for name, condition in where.items():
        field = f"fields[{_quote(name)}]"
        if isinstance(condition, dict):
            # Milvus compares only values of one type. Among texts, those that begin with a digit count as dates.
            for operator, limit in condition.items():
                clauses.append(f"{field} {operator} {_quote(limit)}")
            if any(isinstance(limit, str) for limit in condition.values()):
                clauses.append(f'{field} >= "0" and {field} < ":"')
        else:
            choices = condition if isinstance(condition, list) else [condition]
            # Not `in`, which milvus-lite has for plain fields only. Without choices, no item matches.
            clauses.append(" or ".join(f"{field} == {_quote(choice)}" for choice in choices) or 'id < ""')
    return " and ".join(f"({clause})" for clause in clauses)


def _match_ids(ids: Iterable[str]) -> str:
    """Return a filter, in the language of Milvus, of the items with these ids."""
    return f"id in [{', '.join(map(_quote, ids))}]"


def _quote(value: Any) -> str:
    """Return a value as a literal of Milvus."""
    if isinstance(value, str):
        return f'"{value.translate(_ESCAPES)}"'
    return json.dumps(value)


def _make_row(item: Item, vector: list[float]) -> dict[str, Any]:
    return {
        "id": item.id,
        "vector": vector,
        "digest": item.digest.hex(),
        "fields": dict(item.fields),
        "location": json.dumps(list(item.location)),
    }
