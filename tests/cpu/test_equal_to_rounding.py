"""Losses and gradients are equal to rounding with and without each switch, as docs/speed.md promises."""

import paddle
import pytest

from ernie_vil2.device import runtime
from tests.support.freezing import TOWERS, Case, compute_gradients
from tests.support.steps import measure_errors

STRIDES = "FLAGS_use_stride_kernel"
ROUNDING = 1e-7
"""Steps are in float64, but Paddle rounds epsilon of layer norms to float32."""


@pytest.fixture
def compute_without(monkeypatch):
    """Return a function of a case and a switch: losses and gradients of a step without the switch."""
    flags = paddle.get_flags(STRIDES)

    def compute(case, switch):
        monkeypatch.setenv("ERNIE_VIL2_RUNTIME", f"-{switch}" if switch else "")
        paddle.set_flags({STRIDES: True})
        runtime.copy_transposed()
        with runtime.flush_denormals():
            return compute_gradients(case)[0]

    yield compute
    paddle.set_flags(flags)


@pytest.mark.thorough
@pytest.mark.parametrize("step", ["direct", pytest.param("recomputed", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("image", "text"), TOWERS)
def test_step_without_a_switch_is_equal_to_rounding(compute_without, image, text, step):
    case = Case(image, text, step=step)
    with_all_switches = compute_without(case, None)
    for switch in ("strides", "layers", "denormals"):  # those that act after Paddle is imported
        assert max(measure_errors(compute_without(case, switch), with_all_switches)) < ROUNDING, switch
