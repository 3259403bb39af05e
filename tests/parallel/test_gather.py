"""Two processes with uneven rows compute the loss and gradients of a single process with the joined batch."""

import numpy as np
import paddle
import pytest

from benchmarks.traffic import counted_traffic
from ernie_vil2.losses import MultiViewLoss
from ernie_vil2.parallel import gather, gather_ids, gather_rows, gather_views
from ernie_vil2.parallel.ranks import join_ranks
from tests.support.encoding_model import normalise_rows
from tests.support.ranks import run_ranks

VIEWS = ["image_1", "image_2", "text_1", "text_2"]
WEIGHTS = {"image_image": 0.5, "text_text": 0.25, "image_text": 1.0, "text_image": 2.0}
BOUNDS = [0, 3, 8]  # rank 0 holds three rows, rank 1 five


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    views = {name: normalise_rows(rng.normal(size=(BOUNDS[-1], 4))) for name in VIEWS}
    return {"ids": rng.integers(0, 6, size=(BOUNDS[-1], 2)), "scale": np.array(5.0), **views}


def compute_joined_step(batch, widths=()):
    """Return loss and gradients of the joined batch, in float64."""
    views = {name: paddle.to_tensor(batch[name], stop_gradient=False) for name in VIEWS}
    scale = paddle.to_tensor(batch["scale"], stop_gradient=False)
    ids = paddle.to_tensor(batch["ids"])
    loss = MultiViewLoss(WEIGHTS, "positives", tile=None, widths=widths)
    total, _ = loss(views, views, {"logit_scale": scale}, ids, ids)
    total.backward()
    gradients = {name: view.grad.numpy() for name, view in views.items()}
    return {"total": total.numpy(), "scale": scale.grad.numpy(), **gradients}


def compute_rank_step(batch, rows, dtype, tile=2, widths=()):
    """Return the loss of this rank, which has some of the rows, their gradients, and that of the scale."""
    local = {name: paddle.to_tensor(batch[name][rows].astype(dtype), stop_gradient=False) for name in VIEWS}
    local_ids = paddle.to_tensor(batch["ids"][rows])
    scale = paddle.to_tensor(batch["scale"].astype(dtype), stop_gradient=False)
    with counted_traffic() as traffic:
        gathered_ids, ids_on_host, counts = gather_ids(local_ids, batch["ids"][rows], capacity=6)()
        gathered, offset = gather_views(local, counts)
        loss = MultiViewLoss(WEIGHTS, "positives", tile, widths=widths)
        total, _ = loss(local, gathered, {"logit_scale": scale}, local_ids, gathered_ids, offset)
    with counted_traffic() as backward_traffic:
        total.backward()
    gradients = {name: view.grad.numpy() for name, view in local.items()}
    gathers, sums = traffic["all_gather"], backward_traffic["all_reduce"]
    num_kinds = len(traffic | backward_traffic)
    return {
        "total": total.numpy(),
        "ids": gathered_ids.numpy(),
        "ids_on_host": ids_on_host,
        "counts": counts,
        "offsets": [offset, gather_rows(local_ids)[1]],
        "scale": scale.grad.numpy(),
        "sent": [gathers.calls, gathers.payload, sums.calls, sums.payload, num_kinds],
        **gradients,
    }


def main(folder):
    """Read `folder`/batch.npz as a rank, and write the steps on its rows to `folder`/rank_R.npz."""
    rank, _ = join_ranks()
    batch = np.load(folder / "batch.npz")
    rows = slice(BOUNDS[rank], BOUNDS[rank + 1])
    steps = {
        "float32": compute_rank_step(batch, rows, "float32"),
        "float64": compute_rank_step(batch, rows, "float64"),
        "plain": compute_rank_step(batch, rows, "float64", tile=None),
        "widths": compute_rank_step(batch, rows, "float64", widths=[1, 2, 4]),
        "float32 widths": compute_rank_step(batch, rows, "float32", widths=[1, 2, 4]),
    }
    arrays = {}
    for run, step in steps.items():
        arrays |= {f"{run}/{name}": value for name, value in step.items()}
    np.savez(folder / f"rank_{rank}.npz", **arrays)


@pytest.fixture(scope="module")
def ranks(batch, tmp_path_factory):
    """Return the arrays of each of two processes, named RUN/NAME."""
    folder = tmp_path_factory.mktemp("gather")
    np.savez(folder / "batch.npz", **batch)
    run_ranks(main, folder)
    return [np.load(folder / f"rank_{rank}.npz") for rank in range(2)]


@pytest.mark.parametrize(("run", "tolerance"), [("float32", 1e-6), ("float64", 1e-10), ("plain", 1e-10),
                                                ("float32 widths", 2e-6), ("widths", 1e-10)])  # fmt: skip
