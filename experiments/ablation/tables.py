"""Tables of a study's results, for the terminal and Markdown, and the page with its curves."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from ernie_vil2.evaluation.intervals import Interval, estimate_seed_difference
from ernie_vil2.pages import Axis, Chart, Series, make_line_chart, write_page
from experiments.ablation.definition import FURTHER

Results = Mapping[str, Any]
"""Results as `collect.collect` returns them, see `definition.StudyResults`."""
NONE = "–"  # cell without a value
INTERVALS = (
    "Means over the seeds; differences are paired over them, with Student's 95 % interval. * marks an interval without "
    "zero; a difference of one seed has none."
)


@dataclass(frozen=True)
class Table:
    """A table of text cells.

    Attributes:
        title: heading of the table.
        columns: headings of the columns; the first column names the rows.
        rows: cells of each row.
        note: text below the table.
        main_column: heading of the column that stays in view on a phone.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    main_column: str = ""


def make_tables(results: Results) -> list[Table]:
    """Return all tables for which there are runs, and one of what is missing."""
    tables: list[Table] = []
    if results["runs"]:
        tables += [
            make_main_table(results),
            make_test_table(results),
            make_modality_table(results),
            make_language_table(results),
            make_further_table(results),
            make_equal_time_table(results),
            make_factor_table(results),
        ]
    tables.append(make_missing_table(results))
    return [table for table in tables if table.rows]


def get_main_group(results: Results) -> Mapping[str, Any]:
    """Return the first group, which compares all models."""
    return results["groups"][0]


def get_values(results: Results, group: str, model: str, name: str) -> dict[int, float]:
    """Return a figure of the runs of a model in a group, by seed; the name may also be `cpu_seconds`."""
    values = {}
    for run in results["runs"]:
        if (run["group"], run["model"]) == (group, model):
            value = run["cpu_seconds"] if name == "cpu_seconds" else run["figures"].get(name)
            if value is not None:
                values[run["seed"]] = value
    return values


def make_main_table(results: Results) -> Table:
    """Compare the models by mean recall, next to the paper's figures if the study has these."""
    group = get_main_group(results)
    has_published = any(model["published"] for model in results["models"].values())
    rows = []
    for model in group["models"]:
        cells = [model, results["models"][model]["description"]]
        if has_published:
            cells += _format_published(results, model)
        for name in ("image_to_text/mR", "text_to_image/mR", "mR"):
            cells.append(_format_mean(results, model, f"all/{name}"))
        num_seeds = len(get_values(results, group["name"], model, "all/mR"))
        rows.append([*cells, _format_difference(results, model, "all/mR"), f"{num_seeds} of {len(group['seeds'])}"])

    difference_column = f"to {results['baseline']}"
    recall_columns = ["I→T", "T→I", "mR", difference_column, "seeds"]
    note = (
        f"Mean recall in percent (mean of R@1, R@5, R@10), the mean over {', '.join(results['tests'])}, which were "
        f"never trained on. {INTERVALS}"
    )
    if not has_published:
        return Table("Mean recall", ["", "what it is", *recall_columns], rows, note, "mR")
    paper_columns = ["paper I→T", "paper T→I", "paper mR", f"paper, {difference_column}"]
    columns = ["", "view pairs", *paper_columns, *recall_columns]
    return Table("Next to the paper's Table 4", columns, rows, f"In the paper zero-shot on Flickr30K. {note}", "mR")


def _format_published(results: Results, model: str) -> list[str]:
    """Return the paper's cells of a model: recall both ways, their mean, and its difference to the baseline's."""
    published = results["models"][model]["published"]
    published_baseline = results["models"][results["baseline"]]["published"]
    cells = []
    for name in ("image_to_text", "text_to_image", "mR"):
        cells.append(format_average([published[name]] if name in published else []))
    if model == results["baseline"] or "mR" not in published or "mR" not in published_baseline:
        return [*cells, NONE]
    return [*cells, f"{published['mR'] - published_baseline['mR']:+.1f}"]


def make_test_table(results: Results) -> Table:
    """Compare the models on each test."""
    figures = {}
    for test, kind in results["tests"].items():
        figures[f"{test} ({kind})" if kind else test] = f"{test}/mR"
    note = "Mean recall both ways in percent, each set on its own."
    return _make_comparison(results, "By kind of set", figures, note)


