"""The expected speeds of GPUs agree with each other, and the code as it is has a row among them."""

import pytest

from benchmarks import expectations
from ernie_vil2.config import Config
from ernie_vil2.planning.plan import DEVICES
from ernie_vil2.planning.towers import Towers

ROWS = 1024  # of the step in the file
DEVICE_NAMES = ("a100-80g", "h100-80g")


@pytest.fixture(scope="module")
def useful_flops():
    """Return the operations of a step: two views of image and text, backward twice as expensive as forward."""
    towers = Towers(Config())
    return ROWS * 2 * 3 * (towers.row_flops("image") + towers.row_flops("text"))


def list_rows():
    return expectations.read_expectations()["steps"]


def list_steps(device):
    return [row[device.partition("-")[0]] for row in list_rows()]


def test_present_work_is_what_the_towers_multiply(useful_flops):
    present = expectations.read_expectations()["present"]
    (row,) = [row for row in list_rows() if row["change"] == present]
    assert row["useful_tflop"] == pytest.approx(useful_flops / 1e12, abs=0.05)


@pytest.mark.parametrize("device", DEVICE_NAMES)
def test_shares_and_rates_follow_from_seconds(device):
    for row, step in zip(list_rows(), list_steps(device), strict=True):
        share = 1e12 * row["useful_tflop"] / step["seconds"] / DEVICES[device].flops["bfloat16"]
        # Shares are rounded to hundredths, rates to the next 5 or 10.
        assert step["share_of_peak"] == pytest.approx(share, abs=0.0075)
        assert step["samples_per_second"] == pytest.approx(ROWS / step["seconds"], rel=0.012)


@pytest.mark.parametrize("device", DEVICE_NAMES)
def test_each_change_makes_the_step_faster(device):
    seconds = [step["seconds"] for step in list_steps(device)]
    assert seconds == sorted(set(seconds), reverse=True)


@pytest.mark.parametrize("device", DEVICE_NAMES)
def test_expected_step_is_the_present_row(monkeypatch, device):
    rows = expectations.read_expectations()["steps"]
    for row, step in zip(rows, list_steps(device), strict=True):
        changed = {**expectations.read_expectations(), "present": row["change"]}
        monkeypatch.setattr(expectations, "read_expectations", lambda changed=changed: changed)
        assert expectations.expect_step(device).share_of_peak == step["share_of_peak"]
        monkeypatch.undo()
    present, suite = (expectations.expect_step(device, code) for code in ("present", "suite"))
    assert present.seconds < suite.seconds


def test_nothing_is_expected_of_an_unknown_device():
    assert expectations.expect_step("cpu") is None and expectations.assume_speeds("cpu") == {}
