"""The page `report.html` of one run, or of several side by side: result tables, curves, and queries with answers."""

import csv
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ernie_vil2.config import MISSING, Config, differences
from ernie_vil2.data.samples import text_key
from ernie_vil2.evaluation.examples import describe_recalls
from ernie_vil2.evaluation.intervals import Interval
from ernie_vil2.evaluation.outcomes import (
    Comparison,
    Outcomes,
    Verdict,
    compute_recalls,
    describe_figure,
    format_difference,
)
from ernie_vil2.evaluation.report import RECORD_VERSION, unescape_cell
from ernie_vil2.evaluation.retrieval import Row, format_direction, make_recall_table
from ernie_vil2.io.files import add_path_to_errors, check_version, load_json
from ernie_vil2.io.run_folder import BEFORE
from ernie_vil2.io.terminal import pluralize
from ernie_vil2.pages import Card, Table, make_comparison_charts, make_training_charts, write_page

# Queries that each list of won or lost queries shows: enough for an impression, and the page stays short.
MAX_LISTED_QUERIES = 12


class _RankedQuery(NamedTuple):
    """Row of a file of ranks, as an evaluation writes it.

    Attributes:
        language: language of the captions; "" if the data have one only.
        direction: such as `image_to_text`.
        id: id of the query.
        text: the query's text; its id if it is an image.
        rank: rank of its best right answer, from 1.
        best_positive_id: id of this answer.
        image_id: id of the image that the query shows or describes.
    """

    language: str
    direction: str
    id: str
    text: str
    rank: int
    best_positive_id: str
    image_id: str

    @property
    def key(self) -> tuple[str, str, str]:
        """Key that identifies the query in the files of different evaluations."""
        return self.language, self.direction, self.id


def _read_ranks(path: Path) -> list[_RankedQuery]:
    queries = []
    with add_path_to_errors(path), path.open(encoding="utf-8", newline="") as file:
        try:
            for row in csv.DictReader(file, strict=True):
                query_id, best_positive_id = unescape_cell(row["query_id"]), unescape_cell(row["best_positive_id"])
                is_image = row["direction"].startswith("image")
                queries.append(
                    _RankedQuery(
                        language=row["result"].partition(", ")[2],  # a result is called "model, language"
                        direction=row["direction"],
                        id=query_id,
                        text=unescape_cell(row["query"]),
                        rank=int(row["rank"]),
                        best_positive_id=best_positive_id,
                        # An image query is about itself, a text query about the image that is its best right answer.
                        image_id=query_id if is_image else best_positive_id,
                    )
                )
        except (csv.Error, KeyError, TypeError, ValueError, AttributeError) as error:  # a cut row has None in its cells
            raise ValueError(f"{path}: not a file of ranks ({error!r})") from None
    return queries


def _read_ranks_by_language(path: Path) -> dict[str, list[_RankedQuery]]:
    queries_by_language = defaultdict(list)
    for query in _read_ranks(path):
        queries_by_language[query.language].append(query)
    return queries_by_language


class RankChange(NamedTuple):
    """Query with the ranks of its right answer before and after training, and the id of the image it is about.

    The text of an image query is that of its best right answer, or the image's id if the file does not have the text.
    """

    text: str
    rank_before: int
    rank_after: int
    image_id: str


@dataclass(frozen=True)
class ChangeSummary:
    """Queries of one language and direction that were won and lost by training.

    A query is answered if a right answer ranks first.

    Attributes:
        num_kept: number of queries that are answered before and after training.
        num_won: number of queries that are answered only after training.
        num_lost: number of queries that are answered only before training.
        num_missed: number of queries that are never answered.
        largest_gains: the won queries whose right answer ranked worst before training.
        largest_losses: the lost queries whose right answer ranks worst after training.
    """

    num_kept: int
    num_won: int
    num_lost: int
    num_missed: int
    largest_gains: list[RankChange]
    largest_losses: list[RankChange]

    @property
    def image_ids(self) -> set[str]:
        """Ids of the images that the listed queries are about."""
        return {change.image_id for change in self.largest_gains + self.largest_losses}


