"""Studies follow their definition, skip, resume or refuse runs, and name what is missing."""

import json
import shutil
import signal
import subprocess
import sys

import pytest

from ernie_vil2 import cli as commands
from ernie_vil2.config import ConfigError
from ernie_vil2.encoder import load_model
from ernie_vil2.io.run_folder import list_checkpoints, lock_run_folder
from experiments.ablation import command as ablation
from experiments.ablation import runs
from experiments.ablation.collect import collect, read_curve
from experiments.ablation.definition import read_study
from experiments.ablation.measure import measure, open_tests
from experiments.ablation.runs import find_newest_step, make_run, read_result, train
from experiments.ablation.step_cost import format_step_costs, measure_step_costs
from experiments.ablation.tables import Table, format_markdown, format_text, make_factor_table, make_tables
from tests.support.limits import PATIENCE, wait_until
from tests.support.paths import ROOT
from tests.support.processes import run_process, start_process
from tests.support.small_study import write_definition, write_study

STUDY = ROOT / "configs" / "ablation" / "study.yaml"


def make_command(study, *options):
    return [sys.executable, str(ROOT / "tools" / "study.py"), str(study.path), *options]


def get_result_path(run):
    return run.folder / "evaluation" / "study.json"


def test_shipped_study_contrasts_the_pairs_of_table_4():
    runs = [run for run in read_study(STUDY, small=True).runs() if run.group == "table"]
    pairs = {}
    for run in runs:
        weights = run.config.Loss.weights.model_dump()
        pairs[run.model] = {name for name, weight in weights.items() if weight}
    cross_modal = {"image_text", "text_image"}
    assert pairs == {
        "A": cross_modal,
        "B": cross_modal,
        "C": cross_modal | {"image_image"},
        "D": cross_modal | {"text_text"},
        "E": cross_modal | {"image_image", "text_text"},
    }
    assert {run.model for run in runs if run.config.Views.tag_probability} == {"B", "E"}


def test_run_merges_base_model_and_group(definition, write):
    study = write(definition)
    runs = {str(run): run.config for run in study.runs()}
    assert list(runs) == ["main/A/0", "main/E/0", "main/A/1", "main/E/1", "large-batch/E/1"]
    assert runs["main/A/1"].Loss.weights.image_image == 0 and runs["main/E/1"].Loss.weights.image_image == 1
    assert runs["main/A/1"].Training.seed == 1 and runs["main/A/1"].Training.global_batch == 16
    assert runs["large-batch/E/1"].Training.global_batch == 32 and runs["large-batch/E/1"].Training.log_every == 2
    small = [str(run.folder) for run in write(definition, small=True).runs()]
    assert small == [f"{definition['output']}-small/main/A-0", f"{definition['output']}-small/main/E-0"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": [{"name": "main", "models": ["A", "B"]}]}, "groups.main names a model B"),
        ({"groups": [{"name": "x", "models": ["A"]}, {"name": "x", "models": ["E"]}]}, "x"),
        ({"groups": [{"name": "../x", "models": ["A"]}]}, "groups.0.name"),
        ({"seeds": [0, 1, 0]}, "seeds: 0"),
        ({"groups": [{"name": "main", "models": ["A", "A"]}]}, "groups.0.models: A"),
        ({"sedes": [1]}, "sedes"),
    ],
)
def test_invalid_definition_is_refused_by_key(definition, write, change, message):
    with pytest.raises(ConfigError, match=f"study.yaml: .*{message}"):
        write(definition | change)


def test_trained_runs_are_skipped_and_missing_ones_named(trained_study):
    study, _ = trained_study
    trained_runs = [run for run in study.runs() if read_result(run)]
    results = collect(study)
    assert [(run["model"], run["seed"]) for run in results["runs"]] == [("A", 0), ("E", 0)]
    assert results["missing"] == [f"{run}: not trained" for run in ("main/A/1", "main/E/1", "large-batch/E/1")]
    tables = {table.title: table for table in make_tables(results)}
    assert tables["What is missing"].rows[0] == ["main/A/1", "not trained"]
    paper_row = tables["Next to the paper's Table 4"].rows[1]
    assert paper_row[-1] == "1 of 2" and paper_row[5] == "+2.3"
    for run in trained_runs:
        assert find_newest_step(run.folder) == 4
        assert [record[0] for record in read_curve(run.folder)[0]] == [2, 4]


