import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_vil2.data.sources.patterns import expand_braces, find

number = st.integers(-3, 12).flatmap(lambda n: st.sampled_from([str(n), f"{n:04d}"]))
ranges = st.builds("{{{}..{}}}".format, number, number) | st.builds(
    "{{{}..{}..{}}}".format, number, number, st.integers(-7, 7)
)
words = st.text("abz09._-", max_size=4)
pieces = st.recursive(
    words | ranges,
    lambda inner: st.lists(inner, min_size=2, max_size=3).map(lambda options: "{" + ",".join(options) + "}"),
    max_leaves=3,
)
patterns = st.lists(pieces | st.sampled_from(["{", "}", ",", "{}", "{a}"]), max_size=3).map("".join)


@settings(max_examples=60)
@given(patterns)
def test_braces_are_expanded_as_bash_does(pattern):
    said = subprocess.run(["bash", "-c", f"printf '%s\\n' x{pattern}"], capture_output=True, text=True, check=True)
    assert expand_braces(f"x{pattern}") == said.stdout.splitlines()


def test_a_command_keeps_braces_that_are_no_range():
    command = "awk '{print $1, $2}' ${HOME}/{000..002}.tar"
    assert expand_braces(command, lists=False) == [
        f"awk '{{print $1, $2}}' ${{HOME}}/{number}.tar" for number in ("000", "001", "002")
    ]


@pytest.mark.parametrize("pattern", ["{0..99999999999}", "{0..9999}{0..9999}"])
def test_a_pattern_of_too_many_files_is_refused(pattern):
    with pytest.raises(ValueError, match="names more than 10,000,000 files"):
        expand_braces(pattern)


def names(pattern):
    return [location.name for location in find(str(pattern))]


def test_files_come_in_the_order_of_the_pattern_and_sorted_where_it_is_open(tmp_path):
    for name in ("b1", "b2", "a1", "a2"):
        (tmp_path / f"{name}.tar").touch()
    expected = [str(tmp_path / f"{name}.tar") for name in ("b1", "b2", "a1", "a2")]
    assert names(tmp_path / "{b,a}*.tar") == names(tmp_path / "{b,a}{1..2}.tar") == expected


def test_a_name_with_the_signs_of_a_pattern_is_found_as_it_is(tmp_path):
    (tmp_path / "a[1]{x}.tar").touch()
    assert names(tmp_path / "a[1]{x}.tar") == [str(tmp_path / "a[1]{x}.tar")]


def test_a_missing_file_of_a_range_is_named(tmp_path):
    (tmp_path / "0.tar").touch()
    with pytest.raises(FileNotFoundError, match="no file matches .*1.tar"):
        find(str(tmp_path / "{0..1}.tar"))


def test_a_list_names_files_beside_it_and_anywhere(tmp_path):
    (tmp_path / "a.tar").touch()
    (tmp_path / "list.txt").write_text(f"# shards\na.tar\n\n{tmp_path / 'a.tar'}\npipe:cat {{1..2}}\n")
    assert names(tmp_path / "list.txt") == [*[str(tmp_path / "a.tar")] * 2, "pipe:cat 1", "pipe:cat 2"]
    (tmp_path / "list.txt").write_text("# none yet\n")
    with pytest.raises(FileNotFoundError, match="list.txt: names no file"):
        find(str(tmp_path / "list.txt"))
