"""`/api/v1`: searches, one by one and in batches, embeddings in the form of OpenAI's interface, and changes of items.

What arrives is bounded by `middleware` before it is looked at: its bytes there, its lists and texts here. Bodies are
parsed on a thread, since a parser that has 20 MiB to read lets nothing else be answered on the event loop.
"""

import asyncio
import base64
import binascii
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, Literal, TypeVar, get_args

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, Field, FiniteFloat, ValidationError

from ernie_vil2.apps.search.add_items import THUMBNAIL_SIDE, make_thumbnail
from ernie_vil2.apps.search.batching import Batcher, Options, encode_json
from ernie_vil2.apps.search.collection import KINDS, MAX_FIELDS, Item
from ernie_vil2.apps.search.index import Index, check_query_lengths
from ernie_vil2.apps.search.items import dump_json
from ernie_vil2.apps.search.locations import compute_digest
from ernie_vil2.apps.search.middleware import Uploads
from ernie_vil2.apps.search.store import BusyIndex
from ernie_vil2.data.decoding import to_rgb_array
from ernie_vil2.data.samples import check_text
from ernie_vil2.encoder import truncate_embeddings
from ernie_vil2.io.files import parse_json

MOST_ANSWERS, MOST_OFFSET = 200, 2000
MOST_QUERIES, MOST_INPUTS, MOST_ITEMS = 64, 256, 64  # of one request
MOST_CHARACTERS = 2**17
"""Of all texts of one request together: 512 for each of 256 inputs. Tokenizing that many takes about half a second of
a core, so that a request holds up those of other clients no longer than a large image does."""
MOST_TAGS = 1000  # texts of a field that is a list
MOST_VALUES = 2 * MOST_CHARACTERS
"""Commas and opening brackets of a body, an upper bound of the values that a parser makes of it, some 100 bytes each.
A text may consist of commas, hence a bound that is not below that of all texts."""
LONGEST_ID = 1024
LONGEST_WHERE = 2**16  # characters of a filter; that of a GET request is bounded by the length of headers
EXAMPLES = 24
WRITING_SECONDS = 10  # that a change waits for the end of another one

Kind = Literal["images", "texts"]
Count = Annotated[int, Query(ge=1, le=MOST_ANSWERS, description="answers")]


async def _options(
    count: Count = 40,
    among: Kind = "images",
    threshold: Annotated[float | None, Query(ge=-1, le=1, description="least cosine of an answer")] = None,
    where: Annotated[
        str, Query(description='only items with these values: {"license": "MIT", "set": ["mdi", "bi"]}')
    ] = "{}",
    offset: Annotated[int, Query(ge=0, le=MOST_OFFSET, description="answers that are left out, the best ones")] = 0,
) -> Options:
    """What queries have in common."""
    return Options(count, among, threshold, _where(where), offset)


Asked = Annotated[Options, Depends(_options)]


class Answer(BaseModel):
    id: str
    score: float = Field(description="cosine of the item and the query")
    fields: dict[str, Any]
    version: str = Field(description="changes with the content: thumbnail?id=...&version=... may be kept for good")


class Answers(BaseModel):
    hits: list[Answer]
    milliseconds: float


class AnswersOfBatch(BaseModel):
    results: list[list[Answer]]
    milliseconds: float


def _check_field_count(fields: Any) -> Any:
    """Raise ValueError for too many fields; pydantic would validate, and report, each of them before it counts."""
    if isinstance(fields, dict) and len(fields) > MAX_FIELDS:
        raise ValueError(f"{len(fields):,} fields; at most {MAX_FIELDS} are taken")
    return fields


class One(BaseModel):
    text: str = ""
    without: str = Field("", description="a text that is taken away")
    image: str | None = Field(None, description="an image in base64, or a data: URL")


class Batch(BaseModel):
    queries: list[One] = Field(min_length=1, max_length=MOST_QUERIES, fail_fast=True)
    count: int = Field(10, ge=1, le=MOST_ANSWERS)
    among: Kind = "images"
    threshold: float | None = Field(None, ge=-1, le=1)
    where: dict[str, Any] = Field({}, max_length=MAX_FIELDS, description='as {"license": "MIT"}')


