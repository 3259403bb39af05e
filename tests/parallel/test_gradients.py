"""Gradients of all parameters, through `fleet.distributed_model`: several processes against one with the joined batch.

Dropout and stochastic depth are on, ids repeat across ranks, and the ranks hold different numbers of rows.
"""

from functools import cache

import numpy as np
import pytest

from tests.support import gradient_worker as worker
from tests.support.gradient_worker import CASES, WRONG_CONVENTIONS, Case
from tests.support.ranks import run_ranks

TOLERANCE = {"float32": 1e-6, "float64": 1e-10}
RIGHT = [name for name, case in CASES.items() if case.convention == "right"]
# In the softmax over keys a constant cancels: these gradients are zero but for rounding, and have no relative error.
ZERO = "k_proj.bias"


@cache
def one_process(pairs, duplicates, dtype):
    return worker.compute_gradients(Case(pairs, duplicates, dtype))


def errors(found, truth):
    """For every parameter the error of its gradient relative to the gradient, both as norms; "all": of all together."""
    assert found.keys() == truth.keys()
    squares = {name: np.square(value.astype("float64")).sum() for name, value in truth.items()}
    wrong = {name: np.square(found[name].astype("float64") - truth[name]).sum() for name in truth}
    whole = sum(squares.values())
    relative = {name: wrong[name] / (whole if name.endswith(ZERO) else squares[name]) for name in truth}
    return {name: value**0.5 for name, value in (relative | {"all": sum(wrong.values()) / whole}).items()}


def check(found, name):
    """The gradients of every rank are those of one process, as far as their precision goes."""
    case = CASES[name]
    truth = one_process(case.pairs, case.duplicates, case.dtype)
    tolerance = dict.fromkeys([*truth, "all"], TOLERANCE[case.dtype])
    if case.dtype == "float32":
        # Where a sum nearly cancels, one process in float32 is about as far as that from the exact gradient. The ranks'
        # matrices have other shapes, for which some processors round up to twice as far: three times in all.
        rounding = errors(truth, one_process(case.pairs, case.duplicates, "float64"))
        tolerance |= {parameter: max(1e-6, 3 * rounding[parameter]) for parameter in truth}
    for rank, gradients in enumerate(found):
        now = errors(gradients[name], truth)
        beyond = [parameter for parameter, error in now.items() if error > tolerance[parameter]]
        assert not beyond, (name, rank, {parameter: now[parameter] for parameter in beyond})


def run(folder, ranks, cases):
    """Each rank's gradients by case and parameter."""
    run_ranks(worker.main, folder, cases, ranks=ranks)
    found = []
    for rank in range(ranks):
        by_case = {case: {} for case in cases}
        for key, value in np.load(folder / f"rank_{rank}.npz").items():
            case, _, parameter = key.partition("/")
            by_case[case][parameter] = value
        found.append(by_case)
    return found


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    return run(tmp_path_factory.mktemp("gradients"), 2, list(CASES))


@pytest.mark.parametrize("name", RIGHT)
def test_two_ranks_find_the_gradients_of_one(two_ranks, name):
    check(two_ranks, name)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [3, 4])
def test_more_ranks_find_the_gradients_of_one(tmp_path, ranks):
    found = run(tmp_path, ranks, list(CASES))
    for name in RIGHT:
        check(found, name)
    for name in WRONG_CONVENTIONS:
        with pytest.raises(AssertionError, match=name):
            check(found, name)


def along(found, name):
    """How long the gradients are along the right ones, 1 being right, of the temperature and of all the rest; and
    the cosine between these."""
    truth, wrong = one_process(CASES[name].pairs, CASES[name].duplicates, "float64"), found[0][name]
    scale = float(wrong["log_logit_scale"] / truth["log_logit_scale"])
    right, wrong = (np.concatenate([g[name].ravel() for name in sorted(truth) if name != "log_logit_scale"])
                    for g in (truth, wrong))  # fmt: skip
    return scale, right @ wrong / (right @ right), right @ wrong / np.linalg.norm(right) / np.linalg.norm(wrong)


def test_wrong_conventions_are_wrong_as_the_docs_say(two_ranks):
    assert along(two_ranks, "all against all, own slice") == pytest.approx((1, 1 / 2, 1))
    assert along(two_ranks, "that times N") == pytest.approx((2, 1, 1))
    assert along(two_ranks, "average, all against all") == pytest.approx((1, 1 / 2, 1))
    for convention in ("no gradient through columns", "own slice"):
        temperature, _, cosine = along(two_ranks, convention)
        assert temperature == pytest.approx(1) and cosine < 0.97