def make_modality_table(results: Results) -> Table:
    """Compare the models by alignment, uniformity, and retrieval within each modality."""
    figures = {
        "alignment": "all/alignment",
        "uniformity, images": "all/image_uniformity",
        "uniformity, texts": "all/text_uniformity",
        "image → image mR": "all/image_to_image/mR",
        "text → text mR": "all/text_to_text/mR",
    }
    note = (
        "Alignment: mean squared distance of an image and its caption. Uniformity: log mean exp(-2 d²) within a side. "
        "Of these three less is better. Image to image: images of the same name by other teams, "
        f"{_format_first(results, 'all/image_to_image/queries')} queries. Text to text: another name of an image asks "
        f"for its caption, {_format_first(results, 'all/text_to_text/queries')} queries."
    )
    return _make_comparison(results, "Within the modalities", figures, note, digits=2)


def _make_comparison(results: Results, title: str, figures: Mapping[str, str], note: str, digits: int = 1) -> Table:
    """Return a table of figures of the main group, each next to its difference to the baseline.

    Args:
        results: the results.
        title: title of the table.
        figures: names of the figures by the headings of their columns.
        note: text below the table.
        digits: digits after the decimal point.
    """
    columns = [""]
    for column in figures:
        columns += [column, f"to {results['baseline']}"]
    rows = []
    for model in get_main_group(results)["models"]:
        cells = [model]
        for name in figures.values():
            cells.append(_format_mean(results, model, name, digits))
            cells.append(_format_difference(results, model, name, digits))
        rows.append(cells)
    return Table(title, columns, rows, note)


def make_language_table(results: Results) -> Table:
    """Compare the models by queries in the second language."""
    first, second = results["languages"]
    group = get_main_group(results)["name"]
    rows = []
    for model in get_main_group(results)["models"]:
        if not get_values(results, group, model, "all/second/R@1"):
            continue
        cells = [model]
        for name in ("first/R@1", "first/R@10", "second/R@1", "second/R@10"):
            cells.append(_format_mean(results, model, f"all/{name}"))
        rows.append([*cells, _format_difference(results, model, "all/second/R@10")])
    recall_columns = [f"{first} R@1", f"{first} R@10", f"{second} R@1", f"{second} R@10"]
    columns = ["", *recall_columns, f"{second} R@10 to {results['baseline']}"]
    note = (
        f"{_format_first(results, 'all/second/queries')} names of the tests that the bilingual drawings know; the same "
        "images are asked for in both languages, among all of their set. Percent."
    )
    return Table(f"Queries in {second} for images that only ever had names in {first}", columns, rows, note)


def make_further_table(results: Results) -> Table:
    """Compare all models of all groups by the further captions of the tests, next to the usual captions."""
    prefix = f"all/{FURTHER}/"
    figures = {"captions": "all"}
    for run in results["runs"]:
        for name in run["figures"]:
            if name.startswith(prefix):
                captions = name.removeprefix(prefix).partition("/")[0]
                figures[captions] = prefix + captions
    names, columns = [], [""]
    for captions, path in figures.items():
        for measure, figure in (("mR", "mR"), ("T→I R@10", "text_to_image/R@10")):
            names.append(f"{path}/{figure}")
            columns += [f"{captions}, {measure}", f"to {results['baseline']}"]

    main_group, baseline = get_main_group(results)["name"], results["baseline"]
    rows = []
    for group in results["groups"]:
        is_main = group["name"] == main_group
        for model in group["models"]:
            cells = [model if is_main else f"{model}, {group['description'] or group['name']}"]
            for name in names:
                values = get_values(results, group["name"], model, name)
                difference = estimate_seed_difference(values, get_values(results, main_group, baseline, name))
                cells.append(format_average(values.values()))
                cells.append(NONE if is_main and model == baseline else format_interval(difference))
            rows.append(cells)
    has_further = len(figures) > 1
    note = f"The same images by their captions and by others that the tests have. Percent. {INTERVALS}"
    return Table("Further captions", columns, rows if has_further else [], note)