class Input(BaseModel):
    text: str | None = None
    image: str | None = Field(None, description="an image in base64, or a data: URL")


Inputs = Annotated[list[str | Input], Field(min_length=1, max_length=MOST_INPUTS, fail_fast=True)]


class Embeddings(BaseModel):
    input: str | Inputs = Field(description="texts; images as data: URLs, or as objects with image")
    model: str = ""
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


Tags = Annotated[list[str], Field(max_length=MOST_TAGS, fail_fast=True)]
Fields = Annotated[
    dict[str, str | int | FiniteFloat | bool | Tags],
    Field(max_length=MAX_FIELDS),
    BeforeValidator(_check_field_count),
]


class NewItem(BaseModel):
    image: str | None = Field(None, description="an image in base64, or a data: URL")
    text: str | None = Field(None, description="of an item of the texts")
    id: str | None = Field(None, min_length=1, max_length=LONGEST_ID, description="default: of its content")
    fields: Fields = {}


class NewItems(BaseModel):
    items: list[NewItem] = Field(min_length=1, max_length=MOST_ITEMS, fail_fast=True)


_ANSWERS: dict[int | str, dict[str, Any]] = {200: {"model": Answers}}


def search_routes(index: Index, batcher: Batcher, uploads: Uploads, threshold: float | None) -> APIRouter:
    """Searches; `threshold` is the least cosine of a tag."""
    router = APIRouter()

    @router.get("/search", summary="Items that match a sentence", responses=_ANSWERS)
    async def by_text(
        options: Asked,
        q: Annotated[str, Query(description="a sentence", examples=["a red apple"])] = "",
        without: Annotated[str, Query(description="a sentence that is taken away")] = "",
    ) -> Response:
        start = time.perf_counter()
        parts = _parts(q, without)
        if not parts:
            raise HTTPException(422, "ask something")
        return _answer(await batcher.answer(parts, options), start)

    body = {"requestBody": {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}}

    @router.post(
        "/search/image",
        summary="Items that match an image, the body of the request, and a sentence",
        responses=_ANSWERS,
        openapi_extra=body,
    )
    async def by_image(request: Request, options: Asked, q: str = "", without: str = "") -> Response:
        start, parts = time.perf_counter(), _parts(q, without)
        async with uploads.received(request) as content:
            pixels = await batcher.decode_pixels(content)
        return _answer(await batcher.answer([(1.0, pixels), *parts], options), start)

    @router.post(
        "/search/batch",
        summary="Several queries at once",
        responses={200: {"model": AnswersOfBatch}},
        openapi_extra=_body(Batch),
    )
    async def batch(request: Request) -> Response:
        start = time.perf_counter()
        async with uploads.received(request) as content:
            asked, texts, images = await batcher.run_in_thread(_read_batch, content)
            pixels = await batcher.decode_all_pixels(images)
        queries = []
        for parts, image in zip(texts, pixels, strict=True):
            queries.append(parts if image is None else [(1.0, image), *parts])
        options = Options(asked.count, asked.among, asked.threshold, dump_json(asked.where))
        return _answer(b"[%b]" % b",".join(await batcher.answer_all(queries, options)), start, b"results")

    @router.get("/similar", summary="Items like one of the index", responses=_ANSWERS)
    async def similar(id: str, options: Asked, kind: Kind = "images") -> Response:
        start, found = time.perf_counter(), options.search_arguments()
        try:
            hits = await batcher.run_search(lambda: index.similar(id, kind, **found)[options.offset :])
            return _answer(hits, start)
        except KeyError:
            raise HTTPException(404, "no item of this id") from None

    @router.get(
        "/tags", summary="Texts that name an image of the index; none where nothing is close enough", responses=_ANSWERS
    )
    async def tags(id: str, count: Count = 5) -> Response:
        if not index.has("texts"):
            return _answer(b"[]", time.perf_counter())
        return await similar(id, Options(count, "texts", threshold))

    @router.post(
        "/tags", summary="Texts that name an image, the body of the request", responses=_ANSWERS, openapi_extra=body
    )
    async def tags_of_image(request: Request, count: Count = 5) -> Response:
        start = time.perf_counter()
        async with uploads.received(request) as content:
            if not index.has("texts"):
                return _answer(b"[]", start)
            pixels = await batcher.decode_pixels(content)
        return _answer(await batcher.answer([(1.0, pixels)], Options(count, "texts", threshold)), start)

    @router.get("/facets", summary="Fields to filter by, with their values and the number of items of each")
    def facets() -> dict[str, list[tuple[Any, int]]]:
        return index.collection("images").facets() if index.has("images") else {}

    return router


