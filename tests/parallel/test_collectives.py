"""Collectives send what rings by hand send, and owners exchange tensors in buckets; test_gather.py runs the others."""

import numpy as np
import paddle
import paddle.distributed as dist
import pytest

from benchmarks.traffic import counted_traffic
from ernie_vil2.parallel import collectives
from ernie_vil2.parallel.collectives import count_sent_bytes, split_into_buckets
from ernie_vil2.parallel.ranks import join_ranks
from tests.support.ranks import run_ranks


def count_ring_bytes(ranks, chunks):
    """Return the bytes that each rank of a ring sends while every chunk goes round, passed on `ranks - 1` times."""
    sent = np.zeros(ranks)
    for start, size in enumerate(chunks):
        for hop in range(ranks - 1):
            sent[(start + hop) % ranks] += size
    return sent


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_sent_bytes_equal_those_of_a_ring(ranks):
    payload = 24.0 * ranks
    assert set(count_ring_bytes(ranks, [payload] * ranks)) == {count_sent_bytes("all_gather", payload, ranks)}
    scattered = count_ring_bytes(ranks, [payload / ranks] * ranks)
    assert set(scattered) == {count_sent_bytes("reduce_scatter", payload, ranks)}
    assert set(2 * scattered) == {count_sent_bytes("all_reduce", payload, ranks)}
    # Along a chain that starts at another rank for every chunk, all but the last rank pass it on.
    chains = sum(payload / ranks * (np.arange(ranks) != last) for last in range(ranks))
    assert set(chains) == {count_sent_bytes(kind, payload, ranks) for kind in ("reduce", "broadcast")}


def test_reduce_scatter_of_a_backend_is_called_once(monkeypatch):
    # As rank 1 of 3 under a backend such as NCCL, which a NumPy sum replaces.
    tensors_of_ranks = np.arange(3 * 6 * 2, dtype="float32").reshape(3, 6, 2)
    calls = []

    def reduce_scatter(output, tensor):
        calls.append(tensor.shape)
        output.set_value(tensors_of_ranks.sum(axis=0)[2:4])

    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist, "get_backend", lambda: "NCCL")
    monkeypatch.setattr(dist.stream, "reduce_scatter", reduce_scatter)
    with counted_traffic() as traffic:
        output = collectives.reduce_scatter(paddle.to_tensor(tensors_of_ranks[1]))
    assert output.tolist() == tensors_of_ranks.sum(axis=0)[2:4].tolist() and calls == [[6, 2]]
    # 12 float32 numbers are 48 bytes, and a rank sends two thirds of them.
    assert (traffic["reduce_scatter"].payload, traffic["reduce_scatter"].sent) == (48, 32)


@pytest.mark.parametrize(("sizes", "buckets"), [
    ([], []),
    ([3, 4, 2, 1], [[3, 4], [2, 1]]),
    ([9, 1, 9, 8], [[9], [1], [9], [8]]),  # an entry that is too large has a bucket of its own
])  # fmt: skip
def test_buckets_are_full_but_not_too_large(sizes, buckets):
    assert [sizes[bucket] for bucket in split_into_buckets(sizes, max_size=7)] == buckets


# Shapes of the tensors by owner; of rank 0 the first two fit into a bucket of 100 bytes, and the third is alone.
OWNED_SHAPES = {0: [[2, 3], [], [5, 5]], 1: [[4]], 2: []}


def draw_owned_tensors(rank):
    random = np.random.default_rng(rank)
    return {owner: [random.standard_normal(shape) for shape in shapes] for owner, shapes in OWNED_SHAPES.items()}


def exchange_owned_tensors():
    """Average and broadcast the tensors of this rank, and check them."""
    rank, ranks = join_ranks()
    collectives.BUCKET_BYTES = 100
    arrays_of_ranks = [draw_owned_tensors(rank) for rank in range(ranks)]
    tensors = {owner: list(map(paddle.to_tensor, arrays)) for owner, arrays in arrays_of_ranks[rank].items()}
    with counted_traffic() as traffic:
        collectives.average_on_owners(tensors)
    for index, tensor in enumerate(tensors[rank]):
        expected = np.mean([arrays[rank][index] for arrays in arrays_of_ranks], axis=0)
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-12)

    tensors = {owner: list(map(paddle.to_tensor, arrays)) for owner, arrays in arrays_of_ranks[rank].items()}
    with counted_traffic() as more_traffic:
        collectives.broadcast_from_owners(tensors)
    for owner, owned_tensors in tensors.items():
        for tensor, expected in zip(owned_tensors, arrays_of_ranks[owner][owner], strict=True):
            np.testing.assert_array_equal(tensor.numpy(), expected)
    calls = {kind: (entry.calls, entry.payload) for kind, entry in (traffic | more_traffic).items()}
    assert calls == dict.fromkeys(("reduce", "broadcast"), (3, 8 * (6 + 1 + 25 + 4)))


def test_tensors_of_owners_are_exchanged_in_buckets():
    run_ranks(exchange_owned_tensors, ranks=3)


def test_backend_gets_contiguous_memory(monkeypatch):
    # The first bytes of a transposed view are not its first row; a backend reads memory in order.
    is_contiguous = []

    def double(tensor):
        is_contiguous.append(tensor.is_contiguous())
        tensor.set_value(2 * tensor)

    def take_first_rows(output, tensor):
        is_contiguous.append(tensor.is_contiguous())
        output.set_value(tensor[: len(output)])

    original_flags = paddle.get_flags("FLAGS_use_stride_kernel")
    paddle.set_flags({"FLAGS_use_stride_kernel": True})
    try:
        view = paddle.arange(6.0).reshape([2, 3]).t()
        assert not view.is_contiguous()
        monkeypatch.setattr(dist, "all_reduce", double)
        assert collectives.all_reduce(view, wait=False).tolist() == view.tolist() == [[0, 6], [2, 8], [4, 10]]
        monkeypatch.setattr(dist, "get_backend", lambda: "NCCL")
        monkeypatch.setattr(dist.stream, "reduce_scatter", take_first_rows)
        assert collectives.reduce_scatter(paddle.arange(6.0).reshape([2, 3]).t()).shape == [3, 2]
    finally:
        paddle.set_flags(original_flags)
    assert is_contiguous == [True, True]