def read_changes(path_before: Path, path_after: Path) -> dict[str, ChangeSummary]:
    """Compare two files of ranks, by language and direction; queries that only one file has are left out.

    Args:
        path_before: file of the ranks before training.
        path_after: file of the ranks after training.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is not a file of ranks.
    """
    # Queries are matched by key, because a protocol may ask the same query several times.
    queries_before = {query.key: query for query in _read_ranks(path_before)}
    texts = {(query.language, query.id): query.text for query in queries_before.values()}
    ranks_after = {query.key: query.rank for query in _read_ranks(path_after)}
    changes_by_name = defaultdict(list)
    for key, query in queries_before.items():
        if key in ranks_after:
            name = format_direction(query.direction)
            if query.language:
                name = f"{query.language}, {name}"
            text = query.text
            if query.direction.startswith("image"):  # an image is shown with a text that is right for it
                text = texts.get((query.language, query.best_positive_id), text)
            changes_by_name[name].append(RankChange(text, query.rank, ranks_after[key], query.image_id))
    return {name: _summarise(changes) for name, changes in changes_by_name.items()}


def _summarise(changes: Sequence[RankChange]) -> ChangeSummary:
    gains, losses = [], []
    num_kept = num_missed = 0
    for change in changes:
        if change.rank_before == 1 and change.rank_after == 1:
            num_kept += 1
        elif change.rank_after == 1:
            gains.append(change)
        elif change.rank_before == 1:
            losses.append(change)
        else:
            num_missed += 1
    gains.sort(key=lambda change: change.rank_before, reverse=True)
    losses.sort(key=lambda change: change.rank_after, reverse=True)
    return ChangeSummary(
        num_kept, len(gains), len(losses), num_missed, gains[:MAX_LISTED_QUERIES], losses[:MAX_LISTED_QUERIES]
    )


def read_outcomes(path: Path) -> dict[str, Outcomes]:
    """Read the outcomes of an evaluation's queries, by language, from its file of ranks.

    Queries about the same image form a cluster, which intervals draw together. These are the image query, and every
    text query that ranks this image best among its right answers.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a file of ranks.
    """
    outcomes = {}
    for language, queries in _read_ranks_by_language(path).items():
        query_ids, directions, ranks, image_ids = [], [], [], []
        for query in queries:
            query_ids.append(f"{query.direction} {query.id}")
            directions.append(query.direction)
            ranks.append(query.rank)
            image_ids.append(query.image_id)

        figures = compute_recalls(directions, np.array(ranks))
        distinct_directions, direction_numbers = np.unique(directions, return_inverse=True)
        _, clusters = np.unique(image_ids, return_inverse=True)
        outcomes[language] = Outcomes(
            query_ids=query_ids,
            figures=figures,
            # "mR" is the mean over the directions, so it exists only if there are several. Otherwise the one direction
            # has its own, such as "image_to_text/mR".
            main_figure="mR" if "mR" in figures else f"{distinct_directions[0]}/mR",
            clusters=clusters,
            ranks=np.array(ranks),
            # Each figure is averaged within each direction first, so that all directions count equally.
            groups=dict.fromkeys(figures, direction_numbers),
        )
    return outcomes


def compare_rank_files(paths: Mapping[str, Path]) -> Comparison | None:
    """Compare results on the same data by their files of ranks; the first result is the baseline.

    Args:
        paths: files of ranks by the name of the result.

    Returns:
        The comparison in the languages that all results have. None if they share no language, or, after a warning, if
        a file cannot be read or has other queries.
    """
    try:
        outcomes = {name: read_outcomes(path) for name, path in paths.items()}
        # Only languages that all results have can be compared, in the order of the first one.
        first_outcomes, *other_outcomes = outcomes.values()
        languages = list(first_outcomes)
        for outcomes_by_language in other_outcomes:
            languages = [language for language in languages if language in outcomes_by_language]

        shared_outcomes = {}
        for name, outcomes_by_language in outcomes.items():
            shared_outcomes[name] = {language: outcomes_by_language[language] for language in languages}
        comparison = Comparison(shared_outcomes)
        if comparison.verdicts:
            return comparison
    except (OSError, ValueError) as error:
        print(f"warning: {error}; the results are not compared, and have no intervals", file=sys.stderr)
    return None


