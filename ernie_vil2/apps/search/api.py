"""The routes of an index: searches, and changes of items.

`serving.bodies` bounds the bytes, texts and pixels of a request, and this module its lists.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, get_args

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, Field, FiniteFloat

from ernie_vil2.apps.search.add_items import THUMBNAIL_SIDE, make_thumbnail
from ernie_vil2.apps.search.batching import Options, SearchBatcher
from ernie_vil2.apps.search.collection import KINDS, MAX_FIELDS, Item
from ernie_vil2.apps.search.index import Index
from ernie_vil2.apps.search.items import dump_json
from ernie_vil2.apps.search.locations import compute_digest
from ernie_vil2.apps.search.store import BusyIndex
from ernie_vil2.apps.serving.bodies import (
    IMAGE_DESCRIPTION,
    RequestReader,
    StrictModel,
    check_parameter_names,
    check_total_length,
    decode_base64,
    describe_body,
    parse_body,
)
from ernie_vil2.apps.serving.errors import RequestError
from ernie_vil2.apps.serving.text_length import check_text_lengths
from ernie_vil2.data.decoding import to_rgb_array
from ernie_vil2.data.samples import check_text
from ernie_vil2.io.files import parse_json

# Bounds of one request.
MAX_HITS, MAX_OFFSET = 200, 2000
MAX_BATCH_QUERIES, MAX_ITEMS = 64, 64
MAX_TAGS = 1000  # texts in a field that is a list
MAX_ID_LENGTH = 1024  # characters
MAX_WORD_WEIGHT = 100  # words come first from 2 on
MAX_WHERE_LENGTH = 2**16  # characters of a filter in a body; in a URL it is bounded by the size of headers

NUM_EXAMPLES = 24  # items that the page shows before there is a query, and a third as many queries to try
WRITE_TIMEOUT = 10  # seconds that a change waits for another process that writes
WRITE_RETRY_DELAY = 0.05  # seconds between two attempts

WORDS_DESCRIPTION = (
    "weight of the items that contain all words of the text, whatever their cosine; with 1, those that the text names "
    "alternate with those by meaning, the best one first, and the first five by meaning stay before the others; with "
    "2, all of them come first; 0: meaning alone"
)
Kind = Literal["images", "texts"]
Count = Annotated[int, Query(ge=1, le=MAX_HITS, description="number of hits")]


async def _parse_hit_options(
    count: Count = 40,
    among: Kind = "images",
    threshold: Annotated[float | None, Query(ge=-1, le=1, description="smallest cosine of a hit")] = None,
    where: Annotated[
        str, Query(description='only items with these values: {"license": "MIT", "set": ["mdi", "bi"]}')
    ] = "{}",
    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET, description="number of best hits to leave out")] = 0,
) -> Options:
    """Return the options that all searches share; async, because FastAPI would run it on a thread otherwise."""
    return Options(count, among, threshold, _normalize_filter(where), offset)


HitOptions = Annotated[Options, Depends(_parse_hit_options)]


async def _parse_query_options(
    options: HitOptions,
    words: Annotated[float, Query(ge=0, le=MAX_WORD_WEIGHT, description=WORDS_DESCRIPTION)] = 0,
) -> Options:
    """Return the options of a query that may have a text."""
    return replace(options, words=words)


QueryOptions = Annotated[Options, Depends(_parse_query_options)]


class HitAnswer(BaseModel):
    """An item in an answer."""

    id: str
    score: float = Field(description="cosine similarity of the item and the query")
    fields: dict[str, Any]
    version: str = Field(description="changes with the content: thumbnail?id=...&version=... may be cached forever")
    words: bool = Field(False, description="true for an item that contains all words of the text")


class SearchAnswer(BaseModel):
    """The answer to a query."""

    hits: list[HitAnswer]
    milliseconds: float


class BatchAnswer(BaseModel):
    """The answers to several queries, in their order."""

    results: list[list[HitAnswer]]
    milliseconds: float


class BatchQuery(StrictModel):
    """One of several queries: the sum of its text and its image, less `without`."""

    text: str = ""
    without: str = Field("", description="a text that is subtracted")
    image: str | None = Field(None, description=IMAGE_DESCRIPTION)


# With fail_fast a list that is too long is refused before its elements are validated.
class BatchRequest(StrictModel):
    """Several queries with the same options."""

    queries: list[BatchQuery] = Field(min_length=1, max_length=MAX_BATCH_QUERIES, fail_fast=True)
    count: int = Field(10, ge=1, le=MAX_HITS)
    among: Kind = "images"
    threshold: float | None = Field(None, ge=-1, le=1)
    where: dict[str, Any] = Field({}, max_length=MAX_FIELDS, description='such as {"license": "MIT"}')
    words: float = Field(0, ge=0, le=MAX_WORD_WEIGHT, description=WORDS_DESCRIPTION)


def _check_field_count(fields: Any) -> Any:
    """Raise ValueError for too many fields; pydantic would validate, and report, all of them before it counts."""
    if isinstance(fields, dict) and len(fields) > MAX_FIELDS:
        raise ValueError(f"{len(fields):,} fields; at most {MAX_FIELDS} are allowed")
    return fields


Tags = Annotated[list[str], Field(max_length=MAX_TAGS, fail_fast=True)]
ItemFields = Annotated[
    dict[str, str | int | FiniteFloat | bool | Tags],
    Field(max_length=MAX_FIELDS),
    BeforeValidator(_check_field_count),
]


class NewItem(StrictModel):
    """An item to add: an image or a text, with fields."""

    image: str | None = Field(None, description=IMAGE_DESCRIPTION)
    text: str | None = Field(None, description="adds an item to the texts")
    id: str | None = Field(
        None, min_length=1, max_length=MAX_ID_LENGTH, description="default: the text, or a digest of the image"
    )
    fields: ItemFields = Field({})


class AddRequest(StrictModel):
    """Items to add."""

    items: list[NewItem] = Field(min_length=1, max_length=MAX_ITEMS, fail_fast=True)


_SEARCH_RESPONSES: dict[int | str, dict[str, Any]] = {200: {"model": SearchAnswer}}
_IMAGE_BODY = {"requestBody": {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}}


def search_routes(index: Index, batcher: SearchBatcher, reader: RequestReader, threshold: float | None) -> APIRouter:
    """Return the routes that search; `threshold` is the smallest cosine of a tag."""
    router = APIRouter(dependencies=[Depends(check_parameter_names)])

    async def read_pixels(request: Request, places: ExitStack) -> np.ndarray:
        """Return the pixels of the image that is the body, and leave a place for its query in `places`."""
        async with reader.receive(request) as content:
            # A place first: a crowd must not make the server decode images whose queries it refuses. The upload is
            # released before the query waits for the encoder: only its pixels are needed then.
            places.enter_context(batcher.reserve(1))
            return await reader.decode_pixels(content, index.model.preprocessing)

    @router.get("/search", summary="Items that match a sentence", responses=_SEARCH_RESPONSES)
    async def search_by_text(
        options: QueryOptions,
        q: Annotated[str, Query(description="a sentence", examples=["a red apple"])] = "",
        without: Annotated[str, Query(description="a sentence that is subtracted")] = "",
    ) -> Response:
        start = time.perf_counter()
        terms = _make_terms(q, without)
        if not terms:
            raise RequestError("the query is empty: give it a sentence")
        return _respond(await batcher.answer(terms, options), start)

    @router.post(
        "/search/image",
        summary="Items that match an image, the body of the request, and a sentence",
        responses=_SEARCH_RESPONSES,
        openapi_extra=_IMAGE_BODY,
    )
    async def search_by_image(request: Request, options: QueryOptions, q: str = "", without: str = "") -> Response:
        start = time.perf_counter()
        terms = _make_terms(q, without)
        with ExitStack() as places:
            pixels = await read_pixels(request, places)
            (answer,) = await batcher.answer_reserved([[(1.0, pixels), *terms]], options)
        return _respond(answer, start)

    @router.post(
        "/search/batch",
        summary="Several queries at once",
        responses={200: {"model": BatchAnswer}},
        openapi_extra=describe_body(BatchRequest),
    )
    async def search_batch(request: Request) -> Response:
        start = time.perf_counter()
        with ExitStack() as places:
            async with reader.receive(request) as content:
                parameters, text_terms, images = await reader.convert_json(len(content), _read_batch, content)
                has_images = any(image is not None for image in images)
                if has_images:
                    places.enter_context(batcher.reserve(len(images)))
                all_pixels = await reader.decode_all_pixels(images, index.model.preprocessing)
            queries = []
            for terms, pixels in zip(text_terms, all_pixels, strict=True):
                queries.append(terms if pixels is None else [(1.0, pixels), *terms])
            where = dump_json(parameters.where)
            options = Options(parameters.count, parameters.among, parameters.threshold, where, words=parameters.words)
            # Without images, queries whose answers are cached need no place.
            answer_queries = batcher.answer_reserved if has_images else batcher.answer_all
            answers = await answer_queries(queries, options)
        return _respond(b"[%b]" % b",".join(answers), start, key=b"results")

    @router.get("/similar", summary="Items similar to an item of the index", responses=_SEARCH_RESPONSES)
    async def search_similar(id: str, options: HitOptions, kind: Kind = "images") -> Response:
        start = time.perf_counter()
        arguments = options.search_arguments()
        try:
            answer = await batcher.run_search(lambda: index.similar(id, kind, **arguments)[options.offset :])
        except KeyError:
            raise HTTPException(404, "no item of this id") from None
        return _respond(answer, start)

    @router.get(
        "/tags", summary="Texts that name an image of the index; none if nothing is close", responses=_SEARCH_RESPONSES
    )
    async def tag_item(id: str, count: Count = 5) -> Response:
        if not index.has("texts"):
            return _respond(b"[]", time.perf_counter())
        return await search_similar(id, Options(count, "texts", threshold))

    @router.post(
        "/tags",
        summary="Texts that name an image, the body of the request",
        responses=_SEARCH_RESPONSES,
        openapi_extra=_IMAGE_BODY,
    )
    async def tag_image(request: Request, count: Count = 5) -> Response:
        start = time.perf_counter()
        with ExitStack() as places:
            pixels = await read_pixels(request, places)
            if not index.has("texts"):
                return _respond(b"[]", start)
            (answer,) = await batcher.answer_reserved([[(1.0, pixels)]], Options(count, "texts", threshold))
        return _respond(answer, start)

    @router.get("/facets", summary="Fields to filter by: their values with the number of items, or their bounds")
    def list_facets() -> dict[str, dict[str, Any]]:
        if not index.has("images"):
            return {"facets": {}, "ranges": {}}
        return index.collection("images").summarize_fields()._asdict()

    return router


def index_routes(index: Index, title: str, card_fields: Sequence[str]) -> APIRouter:
    """Return the routes that describe the index; the page shows the title, and `card_fields` on a card."""
    router = APIRouter(dependencies=[Depends(check_parameter_names)])

    @router.get("/info", summary="The model, the number of items, the calibrated thresholds, and fields of a card")
    def describe_index() -> dict[str, Any]:
        # A text finds images, and an image finds texts: the thresholds are those of the direction of the search.
        counts = {kind: len(index.collection(kind)) for kind in KINDS if index.has(kind)}
        thresholds = {"images": index.threshold("text_to_image"), "texts": index.threshold("image_to_text")}
        return {
            "title": title,
            "model": index.title,
            "dimensions": index.model.embed_dim,
            **counts,
            "thresholds": thresholds,
            "show": list(card_fields),
            "words": index.has_words,
        }

    @router.get("/examples", summary="Some items, spread evenly over the index, and captions to search for")
    def list_examples() -> dict[str, Any]:
        if not index.has("images"):
            return {"items": [], "texts": []}
        images = index.collection("images")
        items = []
        for item in images.sample_items(NUM_EXAMPLES):
            items.append({"id": item.id, "fields": item.fields, "version": item.digest.hex()})
        return {"items": items, "texts": images.sample_captions(NUM_EXAMPLES // 3)}

    return router


class _PreparedItem(NamedTuple):
    """An item of a request, ready to be encoded."""

    kind: Kind
    item: Item
    content: str | np.ndarray  # a text, or pixels


def item_routes(index: Index, batcher: SearchBatcher, reader: RequestReader) -> APIRouter:
    """Return the routes that change the index."""
    router = APIRouter(dependencies=[Depends(check_parameter_names)])

    @router.post(
        "/items",
        summary="Add images and texts; an item with the same id is replaced",
        openapi_extra=describe_body(AddRequest),
    )
    async def add_items(request: Request) -> dict[str, Any]:
        with ExitStack() as places:
            async with reader.receive(request) as content:
                new_items, images = await reader.convert_json(len(content), _read_items, content)
                places.enter_context(batcher.reserve(len(new_items)))
                finish = partial(_finish_image, index)
                finished_images = await reader.decode_all(images, index.model.preprocessing, finish)
            # Images and texts are encoded together, then written to their collections.
            prepared_items: list[_PreparedItem] = []
            for new_item, image, finished_image in zip(new_items, images, finished_images, strict=True):
                if image is None or finished_image is None:
                    prepared_items.append(_prepare_text(new_item))
                else:
                    prepared_items.append(_prepare_image(new_item, image, *finished_image))
            embeddings = (await batcher.encode_reserved([prepared.content for prepared in prepared_items])).rows

        added_ids = {}
        for kind in get_args(Kind):
            numbers = [number for number, prepared in enumerate(prepared_items) if prepared.kind == kind]
            if numbers:
                items = [prepared_items[number].item for number in numbers]
                await asyncio.to_thread(_add_to_collection, index, kind, items, embeddings[numbers])
                added_ids[kind] = [item.id for item in items]
        return {"added": added_ids}

    @router.delete("/items", summary="Remove items by their ids")
    def remove_items(id: Annotated[list[str], Query(max_length=MAX_ITEMS)], among: Kind = "images") -> dict[str, int]:
        with _open_writer(index) as writer:
            return {"removed": writer.collection(among).remove(id)}

    return router


def _prepare_text(new_item: NewItem) -> _PreparedItem:
    text = (new_item.text or "").strip()
    fields = {"caption": text} | new_item.fields
    return _PreparedItem("texts", Item(new_item.id or text, compute_digest(text.encode()), fields), text)


def _finish_image(index: Index, image: bytes, decoded: Any) -> tuple[bytes, np.ndarray]:
    """Return the thumbnail of an image, and its pixels as the model sees them."""
    thumbnail = make_thumbnail(image, to_rgb_array(decoded), THUMBNAIL_SIDE)
    return thumbnail, index.model.preprocessing.make_view(decoded)


def _prepare_image(new_item: NewItem, image: bytes, thumbnail: bytes, pixels: np.ndarray) -> _PreparedItem:
    digest = compute_digest(image)
    item = Item(new_item.id or digest.hex(), digest, new_item.fields, thumbnail=thumbnail)
    return _PreparedItem("images", item, pixels)


def _add_to_collection(index: Index, kind: Kind, items: Sequence[Item], embeddings: np.ndarray) -> None:
    with _open_writer(index) as writer:
        writer.collection(kind).add(items, embeddings)


@contextmanager
def _open_writer(index: Index) -> Iterator[Index]:
    """Yield the index, opened to be changed; HTTPException 503 if another process writes to it for too long."""
    # The change of another client ends soon; a `search build` may take hours, and is not waited for.
    deadline = time.monotonic() + WRITE_TIMEOUT
    while True:
        try:
            writer = index.open_writer()
            break
        except BusyIndex:
            if time.monotonic() > deadline:
                message = "the index is being changed by another process; try again"
                raise HTTPException(503, message, {"Retry-After": str(WRITE_TIMEOUT)}) from None
            time.sleep(WRITE_RETRY_DELAY)
    with writer:
        yield writer


def _respond(hits: bytes, start: float, key: bytes = b"hits") -> Response:
    """Return a response with hits, which are JSON already, and the time since `start`."""
    content = b'{"%b":%b,"milliseconds":%.3f}' % (key, hits, 1000 * (time.perf_counter() - start))
    return Response(content, media_type="application/json")


def _make_terms(text: str, without: str) -> list[tuple[float, Any]]:
    """Return the terms of a query, a positive and a negative one; blank texts have none.

    Raises:
        ValueError: a text is too long.
    """
    text, without = text.strip(), without.strip()
    check_text_lengths([text, without])
    terms: list[tuple[float, Any]] = []
    if text:
        terms.append((1.0, text))
    if without:
        terms.append((-1.0, without))
    return terms


def _normalize_filter(text: str) -> str:
    """Return a filter as JSON, the same text for equal filters, which is part of the key of a cached answer."""
    if text == "{}":
        return text
    try:
        where = parse_json(text)
        if not isinstance(where, dict):
            raise ValueError("it is another value")
    except ValueError as error:
        raise RequestError(f'where is a JSON object of values, as {{"license": "MIT"}}: {error}') from None
    return dump_json(where)


def _read_batch(content: bytes) -> tuple[BatchRequest, list[list[tuple[float, Any]]], list[bytes | None]]:
    """Return the request, and for each query its terms that are texts, and its image.

    Raises:
        RequestError: a query is empty, the texts or the filter are too long, or an image is not in base64.
        RequestValidationError: the body has another form.
        ValueError: a text is too long.
    """
    batch = parse_body(BatchRequest, content)
    check_total_length(query.text + query.without for query in batch.queries)
    if len(dump_json(batch.where)) > MAX_WHERE_LENGTH:
        raise RequestError(f"the filter has more than {MAX_WHERE_LENGTH:,} characters")
    # Images are decoded later, on other threads; here only their base64 is checked.
    text_terms, images = [], []
    for query in batch.queries:
        terms = _make_terms(query.text, query.without)
        image = None if query.image is None else decode_base64(query.image)
        if image is None and not terms:
            raise RequestError("a query is empty: give it text, without or image")
        text_terms.append(terms)
        images.append(image)
    return batch, text_terms, images


def _read_items(content: bytes) -> tuple[list[NewItem], list[bytes | None]]:
    """Return the items of a request, and the image of each; None for a text.

    Raises:
        BadSample, ValueError: a text cannot be indexed.
        RequestError: an item has not one content, the texts are too long together, or an image is not in base64.
        RequestValidationError: the body has another form.
    """
    items = parse_body(AddRequest, content).items
    texts: list[str] = []  # also the names of fields: all are written into the database
    for item in items:
        has_one_content = (item.image is None) != (item.text is None)
        if not has_one_content or (item.text is not None and not item.text.strip()):
            raise RequestError("an item has either an image or a text")
        if item.text is not None:
            check_text(item.text)
            check_text_lengths([item.text])
            texts.append(item.text)
        for name, value in item.fields.items():
            texts.append(name)
            if isinstance(value, str):
                texts.append(value)
            elif isinstance(value, list):
                texts += value
    check_total_length(texts)
    return items, [None if item.image is None else decode_base64(item.image) for item in items]
