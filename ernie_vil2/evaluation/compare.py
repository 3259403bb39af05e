"""Models side by side on one's own data: what they reach, with intervals, which is better, and what each costs."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np

from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.samples import BadSample
from ernie_vil2.data.spec import DataLike, DataSpec
from ernie_vil2.encoder import ErnieViL2, load_model
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
from ernie_vil2.io.export_folder import ABOUT
from ernie_vil2.io.terminal import counted
from ernie_vil2.models.weights.format import find_weights
from ernie_vil2.pages import Table

PIXELS = "nearest train image by pixels"
TIMED_IMAGES, TIMED_TEXTS = 64, 24


@dataclass(frozen=True)
class EmbeddingFolder:
    """Folder of embeddings that stands for a model, see `embedding_files.read_benchmark_embeddings`."""

    path: str | os.PathLike


@dataclass(frozen=True)
class NearestPixels:
    """For a model, the text of the nearest training image by pixels.

    Attributes:
        train: paths of the training data.
    """

    train: Sequence[str]


Compares = str | os.PathLike | ErnieViL2 | EmbeddingFolder | NearestPixels
"""What stands for a model in a comparison; a path or a known name as for `load_model`."""


@dataclass(frozen=True)
class Cost:
    """What a model costs on this machine, as measured in this run; None where only its embeddings are known.

    Attributes:
        milliseconds_image: of one image, read from its bytes, prepared and encoded in a batch of up to 64.
        milliseconds_query: of one text encoded on its own, the median of 24.
        megabytes: of its weights or of its export on disk.
        width: of the embeddings.
        index_megabytes: of the images of the data as float32 rows.
        cut_texts: how many texts of the data are longer than the model sees.
    """

    milliseconds_image: float | None = None
    milliseconds_query: float | None = None
    megabytes: float | None = None
    width: int | None = None
    index_megabytes: float | None = None
    cut_texts: int | None = None


@dataclass
class Compared:
    """The result of `compare_models`.

    Attributes:
        comparison: figures, intervals and verdicts.
        costs: by model.
        notes: sentences on data and models that a reader of the figures should know.
        definitions: what is scored, in words.
        published: rows that the authors of the protocol's models published.
        sources: by model, where it came from.
    """

    comparison: Comparison
    costs: dict[str, Cost]
    notes: list[str]
    definitions: list[str]
    published: list[PublishedResult] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Plain dictionaries and arrays: `figures`, `differences`, `queries` and `costs` by column, and sentences."""
        costs = {}
        for name in vars(Cost()):
            costs[name] = np.array([getattr(cost, name) for cost in self.costs.values()], float)
        return {
            **self.comparison.record(),
            "costs": {"model": list(self.costs), **costs},
            "verdicts": list(map(str, self.comparison.verdicts)),
            "notes": [*self.comparison.notes, *self.notes],
        }

    def table(self) -> Table:
        """The figures, with published rows below them."""
        rows = [(f"published: {row.title}", _flat(row.values)) for row in self.published]
        return self.comparison.make_table(rows)

    def costs_table(self) -> Table:
        """What each model costs."""
        columns = ["ms an image", "ms a query", "MB of weights", "width", "MB of index", "texts cut"]
        rows = []
        for name, cost in self.costs.items():
            rows.append((name, ["-" if value is None else _short(value) for value in vars(cost).values()]))
        return Table(columns, rows, kind="figures")


def compare(
    models: Sequence[str | os.PathLike] | Mapping[str, Compares],
    data: DataLike,
    **options: Any,
) -> dict[str, Any]:
    """Find which model is better on this data: the first is what the others are compared with.

    Args:
        models: all that `load_model` takes, exports among it; a mapping gives them names and may hold models that are
            loaded already.
        data: a spec, or files and folders as `tools/eval.py --data` takes them.
        options: those of `compare_models`.

    Returns:
        Columns of which data frames are made: `figures` (value, low, high by result, model and figure), `differences`
        to the first model (with p, corrected_p and verdict), `queries` (the rank of every query's right answer by
        model), `costs`; and the sentences `verdicts` and `notes`.

    Raises:
        FileNotFoundError, ValueError: as of `compare_models`.
    """
    named = models if isinstance(models, Mapping) else names_of(list(map(str, models)))
    return compare_models(named, data, **options).record()