@dataclass(frozen=True)
class TrainedQueries:
    """Test queries of one result whose text is also a caption of the training data.

    Attributes:
        ids: ids of these queries, as in `Outcomes.query_ids`. An image query is included if the training data have the
            text that it ranked best among its right answers before training.
        num_texts: number of test texts.
        num_trained: number of test texts that the training data have, too.
    """

    ids: frozenset[str]
    num_texts: int
    num_trained: int


def find_trained_queries(path: Path, trained_texts: Collection[str]) -> dict[str, TrainedQueries]:
    """Find the queries of a file of ranks whose text is also in the training data, by language.

    Args:
        path: file of the ranks before training.
        trained_texts: captions of the training data, normalised by `text_key`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a file of ranks.
    """
    trained_queries = {}
    for language, queries in _read_ranks_by_language(path).items():
        test_texts = {query.id: query.text for query in queries if query.direction.startswith("text")}
        if not test_texts:
            continue  # all queries are images, and the file has no texts
        trained_ids = {text_id for text_id, text in test_texts.items() if text_key(text) in trained_texts}

        query_ids = set()
        for query in queries:
            # An image has several right texts; the one that it ranked best stands for them.
            text_id = query.id if query.direction.startswith("text") else query.best_positive_id
            if text_id in trained_ids:
                query_ids.add(f"{query.direction} {query.id}")
        trained_queries[language] = TrainedQueries(frozenset(query_ids), len(test_texts), len(trained_ids))
    return trained_queries


def make_headline(
    comparison: Comparison,
    other_changes: Mapping[str, float] | None = None,
    trained_queries: Mapping[str, TrainedQueries] | None = None,
) -> str:
    """Return a sentence that says what fine-tuning changed.

    Args:
        comparison: results before and after training, on the user's own data.
        other_changes: change in mean recall on other benchmarks, by the name of the benchmark.
        trained_queries: by language, the queries whose text is also in the training data; None: unknown.
    """
    verdicts = comparison.verdicts
    value_clauses, gain_clauses = [], []
    for verdict in verdicts:
        language = verdict.result  # results are called by their language here
        outcomes = comparison.outcomes[verdict.model][language]
        value_after = comparison.estimates[language, verdict.model, verdict.figure].mean
        images = pluralize(len(np.unique(outcomes.clusters)), "test image")
        in_language = f" in {language}" if len(verdicts) > 1 else ""
        figure = f"{describe_figure(verdict.figure)} on your {images}{in_language}"
        value_clauses.append(f"{figure} is {value_after:.1f} ({_format_change(verdict.difference)})")
        if trained_queries and language in trained_queries:
            gain_clauses.append(_describe_gains(comparison, verdict, trained_queries[language], in_language))

    clauses = [f"After fine-tuning, {' and '.join(value_clauses)}", *gain_clauses]
    for name, change in (other_changes or {}).items():
        if not round(change, 1):
            clauses.append(f"on {name} it stayed as it was")
        elif change > 0:
            clauses.append(f"on {name} it rose by {change:.1f}")
        else:
            clauses.append(f"on {name} it fell by {-change:.1f}")
    return f"{'; '.join(clauses)}."


def format_key_figure(comparison: Comparison) -> str:
    """Return the figures after training and their changes in a few words, such as `zh 71.2 (+8.3), en 74.0 (+7.1)`."""
    figures = []
    for verdict in comparison.verdicts:
        value = comparison.estimates[verdict.result, verdict.model, verdict.figure].mean
        change = format_difference(verdict.difference.mean)
        figures.append(f"{verdict.result} {value:.1f} ({change})".lstrip())
    return ", ".join(figures)


def _format_change(change: Interval) -> str:
    if change.low is None or change.high is None:
        return format_difference(change.mean)
    low, high = format_difference(change.low), format_difference(change.high)
    return f"{format_difference(change.mean)}, 95 % interval {low} to {high}"


