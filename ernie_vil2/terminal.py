"""Text of strangers on a terminal."""

import unicodedata


def printable(text: str, keep: str = "", longest: int | None = None) -> str:
    """A text whose characters a terminal only shows: control characters and the like are written as escapes.

    An id, the name of a weight or a key of a configuration may hold a sequence that clears the screen, sets its title
    or turns the direction of writing; whatever shows such text passes it through here.

    Args:
        keep: characters that stay as they are, as the line ends of a text of several lines.
        longest: characters that are shown; a longer text ends in "...".
    """
    if longest is not None and len(text) > longest:
        text = f"{text[:longest]}..."
    return "".join(sign if _harmless(sign) or sign in keep else ascii(sign)[1:-1] for sign in text)


def _harmless(sign: str) -> bool:
    return sign.isprintable() or unicodedata.category(sign) == "Zs"
