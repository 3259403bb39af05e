"""The bound on a text; a module of its own, because an index has it too and needs no server."""

from collections.abc import Iterable

# Characters of a text. Tokenizing takes time in proportion, and only what fits into the model's text length counts.
MAX_TEXT_LENGTH = 10_000


def check_text_lengths(texts: Iterable[str]) -> None:
    """Raise ValueError for a text that is too long to be encoded."""
    for text in texts:
        if len(text) > MAX_TEXT_LENGTH:
            raise ValueError(f"a text has {len(text):,} characters; at most {MAX_TEXT_LENGTH:,} are allowed")
