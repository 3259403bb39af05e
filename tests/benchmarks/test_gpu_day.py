"""The first day on GPUs: failures stop nothing, figures follow from what was measured, and a dry day runs all steps."""

import itertools
import json
import os
import sys
import tarfile
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import pytest

from benchmarks.gpu_day import command, machine, processes
from benchmarks.gpu_day import day as days
from benchmarks.gpu_day.comparison import compare
from benchmarks.gpu_day.correctness import OutcomeRecorder
from benchmarks.gpu_day.day import Day, Step
from benchmarks.gpu_day.measuring import (
    RESULTS_VARIABLE,
    Measurement,
    Options,
    Results,
    list_demo_command,
    list_gpu_labels,
)
from benchmarks.gpu_day.profiles import measure_union, profile_steps, summarize_trees
from benchmarks.gpu_day.report import describe, pack
from benchmarks.gpu_day.throughput import list_cases
from ernie_vil2 import cli
from ernie_vil2.config import load_config
from tests.support.paths import ROOT
from tests.support.processes import run_process

WRITE_FIGURE = f"import json, os; json.dump({{'figure': 7}}, open(os.environ[{RESULTS_VARIABLE!r}], 'w'))\n"
# Ignores SIGTERM, and starts a process in a session of its own, as Paddle's launcher does with ranks.
HANG = (
    "import signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(600)\n"
)


def make_measurement(name, program, seconds=60):
    return Measurement(name, [sys.executable, "-c", program], seconds)


def is_running(pid):
    status = Path(f"/proc/{pid}/status")
    # A process that has ended may stay listed until somebody asks for its exit code.
    return status.exists() and "State:\tZ" not in status.read_text()


def read_report(folder):
    return json.loads((folder / "report.json").read_text())


@pytest.fixture
def options(tmp_path):
    output = tmp_path / "report"
    output.mkdir()
    return Options(output, num_gpus=2, is_dry=False)


def make_h100_report(**figures):
    """Return a report of an H100 with the figures of measurements, whose names are step__measurement."""
    measurements = [{"step": "machine", "name": "paddle", "figures": {"data_sheet": "h100-80g"}}]
    for key, values in figures.items():
        step, _, name = key.partition("__")
        measurements.append({"step": step, "name": name, "figures": values})
    for record in measurements:
        record |= {"status": "ok", "seconds": 1.0, "limit_seconds": 2.0, "reason": ""}
    return {"is_dry": False, "measurements": measurements}


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_failures_and_time_outs_do_not_stop_the_rest(options, monkeypatch):
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(days, "MIN_SECONDS", 0.1)
    reports = []
    day = Day(options, 60, {}, lambda report: reports.append(read_report(options.output)))
    day.run([
        Step("first", 1, [
            make_measurement("fails", WRITE_FIGURE + "raise SystemExit('out of memory')"),
            make_measurement("hangs", WRITE_FIGURE + HANG, seconds=3),
            Measurement("is missing", ["no-such-program"], 60),
        ]),
        Step("second", 1, [make_measurement("works", WRITE_FIGURE)]),
    ])  # fmt: skip
    statuses = {record.name: (record.status, record.code) for record in day.records}
    assert statuses == {
        "fails": ("failed", 1), "hangs": ("timed out", None), "is missing": ("failed", None), "works": ("ok", 0)
    }  # fmt: skip
    # What was measured before the failure is kept, and the report was complete after each measurement.
    assert [record.figures for record in day.records] == [{"figure": 7}, {"figure": 7}, {}, {"figure": 7}]
    assert [len(report["measurements"]) for report in reports] == [1, 2, 3, 4]
    assert "out of memory" in day.records[0].reason and "no-such-program" in day.records[2].reason
    child = int((options.output / "logs" / "first_hangs.log").read_text())
    assert not is_running(child)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_process_that_no_signal_ends_is_given_up(options, monkeypatch):
    # Like one that hangs in the GPU's driver.
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(processes, "KILL_SECONDS", 0.2)
    monkeypatch.setattr(processes, "_signal_all", lambda pids, number: None)
    monkeypatch.setattr(processes.subprocess.Popen, "kill", lambda process: None)
    program = "import time; time.sleep(5)"
    code, _ = processes.run_limited([sys.executable, "-c", program], {}, options.output / "log", seconds=0.5)
    assert code is None


