"""Texts from outside cannot control a terminal."""

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.io.terminal import make_printable


@given(st.text(st.characters()), st.sampled_from(["", "\n", "\r\n"]))
def test_printable_text_has_no_control_characters(text, kept_characters):
    printable = make_printable(text, kept_characters)
    for character in printable:
        is_control = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        assert character in kept_characters or not is_control
    assert make_printable(printable, kept_characters) == printable
    # JSON has the same escapes, so that it is still read as the same text.
    line = json.dumps(text, ensure_ascii=False)
    assert json.loads(make_printable(line)) == text


def test_only_control_characters_are_escaped():
    assert make_printable("一 全角　空格 ok\x1b") == "一 全角　空格 ok\\u001b"
    assert make_printable("two\nlines\t", kept_characters="\n") == "two\nlines\\t"
