"""What a study found: tables as plain text cells, for the terminal and Markdown, and the page with its curves."""

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

Results = Mapping[str, Any]  # as `collect.collect` gives them
NONE = "–"
INTERVALS = (
    "Means over the seeds; differences are paired over them, with Student's 95 % interval. * marks an interval without "
    "zero; a difference of one seed has none."
)


@dataclass(frozen=True)
class Table:
    """A table: the first column names its rows, and the column `kept` stays in view on a phone."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    kept: str = ""


def all_tables(results: Results) -> list[Table]:
    """All tables for which there are runs, and one of what is missing."""
    made = (_main, _by_test, _within, _second, _further, _equal_seconds, _factors, _lacks)
    return [table for make in (made if results["runs"] else (_lacks,)) if (table := make(results)).rows]


def values_of(results: Results, group: str, model: str, name: str) -> dict[int, float]:
    """A figure of the runs of a model in a group, by seed; `cpu_seconds` is one too."""
    found = {}
    for run in results["runs"]:
        if (run["group"], run["model"]) == (group, model):
            value = run["cpu_seconds"] if name == "cpu_seconds" else run["figures"].get(name)
            if value is not None:
                found[run["seed"]] = value
    return found


def main_group(results: Results) -> Mapping[str, Any]:
    """The first group, the comparison of all models."""
    return results["groups"][0]


def _main(results: Results) -> Table:
    has_published = any(model["published"] for model in results["models"].values())
    rows = []
    for model in main_group(results)["models"]:
        cells = [model, results["models"][model]["means"]]
        if has_published:
            cells += _published_cells(results, model)
        cells += [_mean(results, model, f"all/{name}") for name in ("image_to_text/mR", "text_to_image/mR", "mR")]
        rows.append([*cells, _difference(results, model, "all/mR"), _count(results, model)])

    columns = ["", "what it is", "I→T", "T→I", "mR", f"to {results['baseline']}", "seeds"]
    note = (
        f"Mean recall in percent (mean of R@1, R@5, R@10), the mean over {', '.join(results['tests'])}, which were "
        f"never trained on. {INTERVALS}"
    )
    if not has_published:
        return Table("Mean recall", columns, rows, note, "mR")
    paper = ["paper I→T", "paper T→I", "paper mR", f"paper, to {results['baseline']}"]
    columns = ["", "view pairs", *paper, *columns[2:]]
    return Table("Next to the paper's Table 4", columns, rows, f"In the paper zero-shot on Flickr30K. {note}", "mR")


def _published_cells(results: Results, model: str) -> list[str]:
    """Return what the paper has of a model: recall both ways, their mean, and its difference to the baseline's."""
    paper = results["models"][model]["published"]
    baseline = results["models"][results["baseline"]]["published"]
    cells = [_average([paper[name]] if name in paper else []) for name in ("image_to_text", "text_to_image", "mR")]
    if model == results["baseline"] or "mR" not in paper or "mR" not in baseline:
        return [*cells, NONE]
    return [*cells, f"{paper['mR'] - baseline['mR']:+.1f}"]


def _compared(results: Results, title: str, figures: Mapping[str, str], note: str, digits: int = 1) -> Table:
    """Figures of the models of the main group by the names of their columns, each next to its difference."""
    rows = [
        [model, *(cell(results, model, name, digits) for name in figures.values() for cell in (_mean, _difference))]
        for model in main_group(results)["models"]
    ]
    columns = ["", *(cell for column in figures for cell in (column, f"to {results['baseline']}"))]
    return Table(title, columns, rows, note)


def _by_test(results: Results) -> Table:
    figures = {f"{test} ({kind})" if kind else test: f"{test}/mR" for test, kind in results["tests"].items()}
    return _compared(results, "By kind of set", figures, "Mean recall both ways in percent, each set on its own.")


_WITHIN = {
    "alignment": "all/alignment",
    "uniformity, images": "all/image_uniformity",
    "uniformity, texts": "all/text_uniformity",
    "image → image mR": "all/image_to_image/mR",
    "text → text mR": "all/text_to_text/mR",
}


def _within(results: Results) -> Table:
    queries = {name: _first(results, f"all/{name}/queries") for name in ("image_to_image", "text_to_text")}
    note = (
        "Alignment: mean squared distance of an image and its caption. Uniformity: log mean exp(-2 d²) within a side. "
        "Of these three less is better. Image to image: images of the same name by other teams, "
        f"{queries['image_to_image']} queries. Text to text: another name of an image asks for its caption, "
        f"{queries['text_to_text']} queries."
    )
    return _compared(results, "Within the modalities", _WITHIN, note, digits=2)


