"""The demo on two ranks against one process, step by step. docs/ranks.md says how far curves agree, and why."""

import numpy as np
import pytest

from tests.training.conftest import run
from tests.training.test_tools import logged

pytestmark = pytest.mark.slow
DEMO = ["-c", "configs/demo/emoji.yaml", "-o", "Training.global_batch=512", "-o", "Training.sync_norms=true",
        "-o", "Model.image.weights=null", "-o", "Training.log_every=1", "-o", "Evaluation.every=0",
        "-o", "Training.device=cpu"]  # fmt: skip


def curve(folder, *changes, **options):
    """The losses of a run by the command line."""
    output = f"Training.output={folder}"
    changes = [argument for change in (*changes, output) for argument in ("-o", change)]
    trained = run("tools/train.py", *DEMO, *changes, timeout=3000, **options)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    return np.array(logged(folder, "loss"))


def test_two_ranks_of_paddles_launcher_take_a_hundred_steps_as_one_process(tmp_path):
    changes = ["Optimizer.learning_rate=1e-4", "Training.steps=100"]
    one = curve(tmp_path / "one", *changes)
    launch = ["--nproc_per_node", "2", "--backend", "gloo", "--log_dir", tmp_path / "log"]
    two = curve(tmp_path / "two", *changes, launch=launch)
    print("largest relative difference", np.abs(two / one - 1).max())
    assert len(one) == 100 and one[-1] < 0.9 * one[0]
    np.testing.assert_allclose(two, one, rtol=1e-4)


@pytest.mark.parametrize(("precision", "steps", "tolerance"), [([], 10, 1e-4), (["--float64"], 20, 1e-10)])
def test_with_the_learning_rate_of_the_demo_itself(precision, steps, tolerance):
    """Float32 loses the curve after a dozen steps, on one process as well; in float64 it is the same one."""
    options = ["--steps", steps, *precision, "--runs", "two ranks", "--tolerance", tolerance]
    measured = run("benchmarks/rank_curves.py", *options, timeout=3000)
    print(measured.stdout[-300:])
    assert measured.returncode == 0, measured.stdout + measured.stderr
