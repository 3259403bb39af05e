"""The web application of an index: its page and its API.

Images are served by id and never by path. Uploads are bounded in bytes, pixels and time (`middleware`,
`image_decoding`, `server`), and are not stored. The page loads nothing from other sites. Any number of clients may ask
at once; their queries are answered in batches (`batching`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import JSONResponse, Response

from ernie_vil2.apps.search import api
from ernie_vil2.apps.search.batching import SearchBatcher
from ernie_vil2.apps.search.collection import KINDS, DamagedIndex
from ernie_vil2.apps.search.index import Index, OtherModel
from ernie_vil2.apps.search.locations import OriginalImages
from ernie_vil2.apps.serving.application import PREFIX, probe_routes
from ernie_vil2.apps.serving.bodies import RequestReader
from ernie_vil2.apps.serving.errors import add_error_handlers, make_error_response
from ernie_vil2.apps.serving.middleware import Access, Middleware
from ernie_vil2.apps.serving.models import ServedModel, ServedModels, default_name
from ernie_vil2.apps.serving.page_files import docs_routes, file_routes, make_cacheable_response
from ernie_vil2.apps.serving.routes import model_routes
from ernie_vil2.io.terminal import print_error

_PAGE_FOLDER = Path(__file__).with_name("page")
# First bytes of the image files that browsers show.
_IMAGE_TYPES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"GIF8": "image/gif", b"RIFF": "image/webp"}


def build_app(
    index: Index,
    threshold: float | None = None,
    access: Access | None = None,
    roots: Sequence[str | Path] = (),
    batcher: SearchBatcher | None = None,
    card_fields: Sequence[str] = (),
    writable: bool = False,
    title: str = "ERNIE-ViL 2.0 search",
) -> FastAPI:
    """Return the application, for uvicorn or another server.

    Args:
        index: the index to serve.
        threshold: smallest cosine of a text that names an image; None: from the model's calibration.
        access: who may ask; None: anybody.
        roots: folders whose images are served in full, besides the folder of the index; other images are served as
            thumbnails.
        batcher: answers the queries; None: one with the defaults of `SearchBatcher`.
        card_fields: fields that the page shows on the card of an item.
        writable: whether clients may add and remove items.
        title: title of the page.
    """
    own_folder = [index.folder] if index.folder else []
    originals = OriginalImages([*roots, *own_folder])
    if threshold is None:
        threshold = index.threshold("image_to_text")
    batcher = batcher or SearchBatcher(index)
    reader = RequestReader()
    app = FastAPI(title=title, docs_url=None, redoc_url=None, description=describe_content(index))
    app.add_middleware(Middleware, access=access or Access(), metrics=batcher.metrics)
    add_error_handlers(app)
    _add_index_error_handlers(app)

    models = ServedModels([ServedModel(default_name(index.name), index.model, batcher)])
    app.include_router(api.search_routes(index, batcher, reader, threshold), prefix=PREFIX, tags=["search"])
    app.include_router(api.index_routes(index, title, card_fields), prefix=PREFIX, tags=["index"])
    app.include_router(model_routes(models, reader), prefix=PREFIX, tags=["models"])
    if writable:
        app.include_router(api.item_routes(index, batcher, reader), prefix=PREFIX, tags=["items"])

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
        return make_cacheable_response(request, item.thumbnail, _find_image_type(item.thumbnail), is_current)

    @app.get("/image", response_class=Response, summary="An image by its id, from its location")
    def image(id: str) -> Response:
        item = index.collection("images").get(id)
        if item is None:
            raise HTTPException(404, "no image of this id")
        # An original that may not be read, has changed, or is of a kind that browsers do not show is replaced by the
        # thumbnail.
        contents = [content for content in (originals.read(item), item.thumbnail) if content is not None]
        if not contents:
            raise HTTPException(404, "this image is not where it was indexed, or the server may not read it there")
        for content in contents:
            media_type = _find_image_type(content)
            if media_type is not None:
                return Response(content, media_type=media_type)
        raise HTTPException(415, "a browser cannot show an image of this kind")

    @app.get("/health", summary="Whether the index answers, and what it holds")
    def health() -> dict[str, Any]:
        counts = {kind: len(index.collection(kind)) for kind in KINDS if index.has(kind)}
        return {"status": "ok", "model": index.title, **counts}

    @app.get("/readyz", summary="Whether the index can be searched now; 503 if it cannot")
    def is_ready() -> dict[str, str]:
        return {"status": "ok" if any(map(index.has, KINDS)) else "empty"}

    def format_metrics() -> str:
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

    app.include_router(probe_routes(format_metrics))

    names = {f"/{name}": name for name in ("page.css", "page.js", "words.js")}
    app.include_router(file_routes(_PAGE_FOLDER, {"/": "index.html", **names}))
    app.include_router(docs_routes())
    return app


def _add_index_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(DamagedIndex)
    @app.exception_handler(OtherModel)
    @app.exception_handler(OSError)
    async def handle_unusable_index(request: Request, error: ValueError | OSError) -> JSONResponse:
        # The message names paths of the server, which clients must not learn.
        print_error(str(error))
        return make_error_response(503, "the index cannot be used now; the server's log says why")


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
