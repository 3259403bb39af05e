"""Each configuration that OpenCLIP ships gives the embeddings of OpenCLIP's own code, or is refused by name."""

import pytest

from tests.support.open_clip_models import (
    compare_with_open_clip,
    format_table,
    list_expected_states,
    read_description,
    read_refusals,
)
from tests.support.paths import ROOT

FAST_MODELS = {"ViT-S-16-alt", "PE-Core-T-16-384", "coca_ViT-B-32"}
"""Small models of three kinds; all together take minutes."""
PAGE = ROOT / "docs" / "notes" / "open_clip_configurations.md"
NAMES = list(read_description()["models"])
CASES = [pytest.param(name, marks=() if name in FAST_MODELS else pytest.mark.slow) for name in NAMES]


@pytest.mark.parametrize("name", CASES)
def test_a_configuration_is_read_as_by_open_clip_or_refused_by_name(name):
    outcome = compare_with_open_clip(name)
    assert outcome.state == list_expected_states()[name], outcome.details
    for setting, names in read_refusals().items():
        if name in names:
            assert outcome.details.startswith(f"ValueError: open_clip_config.json: {setting} is ")


def test_another_activation_is_not_equal():
    """The comparison is fine enough to tell a gelu from its approximation."""
    assert compare_with_open_clip("ViT-S-16-alt", {"activation": "gelu_tanh"}).state == "wrong"


def test_all_configurations_are_there():
    assert len(NAMES) == 144
    refused_names = [name for names in read_refusals().values() for name in names]
    assert sorted(refused_names) == sorted(set(refused_names) & set(NAMES))


def test_the_page_has_the_table_of_what_is_read():
    """After a change of refused.json, `python -m tests.support.open_clip_models` prints the table for the page."""
    assert format_table(list_expected_states()) in PAGE.read_text(encoding="utf-8")
