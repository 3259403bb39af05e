"""The losses of prefixes of the embeddings against the NumPy references, with the normalisation's own chain rule."""

import json
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.losses import DUPLICATES, PAIR_LOSSES, InfoNCE, MultiViewLoss, SigmoidLoss
from tests.support.limits import PATIENCE, examples
from tests.support.loss_reference import normalised, sigmoid_reference, weighted_reference
from tests.support.processes import run_process

ROOT = Path(__file__).parents[2]
WIDTHS = [1, 3, 5]
BIAS = -2.0
KINDS = {"info_nce": InfoNCE, "sigmoid": SigmoidLoss}
WEIGHTS = {"image_image": 0.5, "text_text": 0.25, "image_text": 1.0, "text_image": 2.0}


def prefix(rows, width):
    """Prefixes `[n, width]` of unit length, and what takes their gradient to that of `rows`; the widest is `rows`."""
    if width == rows.shape[1]:
        return rows, lambda gradient: gradient
    cut = rows[:, :width]
    norms = np.linalg.norm(cut, axis=1, keepdims=True)
    unit = cut / norms

    def back(gradient):
        whole = np.zeros_like(rows)
        for number, (direction, norm) in enumerate(zip(unit, norms, strict=True)):
            jacobian = (np.eye(width) - np.outer(direction, direction)) / norm
            whole[number, :width] = jacobian @ gradient[number]
        return whole

    return unit, back


def of_widths(kind, rows, columns, scale, offset, same, duplicates, weights):
    """Losses summed over the widths, and the gradients of their weighted sum in rows, columns, scale and, if it has
    one, bias."""
    found = []
    for width in WIDTHS:
        (own, back), (among, back_columns) = prefix(rows, width), prefix(columns, width)
        if kind == "info_nce":
            losses, *gradients = weighted_reference(own, among, scale, offset, same, duplicates, weights)
        else:
            losses, *gradients = sigmoid_reference(own, among, scale, BIAS, offset, same, duplicates, weights)
        found.append([losses, back(gradients[0]), back_columns(gradients[1]), *gradients[2:]])
    return [sum(parts) for parts in zip(*found, strict=True)]


def computed(loss, rows, columns, scale, weights, dtype="float64"):
    """The losses each way that `loss` gives, and the gradients of their weighted sum."""
    leaves = [paddle.to_tensor(np.asarray(x, dtype), stop_gradient=False) for x in (rows, columns, scale, BIAS)]
    ways = loss(*leaves[:2], {"logit_scale": leaves[2], "logit_bias": leaves[3]})
    paddle.add_n(
        [(way * paddle.to_tensor(w.astype(dtype))).sum() for way, w in zip(ways, weights, strict=True)]
    ).backward()
    return [way.numpy() for way in ways], [leaf.grad.numpy() for leaf in leaves if leaf.grad is not None]


def numpy_same(row_ids, column_ids):
    return (row_ids[:, None] == column_ids[None]).any(axis=-1)


@examples(60)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    duplicates=st.sampled_from(DUPLICATES),
    count=st.integers(1, 9),
    before=st.integers(0, 5),
    after=st.integers(0, 5),
    tile=st.one_of(st.none(), st.integers(1, 6)),
    scale=st.floats(0.1, 100),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_sum_over_prefixes_equals_the_reference(kind, duplicates, count, before, after, tile, scale, seed):
    rng = np.random.default_rng(seed)
    total = before + count + after
    ids = rng.integers(0, 9, size=(total, 2))
    rows, columns, weights = normalised(rng, count, 5), normalised(rng, total, 5), rng.normal(size=count)
    row_ids, column_ids = paddle.to_tensor(ids[before : before + count]), paddle.to_tensor(ids)

    def loss(rows, columns, scalars):
        return [KINDS[kind](duplicates, tile, WIDTHS)(rows, columns, scalars, before, row_ids, column_ids)]

    (losses,), found = computed(loss, rows, columns, scale, [weights])
    same = numpy_same(ids[before : before + count], ids)
    expected = of_widths(kind, rows, columns, scale, before, same, duplicates, weights)
    for ours, theirs in zip([losses, *found], expected, strict=True):
        # A prefix of one number is 1 or -1: next to a short prefix the gradient of its normalisation is large.
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9 * max(1, np.abs(theirs).max()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("duplicates", DUPLICATES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 5e-6)])
@pytest.mark.parametrize("tile", [None, 4])
def test_both_ways_equal_the_reference_of_each(kind, duplicates, dtype, tolerance, tile):
    rng = np.random.default_rng(7)
    ids = rng.integers(0, 20, size=(11, 2))
    rows, columns, weights = normalised(rng, 11, 5), normalised(rng, 11, 5), rng.normal(size=(2, 11))
    rows, columns = (side.astype(dtype).astype("float64") for side in (rows, columns))

    def loss(rows, columns, scalars):
        return KINDS[kind](duplicates, tile, WIDTHS).both_ways(rows, columns, scalars, paddle.to_tensor(ids))

    losses, found = computed(loss, rows, columns, 10.0, weights, dtype)
    same = numpy_same(ids, ids)
    there, *first = of_widths(kind, rows, columns, 10.0, 0, same, duplicates, weights[0])
    back, *second = of_widths(kind, columns, rows, 10.0, 0, same, duplicates, weights[1])
    expected = [there, back, first[0] + second[1], first[1] + second[0]]
    expected += [a + b for a, b in zip(first[2:], second[2:], strict=True)]
    for ours, theirs in zip([*losses, *found], expected, strict=True):
        assert ours.dtype == np.dtype(dtype)
        assert np.linalg.norm(ours - theirs) < tolerance * np.linalg.norm(theirs)


