"""`report.html`: one run, or several side by side: their tables by data set, their curves, and queries with answers."""

import csv
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ernie_vil2.config import MISSING, Config, differences
from ernie_vil2.data.samples import text_key
from ernie_vil2.evaluation.examples import figures_note
from ernie_vil2.evaluation.intervals import Interval
from ernie_vil2.evaluation.outcomes import (
    Comparison,
    Outcomes,
    Verdict,
    compute_recalls,
    describe_figure,
    format_difference,
)
from ernie_vil2.evaluation.report import RECORD_VERSION, make_absolute, unescape_cell
from ernie_vil2.evaluation.retrieval import Row, format_direction, make_recall_table
from ernie_vil2.io.files import check_version, load_json, system_errors_named
from ernie_vil2.io.run_folder import BEFORE
from ernie_vil2.io.terminal import counted
from ernie_vil2.pages import Card, Table, comparison_charts, training_charts, write_page

SHOWN = 12
"""Queries of each kind that are named."""


@dataclass(frozen=True)
class Changes:
    """Of one result and direction: how many queries have their right answer first in both, in one, in neither.

    `most_won` and `most_lost` are the queries that moved furthest, each with its ranks before and after; `images` has
    the id of the image that each of these is about.
    """

    kept: int
    won: int
    lost: int
    missed: int
    most_won: list[tuple[str, int, int]]
    most_lost: list[tuple[str, int, int]]
    images: Mapping[str, str] = field(default_factory=dict)


class _Query(NamedTuple):
    """A row of a file of ranks; `answer`: the id of its best right answer, `image`: that of the image it is about."""

    language: str
    direction: str
    id: str
    text: str
    rank: int
    answer: str
    image: str


