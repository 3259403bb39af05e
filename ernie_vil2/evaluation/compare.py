"""Comparison of models on one's own data: figures with intervals, which model is better, and what each costs."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage
from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.samples import BadSample
from ernie_vil2.data.source_files import decode_path
from ernie_vil2.data.spec import TRAIN, DataLike, DataSpec
from ernie_vil2.encoder import Encoder, ErnieViL2, open_encoder
from ernie_vil2.evaluation.embedding_files import read_benchmark_embeddings
from ernie_vil2.evaluation.encoded import EncodedBenchmark, encode_on_all_ranks
from ernie_vil2.evaluation.intervals import RESAMPLES
from ernie_vil2.evaluation.outcomes import Comparison, Outcomes, compute_recalls
from ernie_vil2.evaluation.pixel_baseline import compute_pixel_baseline
from ernie_vil2.evaluation.published import PublishedResult, find_published
from ernie_vil2.evaluation.report import Report
from ernie_vil2.evaluation.scorer import Scorer, ScorerInput, find_scorer, make_scorer, run_scorer
from ernie_vil2.evaluation.scorers.entailment import load_classifier
from ernie_vil2.evaluation.scorers.retrieval import Retrieval
from ernie_vil2.io.export_folder import EXPORT_INFO
from ernie_vil2.io.terminal import pluralize
from ernie_vil2.models.weights.format import find_weights
from ernie_vil2.pages import Table
from ernie_vil2.section import Precision

PIXEL_BASELINE_NAME = "nearest train image by pixels"
# Images are timed in one batch, texts one by one, as queries come. Their number bounds how long the measurement takes.
NUM_TIMED_IMAGES, NUM_TIMED_TEXTS = 64, 24


@dataclass(frozen=True)
class EmbeddingFolder:
    """Folder of embeddings that stands for a model, see `embedding_files.read_benchmark_embeddings`."""

    path: str | os.PathLike


@dataclass(frozen=True)
class NearestPixels:
    """Baseline that stands for a model: the text of the nearest training image by pixels.

    Attributes:
        train: paths of the training data.
    """

    train: Sequence[str]


ModelSource = str | os.PathLike | ErnieViL2 | EmbeddingFolder | NearestPixels
"""A model to compare, or what stands for one; a path, a known name or an address as for `open_encoder`."""


@dataclass(frozen=True)
class Cost:
    """Cost of a model on this machine, measured in this run; None if it computes elsewhere.

    Attributes:
        milliseconds_image: time to read, prepare and encode an image, in a batch of up to 64.
        milliseconds_query: time to encode a single text, the median of 24.
        megabytes: size of the weights, or of the export, on disk.
        width: numbers of an embedding.
        index_megabytes: size of the embeddings of the data's images as float32.
        cut_texts: number of texts of the data that are longer than the model's input.
    """

    milliseconds_image: float | None = None
    milliseconds_query: float | None = None
    megabytes: float | None = None
    width: int | None = None
    index_megabytes: float | None = None
    cut_texts: int | None = None


@dataclass
class ComparisonResult:
    """Result of `compare_models`.

    Attributes:
        comparison: figures, intervals and verdicts.
        costs: cost of each model.
        notes: sentences on data and models that a reader of the figures should know.
        definitions: what is scored, in words.
        published: published results on the same data.
        sources: where each model came from; for `NearestPixels`, the training data.
    """

    comparison: Comparison
    costs: dict[str, Cost]
    notes: list[str]
    definitions: list[str]
    published: list[PublishedResult] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return `figures`, `differences`, `queries` and `costs` as columns, `verdicts` and `notes` as sentences."""
        costs: dict[str, Any] = {"model": list(self.costs)}
        for name in vars(Cost()):
            costs[name] = np.array([getattr(cost, name) for cost in self.costs.values()], float)
        return {
            **self.comparison.record(),
            "costs": costs,
            "verdicts": list(map(str, self.comparison.verdicts)),
            "notes": [*self.comparison.notes, *self.notes],
        }

    def make_table(self) -> Table:
        """Return the table of figures, with published results below them."""
        published_rows = [(f"published: {row.title}", _flatten_figures(row.values)) for row in self.published]
        return self.comparison.make_table(published_rows)

    def make_cost_table(self) -> Table:
        """Return the table of costs."""
        columns = ["ms an image", "ms a query", "MB of weights", "width", "MB of index", "texts cut"]
        rows = []
        for name, cost in self.costs.items():
            rows.append((name, list(map(_format_cost, vars(cost).values()))))
        return Table(columns, rows, kind="figures")


