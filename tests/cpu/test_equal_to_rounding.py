"""What docs/speed.md says of the switches: results are equal to rounding with and without, whatever the towers."""

import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

from ernie_vil2.device import runtime
from ernie_vil2.device.launch import run_ranks
from ernie_vil2.device.runtime import SWITCHES
from tests.support import switched_rank
from tests.support.freezing import TOWERS, Case, gradients
from tests.support.steps import errors

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
        with runtime.flushed_denormals():
            return gradients(case)[0]

    yield found
    paddle.set_flags(before)


@pytest.mark.thorough
@pytest.mark.parametrize("step", ["direct", "recomputed"])
@pytest.mark.parametrize(("image", "text"), TOWERS)
def test_a_step_is_the_same_without_a_switch(switched, image, text, step):
    case = Case(image, text, step=step)
    every = switched(case, "")
    for name in ("strides", "layers", "denormals"):
        assert max(errors(switched(case, name), every)) < ROUNDING, name


def steps(folder, switches, ranks):
    """What each rank finds with `ERNIE_VIL2_RUNTIME` as given."""
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        patch.setenv("ERNIE_VIL2_RUNTIME", switches)
        for name in ("MKL_DEBUG_CPU_TYPE", "MKL_NUM_THREADS"):  # which this process has set
            patch.delenv(name, raising=False)
        worker = Path(switched_rank.__file__)
        assert run_ranks([sys.executable, str(worker), str(folder)], ranks) == 0
    return [dict(np.load(folder / f"{rank}.npz")) for rank in range(ranks)]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_steps_of_every_tower_are_the_same_without_a_switch(tmp_path, ranks):
    every = steps(tmp_path / "every", "", ranks)
    for switches in ("0", *(f"-{name}" for name in SWITCHES)):
        for found, expected in zip(steps(tmp_path / switches, switches, ranks), every, strict=True):
            split = [[{name: value for name, value in arrays.items() if kind in name}
                      for kind in ("/losses/", "/gradients/")] for arrays in (found, expected)]  # fmt: skip
            assert max(errors(*split)) < ROUNDING, switches
