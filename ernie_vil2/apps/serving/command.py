"""Serve models: embeddings in OpenAI's form, ranking and zero-shot classification in Jina's.

    python tools/serve.py runs/emoji                         # http://127.0.0.1:8000/v1
    python tools/serve.py zh=runs/emoji en=exports/mine      # two models, by names of your own

Clients of OpenAI's embeddings work with this address. docs/model_server.md has examples; `search serve` has the same
routes, and searches an index as well.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ernie_vil2.apps.serving.options import add_server_options, serve_application
from ernie_vil2.cli.arguments import add_backend_option, add_import_option, add_precision_option, model
from ernie_vil2.device.extras import require

if TYPE_CHECKING:
    from ernie_vil2.apps.serving.metrics import Metrics
    from ernie_vil2.apps.serving.middleware import Access
    from ernie_vil2.apps.serving.server import Application


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the models and the options of the server."""
    parser.add_argument(
        "models",
        nargs="+",
        type=named_model,
        metavar="MODEL",
        help="model, as for load_model, or NAME=MODEL; default name: that of the run or folder",
    )
    parser.add_argument("--device", help="auto, cpu, gpu, gpu:0, ...")
    add_backend_option(parser)
    add_precision_option(parser)
    add_import_option(parser)
    add_server_options(parser, default_queue=1024)  # four of the largest requests, see `bodies.MAX_INPUTS`


def named_model(text: str) -> tuple[str, str]:
    """Return name and source of NAME=MODEL; the name of a MODEL alone is empty."""
    # A MODEL that exists is taken as it is: its path may have an equals sign.
    name, equals, source = text.partition("=")
    if equals and not os.path.exists(text):  # noqa: PTH110  -- pathlib raises for names that are too long
        if not name:
            raise argparse.ArgumentTypeError(f"{text}: write NAME=MODEL")
        return name, model(source)
    return "", model(text)


def run(args: argparse.Namespace) -> int:
    """Serve the models and return the exit code."""
    require("a model server", "fastapi", "uvicorn", "orjson")
    from ernie_vil2.apps.serving.models import choose_names

    choose_names(args.models)  # equal names are reported now, and not when all models have been loaded
    return serve_application(open_models, args)


@contextmanager
def open_models(args: argparse.Namespace, metrics: Metrics, access: Access) -> Iterator[Application]:
    """Load the models and yield the application that serves them."""
    from ernie_vil2.apps.serving.application import build_app, describe_models
    from ernie_vil2.apps.serving.batching import Batcher
    from ernie_vil2.apps.serving.models import ServedModel, ServedModels, choose_names
    from ernie_vil2.apps.serving.server import Application
    from ernie_vil2.encoder import load_model

    served_models = []
    for name, source in choose_names(args.models).items():
        encoder = load_model(source, device=args.device, precision=args.precision, backend=args.backend)
        served_models.append(ServedModel(name, encoder, Batcher(encoder, args.queue, metrics)))
    models = ServedModels(served_models)
    yield Application(build_app(models, access, metrics), describe_models(models))