def test_tables_name_the_paper_only_with_its_figures(trained_study):
    results = collect(trained_study[0])
    assert "paper mR" in make_tables(results)[0].columns
    for model in results["models"].values():
        model["published"] = {}
    table = make_tables(results)[0]
    assert not any("paper" in column for column in table.columns)
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_row_is_a_line_whatever_its_cells_hold():
    table = Table("A table", ["", "what it is"], [["A", "captions\nalone\n"], ["E", "a | b"]])
    assert format_text(table).splitlines()[2:] == ["   what it is", "A  captions alone", "E  a | b"]
    assert format_markdown(table).splitlines()[4:] == ["| A | captions alone |", "| E | a \\| b |"]


def test_steps_of_equal_time_follow_from_step_costs(definition, write):
    study = write(definition)
    costs = measure_step_costs(study, 2)
    assert {model: len(seconds) for model, seconds in costs.items()} == {"A": 2, "E": 2}
    assert all(second > 0 for seconds in costs.values() for second in seconds)
    assert not study.output.exists()

    # A makes 4 steps; a step of E costs 0.8 of A's.
    lines = list(format_step_costs(study, {"A": [1.0, 3.0], "E": [1.5, 1.7]}))
    assert lines[0].endswith("1.000 of A, 4 steps") and lines[1].endswith("0.800 of A, 5 steps")


def test_further_captions_are_scored_in_their_language(trained_study):
    study, _ = trained_study
    run = next(iter(study.runs()))
    figures = read_result(run)["figures"]
    chinese = study.definition.model_copy(
        update={"language": "zh", "second_language": "en", "further_captions": {"english": "en"}}
    )
    chinese_figures = measure(load_model(run.folder), open_tests(chinese))
    for name in ("mR", "text_to_image/R@1", "image_to_text/R@10"):
        assert figures[f"val/further/chinese/{name}"] == pytest.approx(chinese_figures[f"val/{name}"], abs=1e-3)
        assert chinese_figures[f"val/further/english/{name}"] == pytest.approx(figures[f"val/{name}"], abs=1e-3)