def compare(
    models: Sequence[str | os.PathLike] | Mapping[str, ModelSource],
    data: DataLike,
    **options: Any,
) -> dict[str, Any]:
    """Find which model is better on this data: all others are compared with the first one.

    Args:
        models: whatever `open_encoder` takes, including exports and addresses. A mapping gives the models names, and
            may hold loaded models.
        data: a spec, or files and folders as `tools/eval.py --data` takes them.
        options: options of `compare_models`.

    Returns:
        Columns from which data frames can be made: `figures` (value, low and high by result, model and figure),
        `differences` to the first model (with p, corrected_p and verdict), `queries` (the rank of every query's right
        answer by each model) and `costs`; and the sentences `verdicts` and `notes`.

    Raises:
        FileNotFoundError, ValueError: as for `compare_models`.
    """
    if not isinstance(models, Mapping):
        models = name_models(list(map(str, models)))
    return compare_models(models, data, **options).record()


def name_models(sources: Sequence[str]) -> dict[str, str]:
    """Name each source by the last part of its path, or by the whole path if several end alike.

    Names are written to files, so bytes that are not UTF-8 are decoded as in `decode_path`.

    Raises:
        ValueError: a source is given twice.
    """
    last_parts = [Path(source).name or source for source in sources]
    models: dict[str, str] = {}
    for last_part, source in zip(last_parts, sources, strict=True):
        name = decode_path(last_part if last_parts.count(last_part) == 1 else source)
        if name in models:
            raise ValueError(f"{name} is named twice; give each model once, or names: NAME={name}")
        models[name] = source
    return models


def compare_models(
    models: Mapping[str, ModelSource],
    data: DataLike,
    *,
    scorer: Scorer | None = None,
    cache: Path | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    device: str | None = None,
    precision: Precision = "float32",
    batch_size: int = 64,
) -> ComparisonResult:
    """Score models on the same data and compare them.

    Args:
        models: models by name; the first one is the baseline.
        data: the data to score.
        scorer: scorer of the models; None: the scorer that recognises the data.
        cache: folder that keeps embeddings; None: none are kept.
        resamples: number of resamples of intervals and tests.
        seed: of their random draws.
        device: of the models that are loaded here, as for `load_model`.
        precision: of these models, as for `load_model`.
        batch_size: rows that these models encode at once.

    Raises:
        FileNotFoundError: a model, the data or embeddings do not exist.
        ValueError: there are fewer than two models, or a model cannot be scored on all of the data.
    """
    if len(models) < 2:
        raise ValueError(f"two models or more are compared; here are {', '.join(models) or 'none'}")
    spec = DataSpec.from_data(data)
    scorer = scorer or make_scorer(find_scorer(spec), {})
    scoring = _Scoring(scorer, spec)
    sources = {}
    for name, model in models.items():
        if isinstance(model, EmbeddingFolder):
            scoring.score_embeddings(name, model.path)
            sources[name] = str(model.path)
        elif isinstance(model, NearestPixels):
            scoring.score_pixels(name, model.train)
            sources[name] = " ".join(model.train)
        else:
            scoring.score_model(name, model, cache, device=device, precision=precision, batch_size=batch_size)
            sources[name] = str(model)

    notes = list(scoring.notes)
    for benchmark in scoring.benchmarks.values():
        if benchmark.entry_report.counts:
            notes.append(f"{benchmark.name}: {benchmark.entry_report}")
    published = []
    if isinstance(scorer, Retrieval):
        for protocol in scorer.protocol:
            published += find_published(protocol)
    comparison = Comparison(scoring.outcomes, resamples, seed)
    return ComparisonResult(comparison, scoring.costs, notes, scoring.definitions, published, sources)


