"""Rules of captions, read from a YAML file that has a reason and examples for each; these are tried at every start.

A rule removes captions, or cuts a remark off an end of them. Patterns are those of RE2
(https://github.com/google/re2/wiki/Syntax), which DuckDB and Arrow bring: the time of any pattern is proportional to
the length of a caption, so that neither a stranger's caption nor a user's pattern can stop a curation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
from pyarrow import compute
from pydantic import Field, ValidationError, model_validator

from ernie_vil2.apps.curation.caption_measures import MEASURES, measure_captions, simplify
from ernie_vil2.apps.curation.languages import HAN
from ernie_vil2.apps.curation.markup import strip_markup
from ernie_vil2.config.load import describe_problems, read_yaml
from ernie_vil2.io.terminal import ConfigError
from ernie_vil2.section import Name, Section

TEXT_COLUMN = "simple_captions"
"""Column of the measures with the simple form of a pair's captions, each on a line."""
# Flags in front of every pattern: ^ and $ are the ends of a caption or of its lines, and case does not matter, except
# in `(?-i:...)`. If $ were the end of the text alone, RE2 would search backwards, which takes up to 40 times as long
# for a list of remarks.
FLAGS = "(?mi)"
# Marks, emoji and spaces around a pattern that has to be the whole caption. Ranges, because RE2 takes a hundred times
# as long to compile "neither a letter nor a digit". The sign of Kelvin (U+212A) is left out: without regard to case it
# is a K.
_MARKS = (
    r"[\x{1}-\x{9}\x{B}-\x{2F}\x{3A}-\x{40}\x{5B}-\x{60}\x{7B}-\x{BF}\x{2000}-\x{2129}\x{212C}-\x{2BFF}\x{3000}-\x{303F}"
    r"\x{FE00}-\x{FE0F}\x{1F000}-\x{1FAFF}]*"
)
# What separates a remark from the caption in front of it: marks, which are cut off, too, the end of a sentence, which
# stays, a wide space, or a line break.
_BEFORE_REMARK = (
    r"(?:[\s\x{3000}]*[|¦,;，；、·•/\\\-–—:：>»›~～*(（\[【《“]+[\s\x{3000}]*|([.!?。！？…”\"\x27)）\]】])[\s\x{3000}]*"
    r"|\s\s+|\x{3000}|\n)"
)
_AFTER_REMARK = r"[\s\x{3000}]*(?:[|¦.!?。！？…:：)）\]】»›~～]+|\s[\-–—/]+\s|\n)[\s\x{3000}]*"
_MARKS_AT_START = r"[\s\x{3000}|¦*#>»•·:：\-–—(（\[【~～“”\"\x27]*"
_MARKS_AT_END = (
    r"[\s\x{3000}|¦.。!！?？,，;；:：…)）\]】>»›”\"\x27~～*_•·\x{FE0F}\x{1F300}-\x{1FAFF}\x{2600}-\x{27BF}-]*"
)
_BETWEEN_REMARKS = r"[\s\x{3000}|¦,;.!?，；。！？…:：()（）\[\]【】»›>~～/&+\-–—·•]*"
# Characters that are stripped where something was cut off. Dots, question marks and quotation marks stay, because they
# end a sentence, and at the start so do opening brackets.
_LOOSE_ENDS = " \t\r\n\u3000|-–—,，、;；:：/\\>»•·([（【"
_LOOSE_STARTS = " \t\r\n\u3000|-–—,，、;；:：/\\~>»•·"
_WORD = re.compile(r"[^\W\d_]{3,}")  # a shorter word alone is no caption
_SENTENCE_END = re.compile(r"[!?]\s+|[。！？…\n]+\s*|(?<=\w\w\w)\.\s+|\s[-–—|]\s|[｜】]\s*")
# Escapes, quotations and classes of characters. In them a parenthesis begins no group, braces (as in \p{Han}) hold no
# name of a list, and spaces stay spaces. A class may contain others by name, such as [:punct:].
_ESCAPE_OR_CLASS = re.compile(
    r"\\(?:[pPx]\{[^{}]*\}|Q.*?(?:\\E|$)|.)|\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]", re.DOTALL
)
# Matches what stays as it is, or what `_expand` replaces: the name of a list in braces, or a space. Numbers in braces
# say how often something comes.
_PLACEHOLDER = re.compile(
    _ESCAPE_OR_CLASS.pattern + r"|\{(?!\d+(?:,\d*)?\})(?P<name>[^{}]+)\}|(?P<space> \??)", re.DOTALL
)
_GROUP_START = re.compile(r"\((?!\?)|\(\?P?<")
# How often all cutting rules are applied in turn: a caption may end in a credit, an address, and tags. As rules of what
# stands at the outer end come first in the file, two rounds are enough for most. Each takes some tens of milliseconds,
# in which the patterns are compiled.
_MAX_ROUNDS = 2


