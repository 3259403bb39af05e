"""The words of items, searched by SQLite's FTS5 in the database of their collection.

An item has the words of its id and of all fields that are texts, lists of texts or whole numbers. A query finds the
items that contain all of its words. Texts are split here and not by FTS5, whose tokenizers find no Chinese word within
a sentence (`unicode61`), or none below three characters (`trigram`):

    红色 iPhone手机壳 A1-B
    tokens: 红 色 iphone 手 机 壳 a1 - b |  words, single Chinese characters, and signs within words
    pairs: 红色 | 手机 机壳 |               overlapping pairs of each run of Chinese characters

A run of Chinese characters is found wherever a text contains it: 苹果 finds 红苹果汁. Letters and digits match as whole
words, and the signs within a word must be the same: A1-B finds neither "A1 B" nor "A1-BC". Case, full width and accents
make no difference.

An item is named by a query that is the whole of its id, of a text or of a number, or that has a code, such as A1-B.
Elements of lists are no names: tags say what else an image has to do with.
"""

import re
import sqlite3
import time
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ernie_vil2.io.terminal import RunError

SIGNS = "-_./+&#:"  # tokens where they stand between two characters of words; otherwise they separate words
BOUNDARY = "|"  # a token after each text and each run, so that no phrase reaches from one into the next
ELEMENT_BOUNDARY = "||"  # the same after the element of a list
# The tokenizer `ascii` takes letters and digits, all characters beyond ASCII, and these signs; spaces separate.
SCHEMA = f"""
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(
    tokens, pairs, length UNINDEXED, tokenize = "ascii tokenchars '{SIGNS}{BOUNDARY}'"
);
"""
SHADOW_PREFIX = "words_"  # of the tables in which FTS5 stores the table `words`

MAX_ITEM_LENGTH = 20_000  # characters of an item that are searched for words: ten dense pages
# Characters of a code, with its signs; shorter ones with a digit are also said of what is seen: "3D", "2x2", "1st".
MIN_CODE_LENGTH = 4
MAX_QUERY_TOKENS = 64  # titles in shops have up to 60; tokens beyond this many make a match slower and hardly stricter
# A query that more items than this match gets no matches by words: it says too little to rank by. Reading that many
# takes 50 ms.
MAX_MATCHES = 20_000
# CPU time after which a search for words ends without matches. On 377,000 items, phrases of 64 of the commonest tokens
# took 1 s, a phrase of five of them 0.07 s.
MAX_SECONDS = 0.25
STEPS_BETWEEN_CHECKS = 100  # of SQLite's virtual machine; 100 steps took up to 1.5 ms

# Han; kana, which has no spaces between words either; and hangul, whose words change their endings.
_RUN_CHARACTERS = "々〇\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\U00020000-\U0003ffff"
_PIECE_PATTERN = re.compile(
    rf"(?P<run>[{_RUN_CHARACTERS}]+)|(?P<word>[^\W_{_RUN_CHARACTERS}]+)"
    rf"|(?P<sign>(?<=[^\W_])[{re.escape(SIGNS)}](?=[^\W_]))"
)
_ACCENTS = re.compile("[\u0300-\u036f]")
_DASHES = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"))  # typed for each other


class ItemWords(NamedTuple):
    """The words of an item, as the table holds them; `length` is the number of tokens without boundaries."""

    tokens: str
    pairs: str
    length: int


class WordMatches(NamedTuple):
    """The items that contain all words of a query.

    rows, lengths: of the items, `[n]` int64.
    are_equal: whether the query is the whole of one of their texts, `[n]` bool.
    has_code: whether the query has a code.
    """

    rows: np.ndarray
    lengths: np.ndarray
    are_equal: np.ndarray
    has_code: bool

    @property
    def are_named(self) -> np.ndarray:
        """Whether the query names the items, `[n]` bool."""
        return self.are_equal | self.has_code


class NoFullTextSearch(RunError):  # noqa: N818  -- named by what has happened
    """The SQLite of this Python was built without FTS5."""


@lru_cache
def check_full_text_search() -> None:
    """Raise NoFullTextSearch if SQLite lacks FTS5."""
    try:
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.executescript(SCHEMA)
    except sqlite3.OperationalError as error:
        raise NoFullTextSearch(
            f"an index needs SQLite with FTS5, and this Python's SQLite {sqlite3.sqlite_version} has none ({error}); "
            "use a Python of python.org, conda, uv or a Linux distribution"
        ) from error


def split_item(item_id: str, fields: Mapping[str, Any]) -> ItemWords:
    """Return the words of an item with this id and these fields."""
    texts, elements = _find_texts(fields)
    # A text that several fields hold counts once; a name is a text first.
    boundaries = dict.fromkeys(elements, ELEMENT_BOUNDARY) | dict.fromkeys([item_id, *texts], BOUNDARY)
    tokens: list[str] = []
    pairs: list[str] = []
    remaining_length = MAX_ITEM_LENGTH
    for text in dict.fromkeys([item_id, *texts, *elements]):
        for chunk in _split_chunks(text[:remaining_length]):
            tokens += _list_tokens(chunk)
            for piece in chunk:
                if piece.pairs:
                    pairs += [*piece.pairs, BOUNDARY]
        tokens.append(boundaries[text])
        remaining_length -= min(len(text), remaining_length)
    return ItemWords(" ".join(tokens), " ".join(pairs), len(tokens) - len(boundaries))