def _read(path: Path) -> list[_Query]:
    with system_errors_named(path), path.open(encoding="utf-8", newline="") as file:
        try:
            return [
                _Query(
                    row["result"].partition(", ")[2],
                    row["direction"],
                    row["query_id"],
                    unescape_cell(row["query"]),
                    int(row["rank"]),
                    row["best_positive_id"],
                    row["query_id" if row["direction"].startswith("image") else "best_positive_id"],
                )
                for row in csv.DictReader(file, strict=True)
            ]
        except (csv.Error, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a file of ranks ({error!r})") from None


def read_changes(before: Path, after: Path) -> dict[str, Changes]:
    """What changed between two files of ranks, as an evaluation leaves them, by language and direction.

    Raises:
        OSError: a file cannot be read.
        ValueError: one is not such a file.
    """
    first, second = ({(one.language, one.direction, one.id): one for one in _read(path)} for path in (before, after))
    found: dict[str, list[tuple[_Query, int]]] = {}
    for key, query in first.items():
        if key in second:
            name = ", ".join(filter(None, [query.language, format_direction(query.direction)]))
            found.setdefault(name, []).append((query, second[key].rank))
    return {name: _changes(queries) for name, queries in found.items()}


def _changes(queries: list[tuple[_Query, int]]) -> Changes:
    moved = [(query.text, query.rank, after) for query, after in queries]
    won = sorted((one for one in moved if one[1] > 1 == one[2]), key=lambda one: -one[1])
    lost = sorted((one for one in moved if one[1] == 1 < one[2]), key=lambda one: -one[2])
    kept = sum(before == after == 1 for _, before, after in moved)
    most_won, most_lost = won[:SHOWN], lost[:SHOWN]
    named = {text for text, _, _ in (*most_won, *most_lost)}
    about = {query.text: query.image for query, _ in queries if query.text in named}
    return Changes(kept, len(won), len(lost), len(moved) - kept - len(won) - len(lost), most_won, most_lost, about)


def read_outcomes(path: Path) -> dict[str, Outcomes]:
    """What an evaluation's queries found, by language, from its file of ranks; errors as of `read_changes`.

    Queries of one image are those that it asks, and the texts of which it is the best right answer.
    """
    found: dict[str, list[_Query]] = {}
    for query in _read(path):
        found.setdefault(query.language, []).append(query)
    made = {}
    for language, queries in found.items():
        directions, ranks = [query.direction for query in queries], np.array([query.rank for query in queries])
        ways, groups = np.unique(directions, return_inverse=True)
        figures = compute_recalls(directions, ranks)
        made[language] = Outcomes(
            query_ids=[f"{query.direction} {query.id}" for query in queries],
            figures=figures,
            main_figure="mR" if "mR" in figures else f"{ways[0]}/mR",
            clusters=np.unique([query.image for query in queries], return_inverse=True)[1],
            ranks=ranks,
            groups=dict.fromkeys(figures, groups),
        )
    return made


def comparison_of(ranks: Mapping[str, Path]) -> Comparison | None:
    """Results of one benchmark against the first of them, by their files of ranks; None if nothing can be compared.

    A file that cannot be read, or is of other queries, leaves a warning.
    """
    try:
        read = {name: read_outcomes(path) for name, path in ranks.items()}
        shared = [language for language in next(iter(read.values())) if all(language in one for one in read.values())]
        comparison = Comparison({name: {key: one[key] for key in shared} for name, one in read.items()})
        return comparison if comparison.verdicts else None
    except (OSError, ValueError) as error:
        print(f"warning: {error}; how sure the difference is cannot be computed", file=sys.stderr)
        return None


@dataclass(frozen=True)
class TrainedQueries:
    """Queries of one result whose text is a caption of the training data.

    Attributes:
        ids: as those of `Outcomes`. An image asks for the text that was its best right answer before training.
        num_texts: texts of the result, and `num_trained` those of them that are trained on.
    """

    ids: frozenset[str]
    num_texts: int
    num_trained: int


def find_trained_queries(path: Path, trained_texts: Collection[str]) -> dict[str, TrainedQueries]:
    """Return which queries of a file of ranks are about a text that is trained on, by language.

    Args:
        path: the ranks before training.
        trained_texts: captions of the training data, as `text_key` makes them equal.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not such a file.
    """
    queries_of: dict[str, list[_Query]] = {}
    for query in _read(path):
        queries_of.setdefault(query.language, []).append(query)
    trained = {}
    for language, queries in queries_of.items():
        texts = {query.id: text_key(query.text) for query in queries if query.direction.startswith("text")}
        if not texts:
            continue  # images alone ask, and their texts are not in the file
        trained_ids = {text_id for text_id, key in texts.items() if key in trained_texts}
        about_trained = frozenset(
            f"{query.direction} {query.id}"
            for query in queries
            if (query.id if query.direction.startswith("text") else query.answer) in trained_ids
        )
        trained[language] = TrainedQueries(about_trained, len(texts), len(trained_ids))
    return trained


def headline(
    comparison: Comparison,
    old: Mapping[str, float] | None = None,
    trained: Mapping[str, TrainedQueries] | None = None,
) -> str:
    """Return what fine-tuning changed, in a sentence.

    Args:
        comparison: of the results before and after training.
        old: by the name of what the model could do before, the change of mean recall there.
        trained: by result the queries whose text is trained on, too; None: it is not known.
    """
    parts, found = [], comparison.verdicts
    for verdict in found:
        outcomes = comparison.outcomes[verdict.model][verdict.result]
        level, change = comparison.estimates[verdict.result, verdict.model, verdict.figure], verdict.difference
        images = counted(len(np.unique(outcomes.clusters)), "test image")
        language = f" in {verdict.result}" if len(found) > 1 else ""
        parts.append(
            f"{describe_figure(verdict.figure)} on your {images}{language} is {level.mean:.1f} ({_in_words(change)})"
        )
    sentence = f"After fine-tuning, {' and '.join(parts)}"
    for verdict in found:
        if trained and verdict.result in trained:
            language = f" in {verdict.result}" if len(found) > 1 else ""
            sentence += f"; {_trained_in_words(comparison, verdict, trained[verdict.result], language)}"
    for name, by in (old or {}).items():
        moved = "stayed as it was" if not round(by, 1) else f"{'rose' if by > 0 else 'fell'} by {abs(by):.1f}"
        sentence += f"; on {name} it {moved}"
    return f"{sentence}."


def _in_words(change: Interval) -> str:
    if change.low is None or change.high is None:
        return format_difference(change.mean)
    low, high = format_difference(change.low), format_difference(change.high)
    return f"{format_difference(change.mean)}, 95 % interval {low} to {high}"


def _trained_in_words(comparison: Comparison, verdict: Verdict, trained: TrainedQueries, language: str) -> str:
    """Return how many test texts are trained on, too, and what their queries and the others gain."""
    texts = f"{counted(trained.num_texts, 'test text')}{language}"
    if not trained.num_trained:
        return f"none of the {texts} is trained on"
    if trained.num_trained == trained.num_texts:
        return f"all of the {texts} are trained on, too, so that it shows nothing of other texts"
    before, after = (comparison.outcomes[model][verdict.result] for model in (verdict.baseline, verdict.model))
    gains = []
    for ids in (trained.ids, {*before.query_ids} - trained.ids):
        change = after.select(ids).estimate_difference(
            before.select(ids), verdict.figure, resamples=comparison.resamples
        )
        gains.append(_in_words(change))
    are = "is" if trained.num_trained == 1 else "are"
    return (
        f"{trained.num_trained:,} of the {texts} {are} trained on, too: the queries of such texts gain {gains[0]}, the "
        f"others {gains[1]}"
    )


@dataclass(frozen=True)
class ReportedRun:
    """A run as a report shows it.

    Attributes:
        facts: name and value of what was run and how far it came.
        records: of its `log.jsonl`.
        evaluations: see `read_evaluations`.
        changes, verdicts, headline: of what it scored before and after training, see the functions above.
    """

    name: str
    config: Config
    facts: Mapping[str, str]
    records: Sequence[Mapping]
    evaluations: Sequence[Mapping]
    changes: Mapping[str, Changes] = field(default_factory=dict)
    verdicts: Sequence[str] = ()
    headline: str = ""


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """The records of retrieval that evaluations left in a folder, by name, what was scored before training first.

    Other JSON is left out with a warning.
    """
    found = []
    for path in sorted(folder.glob("*.json"), key=lambda path: (path.stem != BEFORE, path.name)):
        try:
            record = load_json(path)
            check_version(record.get("version"), RECORD_VERSION, path, "score again")
            make_recall_table(record["table"])
            for result in record["results"].values():
                "".join([*record["data"], *(result[key] for key in ("protocol", "definition", "tie_rule"))])
                "".join(result["differences"])
            found.append({**record, "ranks": path.with_suffix(".csv")})
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            print(f"warning: {path} is not a record of an evaluation and left out ({error!r})", file=sys.stderr)
    return found


def write_report(
    path: str | Path,
    *,
    title: str,
    runs: Sequence[ReportedRun],
    queries: Mapping[str, Sequence[Card]],
    facts: Mapping[str, str],
    thumbnails: Mapping[str, bytes] | None = None,
) -> None:
    """Write the page to `path`, whole or not at all.

    Args:
        runs: one, or several to be compared; their names differ.
        queries: cards by heading, see `Cards`.
        facts: of the whole page, shown at the top; with those of the run, where it is one.
        thumbnails: small JPEG or PNG files of the images that changes are about, by id.
    """
    several = len(runs) > 1
    definitions = {
        f"Protocol {result['protocol']}": result["definition"]
        for run in runs
        for record in run.evaluations
        for result in record["results"].values()
    }
    write_page(
        path,
        "report.html",
        title=title,
        facts=dict(facts) if several else {**runs[0].facts, **facts},
        comparison={"runs": [run.name for run in runs], "rows": list(_compared(runs))} if several else None,
        tables=result_tables(runs),
        changes=[
            (f"{run.name}: {name}" if several else name, change) for run in runs for name, change in run.changes.items()
        ],
        thumbnails=thumbnails or {},
        headlines=[run.headline for run in runs if run.headline] or _recalls(runs),
        verdicts=[f"{run.name}: {one}" if several else one for run in runs for one in run.verdicts],
        training=comparison_charts({run.name: run.records for run in runs})
        if several
        else training_charts(runs[0].records),
        queries=queries,
        definitions=definitions,
    )


def _recalls(runs: Sequence[ReportedRun]) -> list[str]:
    """The mean recalls of the first results of each run in a sentence, if anything was scored."""
    found = []
    for run in runs:
        rows = run.evaluations[-1]["table"] if run.evaluations else []
        figures = [f"{label} {values['mR']:.2f}" for label, values in rows if values and "mR" in values][:2]
        found += [f"{run.name}: {', '.join(figures)}" if len(runs) > 1 else ", ".join(figures)] * bool(figures)
    return [f"Mean recall in percent: {'; '.join(found)}."] if found else []


def result_tables(runs: Sequence[ReportedRun]) -> dict[str, Table]:
    """A table for each data set and protocol, by a heading that names them, with the rows of every run that has it."""
    tables: dict[tuple, list[tuple[ReportedRun, Mapping]]] = {}
    for run in runs:
        for record in run.evaluations:
            protocols = dict.fromkeys(result["protocol"] for result in record["results"].values())
            files = tuple(record.get("paths") or record.get("places") or make_absolute(record["data"]))
            tables.setdefault((files, *protocols), []).append((run, record))
    return {
        f"{' '.join(found[0][1]['data'])}, {' and '.join(protocols)}": make_recall_table(
            _joined(found, len(runs) > 1), [*_verdicts(found), *_notes(found)]
        )
        for (_, *protocols), found in tables.items()
    }


def _joined(found: Sequence[tuple[ReportedRun, Mapping]], several: bool) -> list[Row]:
    """The rows of the runs' tables by heading; of several runs each under its name, what they share once, below."""
    groups: dict[str, tuple[list[Row], list[Row]]] = {}
    for run, record in found:
        own, shared = list[Row](), list[Row]()
        for label, values in record["table"]:
            if values is None:
                own, shared = groups.setdefault(label, ([], []))
            elif label.strip() not in record["results"]:
                if (label, values) not in shared:
                    shared.append((label, values))
            else:
                own.append((f"  {run.name}: {label.strip()}" if several else label, values))
    return [row for heading, (own, shared) in groups.items() for row in ((heading, None), *own, *shared)]


def _verdicts(found: Sequence[tuple[ReportedRun, Mapping]]) -> list[str]:
    """What distinguishes the runs that have left the ranks of their queries from the first one."""
    ranks: dict[str, Path] = {}
    for run, record in found:
        path = record.get("ranks")
        if path and path.is_file() and path.stem != BEFORE:
            ranks.setdefault(run.name, path)
    comparison = comparison_of(ranks) if len(ranks) > 1 else None
    return comparison.sentences if comparison else []


def _notes(found: Sequence[tuple[ReportedRun, Mapping]]) -> list[str]:
    results = [result for _, record in found for result in record["results"].values()]
    differences = [sentence for result in results for sentence in result["differences"]]
    rules = [figures_note(result["tie_rule"]) for result in results]
    sources: dict[str, dict[str, None]] = {}
    for row in (row for _, record in found for row in record.get("published", [])):
        source = "; ".join(filter(None, [row["source"], row["note"]]))
        sources.setdefault(source, {})[row["model"]] = None
    published = [f"published, {', '.join(models)}: {source}" for source, models in sources.items()]
    return list(dict.fromkeys([*differences, *rules, *published]))


def _compared(runs: Sequence[ReportedRun]) -> Iterator[tuple[str, list[str]]]:
    """Facts of the runs, then the settings in which they differ."""
    for name in dict.fromkeys(name for run in runs for name in run.facts):
        yield name, [run.facts.get(name, "–") for run in runs]
    for key, values in differences(*(run.config.model_dump() for run in runs)):
        if key != "Training.output":
            yield key, [str(None if value is MISSING else value) for value in values]
