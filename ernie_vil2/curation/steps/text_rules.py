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

_TOKEN = re.compile(r"\w+")
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
        "languages": "string",
        "characters": "int32",
        "words": "int32",
        "letters": "int32",
        "han": "int32",
        "text_fault": "string",
        "text_key": "uint64",
    }

    def measure(self, pair: Pair) -> dict[str, Any]:
        """Languages, lengths, the first fault, and what a caption is once case and marks are left out.

        Characters are those of the longest caption; words and characters of the shortest English one, and the Chinese
        characters of the shortest Chinese one, are null where there is none.
        """
        texts = list(pair.captions.values())
        by_language: dict[str, list[str]] = {"zh": [], "en": [], "other": []}
        for text in texts:
            by_language[language_of(text)].append(text)
        return {
            "languages": " ".join(sorted(language for language, own in by_language.items() if own)),
            "characters": max(map(len, texts)),
            "words": min((len(_WORD.findall(text)) for text in by_language["en"]), default=None),
            "letters": min(map(len, by_language["en"]), default=None),
            "han": min((len(HAN.findall(text)) for text in by_language["zh"]), default=None),
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
        yield "caption too short", f"words < {own.words} or letters < {own.characters} or han < {own.han}"
        yield "caption too long", f"characters > {own.longest}"

    def decide(self, joins: Joins) -> None:
        """Removes captions of many images."""
        most = self.settings.images_of_a_caption
        if most is not None:
            image = "content" if joins.has("content") else "key"
            frequent = f"(select text_key from {{}} group by text_key having count(*) > {most})"
            rows = f"readable semi join {frequent.format('readable')} using (text_key)"
            many = frequent.format(f"(select distinct text_key, {image} from {rows})")  # count(distinct) spills nothing
            joins.remove("caption of many images", f"select sample, null from alive semi join {many} using (text_key)")

    def shown(self) -> Iterable[Shown]:
        """Lengths."""
        yield Shown("characters", "characters of the caption", (self.settings.longest,))
        yield Shown("words", "words of English captions", (self.settings.words,))
        yield Shown("han", "Chinese characters of Chinese captions", (self.settings.han,))


def plain(text: str) -> str:
    """A text without case, width, accents of compatibility, punctuation and repeated spaces."""
    folded = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return " ".join(_TOKEN.findall(folded.casefold()))


def text_key(texts: Iterable[str]) -> int:
    """Equal for captions that are equal as `plain` has them."""
    return int.from_bytes(blake2b("\n".join(map(plain, texts)).encode(), digest_size=8).digest(), "little")