# An empty list would be a pattern that fits everywhere.
_Phrases = Annotated[list[Name], Field(min_length=1)]


class Cut(NamedTuple):
    """What a rule cuts off.

    pattern: pattern, with the flags.
    replacement: what takes its place: nothing, or what the first group of the pattern matches.
    """

    pattern: str
    replacement: str


class Examples(Section):
    """Captions that a rule removes and does not remove, and captions before and after it cuts."""

    removed: list[Name] = Field(default=[], description="captions that the rule removes")
    kept: list[Name] = Field(default=[], description="captions that the rule neither removes nor changes")
    cut: dict[str, str] = Field(default={}, description="captions before the cut and after it")


class CaptionRule(Section):
    """A fault of captions, and what is done about it. Its fields are those of a rule in the file."""

    why: Name = Field(description="why such a caption is no good, for people")
    action: Literal["remove", "cut"] = Field("remove", description="remove the pair, or cut off what the pattern finds")
    words: dict[str, _Phrases] = Field(
        default={}, description="lists of this rule by name, which patterns name in braces"
    )
    pattern: list[Name] = Field(
        default=[], description="patterns of RE2, one of which has to be found; case does not matter"
    )
    whole: list[Name] = Field(
        default=[], description="patterns, one of which has to be the whole caption, except marks at its ends"
    )
    remark: list[Name] = Field(
        default=[],
        description="patterns of remarks, which are cut off where marks set them apart at an end of the caption, and "
        "of which a caption may not consist",
    )
    above: dict[str, float] = Field(
        default={}, description="measures of a caption, one of which has to be greater than its bound"
    )
    unless: list[Name] = Field(
        default=[], description="patterns; a caption with one of them stays, whatever pattern and whole find in it"
    )
    examples: Examples = Field(default=Examples(), description="captions on which the rule is tried")

    @model_validator(mode="after")
    def _check(self) -> CaptionRule:
        if not (self.pattern or self.whole or self.remark or self.above):
            raise ValueError("a rule needs pattern, whole, remark, or above with a bound of a measure")
        if self.action == "cut" and (self.above or self.unless):
            raise ValueError("only pattern and remark can say what to cut off")
        for name in self.above:
            if name not in MEASURES:
                raise ValueError(f"above: no measure {name!r}; there are {', '.join(MEASURES)}")
        return self

    def expand(self, lists: Mapping[str, str]) -> CaptionRule:
        """Return the rule with patterns in which names of lists and spaces are replaced (see `_expand`).

        Args:
            lists: patterns by name, of the lists that all rules can use.

        Raises:
            ValueError: a pattern names an unknown list.
        """
        lists = _expand_lists(self.words, lists)
        fields = {}
        for field in ("pattern", "whole", "remark", "unless"):
            fields[field] = [_expand(pattern, lists) for pattern in getattr(self, field)]
        return self.model_copy(update=fields)

    @property
    def whole_pattern(self) -> str:
        """Pattern of a caption that consists of the fault and marks, with the flags; empty if there is none."""
        patterns = [*self.whole, *self.remark]
        if not patterns:
            return ""
        repeated = "+" if self.remark else ""  # several remarks, one after the other
        return f"{FLAGS}^{_MARKS}(?:(?:{_join(patterns)}){_MARKS}){repeated}$"

    @property
    def removal_pattern(self) -> str:
        """Pattern of the captions that are removed, with the flags; empty if there is none."""
        patterns: list[str] = []
        if self.action == "remove":
            patterns += self.pattern
        if self.whole_pattern:
            patterns.append(self.whole_pattern.removeprefix(FLAGS))
        return FLAGS + _join(patterns) if patterns else ""

    @property
    def exception_pattern(self) -> str:
        """Pattern of captions that stay although they match removal_pattern, with the flags; empty if there is none."""
        return FLAGS + _join(self.unless) if self.unless else ""

    @property
    def removes_by_piece(self) -> bool:
        """Whether a piece of a caption is enough for the rule to remove it."""
        return self.action == "remove" and bool(self.pattern)

    @property
    def cuts(self) -> list[Cut]:
        """What is cut off."""
        cuts = []
        if self.action == "cut":
            for pattern in self.pattern:
                has_group = _GROUP_START.search(_ESCAPE_OR_CLASS.sub("", pattern))
                cuts.append(Cut(FLAGS + pattern, r"\1" if has_group else ""))
        if self.remark:
            # Once in each pattern, because a long one takes milliseconds to compile.
            remarks = f"(?:(?:{_join(self.remark)}){_BETWEEN_REMARKS})+"
            cuts.append(Cut(f"{FLAGS}{_BEFORE_REMARK}{remarks}{_MARKS_AT_END}$", r"\1"))
            cuts.append(Cut(f"{FLAGS}^{_MARKS_AT_START}{remarks}{_AFTER_REMARK}", ""))
        return cuts

    @property
    def condition(self) -> str:
        """SQL condition on the measures of a pair, true if its captions have the fault."""
        conditions = []
        if self.removal_pattern:
            conditions.append(self._pattern_condition)
        for measure, bound in self.above.items():
            conditions.append(f"{measure} > {bound!r}")
        return " or ".join(conditions)

    @property
    def explanation(self) -> str:
        """SQL of a text that says what meets the condition: a piece of the captions, or a measure and its bound."""
        cases = []
        if self.removal_pattern:
            piece = f"regexp_extract({TEXT_COLUMN}, {_quote(self.removal_pattern)})"
            cases.append(f"when {self._pattern_condition} then '“' || trim({piece}) || '”'")
        for measure, bound in self.above.items():
            text = f"format('{measure} {{:.2g}} > {bound:.2g}', {measure}::double)"
            cases.append(f"when {measure} > {bound!r} then {text}")
        return f"case {' '.join(cases)} end"

    @property
    def _pattern_condition(self) -> str:
        """SQL condition, true if the captions match the patterns that remove them, and no exception."""
        condition = f"regexp_matches({TEXT_COLUMN}, {_quote(self.removal_pattern)})"
        if self.unless:
            condition = f"({condition} and not regexp_matches({TEXT_COLUMN}, {_quote(self.exception_pattern)}))"
        return condition


