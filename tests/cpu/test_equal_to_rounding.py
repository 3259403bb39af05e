"""What docs/speed.md says of the switches: results are equal to rounding with and without, whatever the towers."""

import paddle
import pytest

from ernie_vil2.device import runtime
from tests.support.freezing import TOWERS, Case, compute_gradients
from tests.support.steps import measure_errors

STRIDES = "FLAGS_use_stride_kernel"
ROUNDING = 1e-7
"""Steps are in float64; of the norms Paddle rounds epsilon to float32."""


@pytest.fixture
def switched(monkeypatch):
    """`switched(CASE, NAME)`: losses and gradients of a step without a switch that acts after Paddle is imported."""
    before = paddle.get_flags(STRIDES)

    def found(case, off):
        monkeypatch.setenv("ERNIE_VIL2_RUNTIME", off and f"-{off}")
        paddle.set_flags({STRIDES: True})
        runtime.copy_transposed()
        with runtime.flush_denormals():
            return compute_gradients(case)[0]

    yield found
    paddle.set_flags(before)


@pytest.mark.thorough
@pytest.mark.parametrize("step", ["direct", pytest.param("recomputed", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("image", "text"), TOWERS)
def test_a_step_is_the_same_without_a_switch(switched, image, text, step):
    case = Case(image, text, step=step)
    every = switched(case, "")
    for name in ("strides", "layers", "denormals"):
        assert max(measure_errors(switched(case, name), every)) < ROUNDING, name
