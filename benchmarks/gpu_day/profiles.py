"""Figures from what Paddle's profiler recorded of a few steps."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

MAX_KERNELS = 20  # those that take the most time are named
MAX_NAME = 120  # letters of a kernel's name; templates make names of a thousand


def profile_steps(take_step: Callable[[], object], num_steps: int) -> dict[str, Any]:
    """Return launches of a step, idle time of the device, and the kernels that take the most time."""
    import paddle
    from paddle import profiler

    from benchmarks.gpu_day.measuring import wait_for_device

    targets = [profiler.ProfilerTarget.CPU]
    if paddle.get_device() != "cpu":
        targets.append(profiler.ProfilerTarget.GPU)
    wait_for_device()
    # Without this function Paddle would write the trace to a folder of its own.
    recorder = profiler.Profiler(targets=targets, on_trace_ready=lambda recorder: None)
    with recorder:
        for _ in range(num_steps):
            take_step()
        wait_for_device()
    return summarize_trees(recorder.profiler_result.get_data().values(), num_steps)


def summarize_trees(roots: Iterable[Any], num_steps: int) -> dict[str, Any]:
    """Return the figures of the trees of host events, one for each thread.

    The nodes are those that `paddle.profiler.profiler_statistic` walks over (Paddle 3.3.1): a host node has
    `children_node`, its calls of CUDA in `runtime_node`, and these what they started on the device in `device_node`.
    """
    num_operators, num_launches = 0, 0
    kernels: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for node in _walk(roots):
        num_operators += node.type.name == "Operator"
        device_nodes = list(node.device_node)
        for call in node.runtime_node:
            # cudaLaunchKernel, cudaLaunchKernelExC and cuLaunchKernel; one launch of a graph counts as none.
            num_launches += "LaunchKernel" in call.name
            device_nodes += call.device_node
        for event in device_nodes:
            # A copy that runs next to computation does not make the device busy.
            if event.type.name == "Kernel":
                kernels[event.name[:MAX_NAME]].append((event.start_ns, event.end_ns))

    figures: dict[str, Any] = {"operators": num_operators / num_steps, "launches": num_launches / num_steps}
    if kernels:
        spans = list(itertools.chain.from_iterable(kernels.values()))
        first, last = min(start for start, _ in spans), max(end for _, end in spans)
        figures["idle_share"] = 1 - measure_union(spans) / (last - first)
        milliseconds = {name: sum(end - start for start, end in times) / 1e6 for name, times in kernels.items()}
        slowest = sorted(kernels, key=lambda name: -milliseconds[name])[:MAX_KERNELS]
        figures["kernels"] = [
            {"name": name, "calls": len(kernels[name]) / num_steps, "ms": milliseconds[name] / num_steps}
            for name in slowest
        ]
    return figures


def _walk(roots: Iterable[Any]) -> Iterator[Any]:
    nodes = list(roots)
    while nodes:
        node = nodes.pop()
        yield node
        nodes += node.children_node


def measure_union(spans: list[tuple[int, int]]) -> int:
    """Return the length of the union of spans, which overlap where streams work at the same time."""
    length, end = 0, 0
    for start, span_end in sorted(spans):
        length += max(0, span_end - max(start, end))
        end = max(end, span_end)
    return length