def _second(results: Results) -> Table:
    first, second = results["languages"]
    names = ["first/R@1", "first/R@10", "second/R@1", "second/R@10"]
    rows = [
        [model, *(_mean(results, model, f"all/{name}") for name in names),
         _difference(results, model, "all/second/R@10")]
        for model in main_group(results)["models"]
        if values_of(results, main_group(results)["name"], model, "all/second/R@1")
    ]  # fmt: skip
    columns = ["", f"{first} R@1", f"{first} R@10", f"{second} R@1", f"{second} R@10",
               f"{second} R@10 to {results['baseline']}"]  # fmt: skip
    return Table(
        f"Queries in {second} for images that only ever had names in {first}", columns, rows,
        f"{_first(results, 'all/second/queries')} names of the tests that the bilingual drawings know; the same "
        "images are asked for in both languages, among all of their set. Percent.",
    )  # fmt: skip


def _further(results: Results) -> Table:
    """Further captions of the same images, next to those that are scored everywhere."""
    names = dict.fromkeys(name.split("/")[2] for run in results["runs"] for name in run["figures"]
                          if name.startswith(f"all/{FURTHER}/"))  # fmt: skip
    queries = {"captions": "all", **{name: f"all/{FURTHER}/{name}" for name in names}}
    measures = {f"{what}, {measure}": f"{under}/{figure}" for what, under in queries.items()
                for measure, figure in (("mR", "mR"), ("T→I R@10", "text_to_image/R@10"))}  # fmt: skip
    main, baseline, rows = main_group(results)["name"], results["baseline"], []
    for group, model in ((each, model) for each in results["groups"] for model in each["models"]):
        rows.append([model if group["name"] == main else f"{model}, {group['means'] or group['name']}"])
        for name in measures.values():
            own, base = (values_of(results, *run, name) for run in ((group["name"], model), (main, baseline)))
            rows[-1] += [
                _average(own.values()),
                NONE if rows[-1][0] == baseline else shown(estimate_seed_difference(own, base)),
            ]
    columns = ["", *(cell for name in measures for cell in (name, f"to {results['baseline']}"))]
    note = f"The same images by their captions and by others that the tests have. Percent. {INTERVALS}"
    return Table("Further captions", columns, rows if names else [], note)


def _equal_seconds(results: Results) -> Table:
    group = main_group(results)
    totals = {model: values_of(results, group["name"], model, "cpu_seconds") for model in group["models"]}
    if not all(totals.values()):
        return Table("At equal CPU seconds", [], [])
    budget = min(fmean(seconds.values()) for seconds in totals.values())
    read = {model: _read_at(results, group["name"], model, budget) for model in group["models"]}
    rows = [
        [model, _average(totals[model].values()), _average(read[model].values()),
         NONE if model == results["baseline"]
         else shown(estimate_seed_difference(read[model], read.get(results["baseline"], {}))),
         _average(_last(results, group["name"], model))]
        for model in group["models"]
    ]  # fmt: skip
    columns = ["", "CPU seconds of the run", f"validation mR at {budget:,.0f} s", f"to {results['baseline']}",
               "validation mR at the last step"]  # fmt: skip
    return Table("At equal CPU seconds", columns, rows,
                 "From the curves of validation, between two evaluations by a straight line. The slower models are "
                 "read before their learning rate has come down, which speaks against them.")  # fmt: skip


def _read_at(results: Results, group: str, model: str, seconds: float) -> dict[int, float]:
    """By seed the score of a run at its CPU seconds, between two evaluations by a straight line."""
    found = {}
    for run in results["runs"]:
        if (run["group"], run["model"]) == (group, model):
            points = [(0.0, 0.0), *((second, score) for _, second, score in run["curve"] if second is not None)]
            if len(points) > 1:
                # The last evaluation of the fastest model may lie a moment before the mean of their ends.
                found[run["seed"]] = float(np.interp(seconds, *np.array(points).T))
    return found


def _last(results: Results, group: str, model: str) -> list[float]:
    return [run["curve"][-1][2] for run in results["runs"]
            if (run["group"], run["model"]) == (group, model) and run["curve"]]  # fmt: skip


