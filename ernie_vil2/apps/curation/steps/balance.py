"""Make frequent concepts rarer, by MetaCLIP's rule and lists of words."""

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
from ernie_vil2.apps.curation.languages import detect_language, normalize_text
from ernie_vil2.apps.curation.step import Pair, Step
from ernie_vil2.data.selection import WeightedDraws
from ernie_vil2.device.extras import require
from ernie_vil2.io.files import read_text
from ernie_vil2.section import Count, Section

WORDNET_NOUNS = "index.noun"  # `/usr/share/wordnet/index.noun` in Debian's package wordnet-base
MAX_LISTED_WORDS = 30  # words in each table of the page


class Settings(Section):
    """Settings of the step `balance`."""

    words: dict[Literal["zh", "en"], str] = Field(
        default={}, description="for each language a file with a word per line, or WordNet's index.noun"
    )
    most: dict[str, Count] = Field(
        default={}, description="t by language, the number of captions of a word that stay; default: derived from tail"
    )
    tail: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.06, description="share of all matches that belong to rare words, from which t follows (MetaCLIP 2)"
    )
    unmatched: Literal["remove", "keep"] = Field("remove", description="what to do with captions without any word")
    by: Literal["weight", "draw"] = Field(
        "weight", description="weight: every epoch draws its own pairs; draw: the curation draws once, with the seed"
    )
    seed: int = Field(0, ge=0, description="seed of the draw of the curation")


class Balance(Step[Settings]):
    """Weights or removes pairs so that frequent words become rarer.

    Captions are matched with the words of their language. A word with more than t captions keeps each of them with
    probability t / count, and a pair stays if one of its words keeps it. So its weight is
    1 - prod(1 - min(1, t / count)) over its words (Xu et al. 2023, algorithm 1).
    """

    name = "balance"
    cost = 9
    Settings = Settings
    columns: ClassVar[Mapping[str, str]] = {"concepts": "list<int32>"}

    def check(self) -> None:
        require("the step balance", "ahocorasick")
        if not self.settings.words:
            raise ValueError(
                "balance needs lists of words: -o 'balance.words={zh: FILE, en: FILE}' (docs/curate.md says where to "
                "find some), or leave the step out: -o balance=null"
            )
        for language in self.settings.most:
            if language not in self.settings.words:
                raise ValueError(f"balance.most: {language}: no list in balance.words has this language")
        self.measure_dependencies()  # reads the lists, so that an unreadable one is an error before any work

    def measure_dependencies(self) -> Any:
        return {language: words.digest for language, words in self._word_lists.items()}

    @cached_property
    def _word_lists(self) -> Mapping[str, WordList]:
        first_number = 0
        word_lists: dict[str, WordList] = {}
        for language, path in sorted(self.settings.words.items()):
            # Chinese has no spaces between words, so a match is also counted inside a longer word.
            word_lists[language] = WordList(path, first_number, whole_words=language == "en")
            first_number += len(word_lists[language].words)
        return word_lists

    def measure(self, pair: Pair) -> dict[str, Any]:
        """Return the numbers of the words in the captions, each once."""
        numbers = set[int]()
        for text in pair.captions.values():
            word_list = self._word_lists.get(detect_language(text))
            if word_list is not None:
                numbers.update(word_list.find_words(text))
        return {"concepts": sorted(numbers)}

    def decide(self, joins: Joins) -> None:
        """Weight the remaining pairs, or draw among them, by the counts of their words."""
        if self.settings.unmatched == "remove":
            joins.remove("no concept", "select sample, null from alive where len(concepts) = 0")

        # Count the captions of each word. A word's kept share is t / count, at most 1.
        words = []
        for word_list in self._word_lists.values():
            words += word_list.words
        counts = np.zeros(len(words), np.int64)
        rows = joins.fetch_all("select unnest(concepts) as concept, count(*) from alive group by concept")
        for concept, count in rows:
            counts[concept] = count
        kept_shares = np.ones(len(words))
        facts = joins.facts.setdefault(self.name, [])
        for language, word_list in self._word_lists.items():
            numbers = slice(word_list.first_number, word_list.first_number + len(word_list.words))
            threshold = self.settings.most.get(language) or _compute_threshold(counts[numbers], self.settings.tail)
            kept_shares[numbers] = threshold / np.maximum(counts[numbers], threshold)
            num_matched = int((counts[numbers] > 0).sum())
            num_frequent = int((counts[numbers] > threshold).sum())
            facts.append(
                f"{language}: t = {threshold:,}; {num_frequent:,} of {num_matched:,} matched words have more captions"
            )
        table = pa.table({"concept": np.arange(len(words), dtype=np.int32), "kept_share": kept_shares})
        with joins.register_tables(kept_share_table=table):
            joins.database.execute("create or replace table kept_shares as select * from kept_share_table")

        # Weight the pairs, or draw by the weights.
        weight_query = (
            "select sample, id, 1 - product(1 - kept_share) as weight from "
            "(select sample, id, unnest(concepts) as concept from alive) join kept_shares using (concept) "
            "group by sample, id"
        )
        if self.settings.by == "weight":
            joins.database.execute(
                f"insert into weights select sample, weight from ({weight_query}) where weight < 1"  # noqa: S608  -- no text of the data is in it
            )
        else:
            undrawn = [np.zeros(0, np.int64)]
            for batch in joins.read_batches(weight_query):
                undrawn.append(_find_undrawn(batch, self.settings.seed))
            with joins.register_tables(undrawn=pa.table({"sample": pa.array(np.concatenate(undrawn), pa.int64())})):
                joins.remove("balance of concepts", "select sample, null from undrawn")

        # Report the words that lose most captions, and the most frequent ones that lose none.
        num_removed = counts - counts * kept_shares
        most_reduced = np.argsort(-num_removed, kind="stable").tolist()
        most_frequent = np.argsort(-counts, kind="stable").tolist()
        unreduced = [number for number in most_frequent if kept_shares[number] == 1 and counts[number]]

        def describe(number: int) -> dict[str, Any]:
            kept_share = round(float(kept_shares[number]), 4)
            return {"word": words[number], "num_captions": int(counts[number]), "kept_share": kept_share}

        joins.figures[self.name] = {
            "reduced": [describe(number) for number in most_reduced[:MAX_LISTED_WORDS]],
            "unreduced": [describe(number) for number in unreduced[:MAX_LISTED_WORDS]],
        }