def _describe_gains(comparison: Comparison, verdict: Verdict, trained: TrainedQueries, in_language: str) -> str:
    """Return a clause: how many test texts the training data have, and the gain with and without these texts."""
    texts = f"{pluralize(trained.num_texts, 'test text')}{in_language}"
    if not trained.num_trained:
        return f"none of the {texts} is trained on"
    if trained.num_trained == trained.num_texts:
        return f"all of the {texts} are trained on, too, so the gain says nothing about new texts"

    outcomes_before = comparison.outcomes[verdict.baseline][verdict.result]
    outcomes_after = comparison.outcomes[verdict.model][verdict.result]
    # The model may have memorised the texts that it was trained on, but not the others, so each has its own gain.
    gains = []
    for query_ids in (trained.ids, set(outcomes_before.query_ids) - trained.ids):
        selected_before, selected_after = outcomes_before.select(query_ids), outcomes_after.select(query_ids)
        gain = selected_after.estimate_difference(selected_before, verdict.figure, resamples=comparison.resamples)
        gains.append(_format_change(gain))
    verb = "is" if trained.num_trained == 1 else "are"
    return (
        f"{trained.num_trained:,} of the {texts} {verb} trained on, too: "
        f"the queries of such texts gain {gains[0]}, the others {gains[1]}"
    )


@dataclass(frozen=True)
class ReportedRun:
    """Run as a report shows it.

    Attributes:
        name: name of the run.
        config: configuration of the run.
        facts: what was run and how far it came, by name.
        records: records of its `log.jsonl`.
        evaluations: records of its results, from `read_evaluations`.
        changes: queries won and lost by training, from `read_changes`.
        verdict_sentences: sentences on results before and after training, from `Comparison.sentences`.
        headline: what training changed, from `make_headline`.
        key_figure: the same in a few words, from `format_key_figure`, to be kept in view.
    """

    name: str
    config: Config
    facts: Mapping[str, str]
    records: Sequence[Mapping]
    evaluations: Sequence[Mapping]
    changes: Mapping[str, ChangeSummary] = field(default_factory=dict)
    verdict_sentences: Sequence[str] = ()
    headline: str = ""
    key_figure: str = ""


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """Read the records of retrieval results in a folder, by name; the result before training comes first.

    Results of other tasks are left out: each has a page of its own. Other JSON files are left out with a warning.
    `rank_file` of a record is the path of the result's file of ranks.
    """
    records = []
    paths = sorted(folder.glob("*.json"), key=lambda path: (path.stem != BEFORE, path.name))
    for path in paths:
        try:
            record = load_json(path)
            check_version(record.get("version"), RECORD_VERSION, path, "score again")
            if "table" not in record and "model" in record:
                print(f"not shown, as it is no result of retrieval: {path.with_suffix('.html')}")
                continue
            _check_record(record)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            print(f"warning: {path} is not a record of an evaluation and left out ({error!r})", file=sys.stderr)
        else:
            records.append({**record, "rank_file": path.with_suffix(".csv")})
    return records


def _check_record(record: Mapping[str, Any]) -> None:
    """Raise if a field that the page reads is missing or of another type."""
    make_recall_table(record["table"])  # raises if it cannot be shown
    texts = [record.get("model", ""), *record["data"], *record["paths"]]
    texts += [label for label, _ in record["table"]]
    for row in record.get("published", []):
        texts += [row["source"], row["note"], row["model"]]
    for result in record["results"].values():
        texts += [result["protocol"], result["definition"], result["tie_rule"], *result["notes"]]
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{text!r} is not a text")


