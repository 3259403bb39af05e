"""Limit on the length of a text; a module of its own, so that an index can check texts without importing the server."""

from collections.abc import Iterable

# Characters. A model reads only the first tokens of a text, some hundred, so a longer one would only take more time to
# tokenize.
MAX_TEXT_LENGTH = 10_000


def check_text_lengths(texts: Iterable[str]) -> None:
    """Raise ValueError for a text that is too long to be encoded."""
    for text in texts:
        if len(text) > MAX_TEXT_LENGTH:
            raise ValueError(f"a text has {len(text):,} characters; at most {MAX_TEXT_LENGTH:,} are allowed")