def views_of(rng, count=7, width=5, dtype="float64"):
    names = ("image_1", "image_2", "text_1", "text_2")
    return {name: paddle.to_tensor(normalised(rng, count, width).astype(dtype), stop_gradient=False) for name in names}


@pytest.mark.parametrize("kind", KINDS)
def test_all_pairs_equal_plain_losses_of_prefixes_by_autograd(kind):
    """Prefixes cut out and normalised by Paddle, each scored by the loss without widths, all at once."""
    ids = paddle.to_tensor(np.random.default_rng(3).integers(0, 9, size=(7, 2)))
    found = []
    for widths in ([WIDTHS], [[]] * 3):
        views = views_of(np.random.default_rng(0))
        scalars = {"logit_scale": 8.0, "logit_bias": BIAS}
        scalars = {name: paddle.to_tensor(value, "float64", stop_gradient=False) for name, value in scalars.items()}
        totals = []
        for several, width in zip(widths, WIDTHS, strict=False):
            cut = views
            if not several and width < WIDTHS[-1]:
                cut = {name: view[:, :width] for name, view in views.items()}
                # Not F.normalize: the gradient of its norm is off by 1e-12 of the norm.
                cut = {name: view / (view * view).sum(axis=1, keepdim=True).sqrt() for name, view in cut.items()}
            loss = MultiViewLoss(WEIGHTS, "positives", 3 if several else None, kind, several)
            totals.append(loss(cut, cut, scalars, ids, ids)[0])
        total = paddle.add_n(totals)
        total.backward()
        gradients = [leaf.grad.numpy() for leaf in (*views.values(), *scalars.values()) if leaf.grad is not None]
        found.append([total.numpy(), *gradients])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tile", [None, 3])
def test_the_whole_width_alone_is_the_loss_without_widths_bit_by_bit(kind, tile):
    found = []
    for widths in ((), [5]):
        views = views_of(np.random.default_rng(1), dtype="float32")
        scalars = {"logit_scale": paddle.to_tensor(8.0), "logit_bias": paddle.to_tensor(BIAS)}
        total, _ = MultiViewLoss(WEIGHTS, "ignored", tile or 1024, kind, widths)(views, views, scalars)
        total.backward()
        found.append([total.numpy(), *(view.grad.numpy() for view in views.values())])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_half_precision_embeddings_are_scored_in_float32():
    rng = np.random.default_rng(2)
    rows, columns = (paddle.to_tensor(normalised(rng, 6, 5)).astype("bfloat16") for _ in range(2))
    rows.stop_gradient = False
    scale = {"logit_scale": paddle.to_tensor(20.0)}
    with paddle.amp.auto_cast(enable=True, dtype="bfloat16"):
        losses = InfoNCE("ignored", 4, WIDTHS)(rows, columns, scale, 0, None, None)
    losses.sum().backward()
    assert losses.dtype == paddle.float32 and rows.grad.dtype == paddle.bfloat16
    exact = [x.astype("float64").numpy() for x in (rows, columns)]
    own = np.eye(6, dtype=bool)
    expected, gradient, *_ = of_widths("info_nce", *exact, 20.0, 0, own, "ignored", np.ones(6))
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-5)
    found = rows.grad.astype("float32").numpy()
    assert np.linalg.norm(found - gradient) < 1e-2 * np.linalg.norm(gradient)


def test_memory_stays_that_of_the_widest():
    """With a copy of each prefix and of its gradient it would be more than twice as much."""
    memory_of = {}
    for form in ("tiled", "tiled-widths"):
        command = [sys.executable, "benchmarks/loss_memory.py", "--measure", form, "--rows", "2048", "--width", "1024"]
        done = run_process([*command, "--tile", "128"], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        memory_of[form] = json.loads(done.stdout.splitlines()[-1])["memory"]
    assert memory_of["tiled-widths"] < 1.1 * memory_of["tiled"], memory_of


def test_errors_name_what_to_change(monkeypatch):
    views = views_of(np.random.default_rng(0))
    scale = {"logit_scale": paddle.to_tensor(1.0)}
    with pytest.raises(ValueError, match="Loss.widths ends with 3; its last is the width of the embeddings, 5"):
        MultiViewLoss(WEIGHTS, "ignored", widths=[1, 3])(views, views, scale)
    monkeypatch.setitem(PAIR_LOSSES, "two_arguments", lambda duplicates, tile: InfoNCE(duplicates, tile))
    with pytest.raises(ValueError, match="Loss.kind=two_arguments takes no widths: leave out Loss.widths, or"):
        MultiViewLoss(WEIGHTS, kind="two_arguments", widths=WIDTHS)
