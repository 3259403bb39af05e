"""Score how well image and caption fit, by a model, and remove pairs below a threshold."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from pydantic import Field

from ernie_vil2.apps.curation.joins import Joins, MeasuresFile, read_rows
from ernie_vil2.apps.curation.languages import detect_language, detect_languages
from ernie_vil2.apps.curation.measures import MeasuringJob, name_damaged_files
from ernie_vil2.apps.curation.mismatches import (
    EmbeddedPairs,
    Peers,
    Threshold,
    calibrate_threshold,
    estimate_wrong_share,
)
from ernie_vil2.apps.curation.step import Histogram, Pair, Step
from ernie_vil2.apps.curation.steps.text_rules import compute_text_key
from ernie_vil2.data.augment import format_tags
from ernie_vil2.data.selection import CUT_CAPTIONS
from ernie_vil2.encoder import Encoder, open_encoder
from ernie_vil2.io.files import atomic_write
from ernie_vil2.section import Count, Fraction, Name, Precision, Section

LANGUAGES = ("zh", "en", "other")
# Pairs read at once. It bounds the image files in memory, and should be a multiple of the usual batch sizes.
BATCH = 512
# Pairs scored at once: with two texts of 768 numbers they take 200 MB.
SCORE_BATCH = 8192
# Most peers of a language, fold and model. With neighbours the time of a score is proportional to their number; all
# pairs of a crawl as peers would take quadratic time.
MAX_PEERS = 20_000


@dataclass(frozen=True)
class Embedder:
    """Second pass, which embeds the pairs that no rule removes, by one model or by one for each fold.

    It runs shard by shard in the process that has the model. Like measures, embeddings depend on their shard alone.

    Args:
        models: the k-th of n models embeds fold k, the pairs whose id modulo n is k.
        tags: also embed tags, as texts like those of training.
    """

    models: Sequence[Encoder]
    tags: bool = False

    @property
    def texts(self) -> list[str]:
        """Columns of embedded texts; a pair need not have all of them."""
        columns = [f"text_{language}" for language in LANGUAGES]
        if self.tags:
            columns += [f"tags_{language}" for language in LANGUAGES]
        return columns

    @property
    def schema(self) -> pa.Schema:
        """Columns of a file of embeddings, with their types."""
        columns = [("row", pa.int32()), ("fold", pa.int32()), ("image", pa.binary())]
        columns += [(name, pa.binary()) for name in self.texts]
        columns += [(f"cosine_{language}", pa.float32()) for language in LANGUAGES]
        return pa.schema(columns)

    def locate_embeddings(self, job: MeasuringJob, shard: int) -> MeasuresFile:
        """Return the place of a shard's embeddings, whether or not the file exists."""
        measures = job.locate_measures(shard)
        # The rules are among the dependencies, because they decide which pairs are embedded.
        dependencies: list[Any] = [
            measures.path.name,
            [model.fingerprint for model in self.models],
            _rule_conditions(job),
        ]
        if self.tags:
            dependencies.append("tags")
        # Measures keep their name if such a pair can be read later, but then there are more pairs to embed.
        passing_errors = job.find_passing_errors(shard)
        if passing_errors:
            dependencies.append({"without": passing_errors})
        digest = blake2b(json.dumps(dependencies).encode(), digest_size=12).hexdigest()
        return MeasuresFile(measures.path.with_name(f"{digest}-embeddings.parquet"), measures.first_sample)

    def embed_shard(self, job: MeasuringJob, shard: int) -> None:
        """Embed the pairs of a shard that no rule removes; the file appears when it is complete.

        A row holds embeddings as float16, of the image and of caption and tags in each language, and the cosine of
        image and caption in each language.
        """
        measures = job.locate_measures(shard)
        # As in the joins, a condition on a measure that is null removes no pair.
        rules = "".join(f" and not coalesce({condition}, false)" for condition in _rule_conditions(job))
        with name_damaged_files([job.describe_file(shard)]):
            columns = f"row, id % {len(self.models)} as fold"
            columns += f", {CUT_CAPTIONS}" if CUT_CAPTIONS in job.schema.names else ", null"
            rows_and_folds = read_rows(measures.path, columns, f"error is null{rules}", "row")
        with (
            atomic_write(self.locate_embeddings(job, shard).path) as aside,
            aside.open("wb") as file,
            parquet.ParquetWriter(file, self.schema, compression="zstd") as writer,
        ):
            for start in range(0, len(rows_and_folds), BATCH):
                batch = rows_and_folds[start : start + BATCH]
                table_rows: list[dict[str, Any]] = []
                folds: list[list[tuple[Pair, dict[str, Any]]]] = [[] for _ in self.models]
                for row, fold, cut_captions in batch:
                    table_row = {"row": row, "fold": fold}
                    table_rows.append(table_row)
                    pair = Pair(job.source[measures.first_sample + row])
                    if cut_captions:
                        pair.captions = dict(zip(pair.captions, cut_captions, strict=True))
                    folds[fold].append((pair, table_row))
                for model, members in zip(self.models, folds, strict=True):
                    self._embed(model, members)
                writer.write_table(pa.Table.from_pylist(table_rows, self.schema))

    def _embed(self, model: Encoder, members: Sequence[tuple[Pair, dict[str, Any]]]) -> None:
        """Embed pairs, and add their embeddings and cosines to their rows of the table."""
        if not members:
            return
        images = model.encode_images([pair.sample.image for pair, _ in members])

        # Collect the texts of all pairs, which the model encodes together, and where the embedding of each goes.
        texts, destinations = [], []
        for (pair, table_row), image in zip(members, images, strict=True):
            table_row["image"] = image.astype(np.float16).tobytes()
            for kind, language, text in self._list_texts(pair, model):
                texts.append(text)
                destinations.append((table_row, image, kind, language))
        embeddings = model.encode_texts(texts)
        for (table_row, image, kind, language), embedding in zip(destinations, embeddings, strict=True):
            if f"{kind}_{language}" in table_row:
                continue  # the first caption of a language counts
            table_row[f"{kind}_{language}"] = embedding.astype(np.float16).tobytes()
            if kind == "text":
                table_row[f"cosine_{language}"] = float(image @ embedding)

    def _list_texts(self, pair: Pair, model: Encoder) -> Iterator[tuple[str, str, str]]:
        """Yield kind, language and text of a pair's captions and tags."""
        for text in pair.captions.values():
            yield "text", detect_language(text), text
        if not self.tags:
            return
        for field_language, tags in pair.sample.tags.items():
            language = field_language or detect_language(" ".join(tags))
            if tags and language in LANGUAGES and language in model.views.prompts:
                yield "tags", language, format_tags(tags, language, model.views)