def test_step_without_time_is_left_out_and_others_run(options):
    day = Day(options, 1, {})
    # Of a minute, the first step gets 0.6 s, which is too short to begin anything.
    day.run([
        Step("short", 1, [make_measurement("waits", "import time; time.sleep(60)")]),
        Step("long", 99, [make_measurement("works", WRITE_FIGURE, seconds=3600)]),
    ])  # fmt: skip
    assert [record.status for record in day.records] == ["left out", "ok"]


def test_limit_shrinks_with_the_minutes(options):
    day = Day(options, 30, {})
    day.run([Step("step", 1, [make_measurement("works", WRITE_FIGURE, seconds=60)])])
    assert day.records[0].limit_seconds == 30


def test_interrupted_day_leaves_report_and_archive(tmp_path, monkeypatch, capsys):
    def run_and_interrupt(command, variables, log, seconds):
        if "second" in variables[RESULTS_VARIABLE]:
            raise KeyboardInterrupt
        return 0, 1.0

    monkeypatch.setattr(days, "run_limited", run_and_interrupt)
    steps = [Step("machine", 1, [make_measurement(name, "") for name in ("first", "second", "third")])]
    monkeypatch.setattr(days, "list_steps", lambda options: steps)
    output = tmp_path / "report"
    assert cli.run(command, ["--output", str(output), "--dry"]) == 130
    assert [record["name"] for record in read_report(output)["measurements"]] == ["first"]
    with tarfile.open(tmp_path / "report.tar.gz") as archive:
        assert {"report/report.json", "report/report.md"} <= set(archive.getnames())
    assert str(tmp_path / "report.tar.gz") in capsys.readouterr().out


def test_archive_lacks_runs_and_data(options):
    for name in ("report.json", "logs/a.log", "work/runs/model"):
        path = options.output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    with tarfile.open(pack(options.output)) as archive:
        assert set(archive.getnames()) == {"report/report.json", "report/logs", "report/logs/a.log"}


def test_report_of_another_day_is_not_overwritten(options, capsys):
    (options.output / "report.json").write_text("{}")
    assert cli.run(command, ["--output", str(options.output), "--dry"]) == 2
    assert "--output" in capsys.readouterr().err
    assert (options.output / "report.json").read_text() == "{}"


