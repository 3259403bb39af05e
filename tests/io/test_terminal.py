"""Texts of others cannot command a terminal."""

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.io.terminal import make_printable


@given(st.text(st.characters()), st.sampled_from(["", "\n", "\r\n"]))
def test_nothing_is_left_that_a_terminal_obeys(text, keep):
    shown = make_printable(text, keep)
    for letter in shown:
        assert letter in keep or unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
    assert make_printable(shown, keep) == shown
    line = json.dumps(text, ensure_ascii=False)
    assert json.loads(make_printable(line)) == text


def test_what_a_terminal_shows_stays():
    assert make_printable("一 全角　空格 ok\x1b") == "一 全角　空格 ok\\u001b"
    assert make_printable("two\nlines\t", kept_characters="\n") == "two\nlines\\t"
