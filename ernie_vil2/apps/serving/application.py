"""The web application of a model server: the routes of its models, and those that tell whether the server works."""

from collections.abc import Callable

from fastapi import APIRouter, FastAPI
from fastapi.responses import PlainTextResponse, RedirectResponse

from ernie_vil2.apps.serving.bodies import RequestReader
from ernie_vil2.apps.serving.errors import add_error_handlers
from ernie_vil2.apps.serving.metrics import Metrics
from ernie_vil2.apps.serving.middleware import Access, Middleware
from ernie_vil2.apps.serving.models import ServedModels
from ernie_vil2.apps.serving.page_files import docs_routes
from ernie_vil2.apps.serving.routes import model_routes
from ernie_vil2.encoder import describe_backend

PREFIX = "/v1"  # the paths of the API begin with it, as OpenAI's clients expect


def build_app(models: ServedModels, access: Access | None = None, metrics: Metrics | None = None) -> FastAPI:
    """Return the application that serves models, for uvicorn or another ASGI server.

    Args:
        models: the models to serve.
        access: who may send requests; None: anybody.
        metrics: counters of this process, to which the models' batchers add as well; None: new ones.
    """
    metrics = metrics or Metrics()
    app = FastAPI(title="ERNIE-ViL 2.0 models", docs_url=None, redoc_url=None, description=describe_models(models))
    app.add_middleware(Middleware, access=access or Access(), metrics=metrics)
    add_error_handlers(app)
    app.include_router(model_routes(models, RequestReader()), prefix=PREFIX, tags=["models"])
    app.include_router(probe_routes(metrics.format))
    app.include_router(docs_routes())
    # There is no start page: whoever opens the address sees the documentation of the routes.
    app.add_api_route("/", lambda: RedirectResponse("docs"), include_in_schema=False)

    @app.get("/health", summary="Whether the process answers, and its models")
    async def health() -> dict[str, str | list[str]]:
        return {"status": "ok", "models": [served.name for served in models]}

    # Nothing to check: requests are answered only after the models have been loaded.
    @app.get("/readyz", summary="Whether the models are loaded")
    async def is_ready() -> dict[str, str]:
        return {"status": "ok"}

    return app


def probe_routes(format_metrics: Callable[[], str]) -> APIRouter:
    """Return the routes of any server that tell whether its process lives, and what it has counted.

    Args:
        format_metrics: returns the counters in the text format of Prometheus.
    """
    router = APIRouter()

    @router.get("/healthz", summary="Whether the process answers at all")
    async def is_alive() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/metrics", response_class=PlainTextResponse, summary="Counters of all workers, for Prometheus")
    def metrics() -> str:
        return format_metrics()

    return router


def describe_models(models: ServedModels) -> str:
    """Return a line for each model of a server: its name, and the width and backend of its embeddings."""
    lines = []
    for served in models:
        widths = " or ".join(map(str, served.model.widths))
        lines.append(f"{served.name}: embeddings of {widths} numbers by {describe_backend(served.model.backend)}")
    return "\n".join(lines)