def _quote(text: str) -> str:
    """Return a text as a literal of SQL."""
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


def _expand_lists(words: Mapping[str, Sequence[str]], lists: Mapping[str, str]) -> dict[str, str]:
    """Return the patterns of known lists and of new ones by name.

    Args:
        words: new lists: the phrases of each, in which earlier lists can be named.
        lists: patterns of the known lists.

    Raises:
        ValueError: a list names one that is not above it.
    """
    expanded_lists = dict(lists)
    for name, phrases in words.items():
        expanded_lists[name] = _expand(f"(?:{'|'.join(phrases)})", expanded_lists)
    return expanded_lists


def _expand(pattern: str, lists: Mapping[str, str]) -> str:
    """Return a pattern with lists in the place of their names in braces, and any white space in the place of a space.

    A space with a question mark behind it may also be none.
    """

    def replace(match: re.Match[str]) -> str:
        name, space = match["name"], match["space"]
        if space:
            return r"\s*" if space == " ?" else r"\s+"
        if name is None:
            return match[0]
        if name not in lists:
            raise ValueError(f"no list of words {name!r} above it; there are {', '.join(lists) or 'none'}")
        return lists[name]

    return _PLACEHOLDER.sub(replace, pattern)


def _join(patterns: Sequence[str]) -> str:
    """Return the pattern that has these patterns as alternatives."""
    return "|".join(f"(?:{pattern})" for pattern in patterns)


