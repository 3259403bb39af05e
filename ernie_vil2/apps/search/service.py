"""The web application of an index: its page and its API.

Images are served by id and never by path. Uploads are bounded in bytes, pixels and time (`middleware`,
`image_decoding`, `server`), and are not stored. The page loads nothing from other sites. Any number of clients may ask
at once; their queries are answered in batches (`batching`).
"""

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
from ernie_vil2.apps.search.locations import OriginalImages, compute_digest
from ernie_vil2.apps.search.middleware import CLIENT_CLOSED_REQUEST, RETRY_SECONDS, Access, Middleware, Uploads
from ernie_vil2.data.samples import BadSample
from ernie_vil2.io.terminal import make_printable, print_error

# Bounds of an error report, which repeats words of the request: a body of 20 MiB can have a million errors, and a key
# of any length.
MAX_ERRORS = 10
MAX_MESSAGE_LENGTH = 1000  # characters
MAX_WORD_LENGTH = 200  # characters
CACHE_FOREVER = "max-age=31536000, immutable"  # a year, the longest that browsers take

_PAGE_FOLDER = Path(__file__).with_name("page")
_PAGE_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
# First bytes of the image files that browsers show.
_IMAGE_TYPES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"GIF8": "image/gif", b"RIFF": "image/webp"}


def build_app(
    index: Index,
    threshold: float | None = None,
    access: Access | None = None,
    roots: Sequence[str | Path] = (),
    batcher: Batcher | None = None,
    card_fields: Sequence[str] = (),
    writable: bool = False,
) -> FastAPI:
    """Return the application, for uvicorn or another server.

    Args:
        index: the index to serve.
        threshold: smallest cosine of a text that names an image; None: from the model's calibration.
        access: who may ask; None: anybody.
        roots: folders whose images are served in full, besides the folder of the index; other images are served as
            thumbnails.
        batcher: answers the queries; None: one with the defaults of `search.batching`.
        card_fields: fields that the page shows on the card of an item.
        writable: whether clients may add and remove items.
    """
    own_folder = [index.folder] if index.folder else []
    originals = OriginalImages([*roots, *own_folder])
    if threshold is None:
        threshold = index.threshold("image_to_text")
    batcher = batcher or Batcher(index)
    uploads = Uploads()
    app = FastAPI(title="ERNIE-ViL 2.0 search", docs_url=None, redoc_url=None, description=describe_content(index))
    app.add_middleware(Middleware, access=access or Access(), metrics=batcher.metrics)
    _add_error_handlers(app)

    search_routes = api.search_routes(index, batcher, uploads, threshold)
    app.include_router(search_routes, prefix="/api/v1", tags=["search"])
    app.include_router(api.model_routes(index, batcher, uploads, card_fields), prefix="/api/v1", tags=["model"])
    if writable:
        app.include_router(api.item_routes(index, batcher, uploads), prefix="/api/v1", tags=["items"])

    @app.get("/thumbnail", response_class=Response, summary="A small image by its id")
    def thumbnail(
        request: Request,
        id: str,
        version: Annotated[str, Query(description="that of the hit: then the answer may be cached forever")] = "",
    ) -> Response:
        item = index.collection("images").get(id)
        if item is None:
            raise HTTPException(404, "no image of this id")
        if item.thumbnail is None:
            return image(id)
        is_current = version == item.digest.hex()
        return _cacheable_response(request, item.thumbnail, _find_image_type(item.thumbnail), is_current)

    @app.get("/image", response_class=Response, summary="An image by its id, from its location")
    def image(id: str) -> Response:
        item = index.collection("images").get(id)
        if item is None:
            raise HTTPException(404, "no image of this id")
        # An original that may not be read, or has changed, is replaced by the thumbnail.
        content = originals.read(item) or item.thumbnail
        if content is None:
            raise HTTPException(404, "this image is not where it was indexed, or the server may not read it there")
        media_type = _find_image_type(content)
        if media_type is None:
            raise HTTPException(415, "a browser cannot show an image of this kind")
        return Response(content, media_type=media_type)

    @app.get("/health", summary="Whether the index answers, and what it holds")
    def health() -> dict[str, Any]:
        counts = {kind: len(index.collection(kind)) for kind in KINDS if index.has(kind)}
        return {"status": "ok", "model": index.title, **counts}

    @app.get("/healthz", summary="Whether the process answers at all")
    async def is_alive() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="Whether the index can be searched now; 503 if it cannot")
    def is_ready() -> dict[str, str]:
        return {"status": "ok" if any(map(index.has, KINDS)) else "empty"}

    @app.get("/metrics", response_class=PlainTextResponse, summary="Counters of all workers, for Prometheus")
    def metrics() -> str:
        gauges: dict[str, dict[str, float]] = {
            "items": {},
            "uncovered_share": {},
            "removed_share": {},
            "generation": {},
        }
        for kind in KINDS:
            if index.has(kind):
                collection = index.collection(kind)
                gauges["items"][kind] = len(collection)
                gauges["uncovered_share"][kind] = collection.uncovered_share()
                gauges["removed_share"][kind] = collection.removed_share()
                gauges["generation"][kind] = getattr(collection.version, "generation", 0)
        return batcher.metrics.format(gauges)

    # The files of the page are read once, when the server starts.
    for path, name in {"/": "index.html", "/docs": "docs.html", "/favicon.ico": "icon.svg"}.items():
        app.add_api_route(path, _page_file_route(name), include_in_schema=False)
    for name in ("icon.svg", "page.css", "page.js", "words.js", "docs.js"):
        app.add_api_route(f"/{name}", _page_file_route(name), include_in_schema=False)
    return app


