"""The interface of tokenizers, and BERT's tokenisation in the variants of three projects."""

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

# Longest word that is looked up, in characters, by the rules of each project; a longer word is unknown.
MAX_WORD_LENGTH = {"official": 100, "paddlenlp": 100, "cn_clip": 200}

_SPECIAL = re.compile(r"(\[(?:PAD|CLS|SEP|MASK|UNK)\])")
# Characters that PaddleNLP treats as symbols although Unicode does not: soft hyphen, ² º 〇 µ Ø ŋ Ʊ.
_SYMBOLS = "\u00ad\u00b2\u00ba\u3007\u00b5\u00d8\u014b\u01b1"

# The ranges that BERT calls CJK characters: unified and compatibility ideographs, without kana and hangul.
_CJK = [
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
]  # fmt: skip


class TextTokenizer(ABC):
    """A tokenizer of texts to ids; `open_tokenizer` makes one from files.

    Attributes:
        tokens: the tokens in the order of their ids; "" for an id without a token.
        rules: how texts are cleaned and split, see `Model.text.tokenizer`.
        max_length: maximum number of tokens of a text, with special tokens.
        pad_id: id that fills up shorter texts, on the right.
        unknown_id: id of everything that is not in the vocabulary; None if the vocabulary covers all texts.
        to_full_length: whether texts are padded to `max_length`; else to the longest of their batch.
    """

    tokens: list[str]
    rules: str
    max_length: int
    pad_id: int
    unknown_id: int | None
    to_full_length: bool

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return len(self.tokens)

    @property
    def num_tokens(self) -> int:
        """Number of ids that have a token; a `tokenizer.json` may leave ids out."""
        return sum(1 for token in self.tokens if token)

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, at most `max_length`, without padding."""

    @abstractmethod
    def cuts(self, text: str) -> bool:
        """Return whether `encode` leaves tokens of a text out."""

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the ids of a batch of texts, `[B, L]` int64, padded as `to_full_length` says."""
        rows = [self.encode(text) for text in texts]
        length = self.max_length if self.to_full_length else max(map(len, rows))
        ids = np.full([len(rows), length], self.pad_id, dtype=np.int64)
        for row, text_ids in zip(ids, rows, strict=True):
            row[: len(text_ids)] = text_ids
        return ids

    @abstractmethod
    def files(self) -> dict[str, str]:
        """Return the files from which `open_tokenizer` makes this tokenizer: their texts by their names."""

    @abstractmethod
    def identity(self) -> dict[str, object]:
        """Return everything that the ids depend on, for fingerprints."""


