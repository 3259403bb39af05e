"""How well image and caption fit, by a model, and a threshold for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ernie_vil2.config.section import Count, Fraction, Precision, Section
from ernie_vil2.curation.embeddings import LANGUAGES, Embedder
from ernie_vil2.curation.joins import Joins
from ernie_vil2.curation.languages import languages_of
from ernie_vil2.curation.mismatches import Mismatched, Threshold, calibrated, mismatched, wrong_share
from ernie_vil2.curation.step import Pair, Shown, Step

SAMPLE = 20_000
"""Pairs of each kind that mismatched ones are made of."""


class Settings(Section):
    model: str | list[str] = Field(
        default=[],
        description="as `eval --checkpoint` takes it; of several, the k-th scores the pairs of fold k, which it should "
        "not have learnt",
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
    """A score is the cosine of image and caption, in standard deviations above the mean of mismatched pairs.

    Of a pair with captions in several languages it is the mean. So pairs of different languages, and folds whose models
    differ, compare. The share of wrong pairs, and with it the calibrated threshold, follow from mismatched pairs
    (`curation/mismatches.py`), for each language.
    """

    name = "score"
    cost = 7
    Settings = Settings
    columns = {"languages": "string"}

    def check(self) -> None:
        """Loads the model."""
        models = [self.settings.model] if isinstance(self.settings.model, str) else self.settings.model
        if not models:
            raise ValueError("score needs a model: -o score.model=MODEL, or leave the step out: -o score=null")
        from ernie_vil2.encoder import load_model

        own = self.settings
        self._embedder = Embedder(
            [load_model(m, device=own.device, batch_size=own.batch_size, precision=own.precision) for m in models]
        )

    def measure(self, pair: Pair) -> dict[str, Any]:
        """The languages of its captions; BadSample if its image is broken, so that it is not encoded."""
        assert pair.pixels.size
        return {"languages": languages_of(pair.captions.values())}

    def embedder(self) -> Embedder:
        """The models."""
        return self._embedder

    def prepare(self, joins: Joins) -> None:
        """Makes the scores."""
        self._nulls: dict[str, np.ndarray] = {}
        groups = joins.all(
            "select languages, fold from embedded join measures using (sample) group by all order by languages, fold"
        )
        for languages, fold in groups:
            own = [language for language in LANGUAGES if language in languages.split()]
            null = self._mismatched(joins, languages, fold, own)
            self._nulls[languages] = np.sort(np.concatenate([self._nulls.get(languages, np.zeros(0)), null.scores]))
            terms = [
                f"(cosine_{language} - {mean}) / {deviation}"
                for language, mean, deviation in zip(own, null.means, null.deviations, strict=True)
            ]
            joins.database.execute(
                f"insert into scores select sample, ({' + '.join(terms)}) / {len(own)} from embedded join measures "
                "using (sample) where languages = ? and fold = ?",
                [languages, fold],
            )

    def _mismatched(self, joins: Joins, languages: str, fold: int, own: list[str]) -> Mismatched:
        texts = ", ".join(f"text_{language}" for language in own)
        rows = joins.all(
            f"select image, {texts} from embedded join measures using (sample) where languages = ? and fold = ? "
            f"order by hash(id), sample limit {SAMPLE}",
            [languages, fold],
        )
        width = len(rows[0][0]) // 2
        image, *captions = (
            np.frombuffer(b"".join(column), np.float16).reshape(-1, width).astype(np.float32)
            for column in zip(*rows, strict=True)
        )
        return mismatched(image, np.stack(captions))

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
                facts.append(f"{languages}: the model cannot tell so well that only {own.wrong:.0%} would be wrong")
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
        yield Shown("score", "score of image and caption")
        for language in LANGUAGES:
            yield Shown(f"cosine_{language}", f"cosine of image and caption, {language}")
