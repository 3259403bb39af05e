"""Plain text of captions in HTML, Markdown or BBCode, in time in proportion to their length."""

import html
import re

_ENTITY = re.compile("&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
_COMMENT = re.compile("<!--[^<>]*-->")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_BBCODE = re.compile(
    r"\[/?(?:img|url|b|i|u|s|quote|caption|gallery|size|color|font|code|email|attach)\b[^\[\]\n]*\]", re.IGNORECASE
)
_LINK = re.compile(r"!?\[([^\[\]\n]*)\]\([^()\s]*\)")  # of Markdown, as are the next two
_EMPHASIS = re.compile(r"(\*\*|__)(\w[^*_\n]*)\1")
_HEADING = re.compile(r"^\s*#{1,6}\s+")
# Share of the characters that may be tags. A caption with more is what is left of a page's template, and keeps its
# tags, so that the rule "markup" sees them.
_MAX_TAGS = 0.5


def strip_markup(text: str) -> str:
    """Return a text without tags and with characters in the place of entities; as it is if it is mostly tags."""
    if not any(mark in text for mark in "<&[*_#"):  # a shortcut: most captions have no markup
        return text
    plain = text
    # Twice, because a page may have encoded text that was already encoded.
    for _ in range(2):
        plain = _ENTITY.sub(lambda match: html.unescape(match[0]), plain)
    plain = _LINK.sub(r"\1", plain)
    plain = _EMPHASIS.sub(r"\2", plain)
    plain = _HEADING.sub("", plain)
    num_characters = len(" ".join(plain.split()))  # a page indents its text by many spaces
    for tag in (_COMMENT, _TAG, _BBCODE):
        plain = tag.sub(" ", plain)
    if plain == text:
        return text
    # Of the spaces, none stays before a mark, and a single one between words.
    plain = re.sub(r"\s+([,.;:!?)])", r"\1", " ".join(plain.split()))
    if not plain or len(plain) < (1 - _MAX_TAGS) * num_characters:
        return text
    return plain