class _Scoring:
    """Scores one model after the other on data that are opened once, in the languages of the first model.

    Attributes:
        outcomes: outcomes of each model by result.
        costs: cost of each model.
        notes: sentences on the models.
        definitions: what is scored, in words.
    """

    def __init__(self, scorer: Scorer, data: DataSpec):
        self._scorer, self._data = scorer, data
        self._scorer_input: ScorerInput | None = None
        self._galleries: dict[str, tuple[str, set[str]]] = {}  # by benchmark, the first model and its image ids
        self.outcomes: dict[str, Mapping[str, Outcomes]] = {}
        self.costs: dict[str, Cost] = {}
        self.notes: list[str] = []
        self.definitions: list[str] = []

    def score_model(self, name: str, source: str | os.PathLike | ErnieViL2, cache: Path | None, **loading: Any) -> None:
        """Load a model, unless it is loaded, score it and measure its cost."""
        model: Encoder
        if isinstance(source, ErnieViL2):
            model = source
        elif self._scorer.needs_classifier:
            model = load_classifier(source, **loading)
        else:
            model = open_encoder(source, **loading)
        scorer_input = self._open(model.languages)

        def encode(model: Encoder, benchmark: Benchmark, key: str) -> EncodedBenchmark:
            encoded = encode_on_all_ranks(model, benchmark, f"{name} {key}".strip(), cache)
            self._check_gallery(name, key, encoded)
            return encoded

        self._add_outcomes(name, run_scorer(self._scorer, model, scorer_input, name, encode))
        if not isinstance(model, ErnieViL2):  # on a server: its time would be that of the network and of other clients
            self.costs[name] = self._storage_cost(model.embed_dim)
            return
        weights = None if isinstance(source, ErnieViL2) else find_weights(source)
        cost = measure_cost(model, self.benchmarks, weights)
        self.costs[name] = cost
        if cost.cut_texts:
            num_texts = len(_distinct_texts(self.benchmarks))
            self.notes.append(
                f"{name} sees {model.tokenizer.max_length} tokens of a text: {cost.cut_texts:,} of "
                f"{pluralize(num_texts, 'text')} are longer and are cut."
            )

    def score_embeddings(self, name: str, folder: str | os.PathLike) -> None:
        """Score the embeddings in a folder in place of a model's."""
        if self._scorer.needs_classifier:
            raise ValueError(f"{name}: embeddings label no statements; compare models that were trained to")
        scorer_input = self._open()
        encoded_benchmarks = {}
        for key, benchmark in scorer_input.benchmarks.items():
            encoded, remarks = read_benchmark_embeddings(folder, benchmark)
            self._check_gallery(name, key, encoded)
            encoded_benchmarks[key] = encoded
            for remark in remarks:
                note = f"{name}: {remark}"
                if note not in self.notes:  # other languages have the same images
                    self.notes.append(note)
        # The only attributes that scorers use; the scale matters only for probabilities, which are not compared.
        model: Any = SimpleNamespace(device="cpu", logit_scale=100.0, calibration=None, labels=(), backend=None)
        self._add_outcomes(name, self._scorer.score(scorer_input, encoded_benchmarks, model))
        width = next(iter(encoded_benchmarks.values())).image_embeddings.shape[1]
        self.costs[name] = self._storage_cost(width)

    def score_pixels(self, name: str, train: Sequence[str]) -> None:
        """Score the nearest training image by pixels in place of a model: image to text, in all languages alike.

        Raises:
            ValueError: the data are not scored by retrieval, or by several protocols; or no training image can be
                used.
        """
        if not isinstance(self._scorer, Retrieval):
            raise ValueError(f"{name}: pixels find texts, and these data are scored otherwise; leave them out")
        # Models have a result for each protocol, which may ask other queries or take other answers for right.
        if len(self._scorer.protocols) > 1:
            protocols = ", ".join(self._scorer.protocols)
            raise ValueError(f"{name}: pixels are compared by one protocol, not by {protocols}; name one of them")
        data = self._open().data  # with the split of the protocol
        training_data = DataSpec(train, default_split=TRAIN, text_id=data.text_id)
        baseline = compute_pixel_baseline(open_sources(training_data), open_sources(data))
        direction = "image_to_text"
        outcomes = Outcomes(
            query_ids=[f"{direction} {sample.image_name}" for sample in baseline.samples],
            figures=compute_recalls([direction] * len(baseline.ranks), baseline.ranks),
            main_figure=f"{direction}/mR",
            clusters=np.arange(len(baseline.ranks)),
            ranks=baseline.ranks,
        )
        self.outcomes[name] = dict.fromkeys(self.benchmarks, outcomes)
        self.costs[name] = Cost()

    @property
    def benchmarks(self) -> Mapping[str, Benchmark]:
        """The benchmarks that are scored, by name; empty before the first model."""
        return self._scorer_input.benchmarks if self._scorer_input else {}

    def _open(self, languages: Sequence[str] = ()) -> ScorerInput:
        if self._scorer_input is None:
            preferred_languages = self._data.preferred_languages or languages
            self._scorer_input = self._scorer.open(replace(self._data, preferred_languages=preferred_languages))
        return self._scorer_input

    def _storage_cost(self, width: int) -> Cost:
        return Cost(width=width, index_megabytes=_index_megabytes(self.benchmarks, width))

    def _check_gallery(self, name: str, key: str, encoded: EncodedBenchmark) -> None:
        """Raise ValueError if a model could not use the same images as the first one."""
        image_ids = {image.id for image in encoded.benchmark.images}
        first_model, expected_ids = self._galleries.setdefault(key, (name, image_ids))
        unshared_ids = sorted(image_ids ^ expected_ids)
        if unshared_ids:
            ids = ", ".join(unshared_ids[:3])
            if len(unshared_ids) > 3:
                ids += " and others"
            raise ValueError(
                f"{name} could not use the same images as {first_model}, which differ in {ids}; leave them out of the "
                "data: all models need the same gallery"
            )

    def _add_outcomes(self, name: str, report: Report) -> None:
        if report.make_outcomes:
            self.outcomes[name] = report.make_outcomes()
        if not self.outcomes.get(name):
            raise ValueError(
                f"{self._data.paths[0]}: its figures are not means over queries, and no others can be compared"
            )
        if not self.definitions:
            # The first paragraph says what was scored; the others define the figures.
            self.definitions = [*(report.paragraphs or [])[1:], *report.notes[:1]]


