"""PaddleNLP's ERNIE tokenizer over a vocabulary in either of the two published file formats."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ERNIE_VOCABULARY = Path(__file__).parent / "vocab_ernie_3.0.tsv"
PAD_ID = 0


def read_vocabulary(path: str | Path) -> list[str]:
    """Tokens in the order of their ids.

    Args:
        path: a file of `token` lines (PaddleNLP) or of `token<TAB>id` lines (official release).

    Raises:
        ValueError: ids that are not the numbers 0 to n - 1, or a missing special token.
    """
    text = Path(path).read_text(encoding="utf-8")
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


class Tokenizer:
    """Texts to ids, `[CLS] ... [SEP]`, cut to `max_length`.

    Args:
        vocabulary: file as `read_vocabulary` takes it; None: the packaged ERNIE 3.0 vocabulary.
        max_length: tokens of a text, special ones included.
    """

    def __init__(self, vocabulary: str | Path | None = None, max_length: int = 48):
        from paddlenlp.transformers import ErnieTokenizer

        tokens = read_vocabulary(vocabulary or ERNIE_VOCABULARY)
        self.vocab_size = len(tokens)
        self.max_length = max_length
        with tempfile.TemporaryDirectory() as folder:
            lines = Path(folder) / "vocab.txt"
            lines.write_text("\n".join(tokens), encoding="utf-8")
            self._tokenizer = ErnieTokenizer(str(lines))
        ids = self._tokenizer.vocab.token_to_idx
        self._start, self._end = ids["[CLS]"], ids["[SEP]"]

    def encode(self, text: str) -> list[int]:
        """Ids of one text, not padded."""
        tokens = self._tokenizer.tokenize(text)
        ids = self._tokenizer.convert_tokens_to_ids(tokens)
        return [self._start, *ids[: self.max_length - 2], self._end]

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Ids of a batch, `[B, L]` int64; L is the longest of its texts, the rest is padding."""
        return pad([self.encode(text) for text in texts])


def pad(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Rows of ids as one array, `[B, L]` int64, filled up with [PAD]."""
    ids = np.full([len(rows), max(map(len, rows))], PAD_ID, dtype=np.int64)
    for row, values in zip(ids, rows, strict=True):
        row[: len(values)] = values
    return ids
