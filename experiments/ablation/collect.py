"""Collect the results of the runs of a study, and name the runs that are missing or do not belong to it."""

import json
import reprlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from ernie_vil2.config import Config, ConfigError, differences, validate_config
from ernie_vil2.config.sections import with_native_towers
from ernie_vil2.io.files import is_number, load_json
from ernie_vil2.io.run_folder import LOG
from ernie_vil2.training.run_log import read_log
from experiments.ablation.definition import VERSION, Run, Study, StudyResults, describe_first_problem
from experiments.ablation.runs import find_newest_step, read_result

MAX_CHARACTERS = 2**26  # of a file of results
# For values, which a file may nest deeper than can be printed.
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 100


class _ScoredRun(NamedTuple):
    """A run, and its result from `read_result`."""

    run: Run
    result: Mapping[str, Any]


def collect(study: Study) -> dict[str, Any]:
    """Return the results of a study as plain data, see `StudyResults`.

    A run is missing if it was not trained to its end, has not been scored, or has another configuration than the study
    says, and if it was trained or scored on other data than most.
    """
    definition = study.definition
    scored_runs: list[_ScoredRun] = []
    missing: list[str] = []
    for run in study.runs():
        result = read_result(run)
        problem = _find_problem(run, result)
        if problem is not None:
            missing.append(f"{run}: {problem}")
        elif result is not None:
            scored_runs.append(_ScoredRun(run, result))

    # All runs are scored on the same tests; the groups may be trained on different data.
    scored_runs, others = _split_by_data(scored_runs, "tests")
    missing += [f"{run}: was scored on other data than the other runs of the study; it is left out" for run in others]
    runs_by_group: dict[str, list[_ScoredRun]] = defaultdict(list)
    for scored_run in scored_runs:
        runs_by_group[scored_run.run.group].append(scored_run)
    scored_runs = []
    for group, runs_of_group in runs_by_group.items():
        runs_on_same_data, others = _split_by_data(runs_of_group, "train")
        scored_runs += runs_on_same_data
        reason = f"was trained on other data than the other runs of the group {group}; it is left out"
        missing += [f"{run}: {reason}" for run in others]

    models = {}
    for name, model in definition.models.items():
        models[name] = {"description": model.description, "published": model.published}
    groups = []
    for group_definition in definition.groups:
        record = group_definition.model_dump(include={"name", "description", "models"})
        groups.append(record | {"seeds": group_definition.seeds or definition.seeds})
    return {
        "version": VERSION,
        "title": definition.title,
        "baseline": definition.baseline,
        "models": models,
        "groups": groups,
        "tests": {name: test.kind for name, test in definition.tests.items()},
        "languages": [definition.language, definition.second_language],
        "runs": [_make_record(scored_run) for scored_run in scored_runs],
        "missing": missing,
    }


def read_results(path: str | Path) -> dict[str, Any]:
    """Read what `collect` returned from a JSON file; ValueError, which names the key, if a file is not that."""
    try:
        return StudyResults.model_validate(load_json(path, MAX_CHARACTERS)).model_dump(mode="json")
    except ValidationError as error:
        raise ValueError(
            f"{path}: no results of a study ({describe_first_problem(error)}); name a results.json that tools/study.py "
            "has written"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path}: no results of a study ({error})") from None


def _find_problem(run: Run, result: Mapping[str, Any] | None) -> str | None:
    """Return why a run does not count, in words, or None if it does."""
    num_steps = run.config.Training.steps
    if result is None:
        step = find_newest_step(run.folder)
        if step >= num_steps:
            return "trained, but not measured"
        return f"stopped at step {step:,} of {num_steps:,}" if step else "not trained"
    difference = _find_difference(_read_recorded_settings(result["config"]), _list_settings(run.config))
    if difference is not None:
        return f"was made with another {difference}; remove {run.folder} to make it again"
    if result["step"] != num_steps:
        return f"was read at step {result['step']:,}, not {num_steps:,}"
    return None


def _read_recorded_settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a recorded configuration as `_list_settings` returns it, or as it is if it is not valid any more."""
    try:
        return _list_settings(validate_config(config, "config"))
    except ConfigError:
        return config


def _list_settings(config: Config) -> dict[str, Any]:
    """Return a configuration as a tree, whichever library builds its towers."""
    model = with_native_towers(config.Model)
    return {**config.model_dump(mode="json"), "Model": model.model_dump(mode="json")}


def _find_difference(recorded: Mapping[str, Any], defined: Mapping[str, Any]) -> str | None:
    """Return the first key in which two configurations differ, with both values; the output folder does not count."""
    for name, (recorded_value, defined_value) in differences(recorded, defined):
        if name != "Training.output":
            return f"{name} ({_REPR.repr(recorded_value)}, and the study says {_REPR.repr(defined_value)})"
    return None


def _split_by_data(scored_runs: Sequence[_ScoredRun], key: str) -> tuple[list[_ScoredRun], list[Run]]:
    """Split runs into those on the same data as most of them, and the others.

    Args:
        scored_runs: the runs.
        key: key of the results that identifies the data.
    """
    data = [json.dumps(result[key], sort_keys=True) for _, result in scored_runs]
    most_common = Counter(data).most_common(1)[0][0] if data else None
    runs_on_same_data, others = [], []
    for scored_run, data_of_run in zip(scored_runs, data, strict=True):
        if data_of_run == most_common:
            runs_on_same_data.append(scored_run)
        else:
            others.append(scored_run.run)
    return runs_on_same_data, others


def _make_record(scored_run: _ScoredRun) -> dict[str, Any]:
    run, result = scored_run
    curve, cpu_seconds = read_curve(run.folder)
    return {
        "group": run.group,
        "model": run.model,
        "seed": run.seed,
        "step": result["step"],
        "cpu_seconds": cpu_seconds,
        "curve": curve,
        "figures": {name: round(value, 4) for name, value in result["figures"].items()},
    }


def read_curve(folder: Path) -> tuple[list[list[float]], float | None]:
    """Read the validation scores of a run, and its CPU seconds.

    Returns:
        Step, CPU seconds up to it, and score of each evaluation; and the CPU seconds of the whole training. CPU seconds
        are None from the first record on that has no number there.
    """
    cpu_seconds: float | None = 0.0
    curve = []
    for record in read_log(folder / LOG):
        if record["kind"] == "train":
            increase = record.get("cpu_seconds")
            if cpu_seconds is None or not is_number(increase, 0, 1e9):
                cpu_seconds = None
            else:
                cpu_seconds = round(cpu_seconds + increase, 3)
            continue
        score = record["metrics"].get(record["best_by"])
        if is_number(score, -1e9, 1e9):
            curve.append([record["step"], cpu_seconds, score])
    return curve, cpu_seconds
