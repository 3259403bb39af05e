import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.data.mixture import BLOCK, Mixture

WEIGHTS = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5)


@given(weights=WEIGHTS)
def test_a_block_holds_every_source_in_its_share(weights):
    quotas = Mixture(weights, seed=0).quotas
    shares = np.array(weights) / sum(weights) * BLOCK
    assert quotas.sum() == BLOCK and quotas.min() >= 1
    # Off by less than one position, and by what the sources of less than one position were given.
    assert np.abs(quotas - shares).max() < 1 + np.maximum(0, 1 - shares).sum()


def test_shares_hold_over_blocks_and_about_within():
    mixture = Mixture([3, 1], seed=4)
    sources = np.array([mixture[position][0] for position in range(2 * BLOCK)])
    assert [(sources[:BLOCK] == 0).mean(), (sources[BLOCK:] == 0).mean()] == [0.75, 0.75]
    assert (sources[:BLOCK] != sources[BLOCK:]).any()
    # A thousand of them: mean 750, standard deviation 13.7.
    assert abs((sources[:1000] == 0).sum() - 750) < 5 * 13.7


@pytest.mark.parametrize("first", [0, BLOCK - 500, 3 * BLOCK - 500])
def test_every_source_goes_through_its_own_positions_in_turn(first):
    mixture = Mixture([5, 2, 1], seed=9)
    expected = mixture.positions(first)
    for position in range(first, first + 1000):
        source, own_position = mixture[position]
        assert own_position == expected[source]
        expected[source] += 1
    assert mixture.positions(first + 1000) == expected and sum(expected) == first + 1000


def test_a_position_alone_says_which_source_it_is():
    mixture = Mixture([1, 1], seed=2)
    whole = [mixture[position] for position in range(BLOCK - 50, BLOCK + 50)]
    assert [Mixture([1, 1], seed=2)[position] for position in range(BLOCK - 50, BLOCK + 50, 7)] == whole[::7]
    assert [Mixture([1, 1], seed=3)[position] for position in range(BLOCK - 50, BLOCK + 50)] != whole


def test_a_single_source_is_the_whole_stream():
    assert [Mixture([0.3], seed=1)[position] for position in (0, 5, 10**9)] == [(0, 0), (0, 5), (0, 10**9)]


@pytest.mark.parametrize(("weights", "source", "count"), [([3, 1, 2], 1, 500), ([1, 65535], 0, 3), ([1.0], 0, 5)])
def test_the_first_positions_of_a_source(weights, source, count):
    mixture = Mixture(weights, seed=7)
    every = (position for position in range(4 * BLOCK) if mixture[position][0] == source)
    assert mixture.first_positions(source, count) == [next(every) for _ in range(count)]
