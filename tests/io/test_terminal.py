"""Texts of others cannot command a terminal, and one is one, wherever something is counted."""

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.io.terminal import counted, printable


def test_commands_of_a_terminal_are_written_as_escapes():
    assert printable("\x1b[2Jred\r\n\u202eevil\ud800") == r"\u001b[2Jred\r\n\u202eevil\ud800"
    assert printable("一 全角　空格 ok", keep="") == "一 全角　空格 ok"
    assert printable("two\nlines\t", keep="\n") == "two\nlines\\t"


@given(st.text(st.characters()), st.sampled_from(["", "\n", "\r\n"]))
def test_nothing_is_left_that_a_terminal_obeys(text, keep):
    shown = printable(text, keep)
    for letter in shown:
        assert letter in keep or unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
    assert printable(shown, keep) == shown
    line = json.dumps(text, ensure_ascii=False)
    assert json.loads(printable(line)) == text


def test_a_number_with_its_noun():
    assert counted(1, "shard") == "1 shard" and counted(0, "shard") == "0 shards"
    assert counted(1555, "query", "queries") == "1,555 queries" and counted(1, "query", "queries") == "1 query"
