"""How well image and caption fit, by a model, and a threshold for it."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ernie_vil2.config.section import Count, Fraction, Precision, Section
from ernie_vil2.curation.embeddings import LANGUAGES, Embedder
from ernie_vil2.curation.joins import Joins
from ernie_vil2.curation.languages import languages_of
from ernie_vil2.curation.mismatches import Embedded, Peers, Threshold, calibrated, wrong_share
from ernie_vil2.curation.step import Pair, Shown, Step
from ernie_vil2.curation.steps.text_rules import text_key

PEERS = 20_000  # pairs of a language, fold and model that the others are compared with, at most


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
    device: str = Field("auto", description="of the model")
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
    columns = {"languages": "string", "text_key": "uint64"}

    def check(self) -> None:
        models = [self.settings.model] if isinstance(self.settings.model, str) else self.settings.model
        if not models:
            raise ValueError("score needs a model: -o score.model=MODEL, or leave the step out: -o score=null")
        from ernie_vil2.encoder import load_model

        own = self.settings
        loaded = [load_model(m, device=own.device, batch_size=own.batch_size, precision=own.precision) for m in models]
        self._embedder = Embedder(loaded, own.tags)

    def measure(self, pair: Pair) -> dict[str, Any]:
        """Of its captions languages and key; BadSample if its image is broken, so that it is not encoded."""
        assert pair.pixels.size
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
            query = f"select sample, null from alive where languages = '{languages}' and score < {threshold.score!r}"
            if own.by == "value":
                low = [f"cosine_{name} < {least}" for name, least in own.cosine.items()]
                query = f"select sample, null from alive where languages = '{languages}' and ({' or '.join(low)})"
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
