"""Cheap rules on captions: length, language, and what is not a caption at all."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Literal

from pydantic import Field

from ernie_vil2.config.section import Count, Section
from ernie_vil2.curation.joins import Joins
from ernie_vil2.curation.languages import HAN, language_of
from ernie_vil2.curation.step import Pair, Shown, Step
from ernie_vil2.curation.text_faults import FAULTS, Fault, fault_of

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+")


class Settings(Section):
    languages: list[Literal["zh", "en", "other"]] = Field(
        default=["zh", "en"], description="of captions that stay, as their characters and words show them"
    )
    words: Count = Field(3, description="least number in an English caption")
    characters: Count = Field(6, description="least number in an English caption")
    han: Count = Field(2, description="least number of Chinese characters in a Chinese caption")
    longest: Count = Field(1000, description="characters of a caption at most")
    faults: list[Fault] = Field(default=list(FAULTS), description="what is not a caption")
    images_of_a_caption: Count | None = Field(
        100, description="a caption that more different images than this have says nothing of any; null: any number"
    )


class TextRules(Step[Settings]):
    """DataComp's basic rules, and the faults that crawls of alt text have.

    Measures are of the caption that is worst, where a pair has several.
    """

    name = "text_rules"
    cost = 1
    Settings = Settings
    columns = {
        "languages": "string", "characters": "int32", "words": "int32", "text_fault": "string", "text_key": "uint64",
    }  # fmt: skip

    def measure(self, pair: Pair) -> dict[str, Any]:
        """Languages, the least lengths, the first fault, and what a caption is once case and marks are left out."""
        texts = list(pair.captions.values())
        languages = [language_of(text) for text in texts]
        return {
            "languages": " ".join(sorted(set(languages))),
            "characters": min(map(len, texts)),
            "words": min(
                len((HAN if language == "zh" else _WORD).findall(text))
                for language, text in zip(languages, texts, strict=True)
            ),
            "text_fault": next(filter(None, map(fault_of, texts)), None),
            "text_key": text_key(texts),
        }

    def rules(self) -> Iterable[tuple[str, str]]:
        """See `Settings`."""
        own = self.settings
        unwanted = [language for language in ("zh", "en", "other") if language not in own.languages]
        yield from ((fault, f"text_fault = '{fault}'") for fault in own.faults)
        if unwanted:
            yield "other language", " or ".join(f"contains(languages, '{language}')" for language in unwanted)
        english = f"(contains(languages, 'en') and (words < {own.words} or characters < {own.characters}))"
        yield "caption too short", f"{english} or (languages = 'zh' and words < {own.han})"
        yield "caption too long", f"characters > {own.longest}"

    def decide(self, joins: Joins) -> None:
        """Removes captions of many images."""
        most = self.settings.images_of_a_caption
        if most is not None:
            image = "content" if joins.has("content") else "key"
            joins.remove(
                "caption of many images",
                "select sample, null from alive semi join (select text_key from readable group by text_key "
                f"having count(distinct {image}) > {most}) using (text_key)",
            )

    def shown(self) -> Iterable[Shown]:
        """Lengths."""
        yield Shown("characters", "characters of the caption", (self.settings.characters, self.settings.longest))
        yield Shown("words", "words of the caption, or Chinese characters", (self.settings.words,))


def plain(text: str) -> str:
    """A text without case, width, accents of compatibility, punctuation and repeated spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded))


def text_key(texts: Iterable[str]) -> int:
    """Equal for captions that are equal as `plain` has them."""
    return int.from_bytes(blake2b("\n".join(map(plain, texts)).encode(), digest_size=8).digest(), "little")
