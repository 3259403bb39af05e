"""Rules on captions: what is cut off, length, language, and what is not a caption at all."""

import re
from argparse import ArgumentTypeError
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Any, ClassVar, Literal

from pydantic import Field

from ernie_vil2.apps.curation.caption_measures import MEASURES, measure_captions, simplify
from ernie_vil2.apps.curation.caption_rules import TEXT_COLUMN, CaptionRules, check_examples, load_rules
from ernie_vil2.apps.curation.joins import Joins
from ernie_vil2.apps.curation.languages import HAN, detect_language, normalize_text
from ernie_vil2.apps.curation.rules import Rule, make_bound
from ernie_vil2.apps.curation.step import Histogram, Pair, Step
from ernie_vil2.cli import arguments
from ernie_vil2.data.selection import CUT_CAPTIONS
from ernie_vil2.io.terminal import ConfigError
from ernie_vil2.section import Count, Section

_LETTERS_AND_DIGITS = re.compile(r"\w+")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+")  # letters, with an apostrophe inside, or digits


class Settings(Section):
    """Limits of captions."""

    languages: list[Literal["zh", "en", "other"]] = Field(
        default=["zh", "en"], description="of captions that stay, as their characters and words show them"
    )
    words: Count = Field(1, description="least number of words in an English caption")
    characters: Count = Field(3, description="least number of characters in an English caption")
    han: Count = Field(1, description="least number of Chinese characters in a Chinese caption")
    longest: Count = Field(1000, description="greatest number of characters in a caption")
    rules: list[str] = Field(
        default=["configs/curate/rules/text.yaml"],
        description="files of rules of captions; a later rule replaces an earlier one of the same name",
    )
    without: list[str] = Field(default=[], description="names of rules that are left out")
    images_of_a_caption: Count | None = Field(
        100,
        description="greatest number of different images with the same caption, which else says nothing of any; "
        "null: any number",
    )


class TextRules(Step[Settings]):
    """Cuts captions, and removes pairs whose captions are faulty, too short or long, or in another language.

    Limits of length and language are DataComp's basic rules; the faults are rules of files. Of several captions of a
    pair, the worst counts.
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
        """Return the patterns on which the cuts depend. Other rules are no part: they are applied to the measures."""
        return self.caption_rules.patterns_of_cuts

    def edit(self, pairs: Sequence[Pair]) -> None:
        """Cut the captions of pairs."""
        # All captions are cut in one call, because every call compiles the patterns.
        captions: list[str] = []
        for pair in pairs:
            captions += pair.captions.values()
        cut_captions = iter(self.caption_rules.cut(captions))
        for pair in pairs:
            pair.captions = {language: next(cut_captions) for language in pair.captions}

    def measure(self, pair: Pair) -> dict[str, Any]:
        """Return captions, languages, lengths, measures, and a key that is the same for equal captions.

        `characters` is the length of the longest caption. `words` and `letters` are the least numbers of words and
        characters in an English caption, and `han` that of Chinese characters in a Chinese one; null if there is none.
        Cut captions are in the order of the pair's fields; null if nothing was cut.
        """
        captions = list(pair.captions.values())
        by_language: dict[str, list[str]] = {"zh": [], "en": [], "other": []}
        for caption in captions:
            by_language[detect_language(caption)].append(caption)
        english, chinese = by_language["en"], by_language["zh"]
        languages = [language for language, texts in by_language.items() if texts]
        is_cut = pair.captions != pair.sample.readable_captions()
        return {
            "caption": "\n".join(captions),
            CUT_CAPTIONS: captions if is_cut else None,
            TEXT_COLUMN: "\n".join(map(simplify, captions)),
            "languages": " ".join(sorted(languages)),
            "characters": max(map(len, captions)),
            "words": min((len(_WORD.findall(text)) for text in english), default=None),
            "letters": min(map(len, english), default=None),
            "han": min((len(HAN.findall(text)) for text in chinese), default=None),
            "text_key": compute_text_key(captions),
        } | measure_captions(captions)

    def rules(self) -> Iterable[Rule]:
        settings = self.settings
        for name, rule in self.caption_rules.removing.items():
            yield Rule(name, rule.condition, rule.explanation)
        unwanted = [language for language in ("zh", "en", "other") if language not in settings.languages]
        if unwanted:
            conditions = [f"contains(languages, '{language}')" for language in unwanted]
            yield Rule("other language", " or ".join(conditions), "'languages: ' || languages")
        # One rule of three bounds: a null, where a pair has no caption in a language, meets none of them.
        bounds = [
            make_bound("caption too short", "words", "<", settings.words),
            make_bound("caption too short", "letters", "<", settings.characters),
            make_bound("caption too short", "han", "<", settings.han, "Chinese characters"),
        ]
        cases = [f"when {bound.condition} then {bound.explanation}" for bound in bounds]
        condition = " or ".join(bound.condition for bound in bounds)
        yield Rule("caption too short", condition, f"case {' '.join(cases)} end")
        yield make_bound("caption too long", "characters", ">", settings.longest)

    def decide(self, joins: Joins) -> None:
        """Remove pairs whose caption has too many different images."""
        max_images = self.settings.images_of_a_caption
        if max_images is None:
            return

        def select_frequent(rows: str) -> str:
            return f"(select text_key from {rows} group by text_key having count(*) > {max_images})"  # noqa: S608  -- no text of the data is in it

        # Equal images count once. They are compared only for captions of many pairs, and not by count(distinct), which
        # needs all of them in memory.
        image = "content" if joins.has_column("content") else "key"
        rows = f"readable semi join {select_frequent('readable')} using (text_key)"
        keys = select_frequent(f"(select distinct text_key, {image} from {rows})")  # noqa: S608  -- no text of the data is in it
        joins.remove("caption of many images", f"select sample, null from alive semi join {keys} using (text_key)")  # noqa: S608  -- no text of the data is in it

    def histograms(self) -> Iterable[Histogram]:
        yield Histogram("characters", "characters of the caption", (self.settings.longest,))
        yield Histogram("words", "words of English captions", (self.settings.words,))
        yield Histogram("han", "Chinese characters of Chinese captions", (self.settings.han,))


def fold_text(text: str) -> str:
    """Return the letters and digits of a text in lower case and normal width (NFKC), with a space between words."""
    return " ".join(_LETTERS_AND_DIGITS.findall(normalize_text("NFKC", text).casefold()))


def compute_text_key(texts: Iterable[str]) -> int:
    """Return a number that is the same for captions from which `fold_text` makes the same texts."""
    content = "\n".join(map(fold_text, texts)).encode()
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little")
