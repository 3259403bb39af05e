"""What collectives send, against rings worked out by hand; the collectives themselves run in test_gather.py."""

import numpy as np
import paddle
import paddle.distributed as dist
import pytest

from benchmarks.traffic import counted_traffic
from ernie_vil2.parallel import collectives
from ernie_vil2.parallel.collectives import count_sent_bytes


def ring(ranks, parts):
    """Bytes that each rank of a ring sends while every part goes round; a part is passed on `ranks - 1` times."""
    sent = np.zeros(ranks)
    for start, size in enumerate(parts):
        for hop in range(ranks - 1):
            sent[(start + hop) % ranks] += size
    return sent


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_bytes_sent_are_those_of_a_ring(ranks):
    payload = 24.0 * ranks
    assert set(ring(ranks, [payload] * ranks)) == {count_sent_bytes("all_gather", payload, ranks)}
    scattered = ring(ranks, [payload / ranks] * ranks)
    assert set(scattered) == {count_sent_bytes("reduce_scatter", payload, ranks)}
    assert set(2 * scattered) == {count_sent_bytes("all_reduce", payload, ranks)}
    # Along a chain that starts at another rank for every part, all but the last rank pass it on.
    chains = sum(payload / ranks * (np.arange(ranks) != last) for last in range(ranks))
    assert set(chains) == {count_sent_bytes(kind, payload, ranks) for kind in ("reduce", "broadcast")}


def test_reduce_scatter_of_a_backend_is_called_once(monkeypatch):
    """As rank 1 of 3 under a backend such as NCCL, whose part is played by a NumPy sum."""
    everyone = np.arange(3 * 6 * 2, dtype="float32").reshape(3, 6, 2)
    calls = []

    def backend(own, tensor):
        calls.append(tensor.shape)
        own.set_value(everyone.sum(axis=0)[2:4])

    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist, "get_backend", lambda: "NCCL")
    monkeypatch.setattr(dist.stream, "reduce_scatter", backend)
    with counted_traffic() as traffic:
        own = collectives.reduce_scatter(paddle.to_tensor(everyone[1]))
    assert own.tolist() == everyone.sum(axis=0)[2:4].tolist() and calls == [[6, 2]]
    assert (traffic["reduce_scatter"].payload, traffic["reduce_scatter"].sent) == (48, 32)


def test_a_backend_gets_memory_in_one_piece(monkeypatch):
    """As a transposed view is not, whose first bytes are not its first row."""
    contiguous = []

    def doubled(tensor):
        contiguous.append(tensor.is_contiguous())
        tensor.set_value(2 * tensor)

    def first(own, tensor):
        contiguous.append(tensor.is_contiguous())
        own.set_value(tensor[: len(own)])

    before = paddle.get_flags("FLAGS_use_stride_kernel")
    paddle.set_flags({"FLAGS_use_stride_kernel": True})
    try:
        view = paddle.arange(6.0).reshape([2, 3]).t()
        assert not view.is_contiguous()
        monkeypatch.setattr(dist, "all_reduce", doubled)
        assert collectives.all_reduce(view, wait=False).tolist() == view.tolist() == [[0, 6], [2, 8], [4, 10]]
        monkeypatch.setattr(dist, "get_backend", lambda: "NCCL")
        monkeypatch.setattr(dist.stream, "reduce_scatter", first)
        assert collectives.reduce_scatter(paddle.arange(6.0).reshape([2, 3]).t()).shape == [3, 2]
    finally:
        paddle.set_flags(before)
    assert contiguous == [True, True]
