"""Plain text of captions in HTML, Markdown or BBCode. Every function takes time in proportion to the length."""

import html
import re

_ENTITY = re.compile("&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
_COMMENT = re.compile("<!--[^<>]*-->")
_TAG = re.compile(r"<(?:/?[a-zA-Z][^<>]*|br\s*/?)>")
_BBCODE = re.compile(
    r"\[/?(?:img|url|b|i|u|s|quote|caption|gallery|size|color|font|code|email|attach)"
    r"\b[^\[\]\n]*\]",
    re.IGNORECASE,
)
_LINK = re.compile(r"!?\[([^\[\]\n]*)\]\([^()\s]*\)")
_EMPHASIS = re.compile(r"(\*\*|__)(\w[^*_\n]*)\1")
_HEADING = re.compile(r"^\s*#{1,6}\s+")
# A caption of which more are tags is what is left of a template, and its words are those of a page.
MAX_TAGS = 0.5


def strip_markup(text: str) -> str:
    """Return a text without tags, with the characters that its entities stand for; as it is if most of it are tags."""
    if not any(mark in text for mark in "<&[*_#"):
        return text
    plain = text
    # Twice, because a page may have encoded text that was already encoded.
    for _ in range(2):
        plain = _ENTITY.sub(lambda match: html.unescape(match[0]), plain)
    plain = _LINK.sub(r"\1", plain)
    plain = _EMPHASIS.sub(r"\2", plain)
    with_tags = plain = _HEADING.sub("", plain)
    for tag in (_COMMENT, _TAG, _BBCODE):
        plain = tag.sub(" ", plain)
    if plain == text:
        return text
    # Spaces in the place of tags: none before a mark, and a single one between words.
    plain = re.sub(r"\s+([,.;:!?)])", r"\1", " ".join(plain.split()))
    if len(plain) < (1 - MAX_TAGS) * len(with_tags):
        return text
    return plain
