"""A fixture that lets Paddle in this process behave as its GPU build."""

import paddle
import pytest

from benchmarks.gpu_linear import make_gpu_linear


@pytest.fixture
def gpu_build(monkeypatch):
    """Let linear layers compute as in a GPU build."""
    monkeypatch.setattr(paddle.nn.functional, "linear", make_gpu_linear(paddle.nn.functional.common))
