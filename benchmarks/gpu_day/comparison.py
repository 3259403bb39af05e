"""Expected and measured figures side by side, from the content of `report.json`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.expectations import assume_speeds, expect_step

# Share of the expected figure. One that differs by more is listed at the end of the report.
TOLERANCE = 0.2
Figures = Mapping[tuple[str, str], Mapping[str, Any]]  # by step and measurement
# Seconds within which a run must end that has lost a rank (docs/ranks.md) or is asked to stop.
END_SECONDS = 60.0
# Exit codes of a run that is asked to stop: its own, and that of Paddle's launcher, which passes the signal on.
STOP_CODE, LAUNCHER_STOP_CODE = 75, 15
# Share of the time that a step may wait for the loader: its two processes deliver 1,740 rows a second
# (docs/notes/loader.md), more than any GPU here is expected to take.
LOADER_WAIT = 0.05
# Launches of a direct step in bfloat16 of towers of this depth: `python benchmarks/launches.py --steps direct`.
DIRECT_LAUNCHES = 4420
# Samples a second of a GPU among several over those of one alone. A step of 1.18 s (H100) becomes longer by 15 to 35 ms
# for gradients and 2 to 4 ms for embeddings, which nothing overlaps.
SCALING_EFFICIENCY = 0.97


@dataclass(frozen=True)
class Row:
    """An expected figure and the measured one.

    Attributes:
        name: name of the figure, with its unit.
        expected: the expected figure.
        measured: the measured one.
        source: where the expected figure comes from.
        rule: "about": within `TOLERANCE`; "at most": not above it, within `TOLERANCE`; "equal": exactly.
    """

    name: str
    expected: float
    measured: float
    source: str
    rule: Literal["about", "at most", "equal"] = "about"

    @property
    def ratio(self) -> float | None:
        """Measured over expected."""
        return self.measured / self.expected if self.expected else None

    @property
    def differs(self) -> bool:
        """Whether the measured figure breaks the rule."""
        if self.rule == "equal":
            return self.measured != self.expected
        # In this form NaN breaks the rule, too.
        if self.rule == "at most":
            return not self.measured <= self.expected * (1 + TOLERANCE)
        return not abs(self.measured - self.expected) <= TOLERANCE * abs(self.expected)


def compare(report: Mapping[str, Any]) -> list[Row]:
    """Return a row for each measured figure of a report for which another one is expected."""
    figures = {(record["step"], record["name"]): record["figures"] for record in report["measurements"]}
    sheet = figures.get(("machine", "paddle"), {}).get("data_sheet") or ""
    rows = [*_compare_tests(figures), *_compare_failures(figures, report["is_dry"]), *_compare_accuracy(figures)]
    # Nothing is expected of the speed of tiny towers on a CPU.
    if not report["is_dry"]:
        rows += [*_compare_ceilings(figures, sheet), *_compare_throughput(figures, sheet), *_compare_scaling(figures)]
    return rows


def _compare_tests(figures: Figures) -> Iterator[Row]:
    for (step, name), values in figures.items():
        if step == "correctness" and "failed" in values:
            yield Row(f"correctness, {name}: failed tests", 0, values["failed"], "they pass", "equal")


def _compare_ceilings(figures: Figures, sheet: str) -> Iterator[Row]:
    assumed = assume_speeds(sheet)
    kernels, collectives = figures.get(("ceilings", "kernels"), {}), figures.get(("ceilings", "collectives"), {})
    names = {
        "gemm_tflops": ("gemm_bfloat16_tflops", "bfloat16 products, TFLOP/s"),
        "copy_tb_per_second": ("copy_tb_per_second", "copy in the device's memory, TB/s"),
        "upload_gb_per_second": ("upload_gb_per_second", "upload from pinned memory, GB/s"),
    }
    for key, (figure, name) in names.items():
        if key in assumed and figure in kernels:
            yield Row(name, assumed[key], kernels[figure], "assumed")
    for key, name in (("gather_ms", "all_gather of 84 MB, ms"), ("reduce_ms", "all_reduce of 0.8 GB, ms")):
        if key in assumed and key in collectives:
            # Of the range that is assumed, the slow end must not be exceeded.
            yield Row(name, max(assumed[key]), collectives[key], "assumed, with NVLink", "at most")


def _compare_throughput(figures: Figures, sheet: str) -> Iterator[Row]:
    expected = expect_step(sheet)
    values = figures.get(("throughput", "bfloat16_micro128_counter_synthetic"), {})
    if expected and "step_seconds" in values:
        source = f"calculated, {expected.change}"
        yield Row("step of 1,024 rows, s", expected.seconds, values["step_seconds"], source)
        yield Row("samples a second", expected.samples_per_second, values["samples_per_second"], source)
        if values.get("share_of_peak"):
            yield Row("share of peak (MFU)", expected.share_of_peak, values["share_of_peak"], source)
    for (step, name), case in figures.items():
        if step != "throughput":
            continue
        if "peak_gib" in case and "planned_gib" in case:
            yield Row(f"{name}: peak memory, GiB", case["planned_gib"], case["peak_gib"], "plan")
        if name.endswith("_shards") and "loader_wait" in case:
            yield Row(f"{name}: wait for the loader", LOADER_WAIT, case["loader_wait"], "calculated", "at most")
    launches = figures.get(("throughput", "bfloat16_direct_counter_synthetic"), {}).get("launches")
    if launches:
        yield Row("launches of a direct step", DIRECT_LAUNCHES, launches, "counted on a CPU")


def _compare_scaling(figures: Figures) -> Iterator[Row]:
    single = figures.get(("scaling", "gpus_1"), {}).get("samples_per_second")
    for (step, name), values in figures.items():
        if step != "scaling" or values.get("ranks", 1) == 1:
            continue
        if single and "samples_per_second" in values:
            efficiency = values["samples_per_second"] / values["ranks"] / single
            yield Row(
                f"{name}: samples a second of a GPU, of those of one", SCALING_EFFICIENCY, efficiency, "calculated"
            )
        if "most_processes_on_a_gpu" in values:
            yield Row(f"{name}: processes on a GPU", 1, values["most_processes_on_a_gpu"], "one rank", "equal")


def _compare_failures(figures: Figures, is_dry: bool) -> Iterator[Row]:
    for (step, name), values in figures.items():
        if step != "failures":
            continue
        uses_launcher = values.get("ranks", 1) > 1 and not is_dry
        if values.get("kill_seconds") is not None:
            yield Row(f"{name}: end after kill -9, s", END_SECONDS, values["kill_seconds"], "docs/ranks.md", "at most")
        if values.get("stop_code") is not None:
            code = LAUNCHER_STOP_CODE if uses_launcher else STOP_CODE
            yield Row(f"{name}: code after SIGTERM", code, values["stop_code"], "docs/runs.md", "equal")
        elif "stop_seconds" in values:  # the run did not end
            yield Row(f"{name}: end after SIGTERM, s", END_SECONDS, values["stop_seconds"], "docs/runs.md", "at most")
        if "saved_when_stopped" in values:
            yield Row(f"{name}: saved after SIGTERM", 1, int(values["saved_when_stopped"]), "docs/runs.md", "equal")
        if name == "pause_first_rank" and "goes_on" in values:
            yield Row(f"{name}: the run goes on", 1, int(values["goes_on"]), "tests/gpu", "equal")
        if "seconds_until_end" in values:
            seconds = values["seconds_until_end"]
            yield Row(f"{name}: end after SIGSTOP, s", END_SECONDS, seconds, "docs/ranks.md", "at most")


def _compare_accuracy(figures: Figures) -> Iterator[Row]:
    reference = figures.get(("accuracy", "float32_1"), {})
    for (step, name), values in figures.items():
        if step != "accuracy" or name == "float32_1":
            continue
        for key, label in (("last_loss", "last loss"), ("mean_recall", "mean recall, %")):
            if reference.get(key) is not None and key in values:
                # A loss that is not finite, as float16 may have, is None in the log.
                measured = float("nan") if values[key] is None else values[key]
                yield Row(f"demo, {name}: {label}", reference[key], measured, "float32 on one GPU")
