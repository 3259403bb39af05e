"""The page and the API of an index.

Images are served by id and never by path. What is uploaded is bounded in bytes, in pixels and in time (`middleware`,
`server`), and is not kept. The page loads nothing from elsewhere. Any number of clients may ask at once; what they
ask is answered in batches (`batching`).
"""

import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.requests import ClientDisconnect

from ernie_vil2.apps.search import api
from ernie_vil2.apps.search.batching import Batcher, Overloaded
from ernie_vil2.apps.search.collection import KINDS, DamagedIndex
from ernie_vil2.apps.search.image_decoding import DecodingOverload
from ernie_vil2.apps.search.index import Index, OtherModel
from ernie_vil2.apps.search.locations import Originals, compute_digest
from ernie_vil2.apps.search.middleware import RETRY_SECONDS, Access, Middleware, Uploads
from ernie_vil2.data.samples import BadSample
from ernie_vil2.io.terminal import printable

MOST_ERRORS = 10  # of a request that are reported; a body of 20 MiB can have a million
LONGEST_MESSAGE = 1000  # characters; it may name a field of the request, of any length
LONGEST_WORD = 200  # characters of a key of the request, or of a message, in such a report

_PAGE = Path(__file__).with_name("page")
_STATIC = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
_SIGNATURES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"GIF8": "image/gif", b"RIFF": "image/webp"}


def build_app(
    index: Index,
    threshold: float | None = None,
    access: Access | None = None,
    roots: Sequence[str | Path] = (),
    batcher: Batcher | None = None,
    shown: Sequence[str] = (),
    writable: bool = False,
) -> FastAPI:
    """The application, for uvicorn or another server.

    Args:
        threshold: least cosine of a text that is named for an image; None: what the model's calibration says.
        access: who may ask; None: anybody.
        roots: folders whose images are served in full, besides the index's own; of others there are thumbnails.
        batcher: answers the queries; None: one with the bounds of `search.batching`.
        shown: fields that the page shows on the card of an item.
        writable: whether items may be added and removed.
    """
    originals = Originals([*roots, *filter(None, [index.folder])])
    threshold = index.threshold("image_to_text") if threshold is None else threshold
    app = FastAPI(title="ERNIE-ViL 2.0 search", docs_url=None, redoc_url=None, description=about(index))
    batcher = batcher or Batcher(index)
    app.add_middleware(Middleware, access=access or Access(), metrics=batcher.metrics)
    uploads = Uploads()

    @app.exception_handler(BadSample)
    @app.exception_handler(ValueError)
    async def explained(request: Request, error: ValueError) -> JSONResponse:
        return JSONResponse({"detail": str(error)[:LONGEST_MESSAGE]}, 422)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"detail": _first_errors(error)}, 422)

    @app.exception_handler(Overloaded)
    async def overloaded(request: Request, error: Overloaded) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 503, {"Retry-After": str(error.retry_seconds)})

    @app.exception_handler(DecodingOverload)
    async def decoding_overload(request: Request, error: DecodingOverload) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 503, {"Retry-After": str(RETRY_SECONDS)})

    @app.exception_handler(DamagedIndex)
    @app.exception_handler(OtherModel)
    @app.exception_handler(OSError)
    async def unusable(request: Request, error: ValueError | OSError) -> JSONResponse:
        print(f"error: {error}", file=sys.stderr, flush=True)  # it names paths, which are not a client's business
        return JSONResponse({"detail": "the index cannot be used now; the server's log says why"}, 503)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody reads it; without an answer a traceback would be in the log

    searches = api.search_routes(index, batcher, uploads, threshold)
    app.include_router(searches, prefix="/api/v1", tags=["search"])
    app.include_router(api.model_routes(index, batcher, uploads, shown), prefix="/api/v1", tags=["model"])
    if writable:
        app.include_router(api.item_routes(index, batcher, uploads), prefix="/api/v1", tags=["items"])

    @app.get("/thumbnail", response_class=Response, summary="A small image by its id")
    def thumbnail(
        request: Request,
        id: str,
        version: Annotated[str, Query(description="as a hit has it: then the answer may be kept for good")] = "",
    ) -> Response:
        item = index.collection("images").get(id)
        if item is None:
            raise HTTPException(404, "no image of this id")
        if item.thumbnail is None:
            return image(id)
        return _by_content(request, item.thumbnail, _kind(item.thumbnail), version == item.digest.hex())

    @app.get("/image", response_class=Response, summary="An image by its id, from where it lies")
    def image(id: str) -> Response:
        item = index.collection("images").get(id)
        if item is None:
            raise HTTPException(404, "no image of this id")
        content = originals.read(item) or item.thumbnail
        if content is None:
            raise HTTPException(404, "this image is not where it was indexed, or the server must not look there")
        kind = _kind(content)
        if kind is None:
            raise HTTPException(415, "a browser cannot show an image of this kind")
        return Response(content, media_type=kind)

    @app.get("/health", summary="Whether the index answers, and what it holds")
    def health() -> dict[str, Any]:
        counts = {kind: len(index.collection(kind)) for kind in KINDS if index.has(kind)}
        return {"status": "ok", "model": index.title, **counts}

    @app.get("/healthz", summary="Whether the process answers at all")
    async def alive() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="Whether the index can be searched now; 503 where it cannot")
    def ready() -> dict[str, str]:
        return {"status": "ok" if any(map(index.has, KINDS)) else "empty"}

    @app.get("/metrics", response_class=PlainTextResponse, summary="Counts of all workers, for Prometheus")
    def metrics() -> str:
        there = {kind: index.collection(kind) for kind in KINDS if index.has(kind)}
        gauges: dict[str, dict[str, float]] = {"items": {kind: len(found) for kind, found in there.items()}}
        gauges["uncovered_share"] = {kind: found.uncovered_share() for kind, found in there.items()}
        gauges["gone_share"] = {kind: found.removed_share() for kind, found in there.items()}
        gauges["generation"] = {kind: getattr(found.version, "generation", 0) for kind, found in there.items()}
        return batcher.metrics.format(gauges)

    for path, name in {"/": "index.html", "/docs": "docs.html", "/favicon.ico": "icon.svg"}.items():
        app.add_api_route(path, _static(name), include_in_schema=False)
    for name in ("icon.svg", "page.css", "page.js", "words.js", "docs.js"):
        app.add_api_route(f"/{name}", _static(name), include_in_schema=False)
    return app


