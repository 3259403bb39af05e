"""Patterns of locations: braces are expanded as bash does, and files come in the order of the pattern."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ernie_vil2.data.readers.locations import expand_braces, find_locations
from tests.support.limits import limit_examples
from tests.support.processes import run_process


def make_brace_lists(pieces):
    """Return the strategy of lists in braces."""
    return st.lists(pieces, min_size=2, max_size=3).map(lambda options: "{" + ",".join(options) + "}")


NUMBERS = st.integers(-3, 12).flatmap(lambda number: st.sampled_from([str(number), f"{number:04d}"]))
RANGES = st.builds("{{{}..{}}}".format, NUMBERS, NUMBERS)
STEPPED_RANGES = st.builds("{{{}..{}..{}}}".format, NUMBERS, NUMBERS, st.integers(-7, 7))
WORDS = st.text("abz09._-", max_size=4)
PIECES = st.recursive(WORDS | RANGES | STEPPED_RANGES, make_brace_lists, max_leaves=3)
PATTERNS = st.lists(PIECES | st.sampled_from([",", "{}", "{a}", "{a..c}"]), max_size=3).map("".join)


@limit_examples(25)
@given(PATTERNS)
@example("{{0..2},{a,b}{1..3}}{}")
def test_braces_are_expanded_as_bash_does(pattern):
    printed = run_process(["bash", "-c", f"printf '%s\\n' x{pattern}"], capture_output=True, text=True, check=True)
    assert expand_braces(f"x{pattern}") == printed.stdout.splitlines()


@pytest.mark.parametrize("pattern", ["a{b", "a}{1..2}", "{1{2,3}"])
def test_unpaired_braces_are_not_expanded(pattern):
    assert expand_braces(pattern) == [pattern]


def test_only_ranges_are_expanded_in_a_command():
    command = "awk '{print $1, $2}' ${HOME}/{000..002}.tar"
    assert expand_braces(command, expand_lists=False) == [
        f"awk '{{print $1, $2}}' ${{HOME}}/{number}.tar" for number in ("000", "001", "002")
    ]


def find_names(pattern):
    return [location.name for location in find_locations(str(pattern))]


def test_files_are_in_the_order_of_the_pattern(tmp_path):
    for name in ("b1", "b2", "a1", "a2", "a[1]{x}"):
        (tmp_path / f"{name}.tar").touch()
    expected = [str(tmp_path / f"{name}.tar") for name in ("b1", "b2", "a1", "a2")]
    assert find_names(tmp_path / "{b,a}[12].tar") == find_names(tmp_path / "{b,a}{1..2}.tar") == expected
    # The name of a file may look like a pattern.
    assert find_names(tmp_path / "a[1]{x}.tar") == [str(tmp_path / "a[1]{x}.tar")]


def test_brackets_of_a_folder_do_not_hide_the_files_of_a_range(tmp_path):
    folder = tmp_path / "data[1]"
    folder.mkdir()
    names = [str(folder / f"{number}.tar") for number in range(3)]
    for name in names:
        Path(name).touch()
    (folder / "list.txt").write_text("{0..2}.tar\n")
    (tmp_path / "list.txt").write_text("data[1]/{0..2}.tar\n")
    for pattern in (
        folder / "{0..2}.tar",
        f"file://{folder}/{{0,1,2}}.tar",
        folder / "list.txt",
        tmp_path / "list.txt",
    ):
        assert find_names(pattern) == names
    with pytest.raises(FileNotFoundError, match=r"3\.tar"):
        find_names(folder / "{0..3}.tar")


def test_list_names_files_by_relative_and_absolute_paths(tmp_path):
    (tmp_path / "a.tar").touch()
    (tmp_path / "list.txt").write_text(f"# shards\na.tar\n\n{tmp_path / 'a.tar'}\n")
    assert find_names(tmp_path / "list.txt") == [str(tmp_path / "a.tar")] * 2


def test_name_of_the_folder_of_a_list_is_no_pattern(tmp_path):
    for folder in ("[ab]", "a", "{a,b}"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.tar").touch()
    for folder in ("[ab]", "{a,b}"):
        file_list = tmp_path / folder / "list.txt"
        file_list.write_text("*.tar\nx.tar\n{x,x}.tar\n")
        names = find_names(str(file_list))
        assert names == [str(tmp_path / folder / "x.tar")] * 4