def _rule_conditions(job: MeasuringJob) -> list[str]:
    conditions = []
    for step in job.steps:
        conditions += [f"({rule.condition})" for rule in step.rules()]
    return conditions


class Settings(Section):
    """Settings of the step `score`."""

    model: str | list[str] = Field(
        default=[],
        description="model, named as for `embed --checkpoint`, such as http://host/v1#MODEL for one on a server; of "
        "several, the k-th scores the pairs of fold k, and should not have been trained on them",
    )
    tags: bool = Field(False, description="also score tags, as texts like those of training")
    neighbours: Annotated[int, Field(ge=0)] = Field(
        0,
        description="number of other texts and images that a pair is compared with, and of similar images whose texts "
        "it is compared with; 0: only the cosine of image and text counts",
    )
    by: Literal["calibrated", "quantile", "value"] = Field(
        "calibrated", description="how the threshold is chosen: by wrong, by keep, or by cosine"
    )
    wrong: Fraction = Field(
        0.1, description="calibrated: tolerated share of wrong pairs among those that stay, in each language"
    )
    keep: Fraction = Field(0.3, description="quantile: share of pairs that stay, in each language")
    cosine: dict[Literal["zh", "en", "other"], float] = Field(
        default={"zh": 0.26, "en": 0.28}, description="value: least cosine of image and caption, by language"
    )
    device: Name = Field("auto", description="device of the model")
    precision: Precision = Field("float32", description="precision of the model")
    batch_size: Count = Field(128, description="rows that the model encodes at once")


