import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ernie_vil2.data.readers.locations import expand_braces, find_locations
from tests.support.limits import limit_examples
from tests.support.processes import run_process

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
patterns = st.lists(pieces | st.sampled_from([",", "{}", "{a}", "{a..c}"]), max_size=3).map("".join)


@limit_examples(25)
@given(patterns)
@example("{{0..2},{a,b}{1..3}}{}")
def test_braces_are_expanded_as_bash_does(pattern):
    printed = run_process(["bash", "-c", f"printf '%s\\n' x{pattern}"], capture_output=True, text=True, check=True)
    assert expand_braces(f"x{pattern}") == printed.stdout.splitlines()


@pytest.mark.parametrize("pattern", ["a{b", "a}{1..2}", "{1{2,3}"])
def test_braces_that_are_not_in_pairs_mean_themselves(pattern):
    assert expand_braces(pattern) == [pattern]


def test_a_command_keeps_braces_that_are_not_a_range():
    command = "awk '{print $1, $2}' ${HOME}/{000..002}.tar"
    assert expand_braces(command, expand_lists=False) == [
        f"awk '{{print $1, $2}}' ${{HOME}}/{number}.tar" for number in ("000", "001", "002")
    ]


def names(pattern):
    return [location.name for location in find_locations(str(pattern))]


def test_files_come_in_the_order_of_the_pattern(tmp_path):
    for name in ("b1", "b2", "a1", "a2", "a[1]{x}"):
        (tmp_path / f"{name}.tar").touch()
    expected = [str(tmp_path / f"{name}.tar") for name in ("b1", "b2", "a1", "a2")]
    assert names(tmp_path / "{b,a}[12].tar") == names(tmp_path / "{b,a}{1..2}.tar") == expected
    assert names(tmp_path / "a[1]{x}.tar") == [str(tmp_path / "a[1]{x}.tar")]  # a name like a pattern


def test_a_list_names_files_next_to_it_and_anywhere(tmp_path):
    (tmp_path / "a.tar").touch()
    (tmp_path / "list.txt").write_text(f"# shards\na.tar\n\n{tmp_path / 'a.tar'}\n")
    assert names(tmp_path / "list.txt") == [str(tmp_path / "a.tar")] * 2
