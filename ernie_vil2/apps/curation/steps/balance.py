"""Concepts that are too frequent become rarer, by MetaCLIP's rule against a list of words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ernie_vil2.apps.curation.joins import Joins
from ernie_vil2.apps.curation.languages import language_of
from ernie_vil2.apps.curation.step import Pair, Step
from ernie_vil2.data.selection import WeightedDraws
from ernie_vil2.device.extras import require
from ernie_vil2.io.files import read_text
from ernie_vil2.section import Count, Section

NOUNS = "index.noun"  # WordNet's file of nouns: `/usr/share/wordnet/index.noun` of Debian's package wordnet-base
SHOWN = 30


class Settings(Section):
    words: dict[Literal["zh", "en"], str] = Field(
        default={}, description="by language a file with a word per line, or WordNet's index.noun"
    )
    most: dict[str, Count] = Field(
        default={}, description="t, captions of a word that stay; of languages that are not named, `tail` says it"
    )
    tail: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.06, description="share of all matches that rare words have: t of a language follows from it (MetaCLIP 2)"
    )
    unmatched: Literal["remove", "keep"] = Field("remove", description="what becomes of captions without any word")
    by: Literal["weight", "draw"] = Field(
        "weight", description="weight: a pair is drawn for each epoch; draw: once, here, with the seed"
    )
    seed: int = Field(0, ge=0, description="of that draw")


class Balance(Step[Settings]):
    """Each caption is matched with the words of its language.

    A word with more than t captions keeps each with probability t / count; a pair stays if one of its words keeps it:
    its weight is 1 - prod(1 - min(1, t / count)) over its words (Xu et al. 2023, algorithm 1).
    """

    name = "balance"
    cost = 9
    Settings = Settings
    columns: ClassVar[Mapping[str, str]] = {"concepts": "list<int32>"}

    def check(self) -> None:
        require("the step balance", "ahocorasick")
        if not self.settings.words:
            raise ValueError(
                "balance needs lists of words: -o 'balance.words={zh: FILE, en: FILE}' (docs/curate.md says where "
                "there are some), or leave the step out: -o balance=null"
            )
        self.measured_by()  # reads the lists: one that cannot be read is an error before any work

    def measured_by(self) -> Any:
        return {language: matcher.digest for language, matcher in self._matchers.items()}

    @cached_property
    def _matchers(self) -> Mapping[str, Words]:
        first, made = 0, dict[str, Words]()
        for language, path in sorted(self.settings.words.items()):
            made[language] = Words(path, first, bounded=language == "en")
            first += len(made[language].words)
        return made

    def measure(self, pair: Pair) -> dict[str, Any]:
        """The numbers of the words that its captions hold, each once."""
        found = set[int]()
        for text in pair.captions.values():
            matcher = self._matchers.get(language_of(text))
            if matcher is not None:
                found.update(matcher.found(text))
        return {"concepts": sorted(found)}

    def decide(self, joins: Joins) -> None:
        """Weights, or draws, by the counts of what is alive."""
        own, db = self.settings, joins.database
        if own.unmatched == "remove":
            joins.remove("no concept", "select sample, null from alive where len(concepts) = 0")
        counts = np.zeros(sum(len(matcher.words) for matcher in self._matchers.values()), np.int64)
        for concept, count in joins.all("select unnest(concepts) as concept, count(*) from alive group by concept"):
            counts[concept] = count
        shares, facts = np.ones(len(counts)), joins.facts.setdefault(self.name, [])
        for language, matcher in self._matchers.items():
            rows = slice(matcher.first, matcher.first + len(matcher.words))
            most = own.most.get(language) or _threshold(counts[rows], own.tail)
            shares[rows] = most / np.maximum(counts[rows], most)
            over = int((counts[rows] > most).sum())
            facts.append(
                f"{language}: t = {most:,}; {over:,} of {int((counts[rows] > 0).sum()):,} words found have more"
            )
        words = [word for matcher in self._matchers.values() for word in matcher.words]
        with joins.given(given=pa.table({"concept": np.arange(len(shares), dtype=np.int32), "share": shares})):
            db.execute("create or replace table shares as select * from given")
        weighted = (
            "select sample, id, 1 - product(1 - share) as weight from "
            "(select sample, id, unnest(concepts) as concept from alive) join shares using (concept) "
            "group by sample, id"
        )
        if own.by == "weight":
            db.execute(f"insert into weights select sample, weight from ({weighted}) where weight < 1")  # noqa: S608  -- no text of the data is in it
        else:
            gone = np.concatenate([_not_drawn(batch, own.seed) for batch in joins.rows(weighted)] or [np.zeros(0, int)])
            with joins.given(gone=pa.table({"sample": pa.array(gone, pa.int64())})):
                joins.remove("balance of concepts", "select sample, null from gone")
        kept = counts * shares
        order = np.argsort(-(counts - kept), kind="stable")[:SHOWN]
        rare = [row for row in np.argsort(-counts, kind="stable").tolist() if shares[row] == 1 and counts[row]][:SHOWN]
        joins.figures[self.name] = {
            name: [
                {"word": words[row], "captions": int(counts[row]), "stay": round(float(shares[row]), 4)} for row in rows
            ]
            for name, rows in (("cut", order.tolist()), ("kept", rare))
        }


def _not_drawn(batch: pa.RecordBatch, seed: int) -> np.ndarray:
    """The samples that a draw leaves out, by the rule of `Data.select`."""
    draws = WeightedDraws(batch["weight"].to_numpy(), batch["id"].to_numpy(), np.array([len(batch)]), seed)
    return batch["sample"].to_numpy()[~draws.are_drawn(0, 0, len(batch))]


class Words:
    """The words of a language, numbered from `first`, and where they are in a text.

    Args:
        path: a word per line, or WordNet's `index.noun`; what follows a tab is left out.
        bounded: a word counts only if it is not part of a longer one, with or without a plural s.

    Raises:
        OSError, ValueError: it cannot be read, or holds no words.
    """

    def __init__(self, path: str, first: int, bounded: bool):
        import ahocorasick

        lines = read_text(path).splitlines()
        if Path(path).name == NOUNS:
            lines = [line.partition(" ")[0].replace("_", " ") for line in lines if not line.startswith(" ")]
        words = (line.partition("\t")[0].strip().casefold() for line in lines)
        self.words = list(dict.fromkeys(word for word in words if len(word) > bounded))
        if not self.words:
            raise ValueError(f"{path}: no words in this file")
        self.first, self._bounded = first, bounded
        self.digest = blake2b("\n".join(self.words).encode(), digest_size=8).hexdigest()
        self._automaton = ahocorasick.Automaton()
        for number, word in enumerate(self.words, first):
            self._automaton.add_word(word, (number, len(word)))
        self._automaton.make_automaton()

    def found(self, text: str) -> Iterator[int]:
        """The numbers of the words in a text, as often as they are there."""
        text = text.casefold()
        for last, (number, length) in self._automaton.iter(text):
            if not self._bounded or _is_word(text, last + 1 - length, last + 1):
                yield number


def _is_word(text: str, start: int, end: int) -> bool:
    if start and text[start - 1].isalnum():
        return False
    if text[end : end + 1] == "s":
        end += 1
    return not text[end : end + 1].isalnum()


def _threshold(counts: np.ndarray, tail: float) -> int:
    """The smallest t for which words of at most t captions have this share of all matches."""
    ordered = np.sort(counts[counts > 0])
    if not len(ordered):
        return 1
    shares = np.cumsum(ordered) / ordered.sum()
    return int(ordered[min(int(np.searchsorted(shares, tail)), len(ordered) - 1)])