def make_equal_time_table(results: Results) -> Table:
    """Compare the validation scores of the models at the CPU seconds of the fastest one."""
    title = "At equal CPU seconds"
    group, baseline = get_main_group(results), results["baseline"]
    seconds_by_model = {}
    for model in group["models"]:
        seconds_by_model[model] = get_values(results, group["name"], model, "cpu_seconds")
    if not all(seconds_by_model.values()):
        return Table(title, [], [])
    budget = min(fmean(seconds.values()) for seconds in seconds_by_model.values())
    scores_by_model = {model: interpolate_scores(results, group["name"], model, budget) for model in group["models"]}
    rows = []
    for model in group["models"]:
        scores = scores_by_model[model]
        difference = estimate_seed_difference(scores, scores_by_model.get(baseline, {}))
        cells = [
            model,
            format_average(seconds_by_model[model].values()),
            format_average(scores.values()),
            NONE if model == baseline else format_interval(difference),
            format_average(_list_last_scores(results, group["name"], model)),
        ]
        rows.append(cells)
    columns = [
        "",
        "CPU seconds of the run",
        f"validation mR at {budget:,.0f} s",
        f"to {baseline}",
        "validation mR at the last step",
    ]
    note = (
        "From the curves of validation, between two evaluations by a straight line. The slower models are read before "
        "their learning rate has come down, which speaks against them."
    )
    return Table(title, columns, rows, note)


def interpolate_scores(results: Results, group: str, model: str, cpu_seconds: float) -> dict[int, float]:
    """Return the validation scores of the runs of a model after so many CPU seconds, by seed.

    Between two evaluations the curve is a straight line, and after the last one it is constant.
    """
    scores = {}
    for run in results["runs"]:
        if (run["group"], run["model"]) != (group, model):
            continue
        points = [(0.0, 0.0)]
        points += [(seconds, score) for _, seconds, score in run["curve"] if seconds is not None]
        if len(points) > 1:
            scores[run["seed"]] = float(np.interp(cpu_seconds, *np.array(points).T))
    return scores


def _list_last_scores(results: Results, group: str, model: str) -> list[float]:
    """Return the validation score at the last step of each run of a model."""
    scores = []
    for run in results["runs"]:
        if (run["group"], run["model"]) == (group, model) and run["curve"]:
            scores.append(run["curve"][-1][2])
    return scores


def make_factor_table(results: Results) -> Table:
    """Compare the models of the further groups with the baseline there, and with themselves in the main group.

    Where a group lacks the baseline, that of the main group takes its place.
    """
    main_group, baseline = get_main_group(results)["name"], results["baseline"]
    rows = []
    for group in results["groups"][1:]:
        name, models = group["name"], group["models"]
        baseline_values = get_values(results, name if baseline in models else main_group, baseline, "all/mR")
        for model in models:
            mean_recalls = get_values(results, name, model, "all/mR")
            if not mean_recalls:
                continue
            seconds = get_values(results, name, model, "cpu_seconds")
            to_baseline = estimate_seed_difference(mean_recalls, baseline_values)
            cells = [group["description"] or name, model, str(len(mean_recalls)), format_average(seconds.values())]
            cells.append(format_average(mean_recalls.values()))
            cells.append(NONE if model == baseline else format_interval(to_baseline))
            cells.append(_format_difference_to_main_group(results, name, model, "all/mR"))
            for figure in ("all/image_to_image/mR", "all/text_to_text/mR", "all/second/R@10"):
                cells.append(format_average(get_values(results, name, model, figure).values()))
                cells.append(_format_difference_to_main_group(results, name, model, figure))
            rows.append(cells)
    to_main = f"to {main_group}"
    columns = ["", "model", "seeds", "CPU s", "mR", f"to {baseline}", to_main]
    for column in ("image → image mR", "text → text mR", f"{results['languages'][1]} R@10"):
        columns += [column, to_main]
    note = (
        f"To {main_group}: the same model and seeds there. To {baseline}: {baseline} under the same factor, or that of "
        f"{main_group} where it was not run under it. {INTERVALS}"
    )
    return Table("Factors", columns, rows, note)


def make_missing_table(results: Results) -> Table:
    """List the runs that are missing, and why."""
    return Table("What is missing", ["run", "why"], [line.split(": ", 1) for line in results["missing"]])


def format_interval(difference: Interval | None, digits: int = 1) -> str:
    """Return a difference with its interval as a cell: `+3.1 [+2.0, +4.2] *`."""
    if difference is None:
        return NONE
    mean = f"{difference.mean:+.{digits}f}"
    if difference.low is None or difference.high is None:
        return mean
    star = " *" if difference.excludes_zero else ""
    return f"{mean} [{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]{star}"


def format_average(values: Collection[float], digits: int = 1) -> str:
    """Return the mean of values as a cell."""
    return f"{fmean(values):,.{digits}f}" if values else NONE


def _format_mean(results: Results, model: str, name: str, digits: int = 1) -> str:
    """Return the mean of a figure over the seeds of a model in the main group."""
    return format_average(get_values(results, get_main_group(results)["name"], model, name).values(), digits)


