"""Several processes find the gradients of a single one with the joined batch, through `fleet.distributed_model`.

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
# In the softmax over keys a constant cancels: these gradients are zero except for rounding, without a relative error.
ZERO_GRADIENT = "k_proj.bias"


@cache
def compute_expected(pairs, duplicates, dtype):
    return worker.compute_gradients(Case(pairs, duplicates, dtype))


def compute_errors(gradients, expected):
    """Return the norm of each parameter's error relative to its gradient's norm; "all" is the error of all of them."""
    assert gradients.keys() == expected.keys()
    squared_norms = {name: np.square(value.astype("float64")).sum() for name, value in expected.items()}
    squared_errors = {name: np.square(gradients[name].astype("float64") - expected[name]).sum() for name in expected}
    total = sum(squared_norms.values())
    errors = {"all": (sum(squared_errors.values()) / total) ** 0.5}
    for name in expected:
        squared_norm = total if name.endswith(ZERO_GRADIENT) else squared_norms[name]
        errors[name] = (squared_errors[name] / squared_norm) ** 0.5
    return errors


def check_gradients(gradients_of_ranks, name):
    """Assert that every rank has the gradients of a single process, within the precision of the case."""
    case = CASES[name]
    expected = compute_expected(case.pairs, case.duplicates, case.dtype)
    tolerance = dict.fromkeys([*expected, "all"], TOLERANCE[case.dtype])
    if case.dtype == "float32":
        # Where a sum nearly cancels, one process in float32 is about as far as that from the exact gradient. The ranks'
        # matrices have other shapes, for which some processors round up to twice as far: three times in all.
        rounding = compute_errors(expected, compute_expected(case.pairs, case.duplicates, "float64"))
        tolerance |= {parameter: max(1e-6, 3 * rounding[parameter]) for parameter in expected}
    for rank, gradients in enumerate(gradients_of_ranks):
        errors = compute_errors(gradients[name], expected)
        wrong = {parameter: error for parameter, error in errors.items() if error > tolerance[parameter]}
        assert not wrong, (name, rank, wrong)


def run_cases(folder, ranks, cases):
    """Return the gradients of each rank by case and parameter."""
    run_ranks(worker.main, folder, cases, ranks=ranks)
    gradients_of_ranks = []
    for rank in range(ranks):
        gradients = {case: {} for case in cases}
        for key, value in np.load(folder / f"rank_{rank}.npz").items():
            case, _, parameter = key.partition("/")
            gradients[case][parameter] = value
        gradients_of_ranks.append(gradients)
    return gradients_of_ranks


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    return run_cases(tmp_path_factory.mktemp("gradients"), 2, list(CASES))


@pytest.mark.parametrize("name", RIGHT)
def test_two_ranks_find_the_gradients_of_one_process(two_ranks, name):
    check_gradients(two_ranks, name)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [3, 4])
def test_more_ranks_find_the_gradients_of_one_process(tmp_path, ranks):
    gradients = run_cases(tmp_path, ranks, list(CASES))
    for name in RIGHT:
        check_gradients(gradients, name)
    for name in WRONG_CONVENTIONS:
        with pytest.raises(AssertionError, match=name):
            check_gradients(gradients, name)


def compare_with_expected(gradients_of_ranks, name):
    """Compare the first rank's gradients with the expected ones.

    Returns:
        The ratio of the temperature's gradient to the expected one; the projection of all other gradients onto the
        expected ones, 1 if right; and the cosine between the two.
    """
    expected = compute_expected(CASES[name].pairs, CASES[name].duplicates, "float64")
    actual = gradients_of_ranks[0][name]
    temperature = float(actual["log_logit_scale"] / expected["log_logit_scale"])
    parameters = sorted(expected.keys() - {"log_logit_scale"})
    actual_vector = np.concatenate([actual[parameter].ravel() for parameter in parameters])
    expected_vector = np.concatenate([expected[parameter].ravel() for parameter in parameters])
    product = expected_vector @ actual_vector
    cosine = product / np.linalg.norm(expected_vector) / np.linalg.norm(actual_vector)
    return temperature, product / (expected_vector @ expected_vector), cosine


def test_wrong_conventions_are_wrong_as_the_docs_say(two_ranks):
    assert compare_with_expected(two_ranks, "all against all, own slice") == pytest.approx((1, 1 / 2, 1))
    assert compare_with_expected(two_ranks, "that times N") == pytest.approx((2, 1, 1))
    assert compare_with_expected(two_ranks, "average, all against all") == pytest.approx((1, 1 / 2, 1))
    for convention in ("no gradient through columns", "own slice"):
        temperature, _, cosine = compare_with_expected(two_ranks, convention)
        assert temperature == pytest.approx(1) and cosine < 0.97
