"""The page of a study: its tables, and the curves of its models."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import fmean

from ernie_vil2.pages import Chart, Series, line_chart, write_page
from experiments.ablation.tables import Results, all_tables, main_group


def write_study_page(path: str | Path, results: Results) -> None:
    """Writes the page of what `collect` gave, whole or not at all."""
    runs = results["runs"]
    seconds = [run["cpu_seconds"] for run in runs if run["cpu_seconds"] is not None]
    facts = {
        "Runs": f"{len(runs)}, of {sum(len(group['models']) * len(group['seeds']) for group in results['groups'])}",
        "Training": f"{sum(seconds) / 60:.0f} CPU minutes in all",
        "Read at step": ", ".join(sorted({f"{run['step']:,}" for run in runs})) or "–",
    }
    template = Path(__file__).with_name("study.html")
    write_page(path, template, title=results["title"], facts=facts, tables=all_tables(results), charts=charts(results))


def charts(results: Results) -> list[Chart]:
    """The mean curves of validation over the seeds of the main group: by steps, and by CPU seconds."""
    curves: dict[str, dict[int, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for run in results["runs"]:
        if run["group"] == main_group(results)["name"]:
            for step, seconds, score in run["curve"]:
                if seconds is not None:
                    curves[run["model"]][step].append((seconds, score))
    by_step, by_seconds = [], []
    for colour, (model, steps) in enumerate(curves.items(), 1):
        means = {step: [fmean(values) for values in zip(*found, strict=True)] for step, found in steps.items()}
        by_step.append(Series(model, [(step, score) for step, (_, score) in sorted(means.items())], colour))
        by_seconds.append(Series(model, [(seconds, score) for _, (seconds, score) in sorted(means.items())], colour))
    note = "Mean recall on the validation sets, mean over the seeds."
    return [
        line_chart("At equal steps", note, by_step, y_label="mR, %"),
        line_chart("At equal CPU seconds", note, by_seconds, y_label="mR, %", x_label="CPU seconds"),
    ]
