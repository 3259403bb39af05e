"""Image-text retrieval by named protocols: recalls next to what was published, every query's rank, and examples."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, ClassVar

import numpy as np

from ernie_vil2.config import Config, ScoredConfig
from ernie_vil2.data.benchmark import BenchmarkImage, BenchmarkText
from ernie_vil2.data.readers import open_benchmarks, open_sources
from ernie_vil2.data.spec import DataSpec, option
from ernie_vil2.device.extras import require
from ernie_vil2.encoder import ErnieViL2
from ernie_vil2.evaluation.check import Inspection, check_benchmark
from ernie_vil2.evaluation.encoded import EncodedBenchmark
from ernie_vil2.evaluation.examples import (
    CSV_COLUMNS,
    CardMaker,
    Evaluations,
    list_best_answers,
    list_predictions,
    list_ranks,
    make_retrieval_page,
)
from ernie_vil2.evaluation.outcomes import Outcomes, compute_recalls
from ernie_vil2.evaluation.pixel_baseline import PixelBaseline, compute_pixel_baseline
from ernie_vil2.evaluation.protocol import (
    Evaluation,
    choose_protocols,
    find_protocol,
    make_queries_title,
    make_table_rows,
    score_embeddings,
    select_rows,
)
from ernie_vil2.evaluation.published import PublishedResult, find_published
from ernie_vil2.evaluation.ranking import TIE_RULES
from ernie_vil2.evaluation.report import Page, Report, make_file_suffix, wrap_lines
from ernie_vil2.evaluation.retrieval import Row, make_recall_table
from ernie_vil2.evaluation.scorer import ProgressBar, Scorer, ScorerInput, make_scorer
from ernie_vil2.pages import Card

MEAN = "mean_recall"
SHOWN_SIDE_BY_SIDE = 4
"""Answers of each model, where several are compared."""
LOGGED_ALONE = ("R@5", "mR", "MRR")
"""Of each language; the others are printed and drawn in the course of training as well."""


@dataclass
class Retrieval(Scorer):
    """Scores a dual encoder language by language; its best checkpoint is that of the best mean recall over them.

    The fields are options of commands, by their descriptions. `protocol` takes names as `choose_protocols` does, and
    `only` pairs of a field and a value.
    """

    protocol: Sequence[str] = option(
        ("pairs",), "default: pairs; all-conventions: any-of, first-text, row-label side by side", "NAME"
    )
    only: Sequence[tuple[str, str]] = option(
        (), "additional rows for the queries with this value; galleries stay whole", "FIELD=VALUE"
    )
    top_k: int | None = option(None, "write the K best answers to every query; 10 for MUGE's test split", "K")
    pixel_baseline: Sequence[str] = option(
        (), "one more row: the text of the nearest training image by pixels", "TRAIN_FILE"
    )
    title: str = option("model", "what the model is called in the table", "LABEL")
    block: int = option(1024, "rows of either side that are scored at once")
    best_by: str | None = MEAN
    is_separable: ClassVar[bool] = True
    is_held_out: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.protocols = choose_protocols(self.protocol)
        for name, one in self.protocols.items():
            if one.packages:
                require(f"the protocol {name}", *one.packages)

    @classmethod
    def from_config(cls, config: Config, scored: ScoredConfig | None, default: str) -> tuple[Scorer, DataSpec | None]:
        """Return the scorer of the protocol of the data or of the run."""
        named = find_protocol((scored and scored.protocol) or config.Evaluation.protocol)
        _, data = super().from_config(config, scored, default)
        return make_scorer(named.scorer, {"protocol": [named.name], "block": config.Evaluation.block}), data

    def open(self, data: DataSpec) -> ScorerInput:
        """Open what the protocols select_rows, by the language of the captions."""
        protocols = list(self.protocols.values())
        data = replace(data, default_split=protocols[0].split or data.default_split)
        benchmarks = open_benchmarks(data)
        return ScorerInput(data, {language: select_rows(benchmarks[language], protocols) for language in benchmarks})

    def score(self, opened: ScorerInput, encoded: Mapping[str, EncodedBenchmark], model: ErnieViL2 | None) -> Report:
        """Score `zh/image_to_text/R@1`, `zh/mR`, further measures of a protocol, and `mean_recall`."""
        device = model.device if model else "cpu"
        evaluations = {
            (language, convention): score_embeddings(one, scoring, self.block, device, not self.top_k)
            for language, one in encoded.items()
            for convention, scoring in self.protocols.items()
        }
        metrics = {
            "/".join(filter(None, [*keys, name])): value
            for keys, evaluation in evaluations.items()
            for name, value in figures(evaluation).items()
        }
        means = [mean for one in evaluations.values() if (mean := one.mean_recall) is not None]
        if means and len(means) == len(evaluations):
            metrics[MEAN] = fmean(means)
        labelled = {", ".join(filter(None, [self.title, *keys])): one for keys, one in evaluations.items()}
        published = [row for name in self.protocol for row in find_published(name)]
        baseline = self._baseline(opened.data) if self.pixel_baseline else None
        rows = self._rows(labelled, published, baseline)
        counts = format_counts(labelled)
        return Report(
            metrics,
            [make_recall_table(rows)] if any(one.results for one in labelled.values()) else [],
            record(labelled, rows, published),
            CSV_COLUMNS,
            list_ranks(labelled),
            best_by=self.best_by,
            progress_metrics=[name for name in metrics if name.rpartition("/")[2] not in LOGGED_ALONE],
            extra_lines=format_measures(labelled),
            notes=counts.splitlines(),
            paragraphs=[counts, format_definitions(labelled, published)],
            make_pages=lambda: self._pages(labelled, rows, device),
            json_lines=_answers(labelled, self.top_k, device) if self.top_k else (),
            make_outcomes=lambda: {
                ", ".join(filter(None, keys)): outcomes(one, device) for keys, one in evaluations.items() if one.results
            },
        )

    def _pages(self, evaluations: Evaluations, rows: Sequence[Row], device: str) -> Iterator[Page]:
        for label, evaluation in evaluations.items():
            page = make_retrieval_page(evaluation, rows, device)
            yield replace(page, label=label, file_suffix=make_file_suffix(label) if len(evaluations) > 1 else "")

    def _rows(
        self, evaluations: Evaluations, published: Sequence[PublishedResult], baseline: PixelBaseline | None = None
    ) -> list[Row]:
        """Return the rows of all queries, and for each field and value those of its queries alone."""
        rows: list[Row] = []
        for chosen in (None, *self.only):
            results = dict(evaluations)
            if chosen:
                results = {
                    label: one.select_queries(*chosen, needs_queries=False) for label, one in evaluations.items()
                }
                if all(len(one.empty_directions) == len(one.results) for one in results.values()):
                    next(iter(evaluations.values())).select_queries(*chosen)  # says which values there are
            baselines = {"nearest train image by pixels": baseline.select_queries(*(chosen or ()))} if baseline else {}
            title = make_queries_title(" = ".join(chosen) if chosen else "all queries", results.values())
            rows += make_table_rows(title, results, baselines, [] if chosen else published)
        return rows

    def _baseline(self, data: DataSpec) -> PixelBaseline:
        training = DataSpec(self.pixel_baseline, text_id=data.text_id)
        baseline = compute_pixel_baseline(open_sources(training), open_sources(data))
        if baseline.bad_samples.counts:
            print(f"pixel baseline: {baseline.bad_samples}")
        return baseline

    def file_name_parts(self, opened: ScorerInput) -> list[str]:
        """Return split, languages and protocols."""
        return [*super().file_name_parts(opened), *(name for name in self.protocol if name != "pairs")]

    def inspect(self, data: DataSpec, bar: ProgressBar) -> Inspection:
        """Read the data and decode all images, and compare the counts with those that the protocols expect."""
        protocols, found = list(self.protocols.values()), {}
        for language, benchmark in self.open(data).benchmarks.items():
            with bar(len(benchmark.images)) as progress:
                found[language] = check_benchmark(benchmark, protocols, progress)
        texts = [f"captions in {language}\n" * bool(language) + str(report) for language, report in found.items()]
        return Inspection("\n".join(texts), all(report.is_good for report in found.values()))


def outcomes(evaluation: Evaluation, device: str = "cpu") -> Outcomes:
    """What each query found. Queries of one image are those that it or one of its texts asks, by its first image."""
    benchmark, groups = evaluation.encoded.benchmark, 0
    image_of = np.arange(len(benchmark.images), len(benchmark.images) + len(benchmark.texts))
    image_of[benchmark.pairs[::-1, 1]] = benchmark.pairs[::-1, 0]
    asked: list[tuple[str, int, BenchmarkImage | BenchmarkText]] = []
    columns = []
    for direction, result in evaluation.results.items():
        side, positions = result.matching.sides[0], np.flatnonzero(result.ranking.rank)
        rows = result.matching.left[positions]
        entries = benchmark.get_side(side)
        asked += [(direction, at, entries[row]) for at, row in zip(positions.tolist(), rows.tolist(), strict=True)]
        fold = groups + np.searchsorted([queries.start for queries, _ in result.folds], positions, side="right")
        columns.append((result.ranking.rank[positions], rows if side == "image" else image_of[rows], fold))
        groups += len(result.folds)
    ranks, clusters, group = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    found = compute_recalls([direction for direction, *_ in asked], ranks)
    cards = CardMaker(evaluation, SHOWN_SIDE_BY_SIDE, device)

    def made(chosen: Sequence[int]) -> list[Card]:
        return [cards.make_cards(asked[row][0], np.array([asked[row][1]]))[0] for row in chosen]

    return Outcomes(
        query_ids=[f"{direction} {query.id}" for direction, _, query in asked],
        figures=found,
        main_figure="mR" if "mR" in found else f"{next(iter(evaluation.results))}/mR",
        clusters=clusters,
        ranks=ranks,
        groups=dict.fromkeys(found, group) if groups > 1 else {},
        texts=[query.text if isinstance(query, BenchmarkText) else "" for *_, query in asked],
        fields=[query.fields for *_, query in asked],
        make_cards=made,
    )


def _answers(evaluations: Evaluations, k: int, device: str) -> Iterator[tuple[str, Iterable[Mapping[str, Any]]]]:
    for label, evaluation in evaluations.items():
        if "text_to_image" in evaluation.results:
            ending = make_file_suffix(label) if len(evaluations) > 1 else ""
            yield f"{ending}.predictions.jsonl", list_predictions(evaluation, k, device)
    yield ".answers.jsonl", list_best_answers(evaluations, k, device)


def figures(evaluation: Evaluation) -> dict[str, float]:
    """Recalls by direction, their mean, and what else the protocol measures."""
    values = evaluation.as_dict()
    recalls = {f"{way}/{name}": value for way in evaluation.results for name, value in values[way].items()}
    return recalls | ({} if values["mR"] is None else {"mR": values["mR"]}) | dict(evaluation.measures)


def format_counts(evaluations: Evaluations) -> str:
    """What was scored: for each result its protocol, its galleries, and how they differ from the protocol's."""
    lines = []
    for label, evaluation in evaluations.items():
        reports = (
            ("annotations", evaluation.encoded.benchmark.entry_report),
            ("images", evaluation.encoded.bad_samples),
        )
        lines.append(f"{label}: protocol {evaluation.protocol.name}, {evaluation.sizes}")
        lines += [f"note: {sentence}" for sentence in evaluation.notes]
        lines += [f"{what}: {report}" for what, report in reports if report.counts or report.remarks]
    return wrap_lines(lines)


