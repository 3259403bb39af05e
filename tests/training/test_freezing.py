"""Whatever is frozen, a step gives the rest the gradients that they have without, and what is frozen none."""

import sys

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ernie_vil2.config import ConfigError
from ernie_vil2.device.launch import run_ranks
from tests.support.freezing import (
    STEPS,
    TOWERS,
    Case,
    alone_and_in_prefixes,
    check,
    check_ranks,
    gradients,
    groups,
    of_ranks,
)
from tests.support.limits import examples
from tests.support.paths import ROOT


def check_alone(case):
    (losses, found), frozen = gradients(case)
    check(case, losses, found, frozen)


@pytest.mark.parametrize(("image", "text"), [*TOWERS[:2], pytest.param(*TOWERS[2], marks=pytest.mark.slow)])
def test_every_group_can_be_frozen_alone_and_with_all_before(image, text):
    for frozen in alone_and_in_prefixes(image, text):
        check_alone(Case(image, text, frozen))


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("image", "text"), TOWERS)
def test_every_layer_group_can_be_frozen_in_every_step(image, text, step, lora):
    for frozen in alone_and_in_prefixes(image, text):
        check_alone(Case(image, text, frozen, step, lora=lora))


@st.composite
def cases(draw):
    image, text = draw(st.sampled_from(TOWERS))
    names = [name for tower in groups(image, text).values() for name in tower]
    frozen = draw(st.lists(st.sampled_from(names), min_size=1, unique=True).map(tuple))
    task = draw(st.sampled_from(["multi_view", "entailment", "nlvr2"]))
    return Case(image, text, frozen, draw(st.sampled_from(list(STEPS))), task, draw(st.booleans()))


@examples(4)
@given(cases())
def test_any_groups_can_be_frozen_with_any_step_and_head(case):
    try:
        check_alone(case)
    except ConfigError as error:
        assume("leaves nothing" not in str(error))
        raise


@pytest.mark.slow
def test_two_ranks_find_the_gradients_of_one_whatever_is_frozen(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = f"from tests.support.freezing import main; main({str(tmp_path)!r})"
    assert run_ranks([sys.executable, "-c", command], 2) == 0
    check_ranks([dict(np.load(tmp_path / f"{rank}.npz")) for rank in range(2)], of_ranks(every=True))
