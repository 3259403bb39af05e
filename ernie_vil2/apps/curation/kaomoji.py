"""Faces of letters and marks, such as (´･ω･`), which say nothing of a text's language or of its encoding."""

import re

# A face is in brackets, and has a mark beyond ASCII, but no two letters in a row and no digit. Nor has it accented
# Latin letters, which are in brackets where a text was read in the wrong encoding.
_FACE = r"[(（ʕ](?=[^()（）ʔ\n]{0,15}[^\x00-\x7f\w\s])(?:(?![^\W\d_]{2})[^()（）ʔ\n0-9\u00c0-\u024f]){1,16}[)）ʔ]"
# Arms, and what they throw, are attached: marks beyond ASCII, but not those of Chinese.
_ARM = r"[^\x00-\x7f\s\w\u3000-\u303f\uff00-\uff60]{0,4}"
_KAOMOJI = re.compile(_ARM + _FACE + _ARM)


def strip_kaomoji(text: str) -> str:
    """Return a text without the faces in it that have marks beyond ASCII."""
    if text.isascii():  # a shortcut, as most captions are
        return text
    return _KAOMOJI.sub(" ", text)
