"""Step 5, scaling: the expected case on 1, 2, 4, ... GPUs with the same rows on each."""

from benchmarks.gpu_day.measuring import Measurement, Options, Results, make_measurement
from benchmarks.gpu_day.throughput import list_cases
from benchmarks.gpu_day.training import measure_case


def list_rank_counts(options: Options) -> list[int]:
    """Return 1, 2, 4, ... and the number of GPUs."""
    counts = [2**power for power in range(options.num_gpus.bit_length()) if 2**power < options.num_gpus]
    return [*counts, options.num_gpus]


def list_measurements(options: Options) -> list[Measurement]:
    measurements = []
    for num_ranks in list_rank_counts(options):
        measurements.append(make_measurement("scaling", f"gpus_{num_ranks}", options, 150, num_ranks))
    return measurements


def measure(name: str, options: Options, results: Results) -> None:
    measure_case(list_cases(options)[0], options, results)
