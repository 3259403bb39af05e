"""Speed and memory of this machine, measured in a second, to tell whether a step of a plan takes seconds or minutes."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import paddle

from ernie_vil2.planning.plan import DEVICES, USABLE_SHARE, DataSheet, recognise_device

# A product of two matrices of this side takes milliseconds, and is large enough to use all threads of a CPU.
PRODUCT_SIDE = 1024
# Random numbers of a measured draw, which takes milliseconds.
DRAWN_NUMBERS = 2**20
# The best of a few measurements counts: the first includes the start of threads or of a GPU, others may be disturbed.
REPETITIONS = 4


class Machine(NamedTuple):
    """Speed and free memory of Paddle's device.

    Attributes:
        memory: bytes that tensors can still use.
        flops: operations per second of a float32 matrix product.
        draws: random numbers per second; initial weights are drawn.
    """

    memory: float
    flops: float
    draws: float

    def least_seconds(self, flops: float, num_parameters: float) -> float:
        """Return a lower bound of the seconds of a training, which also does more than matrix products and draws.

        Args:
            flops: operations of all its matrix products.
            num_parameters: number of weights that are drawn first.
        """
        return flops / self.flops + num_parameters / self.draws


def find_device() -> DataSheet:
    """Return the data sheet of Paddle's device.

    Raises:
        ValueError: no data sheet describes this GPU.
    """
    if paddle.get_device() == "cpu":
        return DEVICES["cpu"]
    properties = paddle.device.cuda.get_device_properties(paddle.get_device())
    return recognise_device(properties.name, properties.total_memory)


def measure_machine() -> Machine:
    """Measure the speed and the free memory of Paddle's device."""
    if paddle.get_device() == "cpu":
        memory = find_free_memory()
    else:
        memory, _ = paddle.cuda.mem_get_info(paddle.get_device())  # other processes may use the rest
    matrix = paddle.ones([PRODUCT_SIDE, PRODUCT_SIDE])
    return Machine(
        memory=USABLE_SHARE * memory,
        flops=2 * PRODUCT_SIDE**3 / _time(lambda: paddle.matmul(matrix, matrix)),
        draws=DRAWN_NUMBERS / _time(lambda: paddle.randn([DRAWN_NUMBERS])),
    )


def find_free_memory(system: str | Path = "/") -> float:
    """Return the bytes of host memory that can still be used; in a container, within its limit.

    Args:
        system: folder that holds Linux's `proc` and `sys`. If they are missing, memory is assumed, see `DEVICES`.
    """
    free = float(DEVICES["cpu"].memory)
    try:
        for line in Path(system, "proc/meminfo").read_text().splitlines():
            name, _, size = line.partition(":")
            if name == "MemAvailable":
                free = 1024.0 * int(size.split()[0])  # "123456 kB"
    except OSError:
        return free

    # The limit of a container, or "max". Linux gives cached files up when memory is needed, so that only anonymous
    # memory counts as used.
    group = Path(system, "sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except OSError:
        return free
    if limit == "max":
        return free
    return max(0.0, min(free, float(limit) - float(statistics["anon"])))


def _time(compute: Callable[[], paddle.Tensor]) -> float:
    best = math.inf
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        float(compute().ravel()[0])  # waits for a GPU
        best = min(best, time.perf_counter() - start)
    return best
