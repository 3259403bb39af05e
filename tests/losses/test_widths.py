"""Losses of several widths against plain losses of prefixes, and their memory."""

import json
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

from ernie_vil2.losses import PAIR_LOSSES, InfoNCE, MultiViewLoss
from tests.support.limits import PATIENCE
from tests.support.loss_reference import normalised
from tests.support.processes import run_process

ROOT = Path(__file__).parents[2]
WIDTHS = [1, 3, 5]
BIAS = -2.0
WEIGHTS = {"image_image": 0.5, "text_text": 0.25, "image_text": 1.0, "text_image": 2.0}


def views_of(rng, count=7, width=5, dtype="float64"):
    names = ("image_1", "image_2", "text_1", "text_2")
    return {name: paddle.to_tensor(normalised(rng, count, width).astype(dtype), stop_gradient=False) for name in names}


@pytest.mark.parametrize("kind", ["info_nce", "sigmoid"])
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


@pytest.mark.slow
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
    with pytest.raises(ValueError, match="Loss.widths ends with 3"):
        MultiViewLoss(WEIGHTS, "ignored", widths=[1, 3])(views, views, scale)
    monkeypatch.setitem(PAIR_LOSSES, "two_arguments", lambda duplicates, tile: InfoNCE(duplicates, tile))
    with pytest.raises(ValueError, match="Loss.kind=two_arguments takes no widths"):
        MultiViewLoss(WEIGHTS, kind="two_arguments", widths=WIDTHS)
