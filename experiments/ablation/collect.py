"""What the runs of a study say, as plain data, and what is missing or does not belong together."""

import json
import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ernie_vil2.config import Config, ConfigError, differences, validate_config
from ernie_vil2.config.sections import with_native_towers
from ernie_vil2.io.files import is_number, load_json
from ernie_vil2.io.run_folder import LOG
from ernie_vil2.training.run_log import read_log
from experiments.ablation.definition import VERSION, Results, Run, Study, reason
from experiments.ablation.runs import newest_step, read_result

MOST = 2**26  # characters of a file of results
_SHOWN = reprlib.Repr()  # of values, which a file may nest deeper than can be written
_SHOWN.maxstring = _SHOWN.maxother = 100


def collect(study: Study) -> dict[str, Any]:
    """The results of a study, for JSON and for `tables.py`.

    `runs` holds figures and curve of each run that counts; `lacks` has a line for each that does not: it was not begun,
    was stopped or killed, is not measured, is of another configuration, or was trained or scored on other data than
    most.
    """
    definition = study.definition
    lacks: list[str] = []
    found: list[tuple[Run, dict[str, Any]]] = []
    for run in study.runs():
        result = read_result(run)
        if why := _unusable(run, result):
            lacks.append(f"{run}: {why}")
        elif result is not None:
            found.append((run, result))
    for key, what in (("tests", "scored"), ("train", "trained")):
        found, others = _agreeing(found, key, what)
        lacks += others
    return {
        "version": VERSION,
        "title": definition.title,
        "baseline": definition.baseline,
        "models": {name: {"means": model.means, "published": model.published}
                   for name, model in definition.models.items()},
        "groups": [{"name": group.name, "means": group.means, "models": group.models,
                    "seeds": group.seeds or definition.seeds} for group in definition.groups],
        "tests": {name: test.kind for name, test in definition.tests.items()},
        "languages": [definition.language, definition.second],
        "runs": [_as_record(run, result) for run, result in found],
        "lacks": lacks,
    }  # fmt: skip


def read_results(path: str | Path) -> dict[str, Any]:
    """What `collect` gave and was written as JSON; ValueError, which names the key, if a file is not that."""
    try:
        return Results.model_validate(load_json(path, MOST)).model_dump(mode="json")
    except ValidationError as error:
        raise ValueError(f"{path}: no results of a study ({reason(error)}); name a results.json that tools/study.py "
                         "has written") from None  # fmt: skip
    except ValueError as error:
        raise ValueError(f"{path}: no results of a study ({error})") from None


def _unusable(run: Run, result: Mapping[str, Any] | None) -> str | None:
    steps = run.config.Training.steps
    if result is None:
        step = newest_step(run.folder)
        if step >= steps:
            return "trained, but not measured"
        return f"stopped at step {step:,} of {steps:,}" if step else "not trained"
    now = _settings(run.config)
    if (key := _first_difference(_recorded_settings(result["config"]), now)) is not None:
        return f"was made with another {key}; remove {run.folder} to make it again"
    if result["step"] != steps:
        return f"was read at step {result['step']:,}, not {steps:,}"
    return None


def _recorded_settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a run's recorded configuration as `_settings` gives it, or as it is if it is none."""
    try:
        return _settings(validate_config(config, "config"))
    except ConfigError:
        return config


def _settings(config: Config) -> dict[str, Any]:
    """The configuration as a tree, without who builds the towers."""
    model = with_native_towers(config.Model)
    return {**config.model_dump(mode="json"), "Model": model.model_dump(mode="json")}


def _first_difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first key in which two configurations differ, with both values; the folder is not one of the settings."""
    for name, (before, after) in differences(then, now):
        if name != "Training.output":
            return f"{name} ({_SHOWN.repr(before)}, and the study says {_SHOWN.repr(after)})"
    return None


def _agreeing(
    found: Iterable[tuple[Run, dict[str, Any]]], key: str, what: str
) -> tuple[list[tuple[Run, dict[str, Any]]], list[str]]:
    """The runs that have what most of their group have, or of all runs for what is scored; and lines on the others."""
    found = list(found)
    seen: dict[str, Counter[str]] = {}
    for run, result in found:
        seen.setdefault(_scope(run, key), Counter())[json.dumps(result[key], sort_keys=True)] += 1
    most = {scope: counts.most_common(1)[0][0] for scope, counts in seen.items()}
    kept, lines = [], []
    for run, result in found:
        if json.dumps(result[key], sort_keys=True) == most[_scope(run, key)]:
            kept.append((run, result))
        else:
            where = "the study" if key == "tests" else f"the group {run.group}"
            lines.append(f"{run}: was {what} on other data than the other runs of {where}; it is left out")
    return kept, lines


def _scope(run: Run, key: str) -> str:
    return "" if key == "tests" else run.group


def _as_record(run: Run, result: Mapping[str, Any]) -> dict[str, Any]:
    curve, computed = curve_of(run.folder)
    return {
        "group": run.group,
        "model": run.model,
        "seed": run.seed,
        "step": result["step"],
        "cpu_seconds": computed,
        "curve": curve,
        "figures": {name: round(value, 4) for name, value in result["figures"].items()},
    }


def curve_of(folder: Path) -> tuple[list[list[float]], float | None]:
    """What validation found over a run, as [step, CPU seconds, score] each, and the CPU seconds of the whole training.

    CPU seconds are None from the first record on that has no number there.
    """
    computed: float | None = 0.0
    curve = []
    for record in read_log(folder / LOG):
        if record["kind"] == "train":
            more = record.get("cpu_seconds")
            computed = None if computed is None or not is_number(more, 0, 1e9) else round(computed + more, 3)
        elif is_number(score := record["metrics"].get(record["best_by"]), -1e9, 1e9):
            curve.append([record["step"], computed, score])
    return curve, computed
