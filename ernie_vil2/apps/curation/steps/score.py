"""How well image and caption fit, by a model, and a threshold for it."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from pydantic import Field

from ernie_vil2.apps.curation.joins import Joins, Measured, read_rows
from ernie_vil2.apps.curation.languages import language_of, languages_of
from ernie_vil2.apps.curation.measures import Maps, name_damaged_parts
from ernie_vil2.apps.curation.mismatches import Embedded, Peers, Threshold, calibrated, wrong_share
from ernie_vil2.apps.curation.step import Pair, Shown, Step
from ernie_vil2.apps.curation.steps.text_rules import text_key
from ernie_vil2.data.augment import format_tags
from ernie_vil2.encoder import ErnieViL2, load_model
from ernie_vil2.io.files import atomic_write
from ernie_vil2.section import Count, Fraction, Name, Precision, Section

LANGUAGES = ("zh", "en", "other")
BATCH = 512  # pairs that are read at once
PEERS = 20_000  # pairs of a language, fold and model that the others are compared with, at most


@dataclass(frozen=True)
class Embedder:
    """The second pass: embeds the pairs that the rules leave, by one model or by one for each fold.

    It runs in the process that has the model, shard by shard. Like the measures, a part depends on its shard alone.

    Args:
        models: a pair of fold k, which is its id modulo their number, is embedded by the k-th.
        tags: whether tags are embedded, too, as training has them as a text.
    """

    models: Sequence[ErnieViL2]
    tags: bool = False

    @property
    def texts(self) -> list[str]:
        """Columns of embedded texts; a pair need not have all of them."""
        return [f"{kind}_{language}" for kind in ("text", "tags")[: 1 + self.tags] for language in LANGUAGES]

    def part(self, maps: Maps, shard: int) -> Measured:
        """Where the embeddings of a shard are, whether they are there already or not."""
        measured = maps.part(shard)
        made_by = [measured.path.name, [model.fingerprint for model in self.models], _conditions(maps)]
        made_by += ["tags"] * self.tags
        digest = blake2b(json.dumps(made_by).encode(), digest_size=12).hexdigest()
        return Measured(measured.path.with_name(f"{digest}-embeddings.parquet"), measured.first)

    @property
    def schema(self) -> pa.Schema:
        """Columns of a part, with their types."""
        columns = [("row", pa.int32()), ("fold", pa.int32()), ("image", pa.binary())]
        columns += [(name, pa.binary()) for name in self.texts]
        columns += [(f"cosine_{language}", pa.float32()) for language in LANGUAGES]
        return pa.schema(columns)

    def embed_shard(self, maps: Maps, shard: int) -> None:
        """Embeds the pairs of a shard that no rule removes, and writes the part when it is whole.

        Of a pair it has the row, embeddings as float16 (of its image, and of caption and tags in each language), and
        the cosine of image and caption by language.
        """
        part, measured = self.part(maps, shard), maps.part(shard)
        rules = "".join(f" and not coalesce({condition}, false)" for condition in _conditions(maps))
        with name_damaged_parts([maps.part_file(shard)]):
            chosen = read_rows(measured.path, f"row, id % {len(self.models)} as fold", f"bad is null{rules}", "row")
        with (
            atomic_write(part.path) as aside,
            aside.open("wb") as file,
            parquet.ParquetWriter(file, self.schema, compression="zstd") as writer,
        ):
            for start in range(0, len(chosen), BATCH):
                rows = chosen[start : start + BATCH]
                pairs = [Pair(maps.source[measured.first + row]) for row, _ in rows]
                embedded: list[dict[str, Any]] = [{"row": row, "fold": fold} for row, fold in rows]
                for fold, model in enumerate(self.models):
                    own = [number for number, (_, of) in enumerate(rows) if of == fold]
                    self._embed(model, [pairs[number] for number in own], [embedded[number] for number in own])
                writer.write_table(pa.Table.from_pylist(embedded, self.schema))

    def _embed(self, model: ErnieViL2, pairs: Sequence[Pair], into: Sequence[dict[str, Any]]) -> None:
        if not pairs:
            return
        images = model.encode_images([pair.sample.image for pair in pairs])
        texts = [(number, *named) for number, pair in enumerate(pairs) for named in self._texts(pair, model)]
        encoded = model.encode_texts([text for *_, text in texts])
        for row, image in zip(into, images, strict=True):
            row["image"] = image.astype(np.float16).tobytes()
        for (number, kind, language, _), text in zip(texts, encoded, strict=True):
            if f"{kind}_{language}" not in into[number]:  # of several captions in a language the first
                into[number][f"{kind}_{language}"] = text.astype(np.float16).tobytes()
                if kind == "text":
                    into[number][f"cosine_{language}"] = float(images[number] @ text)

    def _texts(self, pair: Pair, model: ErnieViL2) -> Iterator[tuple[str, str, str]]:
        """Kind, language and text of its captions and tags."""
        for text in pair.captions.values():
            yield "text", language_of(text), text
        for named, tags in pair.sample.tags.items() if self.tags else ():
            language = named or language_of(" ".join(tags))
            if tags and language in LANGUAGES and language in model.config.Views.prompts:
                yield "tags", language, format_tags(tags, language, model.config.Views)


def _conditions(maps: Maps) -> list[str]:
    return [f"({condition})" for step in maps.steps for _, condition in step.rules()]


class Settings(Section):
    model: str | list[str] = Field(
        default=[],
        description="as `eval --checkpoint` takes it; of several, the k-th scores the pairs of fold k, which it should "
        "not have learnt",
    )
    tags: bool = Field(False, description="tags count as well, as training has them as a text")
    neighbours: Annotated[int, Field(ge=0)] = Field(
        0,
        description="other texts and images that a pair is compared with, and pairs of like images whose texts are "
        "asked; 0: image and text alone count",
    )
    by: Literal["calibrated", "quantile", "value"] = Field("calibrated", description="which of the next three counts")
    wrong: Fraction = Field(0.1, description="calibrated: share of wrong pairs that is tolerated among those that stay")
    keep: Fraction = Field(0.3, description="quantile: share that stays, of each language")
    cosine: dict[Literal["zh", "en", "other"], float] = Field(
        default={"zh": 0.26, "en": 0.28}, description="value: least cosine by language"
    )
    device: Name = Field("auto", description="of the model")
    precision: Precision = Field("float32", description="of the model")
    batch_size: Count = Field(128, description="rows encoded at once")


class Score(Step[Settings]):
    """A score is in standard deviations above the mean of mismatched pairs, see `Peers`.

    So pairs of different languages, and folds whose models differ, compare. The share of wrong pairs, and with it the
    calibrated threshold, follow from mismatched pairs (`curation/mismatches.py`), for each language.
    """

    name = "score"
    cost = 7
    Settings = Settings
    columns: ClassVar[Mapping[str, str]] = {"languages": "string", "text_key": "uint64"}

    def check(self) -> None:
        models = [self.settings.model] if isinstance(self.settings.model, str) else self.settings.model
        if not models:
            raise ValueError("score needs a model: -o score.model=MODEL, or leave the step out: -o score=null")
        own = self.settings
        loaded = [load_model(m, device=own.device, batch_size=own.batch_size, precision=own.precision) for m in models]
        self._embedder = Embedder(loaded, own.tags)

    def measure(self, pair: Pair) -> dict[str, Any]:
        """Of its captions languages and key; BadSample if its image is broken, so that it is not encoded."""
        _ = pair.pixels  # decodes them
        texts = pair.captions.values()
        return {"languages": languages_of(texts), "text_key": text_key(texts)}

    def embedder(self) -> Embedder:
        return self._embedder

    def prepare(self, joins: Joins) -> None:
        self._nulls: dict[str, np.ndarray] = {}
        self._thresholds: dict[str, float] = {}
        texts = self._embedder.texts
        columns = ", ".join(["languages", "fold", *(f"{text} is not null" for text in texts)])
        rows = "from embedded join measures using (sample)"
        for languages, fold, *there in joins.all(f"select distinct {columns} {rows} order by all"):
            own = [text for text, is_there in zip(texts, there, strict=True) if is_there]
            alike = f"{rows} where ({columns}) = ('{languages}', {fold}, {', '.join(map(str, there))})"
            selected = f"select sample, text_key, image, {', '.join(own)} {alike}"
            first = pa.Table.from_batches(joins.rows(f"{selected} order by hash(id), sample limit {PEERS}"))
            peers = Peers(_embedded(first, own), self.settings.neighbours)
            null = [self._nulls.get(languages, np.zeros(0)), peers.mismatched]
            self._nulls[languages] = np.sort(np.concatenate(null))
            for batch in joins.rows(selected):
                scored = {"sample": batch["sample"], "score": peers.score(_embedded(batch, own))}
                with joins.given(scored=pa.table(scored)):
                    joins.database.execute("insert into scores select sample, score from scored")

    def decide(self, joins: Joins) -> None:
        """Removes what is below the threshold of its language."""
        own, facts, figures = self.settings, joins.facts.setdefault(self.name, []), {}
        for (languages,) in joins.all("select distinct languages from alive where score is not null order by all"):
            found = joins.database.execute(
                "select score from alive where languages = ? and score is not null", [languages]
            )
            scores = np.sort(found.fetchnumpy()["score"])
            null = self._nulls[languages]
            share = wrong_share(scores, null)
            threshold = self._threshold(scores, null)
            self._thresholds[languages] = threshold.score
            figures[languages] = {"pairs": len(scores), "wrong": share, "threshold": threshold._asdict()}
            facts.append(
                f"{languages}: of {len(scores):,} pairs at most {share:.0%} are wrong, as mismatched pairs score; "
                f"{threshold.kept:.0%} have the threshold of {threshold.score:.2f}, and {threshold.wrong:.0%} wrong "
                "ones are expected among them"
            )
            query = f"select sample, null from alive where languages = '{languages}' and score < {threshold.score!r}"  # noqa: S608  -- no text of the data is in it
            if own.by == "value":
                low = [f"cosine_{name} < {least}" for name, least in own.cosine.items()]
                query = f"select sample, null from alive where languages = '{languages}' and ({' or '.join(low)})"  # noqa: S608  -- no text of the data is in it
            if own.by == "calibrated" and threshold.wrong > own.wrong:
                facts.append(
                    f"{languages}: the model does not separate well enough for only {own.wrong:.0%} to be wrong"
                )
            joins.remove("image and caption do not fit", query)
        joins.figures[self.name] = figures

    def _threshold(self, scores: np.ndarray, null: np.ndarray) -> Threshold:
        own = self.settings
        if own.by == "calibrated":
            return calibrated(scores, null, own.wrong)
        score = float(np.quantile(scores, 1 - own.keep)) if own.by == "quantile" else float(scores[0])
        kept = 1 - np.searchsorted(scores, score) / len(scores)
        above = 1 - np.searchsorted(null, score) / len(null)
        return Threshold(score, float(kept), float(wrong_share(scores, null) * above / kept))

    def shown(self) -> Iterable[Shown]:
        """The scores, and cosines by language."""
        by_value = self.settings.by == "value"
        yield Shown("score", "score of image and caption", () if by_value else tuple(self._thresholds.values()))
        for language in LANGUAGES:
            least = [self.settings.cosine[language]] if by_value and language in self.settings.cosine else []
            yield Shown(f"cosine_{language}", f"cosine of image and caption, {language}", tuple(least))


def _embedded(rows: pa.RecordBatch | pa.Table, texts: Sequence[str]) -> Embedded:
    """Rows with columns sample, text_key, image and these texts, as float16."""
    images, *columns = (
        np.frombuffer(b"".join(rows[name].to_pylist()), np.float16).reshape(rows.num_rows, -1).astype(np.float32)
        for name in ("image", *texts)
    )
    return Embedded(rows["sample"].to_numpy(), rows["text_key"].to_numpy(), images, np.stack(columns, axis=1))
