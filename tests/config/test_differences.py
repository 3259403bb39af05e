"""How configurations differ."""

import pytest

from ernie_vil2.config import MISSING, differences, load_config
from ernie_vil2.training.checkpoint import changed_settings


@pytest.mark.parametrize(("trees", "expected"), [
    ([{}], []),
    ([{"A": {"b": 1}}, {"A": {"b": 1}}], []),
    ([{"A": {"b": 1, "c": [1]}}, {"A": {"b": 2, "c": [1]}}], [("A.b", [1, 2])]),
    ([{"A": {"b": {"zh": 1}}}, {"A": {"b": {"en": 1}}}], [("A.b.zh", [1, MISSING]), ("A.b.en", [MISSING, 1])]),
    ([{"A": None}, {"A": {"b": 1}}], [("A", [None, {"b": 1}])]),
    ([{"a": 1}, {"a": 1}, {"a": 2}], [("a", [1, 1, 2])]),
])  # fmt: skip
def test_keys_and_values_that_differ(trees, expected):
    assert list(differences(*trees)) == expected


def test_a_setting_that_is_gone_is_a_change():
    before, now = (load_config(None, [f"Views.languages={languages}"])
                   for languages in ("{zh: 1.0, en: 1.0}", "{zh: 1.0}"))  # fmt: skip
    assert changed_settings(before, now) == changed_settings(now, before) == ["Views.languages.en"]


def test_what_is_free_on_resume_is_not_a_change():
    # A run on CPU that was configured in bfloat16 has trained in float32 in truth.
    free = ["Evaluation.every=7", "Training.device=cpu", "Data.workers=1", "Training.precision=bfloat16"]
    changed = load_config(None, [*free, "Optimizer.beta1=0.8"])
    assert changed_settings(load_config(None, []), changed) == ["Optimizer.beta1"]
