"""Texts from outside cannot control a terminal, and errors have lines of their own."""

import json
import os
import sys
import unicodedata
from contextlib import redirect_stderr, redirect_stdout
from subprocess import PIPE
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

from ernie_vil2 import cli
from ernie_vil2.io.terminal import make_printable, print_error
from tests.support.processes import run_process


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


def test_suppressed_output_does_not_appear_later():
    code = "from ernie_vil2.io.terminal import suppress_output\nwith suppress_output(): print('x')\nprint('end')"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = run_process([sys.executable, "-c", code], env=environment, stdout=PIPE, text=True, check=True)
    assert process.stdout == "end\n"


@pytest.mark.parametrize("has_bar", [True, False])
def test_error_begins_a_line(tmp_path, has_bar):
    def fail(args):
        # As the thread that watches the ranks, which ends the process while the bar is open.
        with tqdm(total=3, disable=not has_bar):
            print_error("rank 1 is lost")
            raise ValueError("first item")

    command = SimpleNamespace(__doc__="Fail.", add_arguments=lambda parser: None, run=fail)
    terminal = tmp_path / "terminal"
    with terminal.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        assert cli.run(command, []) == 2
    # Read without the translation of "\r", which begins no line for grep.
    lines = terminal.read_bytes().decode().split("\n")
    num_bars = sum("it/s" in line for line in lines)
    assert lines.count("error: rank 1 is lost") == lines.count("error: first item") == 1
    assert (num_bars > 0) == has_bar and lines.count("") == 1  # there is no empty line, but after the last line end