@pytest.mark.parametrize(("printed", "cause"), [("[false, 0]", "build for CPUs"), ("[true, 0]", "nvidia-smi")])
def test_without_gpu_one_line_says_what_is_needed(tmp_path, monkeypatch, capsys, printed, cause):
    monkeypatch.setattr(command, "COUNT_GPUS", f"print('{printed}')")
    assert cli.run(command, ["--output", str(tmp_path / "report")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and cause in error and "--dry" in error
    assert not (tmp_path / "report").exists()


def test_number_of_gpus_is_at_most_those_that_paddle_sees(monkeypatch):
    monkeypatch.setattr(command, "COUNT_GPUS", "print('[true, 4]')")
    assert command.count_gpus(None) == 4 and command.count_gpus(2) == 2
    with pytest.raises(ValueError, match="--gpus 8"):
        command.count_gpus(8)


def test_other_gpus_are_hidden_from_all_measurements(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "COUNT_GPUS", "print('[true, 4]')")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    monkeypatch.setattr(days.Day, "run", lambda *_: None)
    assert cli.run(command, ["--output", str(tmp_path / "report"), "--gpus", "2"]) == 0
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,5" and list_gpu_labels(2) == ["4", "5"]


def test_installed_paddle_is_asked_for_its_gpus():
    process = run_process([sys.executable, "-c", command.COUNT_GPUS], capture_output=True, text=True)
    has_build, num_gpus = json.loads(process.stdout.splitlines()[-1])
    assert isinstance(has_build, bool) and num_gpus >= 0, process.stderr


def test_gpus_are_named_by_their_place_among_the_visible_ones(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert list_gpu_labels(2) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    assert list_gpu_labels(2) == ["4", "5"]


def test_cases_are_the_matrix_and_valid_configurations(options):
    cases = list_cases(options)
    combinations = {(case.precision, case.way, case.dropout) for case in cases}
    expected = set()
    for precision in ("bfloat16", "float32"):
        for way in ("direct", "micro64", "micro128", "micro256", "recompute"):
            expected.add((precision, way, "counter"))
        expected.add((precision, "direct", "native"))
    assert combinations == expected
    assert len({case.name for case in cases}) == len(cases)
    for case in cases:
        config = load_config(None, case.list_overrides(options, 1))
        assert (config.Training.precision, config.Training.dropout) == (case.precision, case.dropout)
        assert bool(config.Training.micro_batch) == case.way.startswith("micro")


def test_output_may_have_any_name(tmp_path):
    options = Options(tmp_path / "o'clock, [1] #2", num_gpus=1, is_dry=True)
    (case,) = (case for case in list_cases(options) if case.data == "shards")
    assert load_config(None, case.list_overrides(options, 1)).Data.train == [str(options.output / "work" / "shards")]
    words = list_demo_command(options, "run", 1, [])
    settings = [value for option, value in itertools.pairwise(words) if option == "-o"]
    assert load_config(None, settings).Training.output == str(options.run_folder("run"))


def test_system_is_described_without_a_day(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho a GPU\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    machine.describe_system(Options(tmp_path / "report", 1, False), Results(None))
    assert "a GPU" in (tmp_path / "report" / "results" / "machine" / "nvidia_smi.txt").read_text()


def test_figures_of_a_profile_by_hand():
    def event(kind, name, start=0, end=0, children=(), calls=(), events=()):
        return SimpleNamespace(
            type=SimpleNamespace(name=kind), name=name, start_ns=start, end_ns=end,
            children_node=list(children), runtime_node=list(calls), device_node=list(events),
        )  # fmt: skip

    # Two kernels overlap by 1 ms, and the third begins after a gap of 5 ms; a copy in the gap does not count.
    launches = [
        event("CudaRuntime", "cudaLaunchKernel", events=[event("Kernel", "gemm", 0, 3_000_000)]),
        event("CudaRuntime", "cudaLaunchKernelExC", events=[event("Kernel", "norm", 2_000_000, 5_000_000)]),
        event("CudaRuntime", "cudaMemcpyAsync", events=[event("Memcpy", "copy", 6_000_000, 7_000_000)]),
        event("CudaRuntime", "cuLaunchKernel", events=[event("Kernel", "gemm", 10_000_000, 20_000_000)]),
    ]
    operators = [event("Operator", "matmul", calls=launches[:1]), event("Operator", "norm", calls=launches[1:])]
    figures = summarize_trees([event("UserDefined", "root", children=operators)], num_steps=2)
    assert figures["launches"] == 1.5 and figures["operators"] == 1
    assert figures["idle_share"] == pytest.approx(5 / 20)
    assert figures["kernels"] == [{"name": "gemm", "calls": 1, "ms": 6.5}, {"name": "norm", "calls": 0.5, "ms": 1.5}]


def test_union_of_spans_counts_overlaps_once():
    assert measure_union([(5, 9), (0, 4), (1, 2), (3, 6)]) == 9


def test_profiler_of_paddle_counts_operators_on_a_cpu():
    import paddle

    value = paddle.ones([4])
    figures = profile_steps(lambda: value + value, num_steps=3)
    assert figures["operators"] == 1 and figures["launches"] == 0


def test_measured_speed_is_compared_with_the_present_expectation():
    case = {"step_seconds": 2.36, "samples_per_second": 435.0, "share_of_peak": 0.105}
    report = make_h100_report(throughput__bfloat16_micro128_counter_synthetic=case)
    # As the code is: 1.18 s, 870 samples a second, 21 %.
    rows = {row.name: row for row in compare(report)}
    step = rows["step of 1,024 rows, s"]
    assert (step.expected, step.ratio) == (1.18, 2.0)
    assert rows["samples a second"].expected == 870 and rows["share of peak (MFU)"].ratio == pytest.approx(0.5)
    assert all(row.differs for row in rows.values())


@pytest.mark.parametrize(("measured", "differs"), [(39.0, True), (41.0, False), (59.0, False), (61.0, True)])
def test_memory_differs_beyond_a_fifth_of_the_plan(measured, differs):
    case = {"peak_gib": measured, "planned_gib": 50.0}
    (row,) = compare(make_h100_report(throughput__float32_direct_counter_synthetic=case))
    assert row.differs == differs


@pytest.mark.parametrize(("seconds", "differs"), [(1.0, False), (60.0, False), (71.0, False), (73.0, True)])
def test_limit_is_exceeded_but_not_undercut(seconds, differs):
    (row,) = compare(make_h100_report(failures__kill_and_resume={"kill_seconds": seconds}))
    assert row.differs == differs


@pytest.mark.parametrize(("ranks", "code"), [(1, 75), (2, 15)])
def test_exit_code_must_be_equal(ranks, code):
    for actual in (75, 15, 0):
        figures = {"ranks": ranks, "stop_code": actual}
        (row,) = compare(make_h100_report(failures__kill_and_resume=figures))
        assert row.differs == (actual != code)


def test_run_that_no_request_stops_is_a_difference():
    figures = {"ranks": 1, "goes_on": True, "stop_code": None, "stop_seconds": 90.1}
    rows = compare(make_h100_report(failures__pause_last_rank=figures))
    assert [row.name for row in rows if row.differs] == ["pause_last_rank: end after SIGTERM, s"]


def test_scaling_is_compared_with_one_gpu():
    figures = {
        "scaling__gpus_1": {"ranks": 1, "samples_per_second": 100.0},
        "scaling__gpus_4": {"ranks": 4, "samples_per_second": 300.0, "most_processes_on_a_gpu": 4},
    }
    efficiency, contexts = compare(make_h100_report(**figures))
    assert efficiency.measured == 0.75 and efficiency.differs
    assert contexts.measured == 4 and contexts.differs


@pytest.mark.parametrize(
    ("expected", "measured", "differs"), [(3.0, 3.1, [False]), (3.0, None, [True]), (None, 3.0, [])]
)
def test_loss_that_is_not_finite_is_a_difference(expected, measured, differs):
    report = make_h100_report(accuracy__float32_1={"last_loss": expected}, accuracy__float16_1={"last_loss": measured})
    rows = compare(report)
    assert [row.differs for row in rows] == differs
    assert describe(report | {"begun": ""}, rows, True)


def test_report_names_failures_and_differences():
    report = make_h100_report(
        correctness__tests={
            "failed": 1, "tests": [{"test": "test_a", "outcome": "failed", "message": "no kernel"}],
        },
        ceilings__kernels={"gemm_bfloat16_tflops": 310.0, "attention_error": "not supported"},
    )  # fmt: skip
    report["measurements"][-1] |= {"status": "timed out", "reason": "still waiting"}
    text = "\n".join(describe(report, compare(report), is_finished=True))
    for words in ("test_a", "no kernel", "not supported", "timed out", "still waiting", "310 instead of 620"):
        assert words in text


def test_outcomes_of_tests_are_written_one_by_one(tmp_path):
    (tmp_path / "test_three.py").write_text(
        "import pytest\n"
        "def test_passes(): pass\n"
        "def test_fails(): assert 1 == 2\n"
        "@pytest.mark.skip(reason='no GPU')\n"
        "def test_is_skipped(): pass\n"
    )
    results = Results(tmp_path / "results.json")
    arguments = ["-q", "-c", os.devnull, "--rootdir", str(tmp_path), "-p", "no:cacheprovider", str(tmp_path)]
    pytest.main(arguments, plugins=[OutcomeRecorder(results)])
    figures = json.loads((tmp_path / "results.json").read_text())
    assert (figures["passed"], figures["failed"], figures["skipped"]) == (1, 1, 1)
    messages = {test["outcome"]: test["message"] for test in figures["tests"]}
    assert "1 == 2" in messages["failed"] and "no GPU" in messages["skipped"]


@pytest.mark.slow
def test_dry_day_runs_all_steps(tmp_path):
    output = tmp_path / "report"
    tool = [sys.executable, "tools/gpu_day.py", "--output", str(output), "--dry"]
    process = run_process(tool, cwd=ROOT, capture_output=True, text=True)
    report = read_report(output)
    problems = [record for record in report["measurements"] if record["status"] != "ok"]
    assert process.returncode == 0 and not problems, process.stdout + process.stderr
    assert [*dict.fromkeys(record["step"] for record in report["measurements"])] == list(days.STEP_MINUTES)

    figures = {(record["step"], record["name"]): record["figures"] for record in report["measurements"]}
    for (step, _), values in figures.items():
        if "step_seconds" in values:
            # The first of the timed steps is not counted.
            seconds = median(values["step_seconds_each"][1:])
            assert values["samples_per_second"] == pytest.approx(values["rows"] * values["ranks"] / seconds, rel=1e-3)
            assert values["operators"] > 0, step
    failures = figures["failures", "kill_and_resume"]
    assert failures["kill_code"] and failures["stop_code"] == 75 and failures["saved_when_stopped"]
    assert figures["failures", "pause_last_rank"]["goes_on"]
    single, double = (figures["accuracy", f"float32_{ranks}"]["losses"] for ranks in (1, 2))
    # The norms of two ranks see half of the rows each; the first loss is before any update.
    assert double.keys() == single.keys() and double["1"] == pytest.approx(single["1"], rel=0.05)