class Score(Step[Settings]):
    """Scores pairs in standard deviations above the mean of mismatched pairs, see `Peers`.

    So scores of different languages, and of folds with different models, can be compared. The share of wrong pairs and
    the calibrated threshold follow from mismatched pairs (`curation/mismatches.py`), in each language.
    """

    name = "score"
    cost = 7
    Settings = Settings
    columns: ClassVar[Mapping[str, str]] = {"languages": "string", "text_key": "uint64"}

    def check(self) -> None:
        settings = self.settings
        names = [settings.model] if isinstance(settings.model, str) else settings.model
        if not names:
            raise ValueError("score needs a model: -o score.model=MODEL, or leave the step out: -o score=null")
        if settings.by == "value" and not settings.cosine:
            raise ValueError("score.by=value needs a least cosine: -o 'score.cosine={zh: 0.26, en: 0.28}'")
        models = []
        for name in names:
            model = open_encoder(
                name, device=settings.device, batch_size=settings.batch_size, precision=settings.precision
            )
            models.append(model)
        self._embedder = Embedder(models, settings.tags)

    def measure(self, pair: Pair) -> dict[str, Any]:
        """Return the languages and the key of the captions; BadSample for a broken image, which is then not encoded."""
        _ = pair.pixels  # decodes the image, and raises if it is broken
        texts = pair.captions.values()
        return {"languages": detect_languages(texts), "text_key": compute_text_key(texts)}

    def get_embedder(self) -> Embedder:
        return self._embedder

    def prepare(self, joins: Joins) -> None:
        """Score the embedded pairs.

        Pairs with the same languages, fold and kinds of texts form a group, and are compared with peers from it.
        """
        self._mismatched_scores: dict[str, np.ndarray] = {}  # by languages, sorted
        self._thresholds: dict[str, float] = {}  # by languages
        texts = self._embedder.texts
        columns = ", ".join(["languages", "fold", *(f"{text} is not null" for text in texts)])
        rows = "from embeddings join measures using (sample)"
        for languages, fold, *has_texts in joins.fetch_all(f"select distinct {columns} {rows} order by all"):
            group_texts = [text for text, has_text in zip(texts, has_texts, strict=True) if has_text]
            group = f"{rows} where ({columns}) = ('{languages}', {fold}, {', '.join(map(str, has_texts))})"
            query = f"select sample, text_key, image, {', '.join(group_texts)} {group}"

            # An order by hash takes peers from the whole crawl, and the same ones in every run.
            peer_batches = joins.read_batches(f"{query} order by hash(id), sample limit {MAX_PEERS}")
            peer_rows = pa.Table.from_batches(peer_batches)
            peers = Peers(_read_embeddings(peer_rows, group_texts), self.settings.neighbours)
            scores = [self._mismatched_scores.get(languages, np.zeros(0)), peers.mismatched_scores]
            self._mismatched_scores[languages] = np.sort(np.concatenate(scores))

            for batch in joins.read_batches(query):
                score_parts = []
                for start in range(0, batch.num_rows, SCORE_BATCH):
                    rows_to_score = batch.slice(start, SCORE_BATCH)
                    score_parts.append(peers.score(_read_embeddings(rows_to_score, group_texts)))
                batch_scores = pa.table({"sample": batch["sample"], "score": np.concatenate(score_parts)})
                with joins.register_tables(batch_scores=batch_scores):
                    joins.database.execute("insert into scores select sample, score from batch_scores")

    def decide(self, joins: Joins) -> None:
        """Remove pairs below the threshold of their languages."""
        settings = self.settings
        facts = joins.facts.setdefault(self.name, [])
        figures: dict[str, dict[str, Any]] = {}
        for (languages,) in joins.fetch_all(
            "select distinct languages from alive where score is not null order by all"
        ):
            query = "select score from alive where languages = ? and score is not null"
            scores = np.sort(joins.database.execute(query, [languages]).fetchnumpy()["score"])
            mismatched_scores = self._mismatched_scores[languages]
            wrong_share = estimate_wrong_share(scores, mismatched_scores)
            figures[languages] = {"num_pairs": len(scores), "wrong_share": wrong_share}
            fact = (
                f"{languages}: at most {wrong_share:.0%} of {len(scores):,} pairs are wrong, by comparison with "
                "mismatched pairs"
            )
            if settings.by == "value":
                # Cosines decide, and not the score.
                facts.append(fact)
                conditions = [f"cosine_{language} < {cosine}" for language, cosine in settings.cosine.items()]
                self._remove_misfits(joins, languages, " or ".join(conditions))
                continue

            threshold = self._choose_threshold(scores, mismatched_scores, wrong_share)
            self._thresholds[languages] = threshold.score
            figures[languages]["threshold"] = threshold._asdict()
            facts.append(
                f"{fact}; {threshold.kept_share:.0%} reach the threshold of {threshold.score:.2f}, and an "
                f"estimated {threshold.wrong_share:.0%} of these are wrong"
            )
            if settings.by == "calibrated" and threshold.wrong_share > settings.wrong:
                facts.append(
                    f"{languages}: the model does not separate right from wrong pairs well enough for only "
                    f"{settings.wrong:.0%} wrong ones"
                )

            self._remove_misfits(joins, languages, f"score < {threshold.score!r}")
        joins.figures[self.name] = figures

    def _remove_misfits(self, joins: Joins, languages: str, condition: str) -> None:
        query = f"select sample, null from alive where languages = '{languages}' and ({condition})"  # noqa: S608  -- no text of the data is in it
        joins.remove("image and caption do not fit", query)

    def _choose_threshold(self, scores: np.ndarray, mismatched_scores: np.ndarray, all_wrong_share: float) -> Threshold:
        """Return the threshold of sorted scores, an estimated share of which belongs to wrong pairs."""
        if self.settings.by == "calibrated":
            return calibrate_threshold(scores, mismatched_scores, self.settings.wrong)
        score = float(np.quantile(scores, 1 - self.settings.keep))
        kept_share = 1 - np.searchsorted(scores, score) / len(scores)
        mismatched_share = 1 - np.searchsorted(mismatched_scores, score) / len(mismatched_scores)
        return Threshold(score, float(kept_share), float(all_wrong_share * mismatched_share / kept_share))

    def explain(self, joins: Joins, reason: str, samples: Sequence[int]) -> dict[int, str]:
        if self.settings.by == "value":
            cosines = [f"format('cosine {{:.3f}} ({language})', cosine_{language}::double)" for language in LANGUAGES]
            text = f"concat_ws(', ', {', '.join(cosines)})"
            return joins.describe_samples(samples, f"select sample, {text} from pairs")  # noqa: S608  -- no text of the data is in it
        cases = []
        for languages, threshold in self._thresholds.items():
            cases.append(f"when '{languages}' then format('score {{:.2f}} < {threshold:.2f}', score)")
        return joins.describe_samples(samples, f"select sample, case languages {' '.join(cases)} end from pairs")  # noqa: S608  -- no text of the data is in it

    def histograms(self) -> Iterable[Histogram]:
        """Yield the histogram of the scores, and those of the cosines by language."""
        is_by_value = self.settings.by == "value"
        bounds = () if is_by_value else tuple(self._thresholds.values())
        yield Histogram("score", "score of image and caption", bounds)
        for language in LANGUAGES:
            bounds = ()
            if is_by_value and language in self.settings.cosine:
                bounds = (self.settings.cosine[language],)
            yield Histogram(f"cosine_{language}", f"cosine of image and caption, {language}", bounds)


def _read_embeddings(rows: pa.RecordBatch | pa.Table, texts: Sequence[str]) -> EmbeddedPairs:
    """Return the embeddings in rows with columns sample, text_key, image and these texts."""
    arrays = []
    for name in ("image", *texts):
        values = np.frombuffer(b"".join(rows[name].to_pylist()), np.float16)
        arrays.append(values.reshape(rows.num_rows, -1).astype(np.float32))
    texts_array = np.stack(arrays[1:], axis=1)  # [N, texts, D]
    return EmbeddedPairs(rows["sample"].to_numpy(), rows["text_key"].to_numpy(), arrays[0], texts_array)