def write_run_report(
    path: str | Path,
    *,
    title: str,
    runs: Sequence[ReportedRun],
    queries: Mapping[str, Sequence[Card]],
    facts: Mapping[str, str],
    thumbnails: Mapping[str, bytes] | None = None,
) -> None:
    """Write the page to `path`, completely or not at all.

    Args:
        path: file of the page.
        title: title of the page.
        runs: one run, or several to be compared, whose names differ.
        queries: cards of queries by heading, made by `CardMaker`.
        facts: facts at the top of the page; the facts of a single run come before them.
        thumbnails: small JPEG or PNG files by image id, for the images that the won and lost queries are about.
    """
    is_comparison = len(runs) > 1
    changes, verdict_sentences, headlines, key_figures, definitions = [], [], [], [], {}
    for run in runs:
        prefix = f"{run.name}: " if is_comparison else ""
        key_figure = run.key_figure or _format_recalls(run)
        if key_figure:
            key_figures.append(prefix + key_figure)
        changes += [(f"{prefix}{name}", summary) for name, summary in run.changes.items()]
        verdict_sentences += [f"{prefix}{sentence}" for sentence in run.verdict_sentences]
        if run.headline:
            headlines.append(run.headline)
        for record in run.evaluations:
            for result in record["results"].values():
                definitions[f"Protocol {result['protocol']}"] = result["definition"]

    # Several runs have a table with their facts and settings side by side; those of one run are facts of the page.
    if is_comparison:
        facts = dict(facts)
        comparison = {"runs": [run.name for run in runs], "rows": list(_compare_runs(runs))}
        charts = make_comparison_charts({run.name: run.records for run in runs})
    else:
        facts = {**runs[0].facts, **facts}
        comparison = None
        charts = make_training_charts(runs[0].records)
    write_page(
        path,
        "report.html",
        title=title,
        facts=facts,
        headlines=headlines,
        key_figure=f"Mean recall: {'; '.join(key_figures)}" if key_figures else "",
        comparison=comparison,
        tables=make_result_tables(runs),
        verdicts=verdict_sentences,
        changes=changes,
        thumbnails=thumbnails or {},
        training=charts,
        queries=queries,
        definitions=definitions,
    )


def _format_recalls(run: ReportedRun) -> str:
    """Return the checkpoint and the mean recalls of a run's last evaluation; "" if nothing was scored."""
    if not run.evaluations:
        return ""
    record = run.evaluations[-1]
    figures = []
    num_headings = 0
    for label, values in record["table"]:
        if values is None:
            num_headings += 1
        # Below the second heading are the figures of some queries only. Data without answers have no mean.
        elif num_headings < 2 and label.strip() in record["results"] and values.get("mR") is not None:
            language = label.partition(", ")[2]  # a result is called "model, language"
            figures.append(f"{language} {values['mR']:.2f}".lstrip())
    if not figures:
        return ""
    # Two figures of each run are enough for a line.
    recalls = ", ".join(figures[:2])
    checkpoint = _name_checkpoint(record)
    return f"{recalls} ({checkpoint})" if checkpoint else recalls


def _name_checkpoint(record: Mapping[str, Any]) -> str:
    """Return the name of the checkpoint that a result is of; "" if the record does not say."""
    return Path(record.get("model", "")).name


def make_result_tables(runs: Sequence[ReportedRun]) -> dict[str, Table]:
    """Make a table for each data set and protocol, with the rows of all runs scored by it; return them by heading."""
    # Runs share a table if they were scored on the same files by the same protocols.
    scored_runs_by_data: dict[tuple[tuple, tuple], list[tuple[ReportedRun, Mapping]]] = defaultdict(list)
    for run in runs:
        for record in run.evaluations:
            paths = tuple(record["paths"])
            protocols = tuple(dict.fromkeys(result["protocol"] for result in record["results"].values()))
            scored_runs_by_data[paths, protocols].append((run, record))

    tables = {}
    for (paths, protocols), scored_runs in scored_runs_by_data.items():
        _, first_record = scored_runs[0]
        heading = f"{' '.join(first_record['data'])}, {' and '.join(protocols)}"
        # Runs of other folders may call other files by the same relative names.
        if heading in tables:
            heading = f"{' '.join(paths)}, {' and '.join(protocols)}"
        has_run_names = len(runs) > 1
        rows = _merge_rows(scored_runs, has_run_names)
        notes = [*_name_checkpoints(scored_runs, has_run_names), *_compare_trained_runs(scored_runs)]
        tables[heading] = make_recall_table(rows, [*notes, *_collect_notes(scored_runs)])
    return tables