def names_of(sources: Sequence[str]) -> dict[str, str]:
    """Sources by a name each: the last part of the path, of several with the same one all of it."""
    short = [Path(source).name or source for source in sources]
    names = [name if short.count(name) == 1 else source for name, source in zip(short, sources, strict=True)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} is named twice; give each model once, or names: NAME={twice[0]}")
    return dict(zip(names, sources, strict=True))


def compare_models(
    models: Mapping[str, Compares],
    data: DataLike,
    *,
    scorer: Scorer | None = None,
    cache: Path | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    **loading: Any,
) -> Compared:
    """Score models on the same data and compare them.

    Args:
        models: by name.
        data: what is scored.
        scorer: what scores them; None: the one that recognises the data.
        cache: folder of finished embeddings.
        resamples, seed: of intervals and tests.
        loading: `device`, `precision` and `batch_size`, as for `load_model`.

    Raises:
        FileNotFoundError: there is no such model, data or embeddings.
        ValueError: fewer than two models; a model cannot be scored on the data, or not on all of it.
    """
    if len(models) < 2:
        raise ValueError(f"two models or more are compared; here are {', '.join(models) or 'none'}")
    spec = DataSpec.from_data(data)
    scorer = scorer or make_scorer(find_scorer(spec), {})
    scoring = _Scoring(scorer, spec)
    for name, model in models.items():
        if isinstance(model, EmbeddingFolder):
            scoring.embedded(name, model.path)
        elif isinstance(model, NearestPixels):
            scoring.pixels(name, model.train)
        else:
            scoring.model(name, model, cache, **loading)
    notes = [f"{one.name}: {one.entry_report}" for one in scoring.benchmarks.values() if one.entry_report.counts]
    protocols = scorer.protocol if isinstance(scorer, Retrieval) else ()
    published = [row for name in protocols for row in find_published(name)]
    return Compared(
        Comparison(scoring.outcomes, resamples, seed),
        scoring.costs,
        [*scoring.notes, *notes],
        scoring.definitions,
        published,
        {name: _source(model) for name, model in models.items() if not isinstance(model, NearestPixels)},
    )


def _source(model: Compares) -> str:
    return str(model.path if isinstance(model, EmbeddingFolder) else model)


class _Scoring:
    """Scores one model after the other on data that are opened once, in the languages of the first model."""

    def __init__(self, scorer: Scorer, data: DataSpec):
        self._scorer, self._data = scorer, data
        self._opened: ScorerInput | None = None
        self._galleries: dict[str, tuple[str, set[str]]] = {}  # by benchmark the first model and its images
        self.outcomes: dict[str, Mapping[str, Outcomes]] = {}
        self.costs: dict[str, Cost] = {}
        self.notes: list[str] = []
        self.definitions: list[str] = []

    def model(self, name: str, source: str | os.PathLike | ErnieViL2, cache: Path | None, **loading: Any) -> None:
        """Loads a model, or takes one that is loaded, encodes with it and measures what it costs."""
        load = load_classifier if self._scorer.needs_classifier else load_model
        model = source if isinstance(source, ErnieViL2) else load(source, **loading)
        opened = self._open(list(model.config.Views.languages))

        def encode(model: ErnieViL2, benchmark: Benchmark, key: str) -> EncodedBenchmark:
            encoded = encode_on_all_ranks(model, benchmark, f"{name} {key}".strip(), cache)
            return self._of_one_gallery(name, key, encoded)

        self._keep(name, run_scorer(self._scorer, model, opened, name, encode))
        cost = measured(model, self.benchmarks, None if isinstance(source, ErnieViL2) else source)
        self.costs[name] = cost
        if cost.cut_texts:
            every = len({text.text for one in self.benchmarks.values() for text in one.texts})
            self.notes.append(
                f"{name} sees {model.tokenizer.max_length} tokens of a text: {cost.cut_texts:,} of "
                f"{counted(every, 'text')} are longer and are cut."
            )

    def embedded(self, name: str, folder: str | os.PathLike) -> None:
        """Takes the embeddings of a folder for those of a model."""
        if self._scorer.needs_classifier:
            raise ValueError(f"{name}: embeddings label no statements; compare models that were trained to")
        opened = self._open()
        encoded = {}
        for key, one in opened.benchmarks.items():
            found, remarks = read_benchmark_embeddings(folder, one)
            self.notes += [note for remark in remarks if (note := f"{name}: {remark}") not in self.notes]
            encoded[key] = self._of_one_gallery(name, key, found)
        model: Any = SimpleNamespace(device="cpu", logit_scale=100.0, calibration=None, labels=(), backend=None)
        self._keep(name, self._scorer.score(opened, encoded, model))
        width = next(iter(encoded.values())).image_embeddings.shape[1]
        self.costs[name] = Cost(width=width, index_megabytes=_index_megabytes(self.benchmarks, width))

    def pixels(self, name: str, train: Sequence[str]) -> None:
        """Take the nearest image of these by pixels for a model: images ask for texts, in every language alike."""
        self._open()
        training = DataSpec(train, text_id=self._data.text_id)
        found = compute_pixel_baseline(open_sources(training), open_sources(self._data))
        way = "image_to_text"
        one = Outcomes(
            query_ids=[f"{way} {sample.image_name}" for sample in found.samples],
            figures=compute_recalls([way] * len(found.ranks), found.ranks),
            main_figure=f"{way}/mR",
            clusters=np.arange(len(found.ranks)),
            ranks=found.ranks,
        )
        self.outcomes[name] = dict.fromkeys(self.benchmarks, one)
        self.costs[name] = Cost()

    @property
    def benchmarks(self) -> Mapping[str, Benchmark]:
        """What is scored, by name; nothing before the first model."""
        return self._opened.benchmarks if self._opened else {}

    def _open(self, languages: Sequence[str] = ()) -> ScorerInput:
        if self._opened is None:
            preferred_languages = self._data.preferred_languages or languages
            self._opened = self._scorer.open(replace(self._data, preferred_languages=preferred_languages))
        return self._opened

    def _of_one_gallery(self, name: str, key: str, encoded: EncodedBenchmark) -> EncodedBenchmark:
        ids = {image.id for image in encoded.benchmark.images}
        first, expected = self._galleries.setdefault(key, (name, ids))
        if lost := sorted(ids ^ expected):
            raise ValueError(
                f"{name} could not use the same images as {first}, which differ in {', '.join(lost[:3])}"
                f"{' and others' * (len(lost) > 3)}; leave them out of the data: the gallery must be one for all models"
            )
        return encoded

    def _keep(self, name: str, report: Report) -> None:
        self.outcomes[name] = report.make_outcomes() if report.make_outcomes else {}
        if not self.outcomes[name]:
            raise ValueError(f"{self._data.paths[0]}: its figures are not means over queries, which are compared here")
        if not self.definitions:
            self.definitions = [*(report.paragraphs or [])[1:], *report.notes[:1]]