def model_routes(index: Index, batcher: Batcher, uploads: Uploads, shown: Sequence[str]) -> APIRouter:
    """The model: what it is, and its embeddings; `shown` are the fields that the page shows on a card."""
    router = APIRouter()

    @router.get("/info", summary="The model, the number of items, its calibrated thresholds, and what a page shows")
    def info() -> dict[str, Any]:
        there = {kind: len(index.collection(kind)) for kind in KINDS if index.has(kind)}
        directions = {"images": "text_to_image", "texts": "image_to_text"}
        return {
            "model": index.title,
            "dimensions": index.model.embed_dim,
            **there,
            "thresholds": {kind: index.threshold(way) for kind, way in directions.items()},
            "show": list(shown),
        }

    @router.get("/examples", summary="Some items, spread evenly over the index, and captions to ask for")
    def examples() -> dict[str, Any]:
        if not index.has("images"):
            return {"items": [], "texts": []}
        images = index.collection("images")
        items = [
            {"id": one.id, "fields": one.fields, "version": one.digest.hex()} for one in images.sample_items(EXAMPLES)
        ]
        return {"items": items, "texts": images.sample_captions(EXAMPLES // 3)}

    @router.get("/models", summary="The model, in OpenAI's form")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": index.title, "object": "model", "owned_by": "ernie_vil2"}]}

    @router.post(
        "/embeddings", summary="Embeddings of texts and images, in OpenAI's form", openapi_extra=_body(Embeddings)
    )
    async def embeddings(request: Request) -> Response:
        async with uploads.received(request) as content:
            asked, texts, images = await batcher.run_in_thread(_read_embeddings, content)
            if asked.dimensions not in (None, *index.model.widths):
                known = " or ".join(map(str, index.model.widths))
                raise HTTPException(422, f"this model's embeddings have {known} dimensions")
            pixels = await batcher.decode_all_pixels(images)
        parts = [text or "" if image is None else image for text, image in zip(texts, pixels, strict=True)]
        vectors = await batcher.encode(parts)
        body = await batcher.run_in_thread(_write_embeddings, index, asked, texts, vectors)
        return Response(body, media_type="application/json")

    return router


def item_routes(index: Index, batcher: Batcher, uploads: Uploads) -> APIRouter:
    """Changes of the index."""
    router = APIRouter()

    @router.post(
        "/items", summary="Adds images and texts, or replaces those of the same ids", openapi_extra=_body(NewItems)
    )
    async def add(request: Request) -> dict[str, Any]:
        async with uploads.received(request) as content:
            new_items, images = await batcher.run_in_thread(_read_items, content)
            decoded = await batcher.decode_all(images, partial(_finish_image, index))
        made = []
        for new, image, finished in zip(new_items, images, decoded, strict=True):
            if image is None or finished is None:
                made.append(_text_item(new))
            else:
                made.append(_image_item(new, image, *finished))
        vectors = await batcher.encode([part for _, _, part in made])
        added = {}
        for kind in get_args(Kind):
            if chosen := [number for number, (of, _, _) in enumerate(made) if of == kind]:
                items, rows = [made[number][1] for number in chosen], np.stack([vectors[number] for number in chosen])
                await asyncio.to_thread(_add, index, kind, items, rows)
                added[kind] = [item.id for item in items]
        return {"added": added}

    @router.delete("/items", summary="Removes items by their ids")
    def remove(id: Annotated[list[str], Query(max_length=MOST_ITEMS)], among: Kind = "images") -> dict[str, int]:
        with _writing(index) as writer:
            return {"removed": writer.collection(among).remove(id)}

    return router


def _text_item(new: NewItem) -> tuple[Kind, Item, str | np.ndarray]:
    """Return the side of an item, the item, and what is encoded for it."""
    text = (new.text or "").strip()
    return "texts", Item(new.id or text, compute_digest(text.encode()), {"caption": text} | new.fields), text


def _finish_image(index: Index, image: bytes, decoded: Any) -> tuple[bytes, np.ndarray]:
    """Return the thumbnail of an image, and its pixels as the model sees them."""
    return make_thumbnail(image, to_rgb_array(decoded), THUMBNAIL_SIDE), index.model.preprocessing.view(decoded)


def _image_item(new: NewItem, image: bytes, small: bytes, pixels: np.ndarray) -> tuple[Kind, Item, str | np.ndarray]:
    """As `_text_item`."""
    digest = compute_digest(image)
    return "images", Item(new.id or digest.hex(), digest, new.fields, (), small), pixels


def _add(index: Index, kind: Kind, items: Sequence[Item], rows: np.ndarray) -> None:
    with _writing(index) as writer:
        writer.collection(kind).add(items, rows)


@contextmanager
def _writing(index: Index) -> Iterator[Index]:
    """The index to be changed; 503 while another process does so for too long."""
    due = time.monotonic() + WRITING_SECONDS
    while True:
        try:
            writer = index.open_writer()
            break
        except BusyIndex:
            if time.monotonic() > due:
                raise HTTPException(
                    503,
                    "the index is being changed by another process; try again",
                    {"Retry-After": str(WRITING_SECONDS)},
                ) from None
            time.sleep(0.05)
    with writer:
        yield writer


def _answer(hits: bytes, start: float, name: bytes = b"hits") -> Response:
    content = b'{"%b":%b,"milliseconds":%.3f}' % (name, hits, 1000 * (time.perf_counter() - start))
    return Response(content, media_type="application/json")


def _parts(plus: str, minus: str) -> list[tuple[float, Any]]:
    parts = [(sign, text) for sign, text in ((1.0, plus.strip()), (-1.0, minus.strip())) if text]
    check_query_lengths(text for _, text in parts)
    return parts


def _where(text: str) -> str:
    """A filter as JSON, the same for the same filter."""
    if text == "{}":
        return text
    try:
        where = parse_json(text)
        if not isinstance(where, dict):
            raise ValueError("it is another value")
    except ValueError as error:
        raise HTTPException(422, f'where is a JSON object of values, as {{"license": "MIT"}}: {error}') from None
    return dump_json(where)


Body = TypeVar("Body", bound=BaseModel)


def _parse(model: type[Body], content: bytes) -> Body:
    """Return the body of a request; RequestValidationError if it is not one, as FastAPI raises it."""
    # Counting takes a millisecond, and bounds the memory that parsing takes.
    num_values = content.count(b",") + content.count(b"[") + content.count(b"{")
    if num_values > MOST_VALUES:
        raise HTTPException(422, f"a body of {num_values:,} values; at most {MOST_VALUES:,} are taken")
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
    # Outside of the handler, so that the error does not keep the one of pydantic, and with it the body.
    raise RequestValidationError(details)


def _check_length(texts: Iterable[str]) -> None:
    num_characters = sum(map(len, texts))
    if num_characters > MOST_CHARACTERS:
        raise HTTPException(
            422, f"texts of {num_characters:,} characters together; at most {MOST_CHARACTERS:,} are taken in a request"
        )


def _read_batch(content: bytes) -> tuple[Batch, list[list[tuple[float, Any]]], list[bytes | None]]:
    """Return the batch, and of each query its weighted texts and its image."""
    batch = _parse(Batch, content)
    _check_length(text for query in batch.queries for text in (query.text, query.without))
    if len(dump_json(batch.where)) > LONGEST_WHERE:
        raise HTTPException(422, f"a filter of more than {LONGEST_WHERE:,} characters")
    texts = [_parts(query.text, query.without) for query in batch.queries]
    images = [None if query.image is None else _image(query.image) for query in batch.queries]
    if any(image is None and not parts for image, parts in zip(images, texts, strict=True)):
        raise HTTPException(422, "a query asks nothing: give it text, without or image")
    return batch, texts, images


def _read_embeddings(content: bytes) -> tuple[Embeddings, list[str | None], list[bytes | None]]:
    """Return what is asked, and of each input its text or its image."""
    parameters = _parse(Embeddings, content)
    texts, images = list[str | None](), list[bytes | None]()
    for value in [parameters.input] if isinstance(parameters.input, str) else parameters.input:
        text, image = _input(value)
        texts.append(text)
        images.append(None if image is None else _image(image))
    present_texts = [text for text in texts if text is not None]
    _check_length(present_texts)
    check_query_lengths(present_texts)
    return parameters, texts, images


def _write_embeddings(
    index: Index, asked: Embeddings, texts: Sequence[str | None], vectors: Sequence[np.ndarray]
) -> bytes:
    """Return the answer in OpenAI's form."""
    if asked.dimensions not in (None, index.model.embed_dim):
        vectors = list(truncate_embeddings(np.stack(vectors), asked.dimensions))
    tokens = sum(len(index.model.tokenizer.encode(text)) for text in texts if text is not None)
    data = [
        {"object": "embedding", "index": number, "embedding": _encoded(vector, asked.encoding_format)}
        for number, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return encode_json({"object": "list", "data": data, "model": index.title, "usage": usage})


def _read_items(content: bytes) -> tuple[list[NewItem], list[bytes | None]]:
    """Return the items, and of each its image."""
    items = _parse(NewItems, content).items
    for item in items:
        if (item.image is None) == (item.text is None) or (item.text is not None and not item.text.strip()):
            raise HTTPException(422, "an item has either an image or a text")
        if item.text is not None:
            check_text(item.text)
    _check_length(text for item in items for text in _texts_of(item))
    return items, [None if item.image is None else _image(item.image) for item in items]


def _texts_of(item: NewItem) -> Iterator[str]:
    """Yield all texts of an item, the names of its fields too."""
    yield item.text or ""
    for name, value in item.fields.items():
        yield name
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from value


def _body(model: type[BaseModel]) -> dict[str, Any]:
    """The description of a body for OpenAPI, with the models that it refers to in it."""
    schema = model.model_json_schema()
    others = schema.pop("$defs", {})

    def inlined(value: Any) -> Any:
        if isinstance(value, dict):
            name = value.get("$ref", "").rpartition("/")[2]
            return inlined(others[name]) if name in others else {key: inlined(one) for key, one in value.items()}
        return [inlined(one) for one in value] if isinstance(value, list) else value

    return {"requestBody": {"required": True, "content": {"application/json": {"schema": inlined(schema)}}}}


def _input(given: str | Input) -> tuple[str | None, str | None]:
    """The text or the image of an input."""
    if isinstance(given, str):
        return (None, given) if given.startswith("data:image/") else (given, None)
    if (given.text is None) == (given.image is None):
        raise HTTPException(422, "an input is a text or an image")
    return given.text, given.image


def _image(text: str) -> bytes:
    """The bytes of an image in base64, or of a data: URL."""
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except binascii.Error:
        raise HTTPException(422, "an image is given in base64, or as data:image/...;base64,...") from None


def _encoded(vector: np.ndarray, form: str) -> list[float] | str:
    row = np.ascontiguousarray(vector, "<f4")
    return row.tolist() if form == "float" else base64.b64encode(row.tobytes()).decode()
