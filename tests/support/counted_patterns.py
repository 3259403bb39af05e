"""Regular expressions whose steps are counted: a backtracking matcher over the tree that Python's own parser makes.

Python's engine says nothing of its work but the time that it takes, which depends on the machine. This one goes through
the same alternatives in the same order, and counts the characters and assertions that it looks at.
"""

import re
from collections.abc import Iterator
from re import _constants as code
from re import _parser as parser

MOST_STEPS = 3_000_000  # then a pattern is bad enough to stop

CATEGORIES = {
    code.CATEGORY_DIGIT: str.isdecimal,
    code.CATEGORY_SPACE: str.isspace,
    code.CATEGORY_WORD: lambda letter: letter.isalnum() or letter == "_",
}
NEGATED = {
    code.CATEGORY_NOT_DIGIT: code.CATEGORY_DIGIT,
    code.CATEGORY_NOT_SPACE: code.CATEGORY_SPACE,
    code.CATEGORY_NOT_WORD: code.CATEGORY_WORD,
}
SINGLE = (code.LITERAL, code.NOT_LITERAL, code.IN, code.ANY, code.CATEGORY)


class CountedPattern:
    """A compiled pattern that finds what `re` finds, and adds up its steps."""

    def __init__(self, pattern: re.Pattern):
        self.pattern = pattern
        self.tree = list(parser.parse(pattern.pattern, pattern.flags))
        self.steps = 0

    def match(self, text: str, start: int = 0) -> re.Match | None:
        found = self.pattern.match(text, start)
        assert self._ends_at(text, start) == (found and found.end())
        return found

    def search(self, text: str) -> re.Match | None:
        found = self.pattern.search(text)
        for start in range(len(text) + 1):
            end = self._ends_at(text, start)
            if end is not None:
                assert found and found.span() == (start, end)
                return found
        assert found is None
        return None

    def _ends_at(self, text: str, start: int) -> int | None:
        return next(self._ends(self.tree, text, start), None)

    def _step(self) -> None:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise AssertionError(f"{self.pattern.pattern[:60]}: more than {MOST_STEPS:,} steps")

    def _ends(self, nodes: list, text: str, position: int) -> Iterator[int]:
        """Yield where a sequence of nodes can end, in the order in which they are tried."""
        if not nodes:
            yield position
            return
        for middle in self._ends_of(*nodes[0], text, position):
            yield from self._ends(nodes[1:], text, middle)

    def _ends_of(self, kind: object, value: object, text: str, position: int) -> Iterator[int]:
        if kind in SINGLE:
            self._step()
            if position < len(text) and self._is(kind, value, text[position]):
                yield position + 1
        elif kind is code.SUBPATTERN:
            yield from self._ends(list(value[3]), text, position)
        elif kind is code.BRANCH:
            for branch in value[1]:
                yield from self._ends(list(branch), text, position)
        elif kind is code.ATOMIC_GROUP:
            end = next(self._ends(list(value), text, position), None)
            if end is not None:
                yield end
        elif kind is code.POSSESSIVE_REPEAT:
            end = next(self._repeated(*value, text, position), None)
            if end is not None:
                yield end
        elif kind is code.MAX_REPEAT:
            yield from self._repeated(*value, text, position)
        elif kind is code.MIN_REPEAT:
            yield from reversed(list(self._repeated(*value, text, position)))
        elif kind in (code.ASSERT, code.ASSERT_NOT):
            direction, nodes = value
            start = position if direction == 1 else position - nodes.getwidth()[0]
            holds = start >= 0 and next(self._ends(list(nodes), text, start), None) is not None
            if holds == (kind is code.ASSERT):
                yield position
        else:
            assert kind is code.AT, kind
            self._step()
            if self._is_at(value, text, position):
                yield position

    def _repeated(self, least: int, most: int, nodes: list, text: str, position: int) -> Iterator[int]:
        nodes = list(nodes)
        if len(nodes) == 1 and nodes[0][0] in SINGLE:
            end = position
            while end - position < most and next(self._ends(nodes, text, end), None) is not None:
                end += 1
            for shorter in range(end, position + least - 1, -1):
                self._step()
                yield shorter
            return
        if most > 0:
            for middle in self._ends(nodes, text, position):
                if middle > position or least > 0:
                    yield from self._repeated(max(0, least - 1), most - 1, nodes, text, middle)
        if least == 0:
            yield position

    def _is(self, kind: object, value: object, letter: str) -> bool:
        if kind is code.ANY:
            return letter != "\n" or bool(self.pattern.flags & re.DOTALL)
        if kind is code.CATEGORY:
            return not CATEGORIES[NEGATED[value]](letter) if value in NEGATED else CATEGORIES[value](letter)
        spellings = {letter}
        if self.pattern.flags & re.IGNORECASE:
            spellings |= {letter.lower(), letter.upper()}
        numbers = [ord(spelling) for spelling in spellings if len(spelling) == 1]
        if kind in (code.LITERAL, code.NOT_LITERAL):
            return (value in numbers) == (kind is code.LITERAL)
        is_negated = value[0][0] is code.NEGATE
        return is_negated != any(self._is_one_of(item, letter, numbers) for item in value[is_negated:])

    def _is_one_of(self, item: tuple, letter: str, numbers: list[int]) -> bool:
        kind, value = item
        if kind is code.RANGE:
            return any(value[0] <= number <= value[1] for number in numbers)
        return value in numbers if kind is code.LITERAL else self._is(kind, value, letter)

    def _is_at(self, place: object, text: str, position: int) -> bool:
        if place is code.AT_BEGINNING:
            return position == 0
        if place is code.AT_END:
            return position == len(text) or (position == len(text) - 1 and text[-1] == "\n")
        assert place is code.AT_BOUNDARY, place
        is_word = CATEGORIES[code.CATEGORY_WORD]
        before = position > 0 and is_word(text[position - 1])
        return before != (position < len(text) and is_word(text[position]))