class _RuleFile(Section):
    words: dict[str, _Phrases] = Field(default={}, description="lists by name, which patterns name in braces")
    rules: dict[str, CaptionRule]


class CaptionRules:
    """Rules by name, in the order in which they are tried.

    Attributes:
        removing: rules that remove captions.
        cutting: rules that cut captions. A rule with remarks does both.
    """

    def __init__(self, rules: Mapping[str, CaptionRule]):
        self.removing = {name: rule for name, rule in rules.items() if rule.removal_pattern or rule.above}
        self.cutting = {name: rule for name, rule in rules.items() if rule.cuts}

    @property
    def patterns_of_cuts(self) -> list[str]:
        """All patterns on which the result of `cut` depends."""
        patterns = []
        for rule in self.removing.values():
            patterns += [rule.whole_pattern, rule.removal_pattern, rule.exception_pattern]
        for rule in self.cutting.values():
            patterns += [cut.pattern for cut in rule.cuts]
        return patterns

    def cut(self, captions: Sequence[str]) -> list[str]:
        """Return captions without markup and without what the rules cut off.

        A caption is not cut if no word or fewer than two Chinese characters would be left, or if all of it is a fault:
        "Photo: Jane Doe" is the name of an author, and not a caption "Jane Doe" with a remark in front of it.
        """
        plain_captions = [strip_markup(caption) for caption in captions]
        if not self.cutting:
            return plain_captions
        cut_captions = self._cut_ends(plain_captions)

        # Captions that are a fault as a whole are restored, so that a rule removes them.
        changed = [number for number, plain in enumerate(plain_captions) if cut_captions[number] != plain]
        are_faults = self._match_whole([plain_captions[number] for number in changed])
        for number, is_fault in zip(changed, are_faults, strict=True):
            if is_fault:
                cut_captions[number] = plain_captions[number]

        # So are captions with a fault anywhere, if a single word is left, which says too little.
        single_words = [number for number in changed if _is_single_word(cut_captions[number])]
        have_faults = self._match_removal([plain_captions[number] for number in single_words])
        for number, has_fault in zip(single_words, have_faults, strict=True):
            if has_fault:
                cut_captions[number] = plain_captions[number]
        return self._drop_faulty_sentences(cut_captions)

    def _cut_ends(self, captions: Sequence[str]) -> list[str]:
        """Return captions without what the patterns of all cutting rules find."""
        cut_captions = list(captions)
        # A round looks only at captions that the round before has changed.
        numbers = list(range(len(captions)))
        for _ in range(_MAX_ROUNDS):
            texts = [cut_captions[number] for number in numbers]
            array = pa.array(texts, pa.string())
            for rule in self.cutting.values():
                for cut in rule.cuts:
                    array = _cut_captions(array, cut)
            changed = []
            for number, text, shorter in zip(numbers, texts, array.to_pylist(), strict=True):
                if shorter != text:
                    cut_captions[number] = shorter.rstrip(_LOOSE_ENDS).lstrip(_LOOSE_STARTS)
                    changed.append(number)
            numbers = changed
        return cut_captions

    def _drop_faulty_sentences(self, captions: Sequence[str]) -> list[str]:
        """Return captions without sentences at their ends for which a rule would remove the whole caption.

        A caption without a good sentence, or with a faulty one between good ones, stays as it is.
        """
        # The sentences of all captions are matched in one call, because every call compiles the patterns.
        spans_by_number = {number: _find_sentences(captions[number]) for number in self._find_suspects(captions)}
        sentences = []
        for number, spans in spans_by_number.items():
            sentences += [captions[number][start:stop] for start, stop in spans]
        are_faults = iter(self._match_removal(sentences))

        remainders = list(captions)
        for number, spans in spans_by_number.items():
            are_good = [not next(are_faults) for _ in spans]
            if all(are_good) or not any(are_good):
                continue
            first = are_good.index(True)
            stop = len(are_good) - are_good[::-1].index(True)
            remainder = captions[number][spans[first][0] : spans[stop - 1][1]].strip().rstrip(_LOOSE_ENDS)
            if all(are_good[first:stop]) and not _is_single_word(remainder):
                remainders[number] = remainder
        return remainders

    def _find_suspects(self, captions: Sequence[str]) -> list[int]:
        """Return the indices of captions of several sentences of which a piece, but not the whole, is a fault."""
        numbers = [number for number, caption in enumerate(captions) if _SENTENCE_END.search(caption)]
        patterns = [FLAGS + _join(rule.pattern) for rule in self.removing.values() if rule.removes_by_piece]
        have_faults = _match_any([captions[number] for number in numbers], patterns)
        suspects = [number for number, has_fault in zip(numbers, have_faults, strict=True) if has_fault]
        # A piece of a whole fault may look good by itself: a camera, in front of its settings.
        are_whole_faults = self._match_whole([captions[number] for number in suspects])
        return [number for number, is_fault in zip(suspects, are_whole_faults, strict=True) if not is_fault]

    def _match_whole(self, captions: Sequence[str]) -> list[bool]:
        """Return whether all of each caption is a fault."""
        return _match_any(captions, [rule.whole_pattern for rule in self.removing.values()])

    def _match_removal(self, captions: Sequence[str]) -> list[bool]:
        """Return whether a pattern of a rule removes each caption."""
        are_removed = np.zeros(len(captions), bool)
        for rule in self.removing.values():
            matches = np.array(_match_any(captions, [rule.removal_pattern]), bool)
            if rule.unless and matches.any():
                matches &= ~np.array(_match_any(captions, [rule.exception_pattern]), bool)
            are_removed |= matches
        return are_removed.tolist()

    def find_faults(self, captions: Sequence[str]) -> list[str | None]:
        """Return for each caption the name of the first rule that removes it, or None."""
        if not captions:
            return []
        rows = []
        for number, caption in enumerate(captions):
            rows.append({"number": number, TEXT_COLUMN: simplify(caption)} | measure_captions([caption]))
        cases = [f"when {rule.condition} then {_quote(name)}" for name, rule in self.removing.items()]
        case = f"case {' '.join(cases)} end" if cases else "null"
        # The same SQL as for the table of a curation, so that an example is judged as a pair would be.
        with duckdb.cursor() as database:
            database.register("captions", pa.Table.from_pylist(rows))
            faults = database.execute(f"select {case} from captions order by number").fetchall()  # noqa: S608  -- rules are of the user
        return [name for (name,) in faults]