def measured(model: ErnieViL2, benchmarks: Mapping[str, Benchmark], source: str | os.PathLike | None) -> Cost:
    """What a model costs, by a few images and texts of the data."""
    images = [image for one in benchmarks.values() for image in one.images][:TIMED_IMAGES]
    texts = list(dict.fromkeys(text.text for one in benchmarks.values() for text in one.texts))
    contents = []
    for image in images:
        try:
            contents.append(image.read())
        except (BadSample, OSError):
            continue
    by_image = by_text = None
    if contents:
        model.encode_images(contents[:1], on_error="skip")  # what is made once is made now
        start = time.perf_counter()
        model.encode_images(contents, on_error="skip")
        by_image = 1000 * (time.perf_counter() - start) / len(contents)
    if texts:
        model.encode_texts(texts[:1])
        times = []
        for text in texts[:TIMED_TEXTS]:
            start = time.perf_counter()
            model.encode_texts([text])
            times.append(time.perf_counter() - start)
        by_text = 1000 * median(times)
    return Cost(
        by_image,
        by_text,
        None if source is None else _megabytes(find_weights(source)),
        model.embed_dim,
        _index_megabytes(benchmarks, model.embed_dim),
        sum(map(model.tokenizer.cuts, texts)),
    )


def _index_megabytes(benchmarks: Mapping[str, Benchmark], width: int) -> float:
    return max(len(one.images) for one in benchmarks.values()) * width * 4 / 1e6


def _megabytes(path: Path) -> float:
    """Of a weight file, of all that an export has, or of all shards that an index names."""
    if path.name == ABOUT:
        files = [one for one in path.parent.iterdir() if one.is_file()]
    elif path.suffix == ".json":
        files = list(path.parent.glob(f"{path.name.partition('.')[0]}*"))
    else:
        files = [path]
    return sum(one.stat().st_size for one in files) / 1e6


def _flat(values: Mapping[str, Any]) -> dict[str, float]:
    """Return published values by the names of figures."""
    figures: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            figures |= {f"{name}/{measure}": figure for measure, figure in value.items()}
        else:
            figures[name] = value
    return figures


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2g}"