def _add_error_handlers(app: FastAPI) -> None:
    """Turn the errors of the library into answers."""

    @app.exception_handler(BadSample)
    @app.exception_handler(ValueError)
    async def handle_bad_request(request: Request, error: ValueError) -> JSONResponse:
        return JSONResponse({"detail": str(error)[:MAX_MESSAGE_LENGTH]}, 422)

    @app.exception_handler(RequestValidationError)
    async def handle_malformed_request(request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"detail": _summarize_errors(error)}, 422)

    @app.exception_handler(Overloaded)
    async def handle_overload(request: Request, error: Overloaded) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 503, {"Retry-After": str(error.retry_seconds)})

    @app.exception_handler(DecodingOverload)
    async def handle_decoding_overload(request: Request, error: DecodingOverload) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 503, {"Retry-After": str(RETRY_SECONDS)})

    @app.exception_handler(DamagedIndex)
    @app.exception_handler(OtherModel)
    @app.exception_handler(OSError)
    async def handle_unusable_index(request: Request, error: ValueError | OSError) -> JSONResponse:
        # The message names paths of the server, which clients must not learn.
        print_error(str(error))
        return JSONResponse({"detail": "the index cannot be used now; the server's log says why"}, 503)

    @app.exception_handler(ClientDisconnect)
    async def handle_disconnect(request: Request, error: ClientDisconnect) -> Response:
        # Nobody reads this answer; without it there would be a traceback in the log.
        return Response(status_code=CLIENT_CLOSED_REQUEST)


def _summarize_errors(error: RequestValidationError) -> list[dict[str, Any]]:
    """Return type, location and message of the first errors, without the input, which the client has."""
    reports = []
    for detail in error.errors()[:MAX_ERRORS]:
        location = []
        for step in detail["loc"]:
            location.append(make_printable(step, max_length=MAX_WORD_LENGTH) if isinstance(step, str) else step)
        message = make_printable(detail["msg"], max_length=MAX_WORD_LENGTH)
        reports.append({"type": detail["type"], "loc": location, "msg": message})
    return reports


def _cacheable_response(
    request: Request, content: bytes, media_type: str | None, is_permanent: bool = False
) -> Response:
    """Return content that browsers cache; they ask whether it has changed, unless it is permanent."""
    tag = f'"{compute_digest(content).hex()}"'
    headers = {"ETag": tag, "Cache-Control": CACHE_FOREVER if is_permanent else "no-cache"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)


def _find_image_type(content: bytes) -> str | None:
    """Return the media type of an image file, or None if browsers do not show it."""
    for signature, media_type in _IMAGE_TYPES.items():
        if content.startswith(signature):
            return media_type
    return None


def describe_content(index: Index) -> str:
    """Return what the index holds, and the model, in a line."""
    counts = [f"{len(index.collection(kind)):,} {kind}" for kind in KINDS if index.has(kind)]
    content = " and ".join(counts) or "nothing yet"
    return f"{content}, indexed with {index.title}"


def _page_file_route(name: str) -> Callable[[Request], Awaitable[Response]]:
    content = (_PAGE_FOLDER / name).read_bytes()
    media_type = _PAGE_TYPES[name.rpartition(".")[2]]

    async def serve_file(request: Request) -> Response:
        return _cacheable_response(request, content, media_type)

    return serve_file