def _cut_captions(captions: pa.StringArray, cut: Cut) -> pa.StringArray:
    """Return captions without what is cut off; a caption of which too little would be left is not cut."""
    shorter_captions = compute.replace_substring_regex(captions, pattern=cut.pattern, replacement=cut.replacement)
    changed = compute.indices_nonzero(compute.not_equal(captions, shorter_captions)).to_pylist()
    if all(_is_enough(shorter_captions[number].as_py()) for number in changed):
        return shorter_captions
    texts = shorter_captions.to_pylist()
    for number in changed:
        if not _is_enough(texts[number]):
            texts[number] = captions[number].as_py()
    return pa.array(texts, pa.string())


def _find_sentences(text: str) -> list[tuple[int, int]]:
    """Return start and end of each sentence, which a mark, a bar, a dash or a line break ends."""
    stops = [match.end() for match in _SENTENCE_END.finditer(text)]
    starts = [0, *stops]
    spans = zip(starts, [*stops, len(text)], strict=True)
    return [(start, stop) for start, stop in spans if text[start:stop].strip()]


def _match_any(captions: Sequence[str], patterns: Iterable[str]) -> list[bool]:
    """Return whether one of the patterns matches the simple form of each caption; empty patterns match nothing."""
    if not captions:  # a shortcut: Arrow would compile the patterns
        return []
    array = pa.array(map(simplify, captions), pa.string())
    matches = np.zeros(len(captions), bool)
    for pattern in filter(None, patterns):
        matches |= compute.match_substring_regex(array, pattern).to_numpy(zero_copy_only=False)
    return matches.tolist()


