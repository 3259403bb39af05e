import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.data.order import BLOCK, Mixture, Purpose, SampleOrder, ShardOrder, make_generator
from tests.support.limits import limit_examples

SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any)
WEIGHTS = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5)


def sample_order(sizes, seed, source=0, buffer=100_000, group=0, groups=1):
    return SampleOrder(ShardOrder(sizes, seed, source), buffer, group, groups)


def test_the_order_is_that_of_earlier_versions():
    sizes = [7, 0, 3, 12, 5, 5, 1, 9]
    for key, expected in [
        ((0, 0, 100_000), [37, 10, 9, 40, 6, 3, 36, 25, 33, 12, 8, 39, 27, 5, 16, 41, 14, 20, 7, 11, 31]),
        ((3, 1, 10), [20, 19, 32, 7, 1, 0, 8, 21, 9, 24, 22, 4, 25, 3, 5, 23, 6, 2, 28, 31]),
        ((3, 1, 10, 1, 2), [31, 30, 41, 15, 13, 10, 14, 11, 26, 12, 21, 7]),
        ((2**31 - 1, 4, 4), [20, 21, 28, 29, 30, 31, 33, 36, 34, 35, 38, 37, 40, 39, 32, 41, 7, 8, 22]),
    ]:
        order = sample_order(sizes, *key)
        assert [order[position] for position in range(60, 60 + len(expected))] == expected


@limit_examples(50)
@given(sizes=SIZES, seed=st.integers(0, 2**31 - 1), source=st.integers(0, 5), buffer=st.integers(1, 50))
def test_every_sample_is_once_in_every_epoch(sizes, seed, source, buffer):
    order = sample_order(sizes, seed, source, buffer)
    for epoch in range(3):
        first = epoch * sum(sizes)
        assert sorted(order[first + position] for position in range(sum(sizes))) == list(range(sum(sizes)))


@limit_examples(50)
@given(sizes=SIZES, seed=st.integers(0, 2**31 - 1), buffer=st.integers(1, 50), positions=st.data())
def test_a_position_alone_says_which_sample_it_is(sizes, seed, buffer, positions):
    order = sample_order(sizes, seed, buffer=buffer)
    whole = [order[position] for position in range(3 * sum(sizes))]
    picked = positions.draw(st.lists(st.integers(0, len(whole) - 1), max_size=20))
    assert [order[position] for position in picked] == [whole[position] for position in picked]
    for position in picked[:3]:
        assert sample_order(sizes, seed, buffer=buffer)[position] == whole[position]


@limit_examples(50)
@given(shards=st.integers(1, 40), size=st.integers(1, 20), buffer=st.integers(1, 200), seed=st.integers(0, 2**31 - 1))
def test_reading_goes_from_shard_to_shard(shards, size, buffer, seed):
    """Shards that have begun and are not read to their end: no more than a window fills, and two."""
    order = sample_order([size] * shards, seed, buffer=buffer)
    stream = np.array([order[position] // size for position in range(shards * size)])
    first = np.array([np.flatnonzero(stream == shard)[0] for shard in range(shards)])
    last = np.array([np.flatnonzero(stream == shard)[-1] for shard in range(shards)])
    in_use = [((first <= position) & (last >= position)).sum() for position in range(len(stream))]
    assert max(in_use) <= buffer // size + 2


def test_without_a_buffer_shards_are_read_in_order():
    order = sample_order([3, 2, 4], seed=1, buffer=1)
    shards = {0: [0, 1, 2], 3: [3, 4], 5: [5, 6, 7, 8]}
    stream = [order[position] for position in range(9)]
    while stream:
        samples = shards.pop(stream[0])
        assert stream[: len(samples)] == samples
        stream = stream[len(samples) :]


def test_seeds_epochs_sources_and_groups_have_their_own_orders():
    def order(*key, epoch=0):
        samples = sample_order([100] * 4, *key)
        return tuple(samples[epoch * samples.num_samples + position] % 100 for position in range(100))

    orders = {order(seed, source, epoch=epoch) for seed in (0, 1) for source in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 8
    assert len({order(0, 0, 100, group, 4) for group in range(4)}) == 4


def test_every_sample_is_as_likely_at_every_position():
    seeds, samples = 2000, 6
    counts = np.zeros([samples, samples])
    for seed in range(seeds):
        order = sample_order([2, 1, 3], seed, buffer=6)
        counts[np.arange(samples), [order[position] for position in range(samples)]] += 1
    chi_square = ((counts - seeds / samples) ** 2 / (seeds / samples)).sum()
    assert chi_square < 52.6  # 25 degrees of freedom: passed by chance once in a thousand


def test_draws_do_not_coincide():
    firsts = {
        tuple(make_generator(draw, seed, *position).integers(0, 2**63, 2))
        for draw in Purpose
        for seed in (0, 1)
        for position in ((0,), (1,), (0, 1), (0, 0, 1), (2**40,))
    }
    assert len(firsts) == len(Purpose) * 2 * 5
    # A position has numbers enough: its last are not the next one's first.
    long = make_generator(Purpose.IMAGES, 0, 7).integers(0, 2**63, 100_000)
    assert not np.isin(make_generator(Purpose.IMAGES, 0, 8).integers(0, 2**63, 100), long).any()


@limit_examples(50)
@given(sizes=SIZES, seed=st.integers(0, 2**31 - 1), buffer=st.integers(1, 50), groups=st.integers(1, 5))
def test_groups_share_every_epoch_and_have_their_own_shards(sizes, seed, buffer, groups):
    groups = min(groups, sum(sizes))
    parts = [sample_order(sizes, seed, 0, buffer, group, groups) for group in range(groups)]
    assert sum(part.num_samples for part in parts) == sum(sizes)
    assert max(part.num_samples for part in parts) - min(part.num_samples for part in parts) <= 1
    shard_of = np.repeat(np.arange(len(sizes)), sizes)
    for epoch in range(3):
        read = [[part[epoch * part.num_samples + position] for position in range(part.num_samples)] for part in parts]
        assert sorted(itertools.chain.from_iterable(read)) == list(range(sum(sizes)))
        # A shard is opened once, and once more for every border that lies in it.
        opened = sum(len(set(shard_of[samples])) for samples in read)
        assert opened <= np.count_nonzero(sizes) + groups - 1


@limit_examples(50)
@given(sizes=SIZES, seed=st.integers(0, 2**31 - 1), buffer=st.integers(1, 50), groups=st.integers(1, 5))
def test_a_window_knows_its_shards_and_those_of_the_next(sizes, seed, buffer, groups):
    part = sample_order(sizes, seed, 0, buffer, groups=min(groups, sum(sizes)))
    shard_of, read = np.repeat(np.arange(len(sizes)), sizes), {}
    for position in range(3 * part.num_samples):
        read.setdefault(part.window(position)[:2], set()).add(shard_of[part[position]])
    windows = list(read)
    for (epoch, window), following in itertools.pairwise(windows):
        assert set(part.window_shards(epoch, window)) == read[epoch, window]
        assert set(part.window_shards(epoch, window + 1)) == read[following]


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