def _find_undrawn(batch: pa.RecordBatch, seed: int) -> np.ndarray:
    """Return the samples that a draw leaves out, by the rule by which training draws for an epoch."""
    draws = WeightedDraws(batch["weight"].to_numpy(), batch["id"].to_numpy(), np.array([len(batch)]), seed)
    return batch["sample"].to_numpy()[~draws.are_drawn(0, 0, len(batch))]


class WordList:
    """Numbered words of a language, which can be found in a text.

    Args:
        path: file with a word per line, or WordNet's `index.noun`; the rest of a line after a tab is ignored.
        first_number: number of the first word.
        whole_words: a match inside a longer word does not count, except before a plural s.

    Attributes:
        words: the words, without case and composed (NFC); entry i has the number `first_number` + i.
        digest: digest of the words.

    Raises:
        OSError, ValueError: the file cannot be read, or has no words.
    """

    def __init__(self, path: str, first_number: int, whole_words: bool):
        import ahocorasick

        is_wordnet = Path(path).name == WORDNET_NOUNS
        min_length = 2 if whole_words else 1  # a single Latin letter is no concept
        words = []
        # Composed, as captions are below: a letter and its accent may be one character or two. splitlines() would also
        # split at characters within a word, such as U+2028.
        for line in normalize_text("NFC", read_text(path)).split("\n"):
            if is_wordnet:
                # The licence at the top is indented; other lines begin with a noun, in which _ stands for a space.
                if line.startswith(" "):
                    continue
                line = line.partition(" ")[0].replace("_", " ")
            word = line.partition("\t")[0].strip().casefold()
            if len(word) >= min_length:
                words.append(word)
        self.words = list(dict.fromkeys(words))  # without repetitions
        if not self.words:
            raise ValueError(f"{path}: no words in this file")
        self.first_number, self._whole_words = first_number, whole_words
        self.digest = blake2b("\n".join(self.words).encode(), digest_size=8).hexdigest()

        # The automaton finds all words in one pass over a text, whatever their number.
        self._automaton = ahocorasick.Automaton()
        for number, word in enumerate(self.words, first_number):
            self._automaton.add_word(word, (number, len(word)))
        self._automaton.make_automaton()

    def find_words(self, text: str) -> Iterator[int]:
        """Yield the numbers of the words in a text, as often as they occur."""
        text = normalize_text("NFC", text).casefold()
        for last, (number, length) in self._automaton.iter(text):
            if not self._whole_words or _is_whole_word(text, last + 1 - length, last + 1):
                yield number


def _is_whole_word(text: str, start: int, end: int) -> bool:
    if start and text[start - 1].isalnum():
        return False
    # A plural s belongs to the word: captions have both forms, and lists of words only the singular.
    if text[end : end + 1] == "s":
        end += 1
    return not text[end : end + 1].isalnum()


def _compute_threshold(counts: np.ndarray, tail: float) -> int:
    """Return the smallest t for which words of at most t captions have this share of all matches."""
    counts = np.sort(counts[counts > 0])
    if not len(counts):
        return 1
    cumulative_shares = np.cumsum(counts) / counts.sum()
    first = int(np.searchsorted(cumulative_shares, tail))
    return int(counts[min(first, len(counts) - 1)])