def format_measures(evaluations: Evaluations) -> list[str]:
    """Lines of the figures that are in no column."""
    return [
        f"{f'{label}: ' * (len(evaluations) > 1)}{name} {value:.2f}"
        for label, evaluation in evaluations.items()
        for name, value in evaluation.measures.items()
    ]


def format_definitions(evaluations: Evaluations, published: Sequence[PublishedResult] = ()) -> str:
    """What the figures of a table mean: each protocol and its tie rule in words, and the sources of published rows."""
    lines = []
    for one in dict.fromkeys(evaluation.protocol for evaluation in evaluations.values()):
        lines += [f"protocol {one.name}: {one.definition}", TIE_RULES[one.ties]]
    return wrap_lines([*lines, *map(cited, published)])


def cited(row: PublishedResult) -> str:
    """A published row with its source."""
    return f"published: {row.title}: {row.source}{f'; {row.note}' if row.note else ''}"


def record(evaluations: Evaluations, rows: Sequence[Row], published: Sequence[PublishedResult]) -> dict[str, Any]:
    """All that the figures depend on, for JSON."""
    others = [
        {"model": row.label, "values": row.values, "source": row.source, "note": row.note, "fine_tuned": row.fine_tuned}
        for row in published
    ]
    results = {label: evaluation.record for label, evaluation in evaluations.items()}
    return {"results": results, "published": others, "table": rows}
