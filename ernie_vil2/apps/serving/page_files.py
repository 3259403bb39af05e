"""Files of pages that a server has besides its API; they load nothing from other sites."""

from collections.abc import Awaitable, Callable, Mapping
from hashlib import blake2b
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response

CACHE_FOREVER = "max-age=31536000, immutable"  # a year, the longest that browsers take

_FOLDER = Path(__file__).with_name("page")
_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}


def docs_routes() -> APIRouter:
    """Return the routes of the page that documents the API, `/docs`, and of its files."""
    names = {f"/{name}": name for name in ("icon.svg", "base.css", "docs.js")}
    return file_routes(_FOLDER, {"/docs": "docs.html", "/favicon.ico": "icon.svg", **names})


def file_routes(folder: Path, names: Mapping[str, str]) -> APIRouter:
    """Return routes of the files in a folder, by their paths; the files are read once."""
    router = APIRouter()
    for path, name in names.items():
        router.add_api_route(path, _make_route(folder / name), include_in_schema=False)
    return router


def _make_route(file: Path) -> Callable[[Request], Awaitable[Response]]:
    content, media_type = file.read_bytes(), _TYPES[file.suffix[1:]]

    async def serve_file(request: Request) -> Response:
        return make_cacheable_response(request, content, media_type)

    return serve_file


def make_cacheable_response(
    request: Request, content: bytes, media_type: str | None, is_permanent: bool = False
) -> Response:
    """Return content that browsers cache; they ask whether it has changed, unless it is permanent."""
    tag = f'"{blake2b(content, digest_size=16).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": CACHE_FOREVER if is_permanent else "no-cache"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
