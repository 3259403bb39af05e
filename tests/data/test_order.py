"""The order of samples and sources: reproducible, each sample once an epoch, evenly drawn, few shards at a time."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.data.order import BLOCK, Mixture, Purpose, SampleOrder, ShardOrder, make_generator
from tests.support.limits import limit_examples

SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any)
WEIGHTS = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5)


def make_order(sizes, seed, source=0, buffer=100_000, group=0, groups=1):
    return SampleOrder(ShardOrder(sizes, seed, source), buffer, group, groups)


def test_order_equals_that_of_earlier_versions():
    # Drawn by an earlier version: with another order a run would resume with other samples.
    sizes = [7, 0, 3, 12, 5, 5, 1, 9]
    for key, expected in [  # seed, source, size of the buffer, group, groups
        ((0, 0, 100_000), [37, 10, 9, 40, 6, 3, 36, 25, 33, 12, 8, 39, 27, 5, 16, 41, 14, 20, 7, 11, 31]),
        ((3, 1, 10), [20, 19, 32, 7, 1, 0, 8, 21, 9, 24, 22, 4, 25, 3, 5, 23, 6, 2, 28, 31]),
        ((3, 1, 10, 1, 2), [31, 30, 41, 15, 13, 10, 14, 11, 26, 12, 21, 7]),
        ((2**31 - 1, 4, 4), [20, 21, 28, 29, 30, 31, 33, 36, 34, 35, 38, 37, 40, 39, 32, 41, 7, 8, 22]),
    ]:
        order = make_order(sizes, *key)
        assert [order[position] for position in range(60, 60 + len(expected))] == expected


@limit_examples(50)
@given(sizes=SIZES, seed=st.integers(0, 2**31 - 1), source=st.integers(0, 5), buffer=st.integers(1, 50))
def test_every_sample_is_drawn_once_in_every_epoch(sizes, seed, source, buffer):
    order = make_order(sizes, seed, source, buffer)
    for epoch in range(3):
        first = epoch * sum(sizes)
        assert sorted(order[first + position] for position in range(sum(sizes))) == list(range(sum(sizes)))


@limit_examples(50)
@given(sizes=SIZES, seed=st.integers(0, 2**31 - 1), buffer=st.integers(1, 50), positions=st.data())
def test_sample_depends_on_its_position_alone(sizes, seed, buffer, positions):
    order = make_order(sizes, seed, buffer=buffer)
    stream = [order[position] for position in range(3 * sum(sizes))]
    picked = positions.draw(st.lists(st.integers(0, len(stream) - 1), max_size=20))
    assert [order[position] for position in picked] == [stream[position] for position in picked]
    for position in picked[:3]:
        assert make_order(sizes, seed, buffer=buffer)[position] == stream[position]


@limit_examples(50)
@given(shards=st.integers(1, 40), size=st.integers(1, 20), buffer=st.integers(1, 200), seed=st.integers(0, 2**31 - 1))
def test_few_shards_are_open_at_a_time(shards, size, buffer, seed):
    order = make_order([size] * shards, seed, buffer=buffer)
    stream = np.array([order[position] // size for position in range(shards * size)])
    first = np.array([np.flatnonzero(stream == shard)[0] for shard in range(shards)])
    last = np.array([np.flatnonzero(stream == shard)[-1] for shard in range(shards)])
    num_open = [((first <= position) & (last >= position)).sum() for position in range(len(stream))]
    # The window of the buffer covers whole shards, and a piece of one more at both ends.
    assert max(num_open) <= buffer // size + 2


def test_samples_of_a_shard_stay_in_order_without_a_buffer():
    order = make_order([3, 2, 4], seed=1, buffer=1)
    shards = {0: [0, 1, 2], 3: [3, 4], 5: [5, 6, 7, 8]}  # first sample of a shard -> its samples
    stream = [order[position] for position in range(9)]
    while stream:
        samples = shards.pop(stream[0])
        assert stream[: len(samples)] == samples
        stream = stream[len(samples) :]


def test_seeds_epochs_sources_and_groups_differ_in_order():
    def read_epoch(*key, epoch=0):
        order = make_order([100] * 4, *key)
        return tuple(order[epoch * order.num_samples + position] % 100 for position in range(100))

    orders = {read_epoch(*key, epoch=epoch) for *key, epoch in itertools.product((0, 1), repeat=3)}
    assert len(orders) == 8
    assert len({read_epoch(0, 0, 100, group, 4) for group in range(4)}) == 4


def test_every_sample_is_equally_likely_at_every_position():
    seeds, samples = 2000, 6
    counts = np.zeros([samples, samples])
    for seed in range(seeds):
        order = make_order([2, 1, 3], seed, buffer=6)
        counts[np.arange(samples), [order[position] for position in range(samples)]] += 1
    chi_square = ((counts - seeds / samples) ** 2 / (seeds / samples)).sum()
    assert chi_square < 52.6  # 25 degrees of freedom: passed by chance once in a thousand


def test_generators_of_purposes_seeds_and_positions_differ():
    first_numbers = set()
    positions = [(0,), (1,), (0, 1), (0, 0, 1), (2**40,)]
    for purpose, seed, position in itertools.product(Purpose, (0, 1), positions):
        first_numbers.add(tuple(make_generator(purpose, seed, *position).integers(0, 2**63, 2)))
    assert len(first_numbers) == len(Purpose) * 2 * 5
    # Even 100,000 numbers of a position do not reach those of the next one.
    many_numbers = make_generator(Purpose.IMAGES, 0, 7).integers(0, 2**63, 100_000)
    assert not np.isin(make_generator(Purpose.IMAGES, 0, 8).integers(0, 2**63, 100), many_numbers).any()


@limit_examples(50)
@given(sizes=SIZES, seed=st.integers(0, 2**31 - 1), buffer=st.integers(1, 50), groups=st.integers(1, 5))
def test_groups_share_every_epoch_and_hardly_any_shard(sizes, seed, buffer, groups):
    groups = min(groups, sum(sizes))
    orders = [make_order(sizes, seed, 0, buffer, group, groups) for group in range(groups)]
    group_sizes = [order.num_samples for order in orders]
    assert sum(group_sizes) == sum(sizes) and max(group_sizes) - min(group_sizes) <= 1
    shard_of_sample = np.repeat(np.arange(len(sizes)), sizes)
    for epoch in range(3):
        samples, num_openings = [], 0
        for order in orders:
            first = epoch * order.num_samples
            samples_of_group = [order[first + position] for position in range(order.num_samples)]
            samples += samples_of_group
            num_openings += len(set(shard_of_sample[samples_of_group]))
        assert sorted(samples) == list(range(sum(sizes)))
        # A shard is opened once, and once more for every border between groups that lies in it.
        assert num_openings <= np.count_nonzero(sizes) + groups - 1


@limit_examples(50)
@given(sizes=SIZES, seed=st.integers(0, 2**31 - 1), buffer=st.integers(1, 50), groups=st.integers(1, 5))
def test_window_lists_its_shards_and_those_of_the_next(sizes, seed, buffer, groups):
    order = make_order(sizes, seed, 0, buffer, groups=min(groups, sum(sizes)))
    shard_of_sample = np.repeat(np.arange(len(sizes)), sizes)
    shards_of_windows = {}
    for position in range(3 * order.num_samples):
        shards_of_windows.setdefault(order.locate(position)[:2], set()).add(shard_of_sample[order[position]])
    for (epoch, window), next_window in itertools.pairwise(shards_of_windows):
        assert set(order.window_shards(epoch, window)) == shards_of_windows[epoch, window]
        assert set(order.window_shards(epoch, window + 1)) == shards_of_windows[next_window]


@given(weights=WEIGHTS)
def test_block_holds_every_source_in_its_share(weights):
    quotas = Mixture(weights, seed=0).quotas
    shares = np.array(weights) / sum(weights) * BLOCK
    assert quotas.sum() == BLOCK and quotas.min() >= 1
    # Rounding moves a quota by less than one position. A source whose share is below one position gets a whole one, at
    # the expense of the others.
    assert np.abs(quotas - shares).max() < 1 + np.maximum(0, 1 - shares).sum()


@pytest.mark.parametrize(("num_tiny", "num_large"), [(1000, 300), (0, BLOCK + 1)])
def test_more_sources_than_positions_are_refused(num_tiny, num_large):
    with pytest.raises(ValueError, match=f"{num_tiny + num_large:,} sources"):
        Mixture([1e-9] * num_tiny + [1.0] * num_large, seed=0)


def test_shares_are_exact_in_blocks_and_close_within():
    mixture = Mixture([3, 1], seed=4)
    sources = np.array([mixture[position][0] for position in range(2 * BLOCK)])
    assert [(sources[:BLOCK] == 0).mean(), (sources[BLOCK:] == 0).mean()] == [0.75, 0.75]
    assert (sources[:BLOCK] != sources[BLOCK:]).any()
    # Of a thousand draws with probability 3/4: mean 750, standard deviation 13.7.
    assert abs((sources[:1000] == 0).sum() - 750) < 5 * 13.7


@pytest.mark.parametrize("first", [0, BLOCK - 500, 3 * BLOCK - 500])
def test_source_advances_one_position_at_a_time(first):
    mixture = Mixture([5, 2, 1], seed=9)
    expected = mixture.source_positions(first)
    for position in range(first, first + 1000):
        source, position_in_source = mixture[position]
        assert position_in_source == expected[source]
        expected[source] += 1
    assert mixture.source_positions(first + 1000) == expected and sum(expected) == first + 1000


def test_source_depends_on_its_position_alone():
    mixture = Mixture([1, 1], seed=2)
    draws = [mixture[position] for position in range(BLOCK - 50, BLOCK + 50)]
    assert [Mixture([1, 1], seed=2)[position] for position in range(BLOCK - 50, BLOCK + 50, 7)] == draws[::7]
    assert [Mixture([1, 1], seed=3)[position] for position in range(BLOCK - 50, BLOCK + 50)] != draws


def test_single_source_is_the_whole_stream():
    assert [Mixture([0.3], seed=1)[position] for position in (0, 5, 10**9)] == [(0, 0), (0, 5), (0, 10**9)]


@pytest.mark.parametrize(("weights", "source", "count"), [([3, 1, 2], 1, 500), ([1, 65535], 0, 3), ([1.0], 0, 5)])
def test_first_positions_of_a_source_are_those_of_the_stream(weights, source, count):
    mixture = Mixture(weights, seed=7)
    positions = (position for position in range(4 * BLOCK) if mixture[position][0] == source)
    assert mixture.first_positions(source, count) == list(itertools.islice(positions, count))