def _name_checkpoints(scored_runs: Sequence[tuple[ReportedRun, Mapping]], has_run_names: bool) -> list[str]:
    """Return a sentence that names the checkpoints whose figures a table shows; none if the records do not say."""
    names: dict[str, None] = {}
    for run, record in scored_runs:
        checkpoint = _name_checkpoint(record)
        if checkpoint:
            names[f"{run.name}: {checkpoint}" if has_run_names else checkpoint] = None
    return [f"Figures of {', '.join(names)}."] if names else []


def _merge_rows(scored_runs: Sequence[tuple[ReportedRun, Mapping]], has_run_names: bool) -> list[Row]:
    """Merge the runs' tables: under each heading the rows of each run, then the rows that runs share, once.

    Args:
        scored_runs: runs, each with the record of its result.
        has_run_names: whether the name of the run is put in front of its rows.
    """
    # Rows by heading. Runs share the rows of chance and of published results.
    run_rows: dict[str, list[Row]] = defaultdict(list)
    shared_rows: dict[str, list[Row]] = defaultdict(list)
    for run, record in scored_runs:
        heading = ""
        for label, values in record["table"]:
            name = label.strip()
            if values is None:
                heading = label
                run_rows.setdefault(heading, [])
            elif name in record["results"]:
                run_label = f"  {run.name}: {name}" if has_run_names else label
                run_rows[heading].append((run_label, values))
            elif (label, values) not in shared_rows[heading]:
                shared_rows[heading].append((label, values))

    # A heading, what the runs reach under it, and then what they are compared with.
    merged_rows: list[Row] = []
    for heading, rows in run_rows.items():
        merged_rows += [(heading, None), *rows, *shared_rows[heading]]
    return merged_rows


def _compare_trained_runs(scored_runs: Sequence[tuple[ReportedRun, Mapping]]) -> list[str]:
    """Return verdicts on runs against the first one, if their files of ranks exist."""
    paths: dict[str, Path] = {}
    for run, record in scored_runs:
        path = record.get("rank_file")
        # Ranks before training are compared elsewhere, with those of the same run after it.
        if path and path.is_file() and path.stem != BEFORE:
            paths.setdefault(run.name, path)
    if len(paths) < 2:
        return []
    comparison = compare_rank_files(paths)
    return comparison.sentences if comparison else []


def _collect_notes(scored_runs: Sequence[tuple[ReportedRun, Mapping]]) -> list[str]:
    """Return the notes below a table: on the data, on ties, and on the sources of published results."""
    data_notes, tie_rules = [], []
    models_by_source: dict[str, dict[str, None]] = defaultdict(dict)
    for _, record in scored_runs:
        for result in record["results"].values():
            data_notes += result["notes"]
            tie_rules.append(describe_recalls(result["tie_rule"]))
        # Published rows of one source share a note.
        for row in record.get("published", []):
            source = "; ".join(filter(None, [row["source"], row["note"]]))
            models_by_source[source][row["model"]] = None
    sources = [f"published, {', '.join(models)}: {source}" for source, models in models_by_source.items()]
    return list(dict.fromkeys([*data_notes, *tie_rules, *sources]))  # each note once


def _compare_runs(runs: Sequence[ReportedRun]) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows of the table that compares runs: a name, and the value of each run.

    There is a row for each fact, and one for each setting in which the runs differ.
    """
    fact_names: dict[str, None] = {}
    for run in runs:
        fact_names |= dict.fromkeys(run.facts)
    # A fact that a run lacks, such as a rate before its first record, is a dash.
    for name in fact_names:
        yield name, [run.facts.get(name, "–") for run in runs]
    for key, values in differences(*(run.config.model_dump() for run in runs)):
        # Every run has its own folder, which says nothing about how it was trained.
        if key == "Training.output":
            continue
        cells = []
        for value in values:
            cells.append("None" if value is MISSING else str(value))
        yield key, cells
