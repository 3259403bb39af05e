"""The bound on a text. A module of its own, so that an index can check texts without importing the server."""

from collections.abc import Iterable

# Characters of a text. Tokenizing time grows with the text, and the model cuts off all but its first tokens.
MAX_TEXT_LENGTH = 10_000


def check_text_lengths(texts: Iterable[str]) -> None:
    """Raise ValueError for a text that is too long to be encoded."""
    for text in texts:
        if len(text) > MAX_TEXT_LENGTH:
            raise ValueError(f"a text has {len(text):,} characters; at most {MAX_TEXT_LENGTH:,} are allowed")
