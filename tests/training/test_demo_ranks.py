"""The demo on two ranks against one process, step by step."""

import numpy as np
import pytest

from tests.support.trainings import logged_losses, run

pytestmark = pytest.mark.slow
DEMO = ["-c", "configs/demo/emoji.yaml", "-o", "Training.global_batch=512", "-o", "Training.sync_norms=true",
        "-o", "Model.image.weights=null", "-o", "Training.log_every=1", "-o", "Evaluation.every=0",
        "-o", "Training.device=cpu"]  # fmt: skip


def curve(folder, *changes, script="tools/train.py", **options):
    """Return the losses of a run by the command line."""
    output = f"Training.output={folder}"
    changes = [argument for change in (*changes, output) for argument in ("-o", change)]
    trained = run(script, *DEMO, *changes, timeout=3000, **options)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    return np.array(logged_losses(folder))


def test_two_ranks_take_a_hundred_steps_as_one_process(tmp_path):
    changes = ["Optimizer.learning_rate=1e-4", "Training.steps=100"]
    one = curve(tmp_path / "one", *changes)
    launch = ["--nproc_per_node", "2", "--backend", "gloo", "--log_dir", tmp_path / "log"]
    two = curve(tmp_path / "two", *changes, launch=launch)
    print("largest relative difference", np.abs(two / one - 1).max())
    assert len(one) == 100 and one[-1] < 0.9 * one[0]
    np.testing.assert_allclose(two, one, rtol=1e-4)


def test_two_ranks_equal_one_process_in_float64(tmp_path):
    """At the demo's own rate, with which float32 loses the curve after a dozen steps."""
    changes = ["Training.steps=20", "Schedule.warmup_steps=10", "Training.global_batch=64"]
    worker = "tests/support/float64_worker.py"
    one = curve(tmp_path / "one", *changes, script=worker)
    launch = ["--nproc_per_node", "2", "--backend", "gloo", "--log_dir", tmp_path / "log"]
    two = curve(tmp_path / "two", *changes, script=worker, launch=launch)
    assert len(one) == 20 and len(set(one)) == 20
    np.testing.assert_allclose(two, one, rtol=1e-10)