def _factors(results: Results) -> Table:
    """One table of all further groups: each model against the baseline there, and against itself in the main one."""
    main, baseline, rows = main_group(results)["name"], results["baseline"], []
    measures = ("all/mR", "all/image_to_image/mR", "all/text_to_text/mR", "all/second/R@10")
    for group in results["groups"][1:]:
        compared = values_of(results, group["name"] if baseline in group["models"] else main, baseline, measures[0])
        for model in group["models"]:
            own = values_of(results, group["name"], model, measures[0])
            if not own:
                continue
            seconds = values_of(results, group["name"], model, "cpu_seconds")
            cells = [group["means"] or group["name"], model, str(len(own)), _average(seconds.values())]
            for name in measures:
                values = values_of(results, group["name"], model, name)
                cells.append(_average(values.values()))
                if name == measures[0]:
                    cells.append(NONE if model == baseline else shown(estimate_seed_difference(values, compared)))
                cells.append(shown(estimate_seed_difference(values, values_of(results, main, model, name))))
            rows.append(cells)
    columns = ["", "model", "seeds", "CPU s", "mR", f"to {baseline}", f"to {main}", "image → image mR", f"to {main}",
               "text → text mR", f"to {main}", f"{results['languages'][1]} R@10", f"to {main}"]  # fmt: skip
    note = (
        f"To {main}: the same model and seeds there. To {baseline}: {baseline} under the same factor, or that of "
        f"{main} where it was not run under it. {INTERVALS}"
    )
    return Table("Factors", columns, rows, note)


def _lacks(results: Results) -> Table:
    return Table("What is missing", ["run", "why"], [line.split(": ", 1) for line in results["lacks"]])


def shown(value: Interval | None, digits: int = 1) -> str:
    """A difference with its interval: `+3.1 [+2.0, +4.2] *`."""
    if value is None:
        return NONE
    if value.low is None or value.high is None:
        return f"{value.mean:+.{digits}f}"
    star = " *" if value.excludes_zero else ""
    return f"{value.mean:+.{digits}f} [{value.low:+.{digits}f}, {value.high:+.{digits}f}]{star}"


def _mean(results: Results, model: str, name: str, digits: int = 1) -> str:
    return _average(values_of(results, main_group(results)["name"], model, name).values(), digits)


def _average(values: Collection[float], digits: int = 1) -> str:
    return f"{fmean(values):,.{digits}f}" if values else NONE


def _difference(results: Results, model: str, name: str, digits: int = 1) -> str:
    group = main_group(results)["name"]
    if model == results["baseline"]:
        return NONE
    own, baseline = (values_of(results, group, one, name) for one in (model, results["baseline"]))
    return shown(estimate_seed_difference(own, baseline), digits)


def _count(results: Results, model: str) -> str:
    group = main_group(results)
    return f"{len(values_of(results, group['name'], model, 'all/mR'))} of {len(group['seeds'])}"


def _first(results: Results, name: str) -> str:
    values = [run["figures"][name] for run in results["runs"] if name in run["figures"]]
    return f"{values[0]:,.0f}" if values else "no"


def as_text(table: Table) -> str:
    """For the terminal."""
    widths = [max(map(len, column)) for column in zip(table.columns, *table.rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
             for row in (table.columns, *table.rows)]  # fmt: skip
    return "\n".join([table.title, "-" * min(120, sum(widths) + 2 * len(widths)), *lines])


def as_markdown(table: Table) -> str:
    """For a document."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    lines = [f"**{table.title}**", "", line(table.columns), line(["---"] * len(table.columns)), *map(line, table.rows)]
    return "\n".join([*lines, "", table.note] if table.note else lines)


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
    recalls = {model: _mean(results, model, "all/mR") for model in results["models"]}
    best = sorted((model for model in recalls if recalls[model] != NONE), key=lambda model: -float(recalls[model]))
    found = ", ".join(f"{model} {recalls[model]} %" for model in best)
    summary = f"Mean recall over the seeds, the best model first: {found}." if found else ""
    write_page(
        path,
        template,
        title=results["title"],
        summary=summary,
        facts=facts,
        tables=all_tables(results),
        charts=charts(results),
    )


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
        make_line_chart("At equal steps", note, by_step, Axis("mR, %")),
        make_line_chart("At equal CPU seconds", note, by_seconds, Axis("mR, %"), x=Axis("CPU seconds")),
    ]
