"""Evaluators of a run encode in its precision."""

from importlib import import_module
from types import SimpleNamespace

import pytest

from ernie_vil2.config import load_config


@pytest.mark.parametrize(
    "module, name",
    [("retrieval", "Retrieval"), ("classification", "Classification"), ("statements", "StatementEvaluator")],
)
def test_it_is_that_of_training(monkeypatch, module, name):
    class Built(Exception):
        pass

    def built(model, preprocessing, precision):
        raise Built(precision)

    module = import_module(f"ernie_vil2.evaluators.{module}")
    monkeypatch.setattr(module, "Eager", built)
    config = load_config(None, ["Training.precision=bfloat16"])
    with pytest.raises(Built, match="bfloat16"):
        getattr(module, name).__call__(SimpleNamespace(config=config), None)
