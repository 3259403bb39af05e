"""A training step launches no more kernels than its ceiling, on the Python paths of a GPU and in mixed precision."""

import gc

import paddle
import pytest
from paddle.base import core

from benchmarks.gpu_day.comparison import DIRECT_LAUNCHES, TOLERANCE
from benchmarks.kernel_counter import KernelCounter
from benchmarks.launches import OVERRIDES, TOWERS, count_step, render
from ernie_vil2.data.loader import load_batches
from ernie_vil2.training.trainer import Trainer

# Of two blocks the last one computes the pooled token only.
SETTINGS = ["Model.image.depth=2", "Model.text.depth=2", "Model.text.dropout=0.1", "Model.text.attention_dropout=0.1"]
STEPS = {"direct": [], "cached": ["Training.micro_batch=4"], "recomputed": ["Training.recompute=true"]}
# Most launches of a step with towers of two blocks, and of a micro batch. Lower them when a step launches fewer.
MAX_LAUNCHES = {"direct": 1105, "cached": 3856, "recomputed": 1303}
MAX_LAUNCHES_OF_MICRO_BATCH = 821


@pytest.fixture
def gpu_paths(monkeypatch):
    """Switch off what the package does for CPUs alone."""
    monkeypatch.setenv("ERNIE_VIL2_RUNTIME", "0")


@pytest.mark.parametrize("name", STEPS)
def test_step_launches_few_kernels(overrides, gpu_paths, name):
    cost = count_step([*overrides, *SETTINGS, *STEPS[name], "Training.precision=bfloat16"])
    table = "\n".join(render({name: cost}))
    assert cost.launches <= MAX_LAUNCHES[name], table
    assert cost.launches > 500, "the counter misses most kernels"
    micro_batch = sum(kind.launches for kind in cost.mean_micro_batch.values())
    assert micro_batch <= MAX_LAUNCHES_OF_MICRO_BATCH, table
    assert (micro_batch > 300) == (name == "cached")


@pytest.mark.slow
def test_gpu_day_expects_the_counted_launches(gpu_paths, tmp_path):
    # A step may come to launch fewer; the expectation must follow before the day calls it a difference.
    cost = count_step([*TOWERS["small"], *OVERRIDES, f"Training.output={tmp_path / 'run'}"])
    assert cost.launches == pytest.approx(DIRECT_LAUNCHES, rel=TOLERANCE / 2)


@pytest.mark.parametrize("name", STEPS)
def test_held_bytes_are_those_of_the_allocator(config, gpu_paths, monkeypatch, name):
    # Fused attention is emulated by the plain formula, which holds more.
    settings = config(*SETTINGS, *STEPS[name], "Training.fused_attention=off")
    counter, allocated = KernelCounter(), []
    backward = paddle.Tensor.backward

    def measure_backward(total):
        allocated.append(core.host_memory_stat_current_value("Allocated", 0))
        backward(total)

    def run_step(step):
        trainer.update(batch, step, 0.0)
        trainer.update.finish_pending()

    with counter.patch():
        trainer = Trainer(settings)
        batch = next(load_batches(trainer.sample_rows, settings))
        run_step(0)  # allocates the moments of the optimiser
        with counter.count() as cost:
            run_step(1)
        gc.collect()
        allocated_before = core.host_memory_stat_current_value("Allocated", 0)
        with monkeypatch.context() as patches:
            patches.setattr(paddle.Tensor, "backward", measure_backward)
            run_step(2)
    assert cost.held_bytes == pytest.approx(max(allocated) - allocated_before, rel=0.1)
