"""Rules on captions: what is cut off, length, language, and what is not a caption at all."""

import re
import unicodedata
from argparse import ArgumentTypeError
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Any, ClassVar, Literal

from pydantic import Field

from ernie_vil2.apps.curation.caption_measures import MEASURES, measure_captions, simplify
from ernie_vil2.apps.curation.caption_rules import TEXT_COLUMN, CaptionRules, check_examples, load_rules
from ernie_vil2.apps.curation.joins import Joins
from ernie_vil2.apps.curation.languages import HAN, detect_language
from ernie_vil2.apps.curation.rules import Rule, make_bound
from ernie_vil2.apps.curation.step import Histogram, Pair, Step
from ernie_vil2.cli import arguments
from ernie_vil2.data.selection import CUT_CAPTIONS
from ernie_vil2.io.terminal import ConfigError
from ernie_vil2.section import Count, Section

_TOKEN = re.compile(r"\w+")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+")


class Settings(Section):
    """Limits of captions."""

    languages: list[Literal["zh", "en", "other"]] = Field(
        default=["zh", "en"], description="of captions that stay, as their characters and words show them"
    )
    words: Count = Field(1, description="least number in an English caption")
    characters: Count = Field(3, description="least number in an English caption")
    han: Count = Field(1, description="least number of Chinese characters in a Chinese caption")
    longest: Count = Field(1000, description="characters of a caption at most")
    rules: list[str] = Field(
        default=["configs/curate/rules/text.yaml"],
        description="files of rules of captions; a later rule replaces an earlier one of the same name",
    )
    without: list[str] = Field(default=[], description="names of rules that are left out")
    images_of_a_caption: Count | None = Field(
        100, description="a caption that more different images than this have says nothing of any; null: any number"
    )


class TextRules(Step[Settings]):
    """Cuts captions, and removes those that are no captions by DataComp's basic rules and rules that are data.

    Measures are of the caption that is worst, where a pair has several.
    """

    name = "text_rules"
    cost = 1
    Settings = Settings
    columns: ClassVar[Mapping[str, str]] = {
        "caption": "string",
        CUT_CAPTIONS: "list<string>",
        TEXT_COLUMN: "string",
        "languages": "string",
        "characters": "int32",
        "words": "int32",
        "letters": "int32",
        "han": "int32",
        "text_key": "uint64",
        **dict.fromkeys(MEASURES, "float"),
    }

    @cached_property
    def caption_rules(self) -> CaptionRules:
        """Rules of captions in the files that the settings name."""
        try:
            paths = [arguments.configuration(path) for path in self.settings.rules]
        except ArgumentTypeError as error:
            raise ConfigError(f"text_rules.rules: {error}") from None
        return load_rules(paths, self.settings.without)

    def check(self) -> None:
        check_examples(self.caption_rules)

    def measure_dependencies(self) -> Any:
        """Return what the cuts depend on; the other rules are applied to the measures."""
        return self.caption_rules.patterns_of_cuts

    def edit(self, pairs: Sequence[Pair]) -> None:
        """Cut the captions of pairs."""
        # All captions are cut in one call: Arrow compiles a pattern once for the whole array.
        captions: list[str] = []
        for pair in pairs:
            captions += pair.captions.values()
        remaining = iter(self.caption_rules.cut(captions))
        for pair in pairs:
            pair.captions = {language: next(remaining) for language in pair.captions}

    def measure(self, pair: Pair) -> dict[str, Any]:
        """Return captions, languages, lengths, measures, and what captions are once case and marks are left out.

        Characters are those of the longest caption; words and characters of the shortest English one, and the Chinese
        characters of the shortest Chinese one, are null where there is none. Cut captions are in the order of the
        pair's fields, and null where nothing was cut.
        """
        captions = list(pair.captions.values())
        by_language: dict[str, list[str]] = {"zh": [], "en": [], "other": []}
        for caption in captions:
            by_language[detect_language(caption)].append(caption)
        is_cut = pair.captions != pair.sample.readable_captions()
        return {
            "caption": "\n".join(captions),
            CUT_CAPTIONS: captions if is_cut else None,
            TEXT_COLUMN: "\n".join(map(simplify, captions)),
            "languages": " ".join(sorted(language for language, texts in by_language.items() if texts)),
            "characters": max(map(len, captions)),
            "words": min((len(_WORD.findall(text)) for text in by_language["en"]), default=None),
            "letters": min(map(len, by_language["en"]), default=None),
            "han": min((len(HAN.findall(text)) for text in by_language["zh"]), default=None),
            "text_key": text_key(captions),
        } | measure_captions(captions)

    def rules(self) -> Iterable[Rule]:
        settings = self.settings
        for name, rule in self.caption_rules.removing.items():
            yield Rule(name, rule.condition, rule.decided)
        unwanted = [language for language in ("zh", "en", "other") if language not in settings.languages]
        if unwanted:
            conditions = [f"contains(languages, '{language}')" for language in unwanted]
            yield Rule("other language", " or ".join(conditions), "'languages: ' || languages")
        bounds = [
            make_bound("caption too short", "words", "<", settings.words),
            make_bound("caption too short", "letters", "<", settings.characters),
            make_bound("caption too short", "han", "<", settings.han, "Chinese characters"),
        ]
        cases = [f"when {bound.condition} then {bound.decided}" for bound in bounds]
        condition = " or ".join(bound.condition for bound in bounds)
        yield Rule("caption too short", condition, f"case {' '.join(cases)} end")
        yield make_bound("caption too long", "characters", ">", settings.longest)

    def decide(self, joins: Joins) -> None:
        """Remove captions of many images."""
        most = self.settings.images_of_a_caption
        if most is not None:
            image = "content" if joins.has_column("content") else "key"
            frequent = f"(select text_key from {{}} group by text_key having count(*) > {most})"  # noqa: S608  -- no text of the data is in it
            rows = f"readable semi join {frequent.format('readable')} using (text_key)"
            keys = frequent.format(f"(select distinct text_key, {image} from {rows})")  # count(distinct) spills nothing  # noqa: S608  -- no text of the data is in it
            joins.remove("caption of many images", f"select sample, null from alive semi join {keys} using (text_key)")  # noqa: S608  -- no text of the data is in it

    def histograms(self) -> Iterable[Histogram]:
        yield Histogram("characters", "characters of the caption", (self.settings.longest,))
        yield Histogram("words", "words of English captions", (self.settings.words,))
        yield Histogram("han", "Chinese characters of Chinese captions", (self.settings.han,))


def plain(text: str) -> str:
    """Return a text without case, width, accents of compatibility, punctuation and repeated spaces."""
    folded = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return " ".join(_TOKEN.findall(folded.casefold()))


def text_key(texts: Iterable[str]) -> int:
    """Return a number that is the same for captions of which `plain` makes the same."""
    return int.from_bytes(blake2b("\n".join(map(plain, texts)).encode(), digest_size=8).digest(), "little")
