import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.data.order import Draw, SampleOrder, generator

SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any)


@given(sizes=SIZES, seed=st.integers(0, 2**31 - 1), source=st.integers(0, 5), buffer=st.integers(1, 50))
def test_every_sample_stands_once_in_every_epoch(sizes, seed, source, buffer):
    order = SampleOrder(sizes, seed, source, buffer)
    for epoch in range(3):
        first = epoch * sum(sizes)
        assert sorted(order[first + place] for place in range(sum(sizes))) == list(range(sum(sizes)))


@given(sizes=SIZES, seed=st.integers(0, 2**31 - 1), buffer=st.integers(1, 50), places=st.data())
def test_a_place_alone_says_which_sample_it_is(sizes, seed, buffer, places):
    order = SampleOrder(sizes, seed, buffer=buffer)
    whole = [order[place] for place in range(3 * sum(sizes))]
    picked = places.draw(st.lists(st.integers(0, len(whole) - 1), max_size=20))
    assert [order[place] for place in picked] == [whole[place] for place in picked]
    for place in picked[:3]:
        assert SampleOrder(sizes, seed, buffer=buffer)[place] == whole[place]


@given(shards=st.integers(1, 40), size=st.integers(1, 20), buffer=st.integers(1, 200), seed=st.integers(0, 2**31 - 1))
def test_reading_goes_from_shard_to_shard(shards, size, buffer, seed):
    """Shards that have begun and are not read to their end: no more than a window fills, and two."""
    order = SampleOrder([size] * shards, seed, buffer=buffer)
    stream = np.array([order[place] // size for place in range(shards * size)])
    first = np.array([np.flatnonzero(stream == shard)[0] for shard in range(shards)])
    last = np.array([np.flatnonzero(stream == shard)[-1] for shard in range(shards)])
    in_use = [((first <= place) & (last >= place)).sum() for place in range(len(stream))]
    assert max(in_use) <= buffer // size + 2


def test_without_a_buffer_shards_are_read_from_their_first_sample_to_their_last():
    order = SampleOrder([3, 2, 4], seed=1, buffer=1)
    shards = {0: [0, 1, 2], 3: [3, 4], 5: [5, 6, 7, 8]}
    stream = [order[place] for place in range(9)]
    while stream:
        samples = shards.pop(stream[0])
        assert stream[: len(samples)] == samples
        stream = stream[len(samples) :]


def test_seeds_epochs_and_sources_have_orders_of_their_own():
    def order(seed, source, epoch):
        samples = SampleOrder([50, 50], seed, source)
        return tuple(samples[100 * epoch + place] for place in range(100))

    orders = {order(seed, source, epoch) for seed in (0, 1) for source in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 8


def test_every_sample_is_as_likely_at_every_place():
    seeds, samples = 4000, 6
    counts = np.zeros([samples, samples])
    for seed in range(seeds):
        order = SampleOrder([2, 1, 3], seed, buffer=6)
        counts[np.arange(samples), [order[place] for place in range(samples)]] += 1
    chi_square = ((counts - seeds / samples) ** 2 / (seeds / samples)).sum()
    assert chi_square < 52.6  # 25 degrees of freedom: passed by chance once in a thousand


def test_draws_do_not_meet():
    firsts = {
        tuple(generator(draw, seed, *place).integers(0, 2**63, 2))
        for draw in Draw
        for seed in (0, 1)
        for place in ((0,), (1,), (0, 1), (0, 0, 1), (2**40,))
    }
    assert len(firsts) == len(Draw) * 2 * 5
    # A place has numbers enough: its last are not the next one's first.
    long = generator(Draw.IMAGES, 0, 7).integers(0, 2**63, 100_000)
    assert not np.isin(generator(Draw.IMAGES, 0, 8).integers(0, 2**63, 100), long).any()


def test_equal_draws_are_equal():
    assert generator(Draw.TEXT, 3, 1, 2).random() == generator(Draw.TEXT, 3, 1, 2).random()
