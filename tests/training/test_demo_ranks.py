"""The demo has the same losses on two ranks as in one process, step by step."""

import numpy as np
import pytest

from tests.support.trainings import read_logged_losses, run_tool, to_arguments

pytestmark = pytest.mark.slow
DEMO = ["-c", "configs/demo/emoji.yaml", "-o", "Training.global_batch=512", "-o", "Training.sync_norms=true",
        "-o", "Model.image.weights=null", "-o", "Training.log_every=1", "-o", "Evaluation.every=0",
        "-o", "Training.device=cpu"]  # fmt: skip


@pytest.mark.parametrize(("script", "changes", "tolerance"), [
    ("tools/train.py", ["Optimizer.learning_rate=1e-4", "Training.steps=100"], 1e-4),
    # At the demo's learning rate, rounding in float32 makes two curves diverge after a dozen steps; float64 does not.
    ("tests/support/float64_worker.py",
     ["Training.steps=20", "Schedule.warmup_steps=10", "Training.global_batch=64"], 1e-10),
], ids=["float32", "float64"])  # fmt: skip
def test_two_ranks_have_the_losses_of_one_process(tmp_path, script, changes, tolerance):
    losses = []
    for name, options in (("one", {}), ("two", {"launch": ["--nproc_per_node", "2", "--log_dir", tmp_path]})):
        settings = to_arguments([*changes, f"Training.output={tmp_path / name}"])
        process = run_tool(script, *DEMO, *settings, timeout=3000, **options)
        assert process.returncode == 0, process.stdout + process.stderr
        losses.append(read_logged_losses(tmp_path / name))
    assert len(set(losses[0])) == len(losses[0]) >= 20
    np.testing.assert_allclose(losses[1], losses[0], rtol=tolerance)
