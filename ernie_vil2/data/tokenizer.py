"""Texts to token ids: BERT's tokenisation as the official release has it, or as PaddleNLP has it."""

import re
import string
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from ernie_vil2.io.files import read_text

ERNIE_VOCABULARY = Path(__file__).parent / "vocab_ernie_3.0.tsv"
PAD_ID = 0
LONGEST_WORD = {"official": 100, "paddlenlp": 100, "cn_clip": 200}
"""Characters of a word that is still looked up, by the rules; a longer one is unknown."""

_SPECIAL = re.compile(r"(\[(?:PAD|CLS|SEP|MASK|UNK)\])")
# What PaddleNLP takes for symbols besides those that Unicode calls so: soft hyphen, ² º 〇 µ Ø ŋ Ʊ.
_SYMBOLS = "\u00ad\u00b2\u00ba\u3007\u00b5\u00d8\u014b\u01b1"

# The ranges that BERT calls CJK characters: unified and compatibility ideographs, without kana and hangul.
_CJK = [
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
]  # fmt: skip


class TextTokenizer(ABC):
    """Texts to ids, whatever the vocabulary is of; `open_tokenizer` makes one from files.

    Attributes:
        tokens: in the order of their ids.
        rules: how a text is split and cleaned, see `Model.text.tokenizer`.
        max_length: tokens of a text, special ones included.
        pad_id: what a shorter text is filled up with, on the right.
        unknown_id: of what is not in the vocabulary; None: everything is.
        to_full_length: whether every text is filled up to `max_length`; else to the longest of its batch.
    """

    tokens: list[str]
    rules: str
    max_length: int
    pad_id: int
    unknown_id: int | None
    to_full_length: bool

    @property
    def vocab_size(self) -> int:
        return len(self.tokens)

    @property
    def entries(self) -> int:
        """Number of ids that a token has; a `tokenizer.json` may leave ids out."""
        return sum(map(bool, self.tokens))

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of one text, not padded, at most `max_length`."""

    @abstractmethod
    def cuts(self, text: str) -> bool:
        """Whether a text is longer than what is kept of it."""

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Ids of a batch, `[B, L]` int64, padded to the longest of its texts, or as `to_full_length` says."""
        rows = [self.encode(text) for text in texts]
        length = self.max_length if self.to_full_length else max(map(len, rows))
        ids = np.full([len(rows), length], self.pad_id, dtype=np.int64)
        for row, values in zip(ids, rows, strict=True):
            row[: len(values)] = values
        return ids

    @abstractmethod
    def files(self) -> dict[str, str]:
        """What a folder needs to hold so that the tokenizer can be opened from it: text of each file by name."""

    @abstractmethod
    def identity(self) -> dict[str, object]:
        """What its ids depend on, for fingerprints."""


