"""Texts to token ids by the `tokenizers` library: BPE, unigram and word pieces of other people's models."""

from __future__ import annotations

import html
import re
import string
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ernie_vil2.data.tokenizer import pad
from ernie_vil2.io.files import parse_json
from ernie_vil2.io.run_folder import TOKENIZER as FILE

if TYPE_CHECKING:
    import tokenizers

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _repaired(text: str) -> str:
    """Wrong encodings and HTML entities put right, as OpenCLIP does before everything else."""
    import ftfy

    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


def _siglip(text: str) -> str:
    return re.sub(r"\s+", " ", text.lower().translate(_WITHOUT_PUNCTUATION)).strip()


def _open_clip(text: str) -> str:
    return _one_line(_repaired(text))


def _open_clip_lower(text: str) -> str:
    return _open_clip(text).lower()


def _open_clip_canonical(text: str) -> str:
    return _one_line(_repaired(text).replace("_", " ").translate(_WITHOUT_PUNCTUATION).lower())


class Dialect(NamedTuple):
    """How a family treats a text before and after its vocabulary is asked.

    clean: what is done to the text first, between the special tokens in it where `around_special`.
    to_full_length: whether every text is filled up to the longest length, which matters where nothing masks padding.
    """

    clean: Callable[[str], str] | None = None
    around_special: bool = False
    to_full_length: bool = False


DIALECTS = {
    "bert": Dialect(),
    "clip": Dialect(),
    "xlm_roberta": Dialect(),
    "siglip": Dialect(_siglip, around_special=True, to_full_length=True),
    "siglip2": Dialect(str.lower, to_full_length=True),
    "open_clip": Dialect(_open_clip_lower),
    "open_clip_hf": Dialect(_open_clip, to_full_length=True),
    "open_clip_lower": Dialect(_open_clip_lower, to_full_length=True),
    "open_clip_canonical": Dialect(_open_clip_canonical, to_full_length=True),
}
"""By `Model.text.tokenizer`: the tokenizers of transformers for BERT, CLIP and XLM-R, which clean as their file says;
those of SigLIP and SigLIP 2 (FG-CLIP 2), which also lower the case, the first without punctuation; and OpenCLIP's own
BPE, and what it does before a tokenizer of transformers."""


class LibraryTokenizer:
    """A tokenizer of a `tokenizer.json`; see `data.tokenizer.TextTokenizer`.

    Args:
        content: the JSON text. Its `padding` names the padding token; how long texts become is this class's affair.
        max_length: tokens of a text, special ones included; of a longer one the last token is the end token.
        rules: a name of `DIALECTS`.

    Raises:
        ValueError: the text is not such a file, or a text of `max_length` has no room for the special tokens.
    """

    def __init__(self, content: str, max_length: int, rules: str):
        settings, self._library = parse_json(content), _read(content)
        self.content, self.max_length, self.rules = content, max_length, rules
        self._dialect = DIALECTS[rules]
        self.to_full_length = self._dialect.to_full_length
        self._library.no_padding()
        self._library.no_truncation()
        around = self._library.encode("").ids
        if max_length <= len(around):
            raise ValueError(f"texts of {max_length} tokens have no room: {len(around)} are special")
        self._library.enable_truncation(max_length)
        by_id = {number: token for token, number in self._library.get_vocab().items()}
        self.tokens = [by_id.get(number, "") for number in range(max(by_id) + 1)]
        self.pad_id: int = (settings.get("padding") or {}).get("pad_id", 0)
        unknown = _unknown(settings, self._library.token_to_id)
        self.unknown_id = None if unknown in around else unknown  # CLIP's is its end token: bytes are all known
        special = [re.escape(token["content"]) for token in settings.get("added_tokens", ()) if token.get("special")]
        self._special = re.compile(f"({'|'.join(special)})") if special and self._dialect.around_special else None

    def __reduce__(self) -> tuple[Any, ...]:
        return LibraryTokenizer, (self.content, self.max_length, self.rules)

    @property
    def vocab_size(self) -> int:
        return len(self.tokens)

    def of_length(self, max_length: int) -> LibraryTokenizer:
        """The same for texts of another length."""
        return self if max_length == self.max_length else LibraryTokenizer(self.content, max_length, self.rules)

    def encode(self, text: str) -> list[int]:
        """As `TextTokenizer.encode`."""
        return self._library.encode(self._cleaned(text)).ids

    def cuts(self, text: str) -> bool:
        """As `TextTokenizer.cuts`."""
        return bool(self._library.encode(self._cleaned(text)).overflowing)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """As `TextTokenizer.__call__`."""
        length = self.max_length if self.to_full_length else None
        return pad([self.encode(text) for text in texts], self.pad_id, length)

    def normalized(self, text: str) -> str:
        """What is looked up in the vocabulary, before it is split: cleaned, and as the file's normaliser has it."""
        text = self._cleaned(text)
        normalizer = self._library.normalizer
        return normalizer.normalize_str(text) if normalizer else text

    def files(self) -> dict[str, str]:
        """As `TextTokenizer.files`."""
        return {FILE: self.content}

    def identity(self) -> dict[str, object]:
        """As `TextTokenizer.identity`."""
        digest = blake2b(self.content.encode(), digest_size=16).hexdigest()
        return {"tokenizer": digest, "rules": self.rules, "max_length": self.max_length}

    def _cleaned(self, text: str) -> str:
        text = text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate is none of Unicode's characters
        if self._dialect.clean is None:
            return text
        if self._special is None:
            return self._dialect.clean(text)
        parts = self._special.split(text)
        return "".join(part if position % 2 else self._dialect.clean(part) for position, part in enumerate(parts))


def with_padding(content: str, token: str | None, fallback: int = 0) -> str:
    """A `tokenizer.json` whose `padding` names this token; where it has none of that name, the id `fallback`."""
    library = _read(content)
    number = library.token_to_id(token) if token else None
    if number is None:
        number, token = fallback, library.id_to_token(fallback) or ""
    library.enable_padding(pad_id=number, pad_token=token)
    library.no_truncation()
    return library.to_str()


def _read(content: str) -> tokenizers.Tokenizer:
    import tokenizers

    try:
        return tokenizers.Tokenizer.from_str(content)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # also a panic of Rust's, which is not an Exception
        raise ValueError(f"not a {FILE} that the tokenizers library reads: {str(error)[:200]}") from None


def _unknown(settings: dict[str, Any], to_id: Callable[[str], int | None]) -> int | None:
    model = settings.get("model", {})
    return model["unk_id"] if "unk_id" in model else to_id(model["unk_token"]) if model.get("unk_token") else None