def test_two_processes_equal_a_single_process(ranks, batch, run, tolerance):
    widths = [1, 2, 4] if "widths" in run else ()
    for name, value in compute_joined_step(batch, widths).items():
        values_of_ranks = [rank[f"{run}/{name}"] for rank in ranks]
        # A rank has the gradients of its rows, and a share of the loss and of the scale's gradient.
        joined = np.concatenate(values_of_ranks) if name in VIEWS else sum(values_of_ranks)
        np.testing.assert_allclose(joined, value, rtol=tolerance, atol=tolerance, err_msg=name)


def test_ids_and_counts_arrive_in_rank_order(ranks, batch):
    for rank, offset in zip(ranks, BOUNDS, strict=False):
        assert rank["float64/counts"].tolist() == [3, 5]
        assert rank["float64/offsets"].tolist() == [offset, offset]  # with known counts, and without them
        np.testing.assert_array_equal(rank["float64/ids"], batch["ids"])
        np.testing.assert_array_equal(rank["float64/ids_on_host"], batch["ids"])
        assert rank["float64/ids"].dtype == np.int64


def test_step_sends_two_gathers_and_a_sum(ranks):
    # Nothing else is sent, and nothing of the size of the logits. Rows are padded to the largest rank. The losses of
    # several widths share the gather of the widest.
    ids, embeddings = 6 * 2 * 8, 5 * 16 * 4  # capacity x ids x int64, rows x (views x width) x float32
    for rank in ranks:
        for run in ("float32", "float32 widths"):
            assert rank[f"{run}/sent"].tolist() == [2, ids + embeddings, 1, 2 * embeddings, 2]


def test_single_process_keeps_its_rows():
    rows = paddle.to_tensor([[1.0, 2.0], [3.0, 4.0]], stop_gradient=False)
    gathered, offset = gather_rows(rows)
    assert gathered is rows and offset == 0

    views, offset = gather_views({"text_1": rows, "image_1": rows * 10})
    assert offset == 0 and list(views) == ["image_1", "text_1"]
    assert views["text_1"].tolist() == [[1, 2], [3, 4]]
    (views["image_1"] * paddle.to_tensor([1.0, 2.0])).sum().backward()
    assert rows.grad.tolist() == [[10, 20], [10, 20]]


def test_rows_beyond_the_capacity_are_refused():
    ids = np.array([[3, 4], [5, 6], [7, 8]])
    assert gather.gather_ids(paddle.to_tensor(ids), ids, capacity=3)()[2] == [3]
    with pytest.raises(ValueError, match="capacity of 2"):
        gather.gather_ids(paddle.to_tensor(ids), ids, capacity=2)


def test_ids_are_requested_first_and_awaited_later(monkeypatch):
    calls = []
    monkeypatch.setattr(gather.dist, "get_world_size", lambda: 2)
    padding = paddle.full([2, 2], -1, "int64")
    monkeypatch.setattr(gather.collectives, "all_gather", lambda ids: paddle.concat([ids, ids[:1], padding]))

    def start_copy(tensor):
        def wait():
            calls.append("awaited")
            return tensor.numpy()

        calls.append("requested")
        return wait

    monkeypatch.setattr(gather, "start_host_copy", start_copy)
    ids = np.array([[3, 4], [5, 6]])
    wait_for_ids = gather.gather_ids(paddle.to_tensor(ids), ids, capacity=3)
    assert calls == ["requested"]
    gathered, ids_on_host, counts = wait_for_ids()
    assert calls == ["requested", "awaited"] and counts == [2, 1]
    np.testing.assert_array_equal(gathered.numpy(), [[3, 4], [5, 6], [3, 4]])
    np.testing.assert_array_equal(ids_on_host, gathered.numpy())


@pytest.mark.parametrize("rank", range(4))
def test_rank_finds_its_rows_among_those_of_four(rank, monkeypatch):
    # With two ranks a wrong offset can be right by chance.
    counts = [2, 3, 1, 4]
    rows_of_ranks = [paddle.full([count, 2], float(number)) for number, count in enumerate(counts)]
    monkeypatch.setattr(gather.dist, "get_world_size", lambda: 4)
    monkeypatch.setattr(gather.dist, "get_rank", lambda: rank)
    padded = paddle.concat([paddle.concat([rows, paddle.zeros([4 - len(rows), 2])]) for rows in rows_of_ranks])
    monkeypatch.setattr(gather.collectives, "all_gather", lambda tensor: padded if tensor.ndim == 2 else tensor)
    monkeypatch.setattr(gather.collectives, "reduce_scatter", lambda gradient: gradient.split(4)[rank])
    local_rows = rows_of_ranks[rank].clone()
    local_rows.stop_gradient = False
    gathered, offset = gather_rows(local_rows, counts)
    assert gathered[:, 0].tolist() == [0, 0, 1, 1, 1, 2, 3, 3, 3, 3]
    assert offset == sum(counts[:rank])
    weights = paddle.arange(10, dtype="float32")
    (gathered[:, 0] * weights).sum().backward()
    assert local_rows.grad[:, 0].tolist() == weights[offset : offset + counts[rank]].tolist()