def _is_single_word(text: str) -> bool:
    """Return whether a text has at most one word and one Chinese character."""
    return len(HAN.findall(text)) < 2 and len(_WORD.findall(text)) < 2


def _is_enough(text: str) -> bool:
    """Return whether a text has a word, or two Chinese characters."""
    return len(HAN.findall(text)) >= 2 or bool(_WORD.search(text))


def load_rules(paths: Iterable[str | Path], without: Iterable[str] = ()) -> CaptionRules:
    """Read files of rules.

    Args:
        paths: YAML files of rules by name, and of lists by name under `words`; a later rule or list replaces one of
            the same name in an earlier file.
        without: names of rules that are left out.

    Raises:
        ConfigError: a file is no YAML or has an unknown key, or the name of a list or in `without` is unknown.
    """
    rules: dict[str, CaptionRule] = {}
    lists: dict[str, str] = {}
    for path in paths:
        tree: Any = read_yaml(path, keep_switch_words=True) or {}
        words = tree.pop("words", {}) if isinstance(tree, dict) else {}
        try:
            file = _RuleFile.model_validate({"words": words, "rules": tree})
        except ValidationError as error:
            raise describe_problems(error, str(path), _RuleFile) from None
        place = "words"
        try:
            lists = _expand_lists(file.words, lists)
            for name, rule in file.rules.items():
                place = f"rule {name!r} of captions"
                rules[name] = rule.expand(lists)
        except ValueError as error:
            raise ConfigError(f"{path}: {place}: {error}") from None
    for name in without:
        if rules.pop(name, None) is None:
            raise ConfigError(f"text_rules.without: no rule {name!r}; there are {', '.join(rules)}")
    return CaptionRules(rules)


def check_examples(rules: CaptionRules) -> None:
    """Try every rule alone on its examples.

    Raises:
        ConfigError: a pattern is wrong or fits everywhere, or a rule does not do what one of its examples says.
    """
    for name, rule in (rules.cutting | rules.removing).items():
        try:
            _check_patterns(rule)
            _check_examples_of_rule(CaptionRules({name: rule}), rule.examples)
        except (duckdb.Error, pa.ArrowInvalid) as error:
            first_line = str(error).partition("\n")[0]
            raise ConfigError(f"rule {name!r} of captions: pattern: {first_line}") from error
        except ValueError as error:
            raise ConfigError(f"rule {name!r} of captions {error}") from None


def _check_patterns(rule: CaptionRule) -> None:
    """Raise ValueError with the end of a sentence about the rule if a pattern is found in every caption."""
    nothing = pa.array([""])
    for pattern in [*rule.pattern, *rule.remark, *rule.unless]:
        if compute.match_substring_regex(nothing, FLAGS + pattern)[0].as_py():
            raise ValueError(f"has a pattern that fits an empty text, and so is found in every caption: {pattern!r}")


def _check_examples_of_rule(rule: CaptionRules, examples: Examples) -> None:
    """Raise ValueError with the end of a sentence about the rule if it contradicts an example."""
    # Without an example any caption will do: a pattern is compiled, and so checked, only when it looks at one.
    good_captions = examples.kept or ["-"]
    faults = rule.find_faults([*examples.removed, *good_captions])
    num_removed = len(examples.removed)
    for caption, fault in zip(examples.removed, faults[:num_removed], strict=True):
        if fault is None:
            raise ValueError(f"does not remove {caption!r}, an example of what is removed")
    for caption, fault in zip(good_captions, faults[num_removed:], strict=True):
        if fault is not None and examples.kept:
            raise ValueError(f"removes {caption!r}, an example of what is kept")
    expected = {caption: caption for caption in good_captions} | examples.cut
    for (caption, shorter), result in zip(expected.items(), rule.cut(list(expected)), strict=True):
        if result != shorter:
            raise ValueError(f"makes {result!r} of {caption!r}, and its example says {shorter!r}")