def _first_errors(error: RequestValidationError) -> list[dict[str, Any]]:
    """Return type, location and message of the first errors, without the input that the client knows anyway."""
    reports = []
    for detail in error.errors()[:MOST_ERRORS]:
        location = [printable(step, longest=LONGEST_WORD) if isinstance(step, str) else step for step in detail["loc"]]
        reports.append({"type": detail["type"], "loc": location, "msg": printable(detail["msg"], longest=LONGEST_WORD)})
    return reports


def _by_content(request: Request, content: bytes, kind: str | None, lasting: bool = False) -> Response:
    """What browsers keep, and ask for again only whether it has changed; not even that if it is lasting."""
    tag = f'"{compute_digest(content).hex()}"'
    headers = {"ETag": tag, "Cache-Control": "max-age=31536000, immutable" if lasting else "no-cache"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)


def _kind(content: bytes) -> str | None:
    """The media type of an image that browsers show."""
    return next((kind for start, kind in _SIGNATURES.items() if content.startswith(start)), None)


def about(index: Index) -> str:
    parts = [f"{len(index.collection(kind)):,} {kind}" for kind in ("images", "texts") if index.has(kind)]
    return f"{' and '.join(parts) or 'nothing yet'}, indexed with {index.title}"


def _static(name: str) -> Callable[[Request], Awaitable[Response]]:
    content = (_PAGE / name).read_bytes()
    kind = _STATIC[name.rpartition(".")[2]]

    async def answer(request: Request) -> Response:
        return _by_content(request, content, kind)

    return answer
