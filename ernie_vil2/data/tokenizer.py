"""Tokenizers: the interface, BERT's tokenisation in the variants of three projects, and those of a `tokenizer.json`.

The `tokenizers` library computes BPE, unigrams and word pieces of other projects' models.
"""

from __future__ import annotations

import html
import re
import string
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import numpy as np

from ernie_vil2.data.tokenizer_files import (
    BERT_TOKENS,
    build_word_pieces,
    check_ids,
    find_vocabulary_file,
    make_tokenizer_json,
    parse_tokenizer,
    translate_library_errors,
)
from ernie_vil2.data.tokenizer_settings import (
    apply_bert_settings,
    check_growth,
    check_special_tokens,
    find_missing_tokens,
    read_settings,
)
from ernie_vil2.io.export_folder import WORD_RULES
from ernie_vil2.io.files import parse_json, read_text
from ernie_vil2.io.run_folder import TOKENIZER, VOCABULARY

if TYPE_CHECKING:
    import tokenizers

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
        return self.pad([self.encode(text) for text in texts])

    def pad(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """Return rows of `encode` as one array `[B, L]` int64, padded as `to_full_length` says."""
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

    _check_special_words(tokens, f"vocabulary {path}")
    return tokens


def _check_special_words(tokens: list[str], source: str) -> None:
    """Raise ValueError, which begins with `source`, unless a vocabulary of word pieces has its special tokens."""
    missing = {"[PAD]", "[CLS]", "[SEP]", "[UNK]"} - set(tokens)
    if missing:
        raise ValueError(f"{source}: {', '.join(sorted(missing))} missing; is this a vocabulary?")
    if tokens[PAD_ID] != "[PAD]":
        raise ValueError(f"{source}: [PAD] must have id {PAD_ID}")


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
        if isinstance(vocabulary, list):
            _check_special_words(vocabulary, f"a vocabulary of {len(vocabulary)} tokens")
        else:
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

    def make_library(self) -> tokenizers.Tokenizer:
        """Return the `tokenizers` library's tokenizer with the same rules, for programs that read a `tokenizer.json`.

        It differs in rare letters alone: a sigma at the end of a word in capitals, and for cn_clip private characters.
        """
        if self.rules == "paddlenlp":
            return build_word_pieces(self.tokens, MAX_WORD_LENGTH[self.rules], BERT_TOKENS, rf"[\p{{S}}{_SYMBOLS}]")
        return build_word_pieces(self.tokens, MAX_WORD_LENGTH[self.rules], ())

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
    for word in "".join(_set_apart(char, dropped_categories) for char in text).split():
        decomposed = unicodedata.normalize("NFD", word.lower())
        word = "".join(char for char in decomposed if unicodedata.category(char) != "Mn")
        start = 0
        for position, char in enumerate(word):
            if _is_word(char, split_symbols):
                if position > start:
                    yield word[start:position]
                yield char
                start = position + 1
        if word[start:]:
            yield word[start:]


# Texts have few different characters, and looking one up takes a fifth of the time of its categories.
@lru_cache(maxsize=2**15)
def _set_apart(char: str, dropped_categories: tuple[str, ...]) -> str:
    """Return a character of a text, a space for any white space, or nothing if it is dropped; CJK between spaces."""
    category = unicodedata.category(char)
    if category == "Zs" or char in "\t\n\r":
        return " "
    if category.startswith(dropped_categories) or char == "\ufffd":
        return ""
    if any(first <= ord(char) <= last for first, last in _CJK):
        return f" {char} "
    return char


@lru_cache(maxsize=2**15)
def _is_word(char: str, split_symbols: bool) -> bool:
    """Return whether a character is a word by itself: punctuation, or a symbol if these are split."""
    category = unicodedata.category(char)[0]
    # BERT counts all of string.punctuation, which has symbols such as $ and ^.
    if char in string.punctuation or category == "P":
        return True
    return split_symbols and (category == "S" or char in _SYMBOLS)


# A text with several kinds of characters, encoded when a file is opened, because the library panics on some patterns.
_PROBE = "A cat, 2 dogs! \u732b\u548c\u72d7 \u00e9\U0001f600"


_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _collapse_spaces(text: str) -> str:
    return " ".join(text.split())


def _repair(text: str) -> str:
    """Repair wrong encodings and HTML entities, as OpenCLIP does before everything else."""
    import ftfy

    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


def _clean_siglip(text: str) -> str:
    return re.sub(r"\s+", " ", text.lower().translate(_WITHOUT_PUNCTUATION)).strip()


def _clean_open_clip(text: str) -> str:
    return _collapse_spaces(_repair(text))


def _clean_open_clip_lower(text: str) -> str:
    return _clean_open_clip(text).lower()


def _clean_open_clip_canonical(text: str) -> str:
    return _collapse_spaces(_repair(text).replace("_", " ").translate(_WITHOUT_PUNCTUATION).lower())


class Dialect(NamedTuple):
    """What a project does to a text besides tokenising it.

    clean: function that cleans the text first.
    around_special: whether special tokens in the text are left out of the cleaning.
    to_full_length: whether texts are padded to the maximum length, which matters for models that do not mask padding.
    has_zero_end: whether the id 0 replaces the token that ends a text, wherever it stands.
    """

    clean: Callable[[str], str] | None = None
    around_special: bool = False
    to_full_length: bool = False
    has_zero_end: bool = False


DIALECTS = {
    "bert": Dialect(),
    "clip": Dialect(),
    "xlm_roberta": Dialect(),
    "siglip": Dialect(_clean_siglip, around_special=True, to_full_length=True),
    "siglip2": Dialect(str.lower, to_full_length=True),
    "open_clip": Dialect(_clean_open_clip_lower),
    "open_clip_hf": Dialect(_clean_open_clip, to_full_length=True),
    "open_clip_lower": Dialect(_clean_open_clip_lower, to_full_length=True),
    "open_clip_canonical": Dialect(_clean_open_clip_canonical, to_full_length=True),
    "open_clip_without_sep": Dialect(_clean_open_clip, to_full_length=True, has_zero_end=True),
}
"""The dialects by `Model.text.tokenizer`.

- bert, clip, xlm_roberta: transformers' tokenizers, which clean texts as their file says.
- siglip, siglip2: transformers' tokenizers of SigLIP and of SigLIP 2 (FG-CLIP 2), which lower the case, the former
  also without punctuation.
- open_clip: OpenCLIP's own BPE.
- open_clip_*: what OpenCLIP does before it calls a tokenizer of transformers; without_sep: afterwards it replaces
  [SEP] by 0, for CLIPA.
"""


class LibraryTokenizer(TextTokenizer):
    """A tokenizer of a `tokenizer.json`; see `TextTokenizer`.

    Args:
        content: text of the file. Its `padding` names the padding token; its lengths are ignored.
        max_length: maximum number of tokens of a text, with special tokens; a text that is cut keeps its end token.
        rules: a name of `DIALECTS`.

    Raises:
        ValueError: the text is not such a file, its vocabulary is empty or has an id that is too large, it pads
            or surrounds texts with an id without a token, or `max_length` leaves no room besides the special tokens.
    """

    def __init__(self, content: str, max_length: int, rules: str):
        settings = parse_json(content)
        if isinstance(settings, dict):
            check_growth(settings)
        self.library = parse_tokenizer(content)
        self.content, self.max_length, self.rules = content, max_length, rules
        self._dialect = DIALECTS[rules]
        self.to_full_length = self._dialect.to_full_length

        # Find the special tokens around every text, and try the file with a probe.
        self.library.no_padding()
        self.library.no_truncation()
        special_ids = self._encode("").ids
        self._zeroed_id = special_ids[-1] if self._dialect.has_zero_end and special_ids else None
        self._encode(_PROBE)
        if max_length <= len(special_ids):
            raise ValueError(f"texts of {max_length} tokens have no room: {len(special_ids)} are special")
        self.library.enable_truncation(max_length)

        tokens_by_id = {token_id: token for token, token_id in self.library.get_vocab().items()}
        check_ids(tokens_by_id)
        self.tokens = [tokens_by_id.get(token_id, "") for token_id in range(max(tokens_by_id) + 1)]
        self.pad_id: int = (settings.get("padding") or {}).get("pad_id", 0)
        unknown_ids = sorted({self.pad_id, *special_ids} - tokens_by_id.keys())
        if unknown_ids:
            raise ValueError(f"it pads or surrounds texts with the id {unknown_ids[0]:,}, which has no token")
        # CLIP names its end token as the unknown one, but byte pairs can write every text.
        unknown_id = _find_unknown_id(settings, self.library)
        self.unknown_id = None if unknown_id in special_ids else unknown_id
        special_tokens = [token["content"] for token in settings.get("added_tokens", ()) if token.get("special")]
        self._special: re.Pattern[str] | None = None
        if special_tokens and self._dialect.around_special:
            self._special = re.compile(f"({'|'.join(map(re.escape, special_tokens))})")

    def __reduce__(self) -> tuple[Any, ...]:
        return LibraryTokenizer, (self.content, self.max_length, self.rules)

    def with_length(self, max_length: int) -> LibraryTokenizer:
        """Return the same tokenizer for texts of another length."""
        return self if max_length == self.max_length else LibraryTokenizer(self.content, max_length, self.rules)

    def encode(self, text: str) -> list[int]:
        ids = self._encode(self._clean(text)).ids
        if self._zeroed_id is None:
            return ids
        return [0 if token_id == self._zeroed_id else token_id for token_id in ids]

    def cuts(self, text: str) -> bool:
        return bool(self._encode(self._clean(text)).overflowing)

    def normalize(self, text: str) -> str:
        """Return a text as it is split and looked up: cleaned, and changed by the file's normaliser."""
        text = self._clean(text)
        normalizer = self.library.normalizer
        if normalizer is None:
            return text
        with translate_library_errors():
            return normalizer.normalize_str(text)

    def make_library(self) -> tokenizers.Tokenizer:
        """Return a new tokenizer of the library, without what the dialect does to texts."""
        library = parse_tokenizer(self.content)
        library.no_padding()
        return library

    def _encode(self, text: str) -> tokenizers.Encoding:
        with translate_library_errors():
            return self.library.encode(text)

    def files(self) -> dict[str, str]:
        return {TOKENIZER: self.content}

    def identity(self) -> dict[str, object]:
        digest = blake2b(self.content.encode(), digest_size=16).hexdigest()
        return {"tokenizer": digest, "rules": self.rules, "max_length": self.max_length}

    def _clean(self, text: str) -> str:
        text = text.encode("utf-8", "replace").decode("utf-8")  # without lone surrogates, which the library refuses
        if self._dialect.clean is None:
            return text
        if self._special is None:
            return self._dialect.clean(text)
        segments = self._special.split(text)
        segments[::2] = map(self._dialect.clean, segments[::2])  # the others are special tokens
        return "".join(segments)


def _find_unknown_id(settings: dict[str, Any], library: tokenizers.Tokenizer) -> int | None:
    model = settings.get("model", {})
    if "unk_id" in model:
        return model["unk_id"]
    if model.get("unk_token"):
        return library.token_to_id(model["unk_token"])
    return None


def open_tokenizer(
    source: str | Path | Sequence[str] | None, max_length: int, rules: str, settings_folder: Path | None = None
) -> TextTokenizer:
    """Open the tokenizer of a vocabulary.

    Args:
        source: file of a vocabulary (`vocab.txt`, `tokenizer.json`, `vocab.json` with `merges.txt` next to it, a
            sentencepiece `.model`, or OpenCLIP's file of merges), a folder that holds one, or the tokens of a
            `vocab.txt`. None: the packaged vocabulary of ERNIE 3.0, or of CLIP if `rules` is "open_clip" or "clip",
            which is also used for a folder without one.
        max_length: maximum number of tokens of a text, with special tokens.
        rules: a value of `Model.text.tokenizer`.
        settings_folder: folder whose `tokenizer_config.json` is used; None: the folder of the file.

    Raises:
        FileNotFoundError: there is no such file, or none in the folder.
        ValueError: a file is damaged or does not match `rules`; the message names it.
    """
    if rules in WORD_RULES:
        if isinstance(source, str | Path) and Path(source).is_dir():
            source = Path(source, VOCABULARY)
        return WordPieceTokenizer(cast("Path | list[str] | None", source), max_length, cast(Any, rules))
    return _open_library_tokenizer(cast("str | Path | None", source), max_length, rules, settings_folder)


def read_tokens(path: Path) -> list[str]:
    """Return the tokens of a `vocab.txt` or `tokenizer.json` in the order of their ids.

    Errors are those of `open_tokenizer`.
    """
    return open_tokenizer(path, 512, "bert" if path.name == TOKENIZER else "official").tokens


def _open_library_tokenizer(
    source: str | Path | None, max_length: int, rules: str, settings_folder: Path | None
) -> LibraryTokenizer:
    path = find_vocabulary_file(source, rules)
    folder = settings_folder or path.parent
    try:
        content, settings = make_tokenizer_json(path, rules, folder), read_settings(folder, rules)
        if settings and rules == "bert":
            content = apply_bert_settings(content, settings)
        tokenizer = LibraryTokenizer(content, max_length, rules)
        # Tokens can be added only to a tokenizer of the library, whose text is then opened again.
        missing_tokens = find_missing_tokens(tokenizer.library, settings)
        if missing_tokens:
            library = parse_tokenizer(content)
            library.add_tokens(missing_tokens)
            tokenizer = LibraryTokenizer(library.to_str(), max_length, rules)
        check_special_tokens(tokenizer.library, settings, rules)
        return tokenizer
    except OSError:
        raise
    except Exception as error:  # the library raises plain Exception; a damaged file leads to KeyError and the like
        has_message = isinstance(error, ValueError) or type(error) is Exception
        cause = error if has_message else f"not of a tokenizer of the kind {rules} ({type(error).__name__})"
        raise ValueError(f"vocabulary {path}: {cause}") from None