@pytest.mark.slow
def test_tool_skips_and_resumes_runs_and_writes_tables(definition, write, tmp_path):
    """Train all remaining runs by two processes at a time; a run has lost the second half of its steps."""
    study = write(definition)
    trained, stopped = study.find_run("main/A/0"), study.find_run("main/A/1")
    make_run(study, trained)
    make_run(study, stopped)
    shutil.rmtree(list_checkpoints(stopped.folder)[-1])
    get_result_path(stopped).unlink()
    assert "main/A/1: stopped at step 2 of 4" in collect(study)["missing"]
    modification_time = get_result_path(trained).stat().st_mtime_ns
    process = run_process(make_command(study, "--processes", "2"), cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "main/A/1: resumes from step 2" in process.stdout and "main/A/0" not in process.stdout
    assert get_result_path(trained).stat().st_mtime_ns == modification_time
    results = json.loads((study.output / "results.json").read_text())
    assert len(results["runs"]) == 5 and results["missing"] == []
    output = tmp_path / "again"
    assert commands.run(ablation, ["--results", str(study.output / "results.json"), "--output", str(output)]) == 0
    for name in ("study.html", "tables.md"):
        assert (output / name).read_text() == (study.output / name).read_text()


def test_runs_on_other_data_or_settings_are_named(trained_study, shapes, tmp_path):
    study, definition = trained_study
    run = study.find_run("main/A/0")
    original = get_result_path(run).read_text()
    result = json.loads(original)
    for content, reason in (
        (json.dumps(result | {"train": [{"samples": 1}]}), "trained on other data"),
        (json.dumps(result | {"tests": {"val": "0"}}), "scored on other data"),
        (original[:100], "main/A/0: trained, but not measured"),
    ):
        get_result_path(run).write_text(content)
        assert sum(reason in line for line in collect(study)["missing"]) == 1
    get_result_path(run).write_text(original)
    write_definition(tmp_path, shapes)
    rate = {"Optimizer": {"learning_rate": 0.5}}
    changed = definition | {"groups": [{"name": "main", "models": ["A", "E"], "overrides": rate}]}
    missing = [line for line in collect(write_study(tmp_path, changed))["missing"] if "Optimizer.learning_rate" in line]
    assert {line.partition(":")[0] for line in missing} == {"main/A/0", "main/E/0"} and str(run.folder) in missing[0]


def test_trained_run_is_not_scored_under_other_settings(definition, write):
    study = write(definition)
    train(study.find_run("main/A/0").config)
    rate = {"Optimizer": {"learning_rate": 0.5}}
    changed = write(definition | {"groups": [{"name": "main", "models": ["A"], "seeds": [0], "overrides": rate}]})
    with pytest.raises(ConfigError, match="Optimizer.learning_rate"):
        make_run(changed, changed.find_run("main/A/0"))
    assert collect(changed)["missing"] == ["main/A/0: trained, but not measured"]


@pytest.mark.thorough
def test_trained_run_with_stages_is_scored(definition, write):
    stages = {"Training": {"steps": 4, "stages": [{"until": 0.5, "image_size": 16}, {"until": 1}]}}
    study = write(definition | {"groups": [{"name": "main", "models": ["A"], "seeds": [0], "overrides": stages}]})
    run = study.find_run("main/A/0")
    train(run.config)
    make_run(study, run)
    assert not collect(study)["missing"]


def test_missing_test_data_is_named_before_the_training(definition, write):
    study = write(definition | {"tests": {"gone": {"data": ["gone.tar"]}}})
    run = study.find_run("main/A/0")
    with pytest.raises((OSError, ValueError), match="gone.tar"):
        make_run(study, run)
    assert not run.folder.exists()


def test_signal_while_a_run_starts_reaches_it(definition, write, monkeypatch):
    processes = []

    def start_and_get_signal(*_):
        processes.append(start_process([sys.executable, "-c", "import time; time.sleep(20)"]))
        signal.raise_signal(signal.SIGTERM)
        return processes[0]

    monkeypatch.setattr(runs, "_start_process", start_and_get_signal)
    with pytest.raises(SystemExit):
        runs.make_all_runs(write(definition), [], 1)
    assert [process.returncode for process in processes] == [-signal.SIGTERM]


def is_unlocked(folder):
    try:
        with lock_run_folder(folder):
            return True
    except ConfigError:
        return False


@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_stopped_or_killed_study_can_be_resumed(definition, write, stop_signal):
    definition["groups"] = [{"name": "main", "models": ["A"], "seeds": [0], "overrides": {"Training": {"steps": 4000}}}]
    study = write(definition)
    (run,) = study.runs()
    with start_process(make_command(study), cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: find_newest_step(run.folder) >= 2)
        process.send_signal(stop_signal)
        code = process.wait(PATIENCE)
    assert code == (75 if stop_signal == signal.SIGTERM else -signal.SIGKILL)
    wait_until(lambda: is_unlocked(run.folder))  # when the study is killed, its run gets a signal to stop
    step = find_newest_step(run.folder)
    assert 2 <= step < 4000 and list_checkpoints(run.folder)
    assert collect(study)["missing"] == [f"main/A/0: stopped at step {step:,} of 4,000"]


def test_factor_is_compared_with_baseline_and_main_group():
    mean_recalls = {("main", "A"): [4, 6], ("main", "E"): [10, 14], ("noise", "A"): [3, 3], ("noise", "E"): [9, 11]}
    runs = []
    for (group, model), values in mean_recalls.items():
        run = {"group": group, "model": model, "cpu_seconds": 1.0}
        runs += [run | {"seed": seed, "figures": {"all/mR": value}} for seed, value in enumerate(values)]
    results = {
        "baseline": "A", "languages": ["en", "zh"], "missing": [],
        "groups": [{"name": "main", "description": "", "models": ["A", "E"], "seeds": [0, 1]},
                   {"name": "noise", "description": "noise", "models": ["A", "E"], "seeds": [0, 1]}],
        "runs": runs,
    }  # fmt: skip
    rows = {(row[0], row[1]): row[4:7] for row in make_factor_table(results).rows}
    # A differs from its main group by -1 and -3; t(0.975, 1) = 12.706, and the standard error is 1.
    assert rows["noise", "A"] == ["3.0", "–", "-2.0 [-14.7, +10.7]"]
    # E differs from A by 6 and 8, and from its main group by -1 and -3.
    assert rows["noise", "E"] == ["10.0", "+7.0 [-5.7, +19.7]", "-2.0 [-14.7, +10.7]"]
