"""Freezing layers leaves the gradients of all other layers unchanged; frozen layers have none."""

from itertools import product

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ernie_vil2.config import ConfigError
from tests.support.freezing import (
    STEPS,
    TOWERS,
    Case,
    check_case,
    compute_gradients,
    list_frozen_groups,
    list_layer_groups,
)
from tests.support.limits import limit_examples


def check_single_process(case):
    (losses, gradients), frozen = compute_gradients(case)
    check_case(case, losses, gradients, frozen)


@pytest.mark.parametrize(("towers", "step", "lora"), [
    pytest.param(*case, marks=() if case == (TOWERS[1], "direct", False) else pytest.mark.slow)
    for case in product(TOWERS, STEPS, (False, True))
])  # fmt: skip
def test_each_group_can_be_frozen_alone_and_with_all_below(towers, step, lora):
    for frozen in list_frozen_groups(*towers):
        check_single_process(Case(*towers, frozen, step, lora=lora))


@st.composite
def draw_cases(draw):
    image, text = draw(st.sampled_from(TOWERS))
    names = []
    for groups in list_layer_groups(image, text).values():
        names.extend(groups)
    frozen = draw(st.lists(st.sampled_from(names), min_size=1, unique=True).map(tuple))
    task = draw(st.sampled_from(["multi_view", "entailment", "nlvr2"]))
    return Case(image, text, frozen, draw(st.sampled_from(list(STEPS))), task, draw(st.booleans()))


@limit_examples(4)
@given(draw_cases())
def test_any_groups_can_be_frozen_with_any_step_and_head(case):
    try:
        check_single_process(case)
    except ConfigError as error:
        assume("leaves nothing" not in str(error))
        raise
