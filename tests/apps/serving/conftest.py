"""Fixtures of the tests of serving: clients of a server with one model."""

import pytest
from fastapi.testclient import TestClient

from ernie_vil2.apps.serving.application import build_app
from ernie_vil2.apps.serving.batching import Batcher
from ernie_vil2.apps.serving.models import ServedModel, ServedModels


@pytest.fixture
def serve():
    """Return a function that returns a client of a model server, given by their names."""

    def serve(models, max_queue=256):
        served = [ServedModel(name, model, Batcher(model, max_queue)) for name, model in models.items()]
        return TestClient(build_app(ServedModels(served)), raise_server_exceptions=False)

    return serve


@pytest.fixture
def client(serve, model):
    return serve({"shapes": model})