def make_match(text: str) -> str | None:
    """Return the expression by which FTS5 finds the items with all words of a text; None for a text without words.

    Each word is a quoted phrase of tokens, none of which has a quote in it: a query cannot hold syntax of FTS5.
    """
    phrases: dict[str, None] = {}
    num_tokens = 0
    for chunk in _split_chunks(text):
        # A chunk that is one run of at least two characters is searched by its pairs, which fewer items have.
        if len(chunk) == 1 and chunk[0].pairs:
            column, tokens = "pairs", chunk[0].pairs
        else:
            column, tokens = "tokens", _list_tokens(chunk)
        tokens = tokens[: MAX_QUERY_TOKENS - num_tokens]
        if not tokens:
            break
        num_tokens += len(tokens)
        phrases[f'{column} : "{" ".join(tokens)}"'] = None
    return " AND ".join(phrases) or None


def contains_code(text: str) -> bool:
    """Return whether a text has a word with a digit, such as A1-B, that is long enough for a number of an article."""
    for chunk in _split_chunks(text):
        code = ""
        for piece in chunk:
            code = "" if piece.is_run else code + piece.tokens[0]
            if len(code) >= MIN_CODE_LENGTH and any(character.isdigit() for character in code):
                return True
    return False


class WordTable:
    """The table of words in the database of a collection; whoever changes it commits it together with the items."""

    def __init__(self, connection: sqlite3.Connection):
        self._connection = connection

    def add(self, words_by_row: Iterable[tuple[int, ItemWords]]) -> None:
        """Add the words of new items."""
        records = [(row, *words) for row, words in words_by_row]
        self._connection.executemany("INSERT INTO words (rowid, tokens, pairs, length) VALUES (?, ?, ?, ?)", records)

    def update(self, row: int, words: ItemWords) -> None:
        """Replace the words of an item."""
        # Most updates change a location alone; comparing takes less time than indexing the words again.
        statement = "UPDATE words SET tokens = ?, pairs = ?, length = ? WHERE rowid = ? AND (tokens, pairs) != (?, ?)"
        self._connection.execute(statement, (*words, row, words.tokens, words.pairs))

    def find(self, text: str) -> WordMatches:
        """Return the items that contain all words of a text; none if that takes too long or more than `MAX_MATCHES` do.

        The connection must not be used by another thread meanwhile.

        Raises:
            ValueError, TypeError: a length is not a number.
        """
        match = make_match(text)
        records: list[tuple[int, int, int]] = []
        if match is not None:
            tokens: list[str] = []
            for chunk in _split_chunks(text):
                tokens += _list_tokens(chunk)
            # With boundaries around them, the tokens of the query are found only as those of a whole text.
            whole_text = f" {BOUNDARY} {' '.join(tokens)} {BOUNDARY} "
            equality = f"instr(' {BOUNDARY} ' || tokens || ' ', ?) > 0"
            statement = f"SELECT rowid, length, {equality} FROM words WHERE words MATCH ? LIMIT ?"  # noqa: S608  -- no text of a query is in it
            start = time.thread_time()
            self._connection.set_progress_handler(
                lambda: time.thread_time() - start > MAX_SECONDS, STEPS_BETWEEN_CHECKS
            )
            try:
                records = self._connection.execute(statement, (whole_text, match, MAX_MATCHES + 1)).fetchall()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                    raise
            finally:
                self._connection.set_progress_handler(None, 0)
        if len(records) > MAX_MATCHES:
            records = []
        rows, lengths, are_equal = np.array(records, np.int64).reshape(-1, 3).T
        return WordMatches(rows, lengths, are_equal > 0, contains_code(text))


class _Piece(NamedTuple):
    """A run, a word or a sign of a text."""

    tokens: list[str]  # in the column `tokens`
    pairs: list[str]  # in the column `pairs`; none for a word, a sign or a single character
    is_run: bool


def _list_tokens(chunk: Sequence[_Piece]) -> list[str]:
    tokens: list[str] = []
    for piece in chunk:
        tokens += piece.tokens
    return tokens


def _split_chunks(text: str) -> Iterator[list[_Piece]]:
    """Yield the chunks of a text, each as its pieces; spaces and punctuation separate chunks."""
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text.translate(_DASHES))
        # Composed again, since kana and hangul have been decomposed too.
        text = unicodedata.normalize("NFC", _ACCENTS.sub("", text))
    chunk: list[_Piece] = []
    end = 0
    for match in _PIECE_PATTERN.finditer(text.casefold()):
        if chunk and match.start() > end:
            yield chunk
            chunk = []
        end = match.end()
        content = match.group()
        if match.lastgroup == "run":
            pairs = [content[start : start + 2] for start in range(len(content) - 1)]
            chunk.append(_Piece(list(content), pairs, is_run=True))
        else:
            chunk.append(_Piece([content], [], is_run=False))
    if chunk:
        yield chunk


def _find_texts(fields: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the texts in fields, and those in lists; whole numbers count, since they may be numbers of articles."""
    texts: list[str] = []
    elements: list[str] = []
    # In the order of names, as the stored JSON has them: fields from a source are in an order of their own.
    for _, field in sorted(fields.items()):
        if isinstance(field, list | tuple):
            elements += [str(value) for value in field if _has_words(value)]
        elif _has_words(field):
            texts.append(str(field))
    return texts, elements


def _has_words(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)
