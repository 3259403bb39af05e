"""Image-text retrieval by named protocols: recalls next to published results, ranks of the queries, and examples."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any, ClassVar

import numpy as np

from ernie_vil2.config import Config, EvaluationDataConfig
from ernie_vil2.data.benchmark import BenchmarkImage, BenchmarkText
from ernie_vil2.data.readers import open_benchmarks, open_sources
from ernie_vil2.data.spec import TRAIN, DataSpec, option
from ernie_vil2.device.extras import require
from ernie_vil2.encoder import Encoder
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
from ernie_vil2.section import Count

MEAN_RECALL = "mean_recall"
NUM_ANSWERS_SIDE_BY_SIDE = 4  # answers of each model on a page that compares models next to each other
# Metrics of each language that a run logs, but neither prints nor draws during training.
LOGGED_ONLY = ("R@5", "mR", "MRR")


@dataclass
class Retrieval(Scorer):
    """Scores a dual encoder by retrieval, language by language; the best checkpoint has the best mean recall over all.

    The fields are options of commands, where they are described. `protocol` takes names like `choose_protocols`, and
    `only` takes pairs of a field and a value.
    """

    protocol: Sequence[str] = option(
        ("pairs",),
        "protocols to score by; all-conventions: pairs (in the table any-of), first-text and official-rows "
        "(row-label); default: pairs",
        "NAME",
    )
    only: Sequence[tuple[str, str]] = option(
        (), "add rows for the queries whose field has this value; the galleries stay whole", "FIELD=VALUE"
    )
    top_k: Count | None = option(None, "write the K best answers to every query; use 10 for MUGE's test split", "K")
    pixel_baseline: Sequence[str] = option(
        (), "add a row: every image gets the text of the nearest image in these training data, by pixels", "TRAIN_FILE"
    )
    title: str = option("model", "name of the model in the table", "LABEL")
    block: Count = option(1024, "rows of either side that are scored at once; a larger block needs more memory")
    best_by: str | None = MEAN_RECALL
    is_separable: ClassVar[bool] = True
    is_held_out: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.protocol = tuple(dict.fromkeys(self.protocol))  # published results of a protocol are listed once
        self.protocols = choose_protocols(self.protocol)
        for name, protocol in self.protocols.items():
            if protocol.packages:
                require(f"the protocol {name}", *protocol.packages)

    @classmethod
    def from_config(
        cls, config: Config, scored: EvaluationDataConfig | None, default_split: str
    ) -> tuple[Scorer, DataSpec | None]:
        """Return the scorer of the data's protocol or, if the data name none, of the run's protocol."""
        name = config.Evaluation.protocol
        if scored and scored.protocol:
            name = scored.protocol
        protocol = find_protocol(name)
        _, data = super().from_config(config, scored, default_split)
        return make_scorer(protocol.scorer, {"protocol": [protocol.name], "block": config.Evaluation.block}), data

    def open(self, data: DataSpec) -> ScorerInput:
        """Open the rows that the protocols select, as a benchmark for each language of the captions."""
        protocols = list(self.protocols.values())
        data = replace(data, default_split=protocols[0].split or data.default_split)
        benchmarks = {}
        for language, benchmark in open_benchmarks(data).items():
            benchmarks[language] = select_rows(benchmark, protocols)
        return ScorerInput(data, benchmarks)

    def score(self, inputs: ScorerInput, encoded: Mapping[str, EncodedBenchmark], model: Encoder | None) -> Report:
        """Report `zh/image_to_text/R@1`, `zh/mR`, further measures of the protocols, and `mean_recall`."""
        device = model.device if model else "cpu"
        # By language and convention, each "" if there is only one.
        evaluations: dict[tuple[str, str], Evaluation] = {}
        for language, embeddings in encoded.items():
            for convention, protocol in self.protocols.items():
                evaluations[language, convention] = score_embeddings(
                    embeddings, protocol, self.block, device, needs_answers=not self.top_k
                )

        metrics: dict[str, float] = {}
        means = []
        for keys, evaluation in evaluations.items():
            for name, value in list_metrics(evaluation).items():
                metrics["/".join(filter(None, [*keys, name]))] = value
            if evaluation.mean_recall is not None:
                means.append(evaluation.mean_recall)
        # If an evaluation has no mean, the mean over the others could not be compared with that of other runs.
        if means and len(means) == len(evaluations):
            metrics[MEAN_RECALL] = fmean(means)

        # The label of a result begins with the model in tables, but not where several models are compared.
        evaluations_by_label: dict[str, Evaluation] = {}
        outcome_makers: dict[str, Callable[[], Outcomes]] = {}
        for keys, evaluation in evaluations.items():
            evaluations_by_label[", ".join(filter(None, [self.title, *keys]))] = evaluation
            if evaluation.mean_recall is not None:  # otherwise no query has a right answer
                outcome_makers[", ".join(filter(None, keys))] = partial(make_outcomes, evaluation, device)
        published: list[PublishedResult] = []
        for name in self.protocol:
            published += find_published(name)
        baseline = self._compute_baseline(inputs.data) if self.pixel_baseline else None
        rows = self._make_rows(evaluations_by_label, published, baseline)
        counts = format_counts(evaluations_by_label)
        has_recalls = any(evaluation.results for evaluation in evaluations.values())
        return Report(
            metrics,
            tables=[make_recall_table(rows)] if has_recalls else [],
            record=make_record(evaluations_by_label, rows, published),
            csv_columns=CSV_COLUMNS,
            csv_rows=list_ranks(evaluations_by_label),
            best_by=self.best_by,
            progress_metrics=[name for name in metrics if name.rpartition("/")[2] not in LOGGED_ONLY],
            extra_lines=format_measures(evaluations_by_label),
            notes=counts.splitlines(),
            paragraphs=[counts, format_definitions(evaluations_by_label, published)],
            make_pages=lambda: self._make_pages(evaluations_by_label, rows, device),
            json_lines=_list_answers(evaluations_by_label, self.top_k, device) if self.top_k else (),
            make_outcomes=lambda: {label: make() for label, make in outcome_makers.items()},
        )

    def _make_pages(self, evaluations: Evaluations, rows: Sequence[Row], device: str) -> Iterator[Page]:
        for label, evaluation in evaluations.items():
            file_suffix = make_file_suffix(label) if len(evaluations) > 1 else ""
            yield replace(make_retrieval_page(evaluation, rows, device), label=label, file_suffix=file_suffix)

    def _make_rows(
        self, evaluations: Evaluations, published: Sequence[PublishedResult], baseline: PixelBaseline | None = None
    ) -> list[Row]:
        """Return the rows of all queries, then those of the queries with each field and value of `only`."""
        # Published results are of all queries, so the rows of a selection are without them.
        baselines = {}
        if baseline:
            baselines["nearest train image by pixels"] = baseline.select_queries()
        title = make_queries_title("all queries", evaluations.values())
        rows = make_table_rows(title, evaluations, baselines, published)

        for field, value in self.only:
            selected: dict[str, Evaluation] = {}
            for label, evaluation in evaluations.items():
                selected[label] = evaluation.select_queries(field, value, needs_queries=False)
            if all(len(evaluation.empty_directions) == len(evaluation.results) for evaluation in selected.values()):
                # Raises an error that lists the existing values.
                next(iter(evaluations.values())).select_queries(field, value)
            if baseline:
                baselines["nearest train image by pixels"] = baseline.select_queries(field, value)
            title = make_queries_title(f"{field} = {value}", selected.values())
            rows += make_table_rows(title, selected, baselines)
        return rows

    def _compute_baseline(self, data: DataSpec) -> PixelBaseline:
        training = DataSpec(self.pixel_baseline, default_split=TRAIN, text_id=data.text_id)
        baseline = compute_pixel_baseline(open_sources(training), open_sources(data))
        if baseline.bad_samples.counts:
            print(f"pixel baseline: {baseline.bad_samples}")
        return baseline

    def file_name_parts(self, inputs: ScorerInput) -> list[str]:
        """Return split, languages and protocols other than the default."""
        return [*super().file_name_parts(inputs), *(name for name in self.protocol if name != "pairs")]

    def inspect(self, data: DataSpec, bar: ProgressBar) -> Inspection:
        """Read the data, decode all images, and compare the counts with those that the protocols expect."""
        protocols = list(self.protocols.values())
        texts = []
        is_good = True
        for language, benchmark in self.open(data).benchmarks.items():
            with bar(len(benchmark.images)) as progress:
                inspection = check_benchmark(benchmark, protocols, progress)
            if language:
                texts.append(f"captions in {language}")
            texts.append(str(inspection))
            is_good = is_good and inspection.is_good
        return Inspection("\n".join(texts), is_good)


def make_outcomes(evaluation: Evaluation, device: str = "cpu") -> Outcomes:
    """Return the outcomes of the queries; an image and its texts form a cluster."""
    benchmark = evaluation.encoded.benchmark
    num_images, num_texts = len(benchmark.images), len(benchmark.texts)
    # A text belongs to its first image: going backwards, that pair is set last. One without an image is a cluster of
    # its own, numbered after the images.
    image_of_text = np.arange(num_images, num_images + num_texts)
    image_of_text[benchmark.pairs[::-1, 1]] = benchmark.pairs[::-1, 0]

    directions: list[str] = []
    positions: list[int] = []  # of each query within its direction
    queries: list[BenchmarkImage | BenchmarkText] = []
    ranks, clusters, folds = [], [], []
    num_folds = 0
    for direction, result in evaluation.results.items():
        query_side, _ = result.matching.sides
        query_positions = np.flatnonzero(result.ranking.rank)
        query_rows = result.matching.left[query_positions]
        entries = benchmark.get_side(query_side)
        directions += [direction] * len(query_positions)
        positions += query_positions.tolist()
        queries += [entries[row] for row in query_rows.tolist()]
        ranks.append(result.ranking.rank[query_positions])
        clusters.append(query_rows if query_side == "image" else image_of_text[query_rows])
        fold_starts = [fold.queries.start for fold in result.folds]
        folds.append(num_folds + np.searchsorted(fold_starts, query_positions, side="right"))
        num_folds += len(result.folds)
    all_ranks = np.concatenate(ranks)
    recalls = compute_recalls(directions, all_ranks)  # by name, [Q] each
    cards = CardMaker(evaluation, NUM_ANSWERS_SIDE_BY_SIDE, device)

    def make_cards(numbers: Sequence[int]) -> list[Card]:
        cards_of_queries = []
        for number in numbers:
            cards_of_queries += cards.make_cards(directions[number], np.array([positions[number]]))
        return cards_of_queries

    return Outcomes(
        query_ids=[f"{direction} {query.id}" for direction, query in zip(directions, queries, strict=True)],
        figures=recalls,
        main_figure="mR" if "mR" in recalls else f"{directions[0]}/mR",
        clusters=np.concatenate(clusters),
        ranks=all_ranks,
        # With folds, a recall is the mean of the folds' recalls.
        groups=dict.fromkeys(recalls, np.concatenate(folds)) if num_folds > 1 else {},
        texts=[query.text if isinstance(query, BenchmarkText) else "" for query in queries],
        fields=[query.fields for query in queries],
        make_cards=make_cards,
    )


def _list_answers(evaluations: Evaluations, k: int, device: str) -> Iterator[tuple[str, Iterable[Mapping[str, Any]]]]:
    """Return the files of the best answers: their name endings and lines."""
    for label, evaluation in evaluations.items():
        if "text_to_image" in evaluation.results:
            file_suffix = make_file_suffix(label) if len(evaluations) > 1 else ""
            yield f"{file_suffix}.predictions.jsonl", list_predictions(evaluation, k, device)
    yield ".answers.jsonl", list_best_answers(evaluations, k, device)


def list_metrics(evaluation: Evaluation) -> dict[str, float]:
    """Return the recalls of the directions, their mean, and the measures of the protocol, by name."""
    values = evaluation.as_dict()
    metrics = {}
    for direction in evaluation.results:
        for name, value in values[direction].items():
            metrics[f"{direction}/{name}"] = value
    if values["mR"] is not None:
        metrics["mR"] = values["mR"]
    return metrics | dict(evaluation.measures)


def format_counts(evaluations: Evaluations) -> str:
    """Return lines on protocol and galleries of each result, and on how they differ from the expected ones."""
    lines = []
    for label, evaluation in evaluations.items():
        lines.append(f"{label}: protocol {evaluation.protocol.name}, {evaluation.sizes}")
        lines += [f"note: {sentence}" for sentence in evaluation.notes]
        encoded = evaluation.encoded
        for name, bad_samples in (("annotations", encoded.benchmark.entry_report), ("images", encoded.bad_samples)):
            if bad_samples.counts or bad_samples.remarks:
                lines.append(f"{name}: {bad_samples}")
    return wrap_lines(lines)


def format_measures(evaluations: Evaluations) -> list[str]:
    """Return lines with the measures of the protocols, which have no column in the table."""
    lines = []
    for label, evaluation in evaluations.items():
        prefix = f"{label}: " if len(evaluations) > 1 else ""
        lines += [f"{prefix}{name} {value:.2f}" for name, value in evaluation.measures.items()]
    return lines


def format_definitions(evaluations: Evaluations, published: Sequence[PublishedResult] = ()) -> str:
    """Return the definition and the tie rule of each protocol, and the sources of the published results."""
    lines = []
    for protocol in dict.fromkeys(evaluation.protocol for evaluation in evaluations.values()):
        lines += [f"protocol {protocol.name}: {protocol.definition}", TIE_RULES[protocol.ties]]
    lines += map(format_citation, published)
    return wrap_lines(lines)


def format_citation(result: PublishedResult) -> str:
    """Return a published result with its source and its note."""
    note = f"; {result.note}" if result.note else ""
    return f"published: {result.title}: {result.source}{note}"


def make_record(evaluations: Evaluations, rows: Sequence[Row], published: Sequence[PublishedResult]) -> dict[str, Any]:
    """Return the results, the published results and the table for JSON."""
    published_records = []
    for result in published:
        published_records.append(
            {
                "model": result.label,
                "values": result.values,
                "source": result.source,
                "note": result.note,
                "fine_tuned": result.fine_tuned,
            }
        )
    results = {label: evaluation.record for label, evaluation in evaluations.items()}
    return {"results": results, "published": published_records, "table": rows}
