"""Scorers of a run encode in its precision."""

import pytest

from ernie_vil2.config import load_config
from ernie_vil2.evaluation.scorer import Scorer
from ernie_vil2.training import scoring


def test_it_is_that_of_training(monkeypatch):
    class Built(Exception):  # noqa: N818  -- named by what has happened
        pass

    class Nothing(Scorer):
        pass

    def built(model, preprocessing, precision):
        raise Built(precision)

    monkeypatch.setattr(scoring, "Eager", built)
    config = load_config(None, ["Training.precision=bfloat16"])
    with pytest.raises(Built, match="bfloat16"):
        scoring.Scored(Nothing(), {}, config, None)(None)