def read_vocabulary(path: str | Path) -> list[str]:
    """Read tokens in the order of their ids.

    Args:
        path: file with lines of `token` (PaddleNLP) or of `token<TAB>id` (official release).

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the file cannot be read, or it is not an ordinary file.
        ValueError: the file is not UTF-8, it is too long, its ids are not 0 to n - 1, or a special token is missing.
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
        tokens_by_id = {}
        try:
            for line in lines:
                token, token_id = line.rsplit("\t", 1)
                tokens_by_id[int(token_id)] = token
        except ValueError as error:
            raise ValueError(f"vocabulary {path}: an id is not a number ({error})") from error
        if sorted(tokens_by_id) != list(range(len(lines))):
            raise ValueError(f"vocabulary {path}: ids must be 0 to {len(lines) - 1}, each once")
        tokens = [tokens_by_id[token_id] for token_id in range(len(lines))]
    else:
        tokens = lines

    missing = {"[PAD]", "[CLS]", "[SEP]", "[UNK]"} - set(tokens)
    if missing:
        raise ValueError(f"vocabulary {path}: {', '.join(sorted(missing))} missing; is this a vocabulary file?")
    if tokens[PAD_ID] != "[PAD]":
        raise ValueError(f"vocabulary {path}: [PAD] must have id {PAD_ID}")
    return tokens


class WordPieceTokenizer(TextTokenizer):
    """A tokenizer of words and word pieces, `[CLS] ... [SEP]`, cut to `max_length`; see `TextTokenizer`.

    The rules of the three projects differ in three ways. PaddleNLP splits symbols off one by one, so that `©®` is two
    words. Only PaddleNLP reads `[MASK]` and the like in a text as special tokens. And cn_clip keeps private and
    unassigned characters, and words of more than 100 characters.

    Args:
        vocabulary: file for `read_vocabulary`, or its tokens; None: the packaged ERNIE 3.0 vocabulary.
        max_length: maximum number of tokens of a text, with special tokens.
        rules: "official": the code of the official release; "paddlenlp": PaddleNLP's ErnieViLTokenizer; "cn_clip":
            Chinese-CLIP's own code.
    """

    pad_id: int = PAD_ID
    to_full_length: bool = False

    def __init__(
        self,
        vocabulary: str | Path | list[str] | None = None,
        max_length: int = 48,
        rules: Literal["official", "paddlenlp", "cn_clip"] = "official",
    ):
        if not isinstance(vocabulary, list):
            vocabulary = read_vocabulary(vocabulary or ERNIE_VOCABULARY)
        self.tokens = vocabulary
        self.max_length = max_length
        self.rules: str = rules
        self._ids = {token: token_id for token_id, token in enumerate(self.tokens)}
        self._start_id, self._end_id = self._ids["[CLS]"], self._ids["[SEP]"]
        self._unknown_id = self._ids["[UNK]"]
        self.unknown_id: int | None = self._unknown_id
        # Longer pieces are not looked up; otherwise a word of 100 characters would take 5,000 look-ups.
        self._max_piece_length = max(map(len, self.tokens))

    def encode(self, text: str) -> list[int]:
        return [self._start_id, *islice(self._encode_words(text), self.max_length - 2), self._end_id]

    def cuts(self, text: str) -> bool:
        first_ids = list(islice(self._encode_words(text), self.max_length - 1))
        return len(first_ids) > self.max_length - 2

    def _encode_words(self, text: str) -> Iterator[int]:
        """Yield the ids of a text, without the special tokens around it.

        They are yielded one by one, so that words after the last id that is used are not looked up, which would take
        ten times as long as everything else.
        """
        if self.rules != "paddlenlp":
            dropped_categories = ("Cc", "Cf") if self.rules == "cn_clip" else ("C",)
            for word in split_words(text, dropped_categories=dropped_categories):
                yield from self._split_word(word)
            return
        for position, segment in enumerate(_SPECIAL.split(text)):
            if position % 2:  # a special token
                yield self._ids.get(segment, self._unknown_id)
            else:
                # PaddleNLP lowers letter by letter, so that a sigma at the end of a word becomes the usual one.
                lowered = "".join(map(str.lower, segment))
                for word in split_words(lowered, split_symbols=True):
                    yield from self._split_word(word)

    def files(self) -> dict[str, str]:
        return {"vocab.txt": "\n".join(self.tokens) + "\n"}

    def identity(self) -> dict[str, object]:
        return {"tokens": self.tokens, "rules": self.rules, "max_length": self.max_length}

    def _split_word(self, word: str) -> list[int]:
        """Return the ids of a word's pieces by WordPiece (Wu et al. 2016): from the left, always the longest piece."""
        if len(word) > MAX_WORD_LENGTH[self.rules]:
            return [self._unknown_id]
        ids, start = [], 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(min(len(word), start + self._max_piece_length), start, -1):
                token_id = self._ids.get(prefix + word[start:end])
                if token_id is not None:
                    break
            else:
                return [self._unknown_id]
            ids.append(token_id)
            start = end
        return ids


def split_words(text: str, split_symbols: bool = False, dropped_categories: tuple[str, ...] = ("C",)) -> Iterator[str]:
    """Split a text into BERT's words (Devlin et al. 2019), in lower case and without accents.

    CJK characters and punctuation are words by themselves.

    Args:
        text: the text.
        split_symbols: whether symbols are words by themselves, too.
        dropped_categories: prefixes of the Unicode categories whose characters are left out.
    """
    spaced = []
    for char in text:
        if unicodedata.category(char) == "Zs" or char in "\t\n\r":
            spaced.append(" ")
        elif unicodedata.category(char).startswith(dropped_categories) or char == "\ufffd":
            continue
        elif any(first <= ord(char) <= last for first, last in _CJK):
            spaced.append(f" {char} ")
        else:
            spaced.append(char)

    for word in "".join(spaced).split():
        decomposed = unicodedata.normalize("NFD", word.lower())
        word = "".join(char for char in decomposed if unicodedata.category(char) != "Mn")
        start = 0
        for position, char in enumerate(word):
            category = unicodedata.category(char)[0]
            # BERT counts all of string.punctuation, which has symbols such as $ and ^.
            is_punctuation = char in string.punctuation or category == "P"
            is_symbol = category == "S" or char in _SYMBOLS
            if is_punctuation or (split_symbols and is_symbol):
                if position > start:
                    yield word[start:position]
                yield char
                start = position + 1
        if word[start:]:
            yield word[start:]