def read_vocabulary(path: str | Path) -> list[str]:
    """Tokens in the order of their ids.

    Args:
        path: a file of `token` lines (PaddleNLP) or of `token<TAB>id` lines (official release).

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read, or it is not an ordinary file.
        ValueError: not UTF-8, too long, ids that are not the numbers 0 to n - 1, or a missing special token.
    """
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"vocabulary {path}: no such file; name the one that the model was trained with"
        ) from None
    except OSError as error:
        raise OSError(f"vocabulary {path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"vocabulary {error}") from None
    lines = text.removesuffix("\n").split("\n")
    if all("\t" in line for line in lines):
        pairs = [line.rsplit("\t", 1) for line in lines]
        try:
            by_id = {int(number): token for token, number in pairs}
        except ValueError as error:
            raise ValueError(f"vocabulary {path}: an id is not a number ({error})") from error
        if sorted(by_id) != list(range(len(lines))):
            raise ValueError(f"vocabulary {path}: ids must be 0 to {len(lines) - 1}, each once")
        tokens = [by_id[number] for number in range(len(lines))]
    else:
        tokens = lines
    missing = {"[PAD]", "[CLS]", "[SEP]", "[UNK]"} - set(tokens)
    if missing:
        raise ValueError(f"vocabulary {path}: {', '.join(sorted(missing))} missing; is this a vocabulary file?")
    if tokens[PAD_ID] != "[PAD]":
        raise ValueError(f"vocabulary {path}: [PAD] must have id {PAD_ID}")
    return tokens


class Tokenizer(TextTokenizer):
    """Texts to ids by words and their pieces, `[CLS] ... [SEP]`, cut to `max_length`; see `TextTokenizer`.

    Args:
        vocabulary: file as `read_vocabulary` takes it, or its tokens; None: the packaged ERNIE 3.0 vocabulary.
        max_length: tokens of a text, special ones included.
        rules: "official" as the code of the official release; "paddlenlp" as PaddleNLP's ErnieViLTokenizer; "cn_clip"
            as Chinese-CLIP's own code. They differ in symbols, which PaddleNLP splits off one by one (`©®` is one word
            or two), in `[MASK]` and the like in a text, which only PaddleNLP takes for the special token, and in
            private and unassigned characters and words of more than 100 characters, which cn_clip keeps.
    """

    pad_id: int = PAD_ID
    to_full_length: bool = False

    def __init__(
        self,
        vocabulary: str | Path | list[str] | None = None,
        max_length: int = 48,
        rules: Literal["official", "paddlenlp", "cn_clip"] = "official",
    ):
        self.tokens = vocabulary if isinstance(vocabulary, list) else read_vocabulary(vocabulary or ERNIE_VOCABULARY)
        self.max_length = max_length
        self.rules: str = rules
        self._ids = {token: number for number, token in enumerate(self.tokens)}
        self._start, self._end, self._unknown = (self._ids[token] for token in ("[CLS]", "[SEP]", "[UNK]"))
        self.unknown_id: int | None = self._unknown
        # Longer pieces are not looked up: a word of 100 characters takes 5,000 look-ups otherwise.
        self._longest_piece = max(map(len, self.tokens))

    def encode(self, text: str) -> list[int]:
        return [self._start, *islice(self._inner(text), self.max_length - 2), self._end]

    def cuts(self, text: str) -> bool:
        first_ids = list(islice(self._inner(text), self.max_length - 1))
        return len(first_ids) > self.max_length - 2

    def _inner(self, text: str) -> Iterator[int]:
        """Yield the ids of a text, without the special ones around it.

        One by one, so that words behind the last id that is kept are not looked up: that takes ten times as long as
        all else.
        """
        if self.rules != "paddlenlp":
            words = split_words(text, dropped=("Cc", "Cf") if self.rules == "cn_clip" else ("C",))
            for word in words:
                yield from self._pieces(word)
        else:
            for position, part in enumerate(_SPECIAL.split(text)):
                if position % 2:
                    yield self._ids.get(part, self._unknown)
                else:
                    # PaddleNLP lowers letter by letter, which knows no final sigma.
                    words = split_words("".join(map(str.lower, part)), symbols=True)
                    for word in words:
                        yield from self._pieces(word)

    def files(self) -> dict[str, str]:
        return {"vocab.txt": "\n".join(self.tokens) + "\n"}

    def identity(self) -> dict[str, object]:
        return {"tokens": self.tokens, "rules": self.rules, "max_length": self.max_length}

    def _pieces(self, word: str) -> list[int]:
        """WordPiece (Wu et al. 2016): from the left, always the longest piece that the vocabulary has."""
        if len(word) > LONGEST_WORD[self.rules]:
            return [self._unknown]
        pieces, start = [], 0
        while start < len(word):
            for end in range(min(len(word), start + self._longest_piece), start, -1):
                piece = self._ids.get("##" * (start > 0) + word[start:end])
                if piece is not None:
                    break
            else:
                return [self._unknown]
            pieces.append(piece)
            start = end
        return pieces


def split_words(text: str, symbols: bool = False, dropped: tuple[str, ...] = ("C",)) -> Iterator[str]:
    """BERT's words (Devlin et al. 2019): lower case, without accents; CJK and punctuation characters are words of their
    own, and with `symbols` those as well. Characters of the Unicode categories that start with `dropped` are left
    out."""
    spaced = []
    for char in text:
        if unicodedata.category(char) == "Zs" or char in "\t\n\r":
            spaced.append(" ")
        elif unicodedata.category(char).startswith(dropped) or char == "\ufffd":
            continue
        elif any(first <= ord(char) <= last for first, last in _CJK):
            spaced.append(f" {char} ")
        else:
            spaced.append(char)
    for word in "".join(spaced).split():
        start = 0
        word = "".join(c for c in unicodedata.normalize("NFD", word.lower()) if unicodedata.category(c) != "Mn")
        for position, char in enumerate(word):
            # In ASCII, BERT counts symbols such as $ and ^ as well.
            category = unicodedata.category(char)[0]
            if char in string.punctuation or category == "P" or (symbols and (category == "S" or char in _SYMBOLS)):
                if position > start:
                    yield word[start:position]
                yield char
                start = position + 1
        if word[start:]:
            yield word[start:]
