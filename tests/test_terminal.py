import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.io.terminal import printable


def test_commands_of_a_terminal_are_written_as_escapes():
    assert printable("\x1b[2Jred\r\n\u202eevil\ud800") == r"\u001b[2Jred\r\n\u202eevil\ud800"
    assert printable("一 全角　空格 ok", keep="") == "一 全角　空格 ok"
    assert printable("two\nlines\t", keep="\n") == "two\nlines\\t"


@given(st.text(st.characters()), st.sampled_from(["", "\n", "\r\n"]))
def test_nothing_is_left_that_a_terminal_obeys(text, keep):
    shown = printable(text, keep)
    for one in shown:
        assert one in keep or unicodedata.category(one) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
    assert printable(shown, keep) == shown


@given(st.text(st.characters()))
def test_json_stays_json(text):
    assert json.loads(printable(json.dumps(text, ensure_ascii=False))) == text
