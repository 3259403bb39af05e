"""JSON and YAML are read by one function each, which refuses a repeated key."""

import json
import os
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.config import ConfigError, load_config, read_yaml
from ernie_vil2.io.files import RepeatedKey, load_json, parse_json
from tests.support.limits import limit_examples
from tests.support.paths import ROOT

# File of the package -> expression of the calls that only this file may make.
READERS = {"io/files.py": r"json\.loads?\(", "config/load.py": r"yaml\.\w*load\w*\(|yaml\.\w*Loader\("}
NAMES = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=3)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(NAMES, VALUES, min_size=1, max_size=4)


@pytest.mark.parametrize("reader", READERS)
def test_only_one_file_reads_json_or_yaml(reader):
    package = ROOT / "ernie_vil2"
    calls = re.compile(READERS[reader])
    callers = {str(path.relative_to(package)) for path in package.rglob("*.py") if calls.search(path.read_text())}
    assert callers == {reader}


@limit_examples(40)
@given(OBJECTS, VALUES, st.data())
def test_repeated_key_of_json_is_refused_at_any_depth(content, second_value, data):
    text = json.dumps(content)
    assert parse_json(text) == parse_json(text.encode()) == content
    key = data.draw(st.sampled_from(sorted(content)))
    repeated = f"{text[:-1]}, {json.dumps(key)}: {json.dumps(second_value)}}}"
    for text in (repeated, f'[{{"a": {{"b": [{repeated}]}}}}]'):
        with pytest.raises(RepeatedKey, match=f"'{key}'"):
            parse_json(text)
        with pytest.raises(ConfigError, match=f"the key {key} occurs twice, in lines 1 and 1"):
            load_config(None, [f"Training={text}"])  # JSON is YAML


@limit_examples(40)
@given(OBJECTS, st.data())
def test_error_on_a_repeated_key_of_yaml_names_both_lines(tmp_path_factory, content, data):
    path = tmp_path_factory.getbasetemp() / "twice.yaml"
    key = data.draw(st.sampled_from(sorted(content)))
    text = yaml.safe_dump(content, sort_keys=True)
    path.write_text(text)
    assert read_yaml(path) == yaml.safe_load(text)
    lines = text.splitlines()
    position = next(number for number, line in enumerate(lines, 1) if re.match(rf"['\"]?{key}['\"]?:", line))
    path.write_text(f"{text}{lines[position - 1].partition(':')[0]}: 1\n")
    with pytest.raises(ConfigError, match=f"{path}: .* key {key} .* {position} and {len(lines) + 1}$"):
        read_yaml(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": 1, "a": 1}', "{", "\xff", "7" * 5000], ids=len)
def test_error_names_a_file_that_is_not_json_in_one_line(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=str(path)) as caught:
        load_json(path)
    assert "\n" not in str(caught.value)


def test_pipe_is_refused_without_waiting_for_it(tmp_path):
    path = tmp_path / "a.json"
    os.mkfifo(path)
    with pytest.raises(OSError, match="not an ordinary file"):
        load_json(path)
