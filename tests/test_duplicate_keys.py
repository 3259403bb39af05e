"""JSON and YAML are read by one function each, where a key that occurs twice is refused."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import ernie_vil2
from ernie_vil2.config import ConfigError, load_config, read_yaml
from ernie_vil2.io.files import RepeatedKey, load_json, parse_json

READERS = {"io/files.py": r"json\.loads?\(", "config/load.py": r"yaml\.\w*load\w*\(|yaml\.\w*Loader\("}
"""The only file that calls what the expression finds."""
names = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=3)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(names, values, min_size=1, max_size=4)


def test_nothing_else_reads_json_or_yaml():
    package = Path(ernie_vil2.__file__).parent
    for reader, calls in READERS.items():
        found = {str(path.relative_to(package)) for path in package.rglob("*.py") if re.search(calls, path.read_text())}
        assert found == {reader}


@given(objects)
def test_json_is_what_was_written(value):
    text = json.dumps(value)
    assert parse_json(text) == parse_json(text.encode()) == value


@given(objects, values, st.data())
def test_a_key_that_occurs_twice_is_refused_at_any_depth(content, other, data):
    key = data.draw(st.sampled_from(sorted(content)))
    twice = f"{json.dumps(content)[:-1]}, {json.dumps(key)}: {json.dumps(other)}}}"
    for text in (twice, f'[{{"a": {{"b": [{twice}]}}}}]'):
        with pytest.raises(RepeatedKey, match=f"the key '{key}' occurs twice"):
            parse_json(text)
        with pytest.raises(ConfigError, match=f"the key {key} occurs twice, in lines 1 and 1"):
            load_config(None, [f"Training={text}"])  # JSON is YAML


@given(objects, st.data())
def test_yaml_names_both_lines(tmp_path_factory, content, data):
    path = tmp_path_factory.getbasetemp() / "twice.yaml"
    first = data.draw(st.sampled_from(sorted(content)))
    text = yaml.safe_dump(content, sort_keys=True)
    path.write_text(text)
    assert read_yaml(path) == yaml.safe_load(text)
    lines = text.splitlines()
    position = next(number for number, line in enumerate(lines, 1) if re.match(rf"['\"]?{first}['\"]?:", line))
    path.write_text(f"{text}{lines[position - 1].partition(':')[0]}: 1\n")
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    printed = f"the key {first} occurs twice, in lines {position} and {len(lines) + 1}"
    assert str(caught.value) == f"{path}: not valid YAML: {printed}"


def test_a_section_that_is_merged_may_be_overridden(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &a {x: 1}\nb: {<<: *a, x: 2}\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": {"x": 1}, "b": {"x": 2}}


def test_a_file_is_named_and_never_waited_for(tmp_path):
    path = tmp_path / "a.json"
    for text, reason in (("[" * 100_000, "nested too deeply"), ('{"a": 1, "a": 1}', "occurs twice"), ("{", "line 1"),
                         ("\xff", "Expecting value"), ("7" * 5000, "Exceeds the limit")):  # fmt: skip
        path.write_text(text)
        with pytest.raises(ValueError, match=reason) as caught:
            load_json(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="not an ordinary file"):
        load_json(path)