def measure_cost(model: ErnieViL2, benchmarks: Mapping[str, Benchmark], weights: Path | None) -> Cost:
    """Measure what a model costs, with a few images and texts of the data.

    Args:
        model: the model.
        benchmarks: the data, by name.
        weights: file of the model's weights; None: unknown.
    """
    images: list[BenchmarkImage] = []
    for benchmark in benchmarks.values():
        images += benchmark.images
    contents = []
    for image in images[:NUM_TIMED_IMAGES]:
        try:
            contents.append(image.read())
        except (BadSample, OSError):
            continue

    # The first call of each kind compiles kernels and fills caches, and is not timed.
    milliseconds_image = milliseconds_query = None
    if contents:
        model.encode_images(contents[:1], on_error="skip")
        start = time.perf_counter()
        model.encode_images(contents, on_error="skip")
        milliseconds_image = 1000 * (time.perf_counter() - start) / len(contents)
    texts = _distinct_texts(benchmarks)
    if texts:
        model.encode_texts(texts[:1])
        durations = []
        for text in texts[:NUM_TIMED_TEXTS]:
            start = time.perf_counter()
            model.encode_texts([text])
            durations.append(time.perf_counter() - start)
        milliseconds_query = 1000 * median(durations)
    return Cost(
        milliseconds_image,
        milliseconds_query,
        megabytes=_file_megabytes(weights) if weights else None,
        width=model.embed_dim,
        index_megabytes=_index_megabytes(benchmarks, model.embed_dim),
        cut_texts=sum(map(model.tokenizer.cuts, texts)),
    )


def _distinct_texts(benchmarks: Mapping[str, Benchmark]) -> list[str]:
    texts: dict[str, None] = {}
    for benchmark in benchmarks.values():
        texts |= dict.fromkeys(text.text for text in benchmark.texts)
    return list(texts)


def _index_megabytes(benchmarks: Mapping[str, Benchmark], width: int) -> float:
    num_images = max(len(benchmark.images) for benchmark in benchmarks.values())
    return num_images * width * 4 / 1e6  # a float32 has 4 bytes


def _file_megabytes(path: Path) -> float:
    """Return the size of a weight file, of all files of an export, or of all shards that an index names."""
    if path.name == EXPORT_INFO:
        files = [file for file in path.parent.iterdir() if file.is_file()]
    elif path.suffix == ".json":
        files = list(path.parent.glob(f"{path.name.partition('.')[0]}*"))
    else:
        files = [path]
    return sum(file.stat().st_size for file in files) / 1e6


def _flatten_figures(values: Mapping[str, Any]) -> dict[str, float]:
    """Return published values by the names of figures, such as `image_to_text/R@1`."""
    figures: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            for measure, figure in value.items():
                figures[f"{name}/{measure}"] = figure
        else:
            figures[name] = value
    return figures


def _format_cost(value: float | None) -> str:
    if value is None:
        return "-"
    # Two digits are enough. From 10 on both are before the point, and .2g would write 1e+02 for 99.6.
    is_whole = value >= 10 or value == int(value)
    return f"{value:,.0f}" if is_whole else f"{value:.2g}"