def _format_difference(results: Results, model: str, name: str, digits: int = 1) -> str:
    """Return the difference of a figure of a model to the baseline, both in the main group."""
    if model == results["baseline"]:
        return NONE
    group = get_main_group(results)["name"]
    values = get_values(results, group, model, name)
    baseline_values = get_values(results, group, results["baseline"], name)
    return format_interval(estimate_seed_difference(values, baseline_values), digits)


def _format_difference_to_main_group(results: Results, group: str, model: str, name: str) -> str:
    """Return the difference of a figure of a model in a group to the same model in the main group."""
    values = get_values(results, group, model, name)
    main_values = get_values(results, get_main_group(results)["name"], model, name)
    return format_interval(estimate_seed_difference(values, main_values))


def _format_first(results: Results, name: str) -> str:
    """Return a figure that is the same for all runs, of the first run that has it."""
    for run in results["runs"]:
        if name in run["figures"]:
            return f"{run['figures'][name]:,.0f}"
    return "no"


def format_text(table: Table) -> str:
    """Return a table for the terminal."""
    rows = list(map(_join_lines, (table.columns, *table.rows)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [table.title, "-" * min(120, sum(widths) + 2 * len(widths))]
    for row in rows:
        padded_cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(padded_cells).rstrip())
    return "\n".join(lines)


def format_markdown(table: Table) -> str:
    """Return a table for a document."""
    lines = [f"**{table.title}**", ""]
    for row in (table.columns, ["---"] * len(table.columns), *table.rows):
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in _join_lines(row)) + " |")
    if table.note:
        lines += ["", table.note]
    return "\n".join(lines)


def _join_lines(cells: Sequence[str]) -> list[str]:
    """Return cells without ends of lines, which descriptions in YAML may have, and which would end the row."""
    return [" ".join(cell.splitlines()) for cell in cells]


def write_study_page(path: str | Path, results: Results) -> None:
    """Write the page of results."""
    runs = results["runs"]
    num_defined_runs = sum(len(group["models"]) * len(group["seeds"]) for group in results["groups"])
    seconds = [run["cpu_seconds"] for run in runs if run["cpu_seconds"] is not None]
    steps = sorted({f"{run['step']:,}" for run in runs})
    facts = {
        "Runs": f"{len(runs)}, of {num_defined_runs}",
        "Training": f"{sum(seconds) / 60:.0f} CPU minutes in all",
        "Read at step": ", ".join(steps) or NONE,
    }
    write_page(
        path,
        Path(__file__).with_name("study.html"),
        title=results["title"],
        summary=_summarize(results),
        facts=facts,
        tables=make_tables(results),
        charts=make_charts(results),
    )


def _summarize(results: Results) -> str:
    """Return the mean recalls of the models of the main group in a sentence, or nothing without any."""
    recalls = {}
    for model in results["models"]:
        values = get_values(results, get_main_group(results)["name"], model, "all/mR")
        if values:
            recalls[model] = fmean(values.values())
    if not recalls:
        return ""
    best_first = sorted(recalls, key=lambda model: -recalls[model])
    listed = ", ".join(f"{model} {format_average([recalls[model]])} %" for model in best_first)
    return f"Mean recall over the seeds, the best model first: {listed}."


def make_charts(results: Results) -> list[Chart]:
    """Draw the validation curves of the main group, means over the seeds: by steps, and by CPU seconds."""
    # By model and step: CPU seconds and score of each seed.
    points: dict[str, dict[int, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for run in results["runs"]:
        if run["group"] != get_main_group(results)["name"]:
            continue
        for step, seconds, score in run["curve"]:
            if seconds is not None:
                points[run["model"]][step].append((seconds, score))

    by_step, by_seconds = [], []
    for colour, (model, points_by_step) in enumerate(points.items(), 1):
        step_curve, seconds_curve = [], []
        for step in sorted(points_by_step):
            seconds, score = np.mean(points_by_step[step], axis=0).tolist()
            step_curve.append((step, score))
            seconds_curve.append((seconds, score))
        by_step.append(Series(model, step_curve, colour))
        by_seconds.append(Series(model, seconds_curve, colour))
    note = "Mean recall on the validation sets, mean over the seeds."
    return [
        make_line_chart("At equal steps", note, by_step, Axis("mR, %")),
        make_line_chart("At equal CPU seconds", note, by_seconds, Axis("mR, %"), x=Axis("CPU seconds")),
    ]
